#!/usr/bin/env python3
"""Measure modules of ours against well-kept ones that could do the same, in turns, on this machine alone.

What the platform applies goes to an API server without nodes, which the mirror has compiled.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from api_server import api_server  # noqa: E402
from rendering import render  # noqa: E402

# What is about as large as a component, and what is as large as most of them together.
SIZES = [
    ["traefik/templates/traefik.yaml.j2", "quote_app/templates/quote-app.yaml.j2"],
    [
        "cert_manager/templates/cert-manager.yaml.j2",
        "ingress_nginx/templates/ingress-nginx.yaml.j2",
        "quote_app/templates/quote-app.yaml.j2",
        "snapshots/templates/snapshots.yaml.j2",
        "grafana/templates/grafana.yaml.j2",
        "logging/templates/logging.yaml.j2",
        "monitoring/templates/monitoring.yaml.j2",
    ],
]
Tasks = list[dict[str, Any]]


def run(tasks: Tasks, folder: Path) -> tuple[float, float]:
    """Run a play on this machine; return its seconds, and those of processor time of all its processes."""
    play = {"name": "Measure", "hosts": "localhost", "gather_facts": False, "tasks": tasks}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, folder / "play.yml"], env=environment, capture_output=True, text=True, check=False
    )
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(done.stdout[-3000:] + done.stderr[-1000:])
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def objects(folder: Path, templates: list[str]) -> Tasks:
    """Return what templates render, of kinds that every API server has."""
    texts = render(folder, *((name, {}) for name in templates))
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return [one for one in found if "." not in one["apiVersion"] or ".k8s.io/" in one["apiVersion"]]


def applied(ours: bool, found: Tasks, kubeconfig: Path) -> Tasks:
    """Return the task that applies objects server-side."""
    file = kubeconfig.with_name("objects.json")
    file.write_text(json.dumps(found))
    # What looks like a template in them is none.
    listed = f"{{{{ lookup('ansible.builtin.file', '{file}') | from_json }}}}"
    given: dict[str, Any] = {"kubeconfig": str(kubeconfig)}
    if ours:
        return [
            {"name": "Apply", "apply_component": given | {"name": "bench", "objects": listed, "prune": True}}
        ]
    given |= {"apply": True, "resource_definition": listed}
    given["server_side_apply"] = {"field_manager": "quote-platform", "force_conflicts": True}
    return [{"name": "Apply", "kubernetes.core.k8s": given}]


def issued(ours: bool, folder: Path) -> Tasks:
    """Return the tasks that make an authority, a key and a certificate, and look when they end."""
    if ours:
        given = {"path": f"{folder}/own/node", "authority": f"{folder}/own/authority", "common_name": "node"}
        return [{"name": "Issue", "issue_certificate": given | {"names": ["node", "192.0.2.1"]}}]
    tasks: Tasks = [
        {"name": "Folder", "ansible.builtin.file": {"path": f"{folder}/theirs", "state": "directory"}}
    ]
    for name, authority in (("authority", True), ("node", False)):
        path = f"{folder}/theirs/{name}"
        key = {"path": f"{path}.key", "type": "ECC", "curve": "secp256r1"}
        request: dict[str, Any] = {
            "path": f"{path}.csr",
            "privatekey_path": f"{path}.key",
            "common_name": name,
        }
        request |= {"basic_constraints": [f"CA:{str(authority).upper()}"], "basic_constraints_critical": True}
        signed: dict[str, Any] = {"path": f"{path}.crt", "csr_path": f"{path}.csr", "ignore_timestamps": True}
        if authority:
            signed |= {"provider": "selfsigned", "privatekey_path": f"{path}.key"}
        else:
            signed |= {"provider": "ownca", "ownca_path": f"{folder}/theirs/authority.crt"}
            signed |= {"ownca_privatekey_path": f"{folder}/theirs/authority.key"}
            request["subject_alt_name"] = ["DNS:node", "IP:192.0.2.1"]
        # Valid for so long, without which it never renews one that ends.
        look = {"path": f"{path}.crt", "valid_at": {"soon": "+60d"}}
        tasks += [
            {"name": "Key", "community.crypto.openssl_privatekey": key},
            {"name": "Request", "community.crypto.openssl_csr": request},
            {"name": "Certificate", "community.crypto.x509_certificate": signed},
            {"name": "Look", "community.crypto.x509_certificate_info": look},
        ]
    return tasks


def main() -> None:
    """Print the medians, without what a play without tasks takes, and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    values: dict[str, list[tuple[float, float]]] = {}

    def measure(what: str, tasks: Tasks, folder: Path) -> None:
        values.setdefault(what, []).append(run(tasks, folder))

    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        sizes = [objects(Path(name), templates) for templates in SIZES]
        for number in range(rounds):
            folder = Path(name, str(number))
            folder.mkdir()
            measure("nothing", [], folder)
            for ours, who in ((True, "ours"), (False, "theirs")):
                for when in ("first", "no-op"):
                    measure(f"certificate, {when}, {who}", issued(ours, folder), folder)
                for found in sizes:
                    place = folder / f"{len(found)}-{who}"
                    place.mkdir()
                    with api_server(place) as server:
                        for space in {one["metadata"].get("namespace", "default") for one in found}:
                            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
                            server.ask("POST", "/api/v1/namespaces", body)
                        tasks = applied(ours, found, server.kubeconfig(place / "kubeconfig"))
                        for when in ("first", "no-op"):
                            measure(f"{len(found)} objects, {when}, {who}", tasks, place)
    base = [statistics.median(one) for one in zip(*values.pop("nothing"), strict=True)]
    medians = {
        title: [
            statistics.median(one) - less for one, less in zip(zip(*taken, strict=True), base, strict=True)
        ]
        for title, taken in values.items()
    }
    for title, own in medians.items():
        if what := title.removesuffix("ours") if title.endswith("ours") else "":
            other = medians[f"{what}theirs"]
            for unit, mine, theirs in zip(("by the clock", "of processor time"), own, other, strict=True):
                print(f"{what}{theirs:.2f} s against {mine:.2f} s {unit}: {theirs / mine:.1f} x")


if __name__ == "__main__":
    main()
