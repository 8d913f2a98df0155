"""A file that was written by a run that ended before its handlers still waits for them."""

import os
from pathlib import Path

from plugins.modules import write_node_files


def test_a_file_younger_than_its_reader_waits(tmp_path: Path) -> None:
    file, socket = tmp_path / "config.toml", tmp_path / "socket"
    file.write_text("")
    assert not write_node_files.waits(file, None)
    assert not write_node_files.waits(file, str(socket)), (
        "its reader has not started yet: it will read this one"
    )
    socket.write_text("")
    os.utime(file, (100, 100))
    os.utime(socket, (200, 200))
    assert not write_node_files.waits(file, str(socket))
    os.utime(file, (300, 300))
    assert write_node_files.waits(file, str(socket))
