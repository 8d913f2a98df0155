"""Has what a playbook does on the controller reach the cluster: by a bastion, or past a proxy."""

import os
import subprocess
from typing import Any
from urllib.request import getproxies_environment

from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

DOCUMENTATION = """
name: bastion
type: aggregate
short_description: Leads the controller's own connections by a bastion, or past a proxy
description:
  - Where C(cluster_bastion) is set, starts an HTTP proxy on the loopback address that goes by SSH, and leads
    whatever the playbook does on the controller by it. It ends with the playbook.
  - Where the controller itself has a proxy for what is outside, adds C(cluster_no_proxy) to its exceptions.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Asks the inventory when the first play starts, before any task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "bastion"
    CALLBACK_NEEDS_ENABLED = False
    asked = False
    proxy: subprocess.Popen[str] | None = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Start the proxy; a job has done so before."""
        if self.asked:
            return
        self.asked = True
        manager = play.get_variable_manager()
        inventory = manager._inventory
        for host in (inventory.get_hosts("control_plane") or inventory.get_hosts())[:1]:
            known = manager.get_vars(play=play, host=host)
            templar = Templar(loader=play.get_loader(), variables=known)
            # Most have neither, and need load nothing.
            if not templar.template(known.get("cluster_bastion")) and not getproxies_environment():
                return
            from quote_platform import bastion  # noqa: PLC0415

            way = bastion.way({name: templar.template(known.get(name)) for name in bastion.NAMES})
            if not way.bastion:
                os.environ |= bastion.past_proxies(way)
            elif os.environ.get(bastion.MARK) != way.bastion:
                self.proxy, environment = bastion.start(way)
                os.environ |= environment
