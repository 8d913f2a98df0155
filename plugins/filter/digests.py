"""Filters for what roles show of a password; what they do is in quote_platform.digests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quote_platform import digests


class FilterModule:
    """By which Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by their names."""
        return {"keyed_digest": digests.keyed, "scram_verifier": digests.verifier}
