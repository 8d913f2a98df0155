"""At the end: after all that was lost, killed and restored, the platform is what it is described to be."""

from .conftest import Lab
from .test_platform import SECOND_RUN_SECONDS, site, succeeded


def test_a_last_run_changes_nothing(lab: Lab) -> None:
    run = site(lab, "run after all repairs", "--diff")
    succeeded(run)
    assert set(run.changed.values()) == {0}, run.differences
    assert run.seconds < SECOND_RUN_SECONDS
