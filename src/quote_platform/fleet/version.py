"""Which version of the project a checkout has."""

import hashlib
import subprocess
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel

# What decides what a job does, beside the inventory.
FILES = ("site.yml", "ansible.cfg", "uv.lock", "requirements.yml")
FOLDERS = ("playbooks", "roles", "plugins", "group_vars", "src")


class Version(BaseModel):
    """A version; two are the same if their files are."""

    release: str
    # Empty in a checkout without Git.
    commit: str
    # Hash of all files that decide what a job does.
    files: str

    def __str__(self) -> str:
        """Return it for people."""
        return " ".join(filter(None, [self.release, self.commit, f"files {self.files}"]))


def of(project: Path) -> Version:
    """Return the version of a checkout."""
    asked = ["git", "-C", str(project), "rev-parse", "--short", "HEAD"]
    commit = ""
    if (project / ".git").exists():
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        commit = done.stdout.strip()
    return Version(release=metadata.version("quote-platform"), commit=commit, files=_digest(project))


def _digest(project: Path) -> str:
    found = hashlib.sha256()
    files = [project / name for name in FILES]
    for folder in FOLDERS:
        files += (one for one in (project / folder).rglob("*") if "__pycache__" not in one.parts)
    for file in sorted(files):
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.update(f"{file.relative_to(project)} {content}\n".encode())
    return found.hexdigest()[:12]
