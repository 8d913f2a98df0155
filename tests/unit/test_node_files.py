"""What a file is, to the byte; and whether one still waits for handlers that a run did not come to."""

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


def test_a_content_is_compared_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for there in (b"a\r\nb\r\n", b"a\nb\n", b"a\xff\n"):
        file.write_bytes(there)
        content, _ = write_node_files.state(file)
        for wanted in ("a\nb\n", "a\r\nb\r\n"):
            same = write_node_files.right({"url": None, "content": wanted}, content)
            assert same == (wanted.encode() == there)
