"""Roles bring modules of their own, which no package names; tests load them by their file."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROLES = Path(__file__).parents[2] / "roles"


def load(role: str, kind: str, name: str) -> ModuleType:
    """Return a role's module; kind is the folder, such as library."""
    spec = importlib.util.spec_from_file_location(name, ROLES / role / kind / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
