#!/usr/bin/env python3
"""Have checkov judge every object that the platform applies.

Ends in 0 only if every finding is accepted in accepted.yml, with a reason, and nothing is accepted there
that is not found. `--all` prints the accepted ones as well. Checkov asks nobody: it has its checks with it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from quote_platform import certificates, paths
from quote_platform.mirror import storage

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
INVENTORY = "inventories/production"
# Planted beside the objects, and must be found: an auditor that is blind would pass everything.
PLANTED = "planted.yaml"
PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "planted", "namespace": "planted"},
    "spec": {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]},
}


class Accepted(BaseModel):
    """Findings that stay: of these checks, at these places, which may have wildcards, for this reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=20)
    checks: list[str] = Field(min_length=1)
    places: list[str] = Field(min_length=1)


@dataclass(frozen=True, order=True)
class Finding:
    """What a check says against an object or a file."""

    check: str
    place: str
    says: str = ""


def judge(findings: Iterable[Finding], accepted: list[Accepted]) -> tuple[list[Finding], list[str]]:
    """Return the findings that nobody has accepted, and what is accepted though nothing finds it."""
    left, used = [], Counter[tuple[int, str]]()
    for finding in findings:
        known = False
        for at, one in enumerate(accepted):
            places = [place for place in one.places if fnmatchcase(finding.place, place)]
            if finding.check in one.checks and places:
                known = True
                used.update((at, part) for part in (finding.check, *places))
        if not known:
            left.append(finding)
    stale = [
        f"{part}: accepted ({one.reason}), but not found"
        for at, one in enumerate(accepted)
        for part in (*one.checks, *one.places)
        if not used[at, part]
    ]
    return left, stale


def render(folder: Path) -> Path:
    """Write every object that playbooks apply; return the folder, with a file for each."""
    secrets, objects = folder / "secrets", folder / "objects"
    # What roles keep after their first run, and leave out of a dry run.
    for name in ("barman-cloud-server", "barman-cloud-client", "postgres-authority"):
        certificates.make(
            secrets / "certificates" / name, name, [name], 1, issuer=None, is_ca=name.endswith("authority")
        )
    manifests = storage.root() / "www" / "manifests"
    variables = {
        "render_repository": str(objects),
        "cluster_secrets_dir": str(secrets),
        **({"manifest_base_url": manifests.as_uri()} if manifests.is_dir() else {}),
    }
    command = ["ansible-playbook", "-i", INVENTORY, "playbooks/render.yml", "-e"]
    done = subprocess.run(
        [*command, json.dumps(variables)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"the objects could not be rendered:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
    return objects / "objects"


def checkov(folder: Path, *frameworks: str) -> list[Finding]:
    """Return what checkov finds in a folder, by places in it; a framework that sees nothing ends the run."""
    cache = paths.cache()
    caches = {"UV_PROJECT_ENVIRONMENT": str(cache / "auditors"), "UV_CACHE_DIR": str(cache / "uv")}
    command = ["uv", "run", "--project", str(HERE), "--locked", "--python", sys.executable]
    done = subprocess.run(
        [*command, "python", str(HERE / "scan.py"), str(folder), *frameworks],
        cwd=folder,
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"checkov has failed:\n{done.stderr[-4000:]}")
    found: list[Finding] = []
    for name, result in json.loads(done.stdout.splitlines()[-1]).items():
        if result["unread"]:
            sys.exit(f"checkov cannot read {', '.join(result['unread'])}")
        if not result["passed"]:
            sys.exit(f"checkov has looked at nothing of {name}")
        for check, path, says in result["failed"]:
            found.append(Finding(check, path, says))
        print(f"  {name}: {result['passed']} checks passed, {len(result['failed'])} did not")
    return found


def audit() -> set[Finding]:
    """Return all findings."""
    with tempfile.TemporaryDirectory(prefix="quote-audit-") as temporary:
        objects = render(Path(temporary))
        for definition in objects.rglob("customresourcedefinition-*.yaml"):
            definition.unlink()  # large, and no check looks at them
        (objects / PLANTED).write_text(yaml.safe_dump(PRIVILEGED))
        found = set(checkov(objects, "kubernetes"))
    if ("CKV_K8S_16", PLANTED) not in {(one.check, one.place) for one in found}:
        sys.exit("checkov is blind: it has not found the privileged pod that was planted")
    return {one for one in found if one.place != PLANTED}


def main() -> int:
    """Run the auditors and say what is left."""
    parser = argparse.ArgumentParser(description="Have checkov judge what the platform applies.")
    parser.add_argument("--all", action="store_true", help="print the findings that are accepted as well")
    options = parser.parse_args()
    accepted = TypeAdapter(list[Accepted]).validate_python(
        yaml.safe_load((HERE / "accepted.yml").read_text())
    )
    found = audit()
    left, stale = judge(found, accepted)
    for one in sorted(found if options.all else left):
        print(f"{one.check} {one.place}: {one.says}")
    for line in stale:
        print(line)
    print(f"{len(found)} findings, {len(found) - len(left)} of them accepted, {len(left)} not")
    return int(bool(left or stale))


if __name__ == "__main__":
    sys.exit(main())
