"""Has loaded once what Ansible loads anew for each task and host."""

from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleFileNotFound
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: loaded_once
type: aggregate
short_description: Loads filters, tests and files of variables once for all tasks
description:
  - Ansible loads all filters and tests when the first of them is used. If a worker does so, for a condition,
    they are loaded for its own task only, and by the next worker again.
  - Whenever it puts together the variables of a task, it reads the C(vars_files) of the play again, unless
    the loader has kept them.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Uses each of them in the process that workers are copies of."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "loaded_once"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load them."""
        filter_loader.get("default")
        test_loader.get("defined")
        for play in playbook.get_plays():
            for name in play.get_vars_files():
                if isinstance(name, str) and "{{" not in name:
                    _keep(playbook.get_loader(), play.get_search_path(), name)


def _keep(loader: Any, places: list[str], name: str) -> None:
    with suppress(AnsibleFileNotFound):
        file = loader.path_dwim_relative_stack(places, "vars", name)
        loader.load_from_file(file, cache="all", unsafe=True, trusted_as_template=True)
