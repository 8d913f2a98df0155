"""A dry run where there is nothing yet, neither an API server nor Vault, gets to its end."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from quote_platform.mirror import storage

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"control_plane": 1, "workers": 3, "object_store": 1, "vault": 1}
CHOICES = {
    "ingress_controller": "traefik",
    "certificate_issuer": "letsencrypt-staging",
    "secrets_backend": "vault",
    "logging_store": "eck",
}


# Without an API server nobody can tell whether one stands in the cluster; without an account, which it has.
OUTSIDE = {
    "database": "external",
    "database_host": "db.quotes.dev",
    "database_networks": ["10.0.3.0/24"],
    "database_administrator": "boss",
    "database_administrator_password": "never-used",
    "secrets_backend": "",
}


@pytest.mark.parametrize(
    ("playbook", "own"), [("platform.yml", {}), ("app.yml", {}), ("platform.yml", OUTSIDE)]
)
def test_a_dry_run_on_fresh_machines_gets_to_its_end(
    playbook: str, own: dict[str, Any], tmp_path: Path
) -> None:
    groups = {
        # At addresses of this machine where nobody listens.
        name: {
            "hosts": {
                f"{name}-{n}".replace("_", "-"): {"ansible_host": f"127.77.{at}.{n}"} for n in range(number)
            }
        }
        for at, (name, number) in enumerate(HOSTS.items())
    }
    nodes = {name: groups.pop(name) for name in ("control_plane", "workers")}
    tree = {"platform": {"children": {"kube_nodes": {"children": nodes}, **groups}}}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": tree}}))
    choices = CHOICES | own | {"cluster_secrets_dir": f"{tmp_path}/secrets"}
    choices["component_cache"] = f"{tmp_path}/manifests"  # nothing that an earlier run has fetched
    if (served := storage.root() / "www/manifests").is_dir():
        choices["manifest_base_url"] = served.as_uri()
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path, f"playbooks/{playbook}", "--check", "-e", json.dumps(choices)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"control-plane-0 +: ok=\d+ +changed=[1-9]\d* +unreachable=0 +failed=0", done.stdout)
