"""Right input passes on live nodes; wrong input is refused with its cause, and no node is touched."""

import pytest

from scenario import Inventory


def test_the_live_nodes_pass_and_nothing_is_changed(inventory: Inventory) -> None:
    inventory.unchanged()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cluster_pod_cidr", "10.96.0.0/12", "overlaps cluster_service_cidr"),
        ("manifest_base_url", "mirror.example.com", "is not a URL"),
        ("backups_enabled", "false", "is text; allowed is true or false"),
    ],
)
def test_wrong_input_is_refused(inventory: Inventory, name: str, value: str, message: str) -> None:
    done = inventory.play(f"--extra-vars={name}={value}")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
