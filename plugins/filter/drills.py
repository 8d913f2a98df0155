"""Filters for a restore drill; what they do is in quote_platform.drill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quote_platform import drill


class FilterModule:
    """By which Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by their names."""
        return {
            "drill_differences": drill.differences,
            "drill_no_room": drill.no_room,
            "drill_told": drill.told,
        }
