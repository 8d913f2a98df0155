"""Filter for what roles show of a password; what it does is in quote_platform.digests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quote_platform import digests


class FilterModule:
    """By which Ansible finds it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"keyed_digest": digests.keyed}
