"""Every scenario: a dry run on what it converged finds nothing to do, and says so host by host."""


def test_dry_run_after_converge_is_empty(inventory):
    changes, output = inventory.converge("--check", "--diff")
    assert set(changes.values()) == {0}, output[-8000:]
