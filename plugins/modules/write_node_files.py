#!/usr/bin/python
"""Write a set of root's files in one round trip, touching only those that differ."""

from __future__ import annotations

import grp
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: write_node_files
short_description: Write a set of root's files, touching only those that differ
description:
  - A copy task per file costs several round trips each; this costs one for all of them.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {type: path, required: true, description: Where; missing folders are made.}
      content: {type: str, required: true, description: All of it.}
      mode: {type: str, default: "0644", description: Octal.}
      group: {type: str, default: root, description: Group that owns it.}
      notify: {type: list, elements: str, default: [], description: Handlers of its reader, for the result.}
      applied:
        type: path
        description: A file that is made anew when the reader of this one starts. While this one is younger,
          it waits for its handlers.
author: [Quote Platform]
"""
RETURN = """
differing:
  description: The files that differed or still wait for their handlers.
  returned: always
  type: list
  elements: dict
  contains:
    path: {type: str, returned: always, description: Where it is.}
    notify: {type: list, elements: str, returned: always, description: Its handlers.}
"""

FILE: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0644"},
    "group": {"type": "str", "default": "root"},
    "notify": {"type": "list", "elements": "str", "default": []},
    "applied": {"type": "path"},
}
SPEC: dict[str, Any] = {"files": {"type": "list", "elements": "dict", "required": True, "options": FILE}}


def state(path: Path) -> tuple[str | None, str]:
    """Return content and "mode owner:group" of a file; no content when it is missing."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return None, "not a plain file"
        attributes = f"{stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid}"
        return path.read_text(errors="replace"), attributes
    except FileNotFoundError:
        return None, "missing"


def waits(path: Path, applied: str | None) -> bool:
    """Tell whether a file was written and its handlers never ran: a run may be killed between the two."""
    try:
        return bool(applied) and path.stat().st_mtime > Path(applied or "").stat().st_mtime
    except FileNotFoundError:  # nobody has read it yet, so it is there in time
        return False


def write(path: Path, content: str, mode: str, gid: int) -> None:
    """Put the file in place in one step: a run that is killed leaves the old one, never half of it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content)
            os.fchmod(file.fileno(), int(mode, 8))
            os.fchown(file.fileno(), 0, gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    os.umask(0o022)
    differing, diffs = [], []
    for file in module.params["files"]:
        try:
            gid = grp.getgrnam(file["group"]).gr_gid
        except KeyError:
            gid = -1
            if not module.check_mode:
                module.fail_json(msg=f"{file['path']}: the node has no group {file['group']}")
        path, wanted = Path(file["path"]), f"{int(file['mode'], 8):04o} 0:{gid}"
        content, attributes = state(path)
        if content == file["content"] and attributes == wanted:
            if waits(path, file["applied"]):
                differing.append({"path": file["path"], "notify": file["notify"]})
            continue
        differing.append({"path": file["path"], "notify": file["notify"]})
        diffs.append(
            {
                "before_header": f"{path} ({attributes})",
                "after_header": f"{path} ({wanted})",
                "before": content or "",
                "after": file["content"],
            }
        )
        if not module.check_mode:
            try:
                write(path, file["content"], file["mode"], gid)
            except OSError as error:
                module.fail_json(msg=f"{path} cannot be written: {error}")
    module.exit_json(changed=bool(differing), differing=differing, diff=diffs)


if __name__ == "__main__":
    main()
