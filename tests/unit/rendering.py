"""Templates of roles, rendered by Ansible with the roles' defaults."""

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def render(folder: Path, *templates: tuple[str, dict[str, Any]], workloads: bool = False) -> list[str]:
    """Return what templates become, each given as its path below roles/ with variables of its own.

    One run of Ansible renders them all. It writes into the folder: with `workloads`, workloads.json as well,
    which is what validation sums up.
    """
    given = {
        "render_folder": str(folder),
        "render_templates": [{"file": f"{ROOT}/roles/{name}", "vars": own} for name, own in templates],
        "render_workloads": workloads,
    }
    command = ["ansible-playbook", "-i", "inventories/production", "tests/unit/render.yml", "-e"]
    done = subprocess.run(
        [*command, json.dumps(given)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found: list[str] = json.loads((folder / "rendered.json").read_text())
    # Ansible leaves out what asks for something undefined.
    assert len(found) == len(templates), done.stdout[-3000:]
    return found
