"""Has filters and tests loaded before Ansible forks a worker for each task and host."""

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: loaded_once
type: aggregate
short_description: Loads filters and tests once for all tasks
description:
  - Ansible loads all filters and tests when the first of them is used. If a worker does so, for a condition,
    they are loaded for its own task only, and by the next worker again.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Uses one of each, in the process that workers are copies of."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "loaded_once"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load them."""
        filter_loader.get("default")
        test_loader.get("defined")
