"""Filters for roles whose pods ask something outside; what each does is in quote_platform.proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quote_platform import proxies


class FilterModule:
    """By which Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by their names."""
        return {
            "proxy_environment": proxies.environment,
            "proxy_for": proxies.through,
            "proxy_parts": proxies.parts,
            "proxy_rules": proxies.rules,
        }
