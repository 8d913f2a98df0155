#!/usr/bin/python
"""Write a set of root's files in one round trip, touching only those that differ."""

from __future__ import annotations

import grp
import os
import shutil
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
  - Each file has one of O(files[].content), O(files[].secret_content) and O(files[].url), unless it is to be
    absent.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path: {type: path, required: true, description: Where; missing folders are made.}
      content: {type: str, description: All of it.}
      url:
        type: str
        description: Where apt, with the proxy that it has, fetches it from when it is not there.
      state: {type: str, choices: [present, absent], default: present, description: Whether it is there.}
      ours: {type: str, description: "Text that a file must have in it to be deleted; without it any is."}
      secret_content: {type: str, description: "As O(files[].content), kept out of output and the journal."}
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
    "content": {"type": "str"},
    "url": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "ours": {"type": "str"},
    "secret_content": {"type": "str", "no_log": True},
    "mode": {"type": "str", "default": "0644"},
    "group": {"type": "str", "default": "root"},
    "notify": {"type": "list", "elements": "str", "default": []},
    "applied": {"type": "path"},
}
SOURCES = ["content", "secret_content", "url"]
SPEC: dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": FILE,
        "mutually_exclusive": [SOURCES],
        "required_if": [["state", "present", SOURCES, True]],
    }
}


class Module(AnsibleModule):  # type: ignore[misc]  # Ansible has no types
    """Names only the files in the node's journal, where Ansible masks no secret of several lines."""

    def _log_invocation(self) -> None:
        self.log(f"Invoked with {' '.join(file['path'] for file in self.params['files'])}")


def read(path: Path) -> str:
    """Return what is in a file to the byte: neither a node's language nor ends of lines change it."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def state(path: Path) -> tuple[str | None, str]:
    """Return content and "mode owner:group" of a file; no content when it is missing."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return None, "not a plain file"
        attributes = f"{stat.S_IMODE(found.st_mode):04o} {found.st_uid}:{found.st_gid}"
        return read(path), attributes
    except FileNotFoundError:
        return None, "missing"


def waits(path: Path, applied: str | None) -> bool:
    """Tell whether a file was written and its handlers never ran: a run may be killed between the two.

    Of one that was deleted, its folder tells.
    """
    try:
        changed = (path if path.exists() else path.parent).stat().st_mtime
        return bool(applied) and changed > Path(applied or "").stat().st_mtime
    except FileNotFoundError:  # nobody has read it yet, so it is there in time
        return False


def write(path: Path, content: str, mode: str, gid: int) -> None:
    """Put the file in place in one step: a run that is killed leaves the old one, never half of it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape"))
            os.fchmod(file.fileno(), int(mode, 8))
            os.fchown(file.fileno(), 0, gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def gone(file: dict[str, Any], content: str | None, attributes: str) -> bool:
    """Tell whether nothing is left to delete; what somebody else has put there stays."""
    return attributes == "missing" or bool(file["ours"] and file["ours"] not in (content or ""))


def right(file: dict[str, Any], content: str | None) -> bool:
    """Tell whether a content is what it should be; what was fetched is not fetched again."""
    return bool(content) if file["url"] else content == file["content"]


def fetch(module: AnsibleModule, url: str) -> str:
    """Return what an address has; apt knows the proxy, its password, and whom to trust."""
    folder = tempfile.mkdtemp()
    try:
        shutil.chown(folder, "_apt")  # apt gives up root before it connects
        target = Path(folder) / "fetched"
        options = ["-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=20"]
        command = ["/usr/lib/apt/apt-helper", *options, "download-file", url, str(target)]
        status, _, said = module.run_command(command, environ_update={"LC_ALL": "C"})
        if status or not target.is_file():
            lines = [line.removeprefix("E: ").strip() for line in said.splitlines() if line.startswith("E: ")]
            raise OSError(f"{url}: {'; '.join(lines) or said.strip()[-300:]}")
        return read(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shown(file: dict[str, Any], content: str | None) -> str:
    """Return what a difference shows of a content."""
    if content and file["secret"]:
        return "(not shown)\n"
    return (content or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def main() -> None:
    """Run the module."""
    module = Module(argument_spec=SPEC, supports_check_mode=True)
    os.umask(0o022)
    differing, diffs = [], []
    for file in module.params["files"]:
        file["secret"] = file["secret_content"] is not None
        file["content"] = file["secret_content"] if file["secret"] else file["content"]
        try:
            gid = grp.getgrnam(file["group"]).gr_gid
        except KeyError:
            gid = -1
            if not module.check_mode:
                module.fail_json(msg=f"{file['path']}: the node has no group {file['group']}")
        path, wanted = Path(file["path"]), f"{int(file['mode'], 8):04o} 0:{gid}"
        absent = file["state"] == "absent"
        content, attributes = state(path)
        there = attributes == wanted and right(file, content)
        if gone(file, content, attributes) if absent else there:
            if waits(path, file["applied"]):
                differing.append({"path": file["path"], "notify": file["notify"]})
            continue
        differing.append({"path": file["path"], "notify": file["notify"]})
        fetched = f"(fetched from {file['url']})\n" if file["url"] else file["content"]
        diffs.append(
            {
                "before_header": f"{path} ({attributes})",
                "after_header": f"{path} ({'missing' if absent else wanted})",
                "before": shown(file, content),
                "after": "" if absent else shown(file, fetched),
            }
        )
        if module.check_mode:
            continue
        try:
            if absent:
                path.unlink()
            else:
                write(path, fetch(module, file["url"]) if file["url"] else file["content"], file["mode"], gid)
        except OSError as error:
            done = "deleted" if absent else "written"
            module.fail_json(msg=f"{path} cannot be {done}: {error}")
    module.exit_json(changed=bool(differing), differing=differing, diff=diffs)


if __name__ == "__main__":
    main()
