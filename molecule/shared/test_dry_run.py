"""Every scenario: a dry run on what it converged finds nothing to do, and says so host by host."""

from scenario import Inventory


def test_dry_run_after_converge_is_empty(inventory: Inventory) -> None:
    inventory.unchanged("--check")
