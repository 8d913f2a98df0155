"""What runs: the list of components that playbooks have by vars_files, for validation and the lab."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

FILE = Path("playbooks/vars/components.yml")


@functools.cache
def load(project: Path) -> dict[str, Any]:
    """Return the variables of the list, as they are written."""
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415 (it takes long to import)

    found: dict[str, Any] = DataLoader().load_from_file(str(project / FILE), trusted_as_template=True)
    return found


def switches(project: Path) -> dict[str, str]:
    """Return the variable that switches a part of the platform on or off, by the part's name."""
    parts = yaml.safe_load((project / FILE).read_text())["platform_parts"]
    return {name: part["switch"] for name, part in parts.items()}
