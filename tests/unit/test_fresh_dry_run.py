"""A dry run where there is nothing yet, neither an API server nor Vault, gets to its end."""

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
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

# For objects of a few components only.
FEW = {
    "backups_enabled": False,
    "monitoring_enabled": False,
    "logging_enabled": False,
    "secrets_backend": "",
    "certificate_issuer": "",
}


def inventory(folder: Path) -> None:
    """Write an inventory of machines that are not there."""
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
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": tree}}))


def nothing_kept(folder: Path) -> dict[str, str]:
    """Return variables by which a run finds neither secrets nor manifests of one before."""
    found = {"cluster_secrets_dir": f"{folder}/secrets", "component_cache": f"{folder}/manifests"}
    if (served := storage.root() / "www/manifests").is_dir():
        found["manifest_base_url"] = served.as_uri()
    return found


@pytest.mark.parametrize(
    ("playbook", "own"), [("platform.yml", {}), ("app.yml", {}), ("platform.yml", OUTSIDE)]
)
def test_a_dry_run_on_fresh_machines_gets_to_its_end(
    playbook: str, own: dict[str, Any], tmp_path: Path
) -> None:
    inventory(tmp_path)
    choices = CHOICES | own | nothing_kept(tmp_path)
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


def test_the_measurement_renders_objects_and_applies_none(tmp_path: Path) -> None:
    inventory(tmp_path)
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "group_vars/all/own.yml").write_text(json.dumps(FEW | nothing_kept(tmp_path)))
    loader = importlib.machinery.SourceFileLoader("bench_run", str(ROOT / "bench/run"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = sys.modules[loader.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    files = module.rendered(str(tmp_path / "hosts.yml"), tmp_path)
    names = sorted(file.name for file in files.iterdir())
    assert names[0] == "000-admission.yaml"
    assert {name[4:] for name in names} >= {"storage.yaml", "ingress-nginx.yaml", "postgres-operator.yaml"}
