"""Kubernetes' quantities: what containers request and nodes have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Suffixes of Kubernetes' quantities. Its client has a parser, whose import takes longer than all of this.
UNITS: dict[str, float] = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{unit}i": 1024**power for power, unit in enumerate("KMGT", start=1)
}
QUANTITY = re.compile(rf"(\d+(?:\.\d*)?|\.\d+)({'|'.join(UNITS)})")
MIB = 1024**2


@dataclass(frozen=True)
class Amount:
    """Of processor in millicores, of memory in bytes."""

    cpu: float = 0
    memory: float = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, times: int) -> Amount:
        return Amount(self.cpu * times, self.memory * times)

    def holds(self, other: Amount) -> bool:
        """Tell whether another fits into this one."""
        # Parts of millicores are the sums' own.
        return self.cpu + 1e-6 >= other.cpu and self.memory >= other.memory

    def __str__(self) -> str:
        return f"{self.cpu:.0f}m / {math.floor(self.memory / MIB)} MiB"


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum of amounts."""
    return sum(amounts, Amount())


def quantity(value: Any) -> float:
    """Return a quantity of Kubernetes as a number, or raise ValueError."""
    match = QUANTITY.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"{value!r} is not a quantity of Kubernetes; allowed is for example 500m or 4Gi")
    return float(match[1]) * UNITS[match[2]]


def amount(requests: Mapping[str, Any]) -> Amount:
    """Return what one container requests."""
    return Amount(quantity(requests.get("cpu", 0)) * 1000, quantity(requests.get("memory", 0)))
