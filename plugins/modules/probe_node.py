"""Read from a node what there is no fact for; changes nothing."""

from __future__ import annotations

import os
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: probe_node
short_description: Read a node's clock, identity, free disk, cluster, and which addresses it reaches
description:
  - Read what there is no fact for. Changes nothing.
options:
  urls: {type: list, elements: str, default: [], description: What it must reach; any HTTP answer counts.}
  timeout: {type: int, default: 5, description: Seconds for each of them.}
  asked: {type: float, default: 0, description: The controller's clock when it asks; returned as it is.}
author: [Quote Platform]
"""
RETURN = """
time: {type: float, returned: always, description: The node's clock.}
asked: {type: float, returned: always, description: What was given as O(asked).}
machine_id: {type: str, returned: always, description: The node's identity; empty where it has none.}
lasting: {type: dict, returned: always, description: Variables that its cluster cannot change any more.}
disk_gb: {type: int, returned: always, description: Free space below /var in GB.}
away: {type: list, elements: str, returned: always, description: Those of O(urls) that do not answer.}
"""

SPEC: dict[str, Any] = {
    "urls": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 5},
    "asked": {"type": "float", "default": 0},
}
CONTROLLER_MANAGER = "etc/kubernetes/manifests/kube-controller-manager.yaml"
# What cannot change of a cluster that stands: where a node has it written.
LASTING = {
    "cluster_pod_cidr": (CONTROLLER_MANAGER, r"--cluster-cidr=(\S+)"),
    "cluster_service_cidr": (CONTROLLER_MANAGER, r"--service-cluster-ip-range=(\S+)"),
    "cluster_dns_domain": ("var/lib/kubelet/config.yaml", r"(?m)^clusterDomain: (\S+)"),
}


def lasting(root: Path) -> dict[str, str]:
    """Return what a node knows of it; nothing, if it is in no cluster."""
    found = {}
    for name, (file, pattern) in LASTING.items():
        match = re.search(pattern, (root / file).read_text()) if (root / file).is_file() else None
        if match:
            found[name] = match[1].strip("'\"")
    return found


def reaches(url: str, timeout: int) -> bool:
    """Tell whether an address answers at all."""
    try:
        urllib.request.urlopen(url, timeout=timeout)  # noqa: S310 (the input was judged before)
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    urls, timeout = module.params["urls"], module.params["timeout"]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda url: reaches(url, timeout), urls))
    disk = os.statvfs("/var")
    identity = Path("/etc/machine-id")
    module.exit_json(
        changed=False,
        time=time.time(),
        asked=module.params["asked"],
        machine_id=identity.read_text().strip() if identity.is_file() else "",
        lasting=lasting(Path("/")),
        disk_gb=disk.f_bavail * disk.f_frsize // 10**9,
        away=[url for url, answer in zip(urls, answers, strict=True) if not answer],
    )


if __name__ == "__main__":
    main()
