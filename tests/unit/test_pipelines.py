"""Pipelines as users fork them: what they may do, what they run, and how a deployment is a commit."""

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from quote_platform import paths
from quote_platform.delivery import environment, release_cli
from quote_platform.delivery.versions import Versions

PROJECT = paths.repository()
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
LONGEST = datetime.timedelta(days=90)  # how long a vulnerability may be allowed
ONE, TWO = (f"ghcr.io/team/quote-app:0.1.0-{mark}@sha256:{mark * 64}" for mark in "ab")
BACKUP = f"ghcr.io/team/backup:0.3.0@sha256:{'c' * 64}"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def steps(workflow: Path, job: str) -> list[dict[str, Any]]:
    return list(read(workflow)["jobs"][job]["steps"])


# --- what they are --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_and_permissions_least(workflow: Path) -> None:
    text = workflow.read_text()
    for used in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"(\./\.github/.+|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)", used), used
    known = read(workflow)
    assert known["permissions"] == {}, "nothing, unless a job says so"
    for name, job in known["jobs"].items():
        assert "permissions" in job, name
        may = {kind for kind, level in job["permissions"].items() if level == "write"}
        assert may <= {"contents", "packages", "id-token"}, name
        if workflow.stem == "check":
            assert not may, "a change from outside writes nothing"
        if "uses" not in job:
            assert job["timeout-minutes"] <= 40
            checkout = job["steps"][0]
            assert checkout["with"]["persist-credentials"] is False
    assert "${{ secrets." not in text, "no key is stored"


def test_one_action_has_one_version() -> None:
    pins = {tuple(used) for file in WORKFLOWS for used in re.findall(r"uses: (\S+)@(\w+)", file.read_text())}
    assert len({name for name, _ in pins}) == len(pins)


def test_a_deployment_to_production_has_a_reviewer() -> None:
    for name in ("promote", "rollback"):
        (job,) = read(PROJECT / f".github/workflows/{name}.yml")["jobs"].values()
        assert job["environment"] == "${{ inputs.environment }}"
    jobs = read(PROJECT / ".gitlab-ci.yml")
    assert jobs[".production"]["environment"] == {"name": "production"}
    for name in ("production", "roll production back"):
        assert [rule["when"] for rule in jobs[name]["rules"]] == ["manual"]


def test_every_image_is_scanned_before_it_is_pushed() -> None:
    for workflow, job in (("check", "images"), ("release", "images")):
        found = steps(PROJECT / f".github/workflows/{workflow}.yml", job)
        scans = [step["with"] for step in found if "trivy-action" in step.get("uses", "")]
        assert {scan.get("input") for scan in scans} >= {"images/quote-app", "images/backup"}
        for scan in scans:
            wanted = {"severity": "CRITICAL", "ignore-unfixed": True, "exit-code": "1"}
            assert scan.items() >= (wanted | {"trivyignores": ".trivyignore.yaml"}).items()
        names = [step["name"] for step in found]
        last = max(index for index, step in enumerate(found) if "trivy-action" in step.get("uses", ""))
        assert not [name for name in names[:last] if "ush" in name or "Log in" in name]


def test_renovate_finds_every_image() -> None:
    (manager,) = json.loads((PROJECT / "renovate.json").read_text())["customManagers"]
    (pattern,) = manager["matchStrings"]
    found = re.compile(re.sub(r"\(\?<", "(?P<", pattern))
    versions = Versions(PROJECT / "group_vars/all/versions.yml")
    text = versions.text
    wanted = {(one.reference.name, one.reference.tag) for one in versions.images() if not one.templated}
    assert {(hit["depName"], hit["currentValue"]) for hit in found.finditer(text)} == wanted
    assert [hit["currentDigest"] for hit in found.finditer(text) if hit["currentDigest"]]


# --- vulnerabilities that are allowed -------------------------------------------------------------------


def wrong(allowed: dict[str, Any], today: datetime.date) -> list[str]:
    found = []
    for entry in allowed["vulnerabilities"]:
        end = entry.get("expired_at")
        if not {"id", "statement"} <= entry.keys() or not isinstance(end, datetime.date):
            found.append(f"{entry.get('id')}: allowed is an entry with id, statement and expired_at")
        elif not today <= end <= today + LONGEST:
            found.append(f"{entry['id']}: expired_at is {end}; allowed is from {today} to {today + LONGEST}")
    return found


def test_what_is_allowed_ends() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    assert not wrong(read(PROJECT / ".trivyignore.yaml"), today)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{id: CVE-1, statement: not reached, expired_at: 2026-12-31}", ""),
        (
            "{id: CVE-1, statement: not reached}",
            "CVE-1: allowed is an entry with id, statement and expired_at",
        ),
        ("{id: CVE-1, expired_at: 2026-12-31}", "CVE-1: allowed is an entry"),
        ("{id: CVE-1, statement: a, expired_at: 2026-11-30}", "CVE-1: expired_at is 2026-11-30"),
        ("{id: CVE-1, statement: a, expired_at: 2027-12-31}", "CVE-1: expired_at is 2027-12-31"),
        ("{id: CVE-1, statement: a, expired_at: soon}", "CVE-1: allowed is an entry"),
    ],
)
def test_an_allowance_without_an_end_is_refused(entry: str, message: str) -> None:
    found = wrong(yaml.safe_load(f"vulnerabilities: [{entry}]"), datetime.date(2026, 12, 1))
    assert len(found) == bool(message)
    assert not message or found[0].startswith(message)


# --- a deployment is a commit ---------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout with an inventory, and an origin that it may push to."""
    origin, work = tmp_path / "origin", tmp_path / "work"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", origin], check=True)
    subprocess.run(["git", "clone", "--quiet", origin, work], check=True, capture_output=True)
    git(work, "checkout", "--quiet", "-B", "main")
    (work / "inventories/production/group_vars/platform").mkdir(parents=True)
    (work / "inventories/production/hosts.yml").touch()
    (work / "site.yml").touch()
    (work / "roles").mkdir()
    (work / ".gitignore").write_text("/inventories/*\n/.venv\n/bin\n")
    (work / ".ci").symlink_to(PROJECT / ".ci")
    # The command itself loads all of its groups, which takes a second each time.
    tool = work / ".venv/bin/quote-platform"
    tool.parent.mkdir(parents=True)
    loads = "from quote_platform.delivery.release_cli import release; release()"
    tool.write_text(f'#!/usr/bin/env bash\nshift\nexec {sys.executable} -c "{loads}" "$@"\n')
    tool.chmod(0o755)
    git(work, "add", "--force", "inventories", "site.yml", ".gitignore")
    git(work, "commit", "--quiet", "--message", "first")
    git(work, "push", "--quiet", "origin", "main")
    # On a pipeline's machine these install, and become root.
    (work / "bin").mkdir()
    for name, text in {
        "sudo": '[[ $1 != --preserve-env ]] || shift; [[ $1 == chown ]] || "$@"',
        "make": ":",
    }.items():
        (work / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (work / "bin" / name).chmod(0o755)
    yield work


def run_job(workflow: str, work: Path, **inputs: str) -> str:
    """Run the steps of a job that are commands, but those that ask other services."""
    (job,) = read(PROJECT / f".github/workflows/{workflow}.yml")["jobs"].values()
    given = {f"inputs.{name}": value for name, value in inputs.items()}
    given |= {"github.token": "t0ken", "github.event.repository.default_branch": "main"}

    def filled(values: dict[str, str]) -> dict[str, str]:
        return {
            key: re.sub(r"\$\{\{ (.+?) \}\}", lambda hit: given[hit[1]], value)
            for key, value in values.items()
        }

    out = []
    for step in job["steps"]:
        if "run" not in step or re.search(r"\b(cosign|skopeo|aws)\b", step["run"]):
            continue
        assert "${{" not in step["run"], "what a person gives is no part of a script"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=work,
            env=os.environ
            | filled(job["env"])
            | filled(step.get("env", {}))
            | {"PATH": f"{work / 'bin'}:{os.environ['PATH']}", "GITHUB_ACTOR": "robot"},
            capture_output=True,
            text=True,
            check=False,
        )
        out.append(done.stdout + done.stderr)
        assert done.returncode == 0, f"{step['name']}: {out[-1]}"
    return "\n".join(out)


def deployed(work: Path) -> dict[str, str]:
    """Return what the origin's branch says that production runs."""
    git(work, "fetch", "--quiet", "origin", "main")
    text = git(work, "show", "FETCH_HEAD:inventories/production/group_vars/platform/images.yml")
    return environment.read(text, "origin")


def test_workflows_deploy_and_roll_back_by_commits(checkout: Path, tmp_path: Path) -> None:
    run_job("promote", checkout, environment="production", images=f"{ONE} {BACKUP}")
    assert deployed(checkout) == {"quote_app_image": ONE, "snapshots_image": BACKUP}
    told = git(checkout, "log", "-1", "--format=%an %ae %B")
    assert told.startswith("robot robot@users.noreply.github.com Deploy to production")
    assert ONE in told
    # Somebody else pushes meanwhile.
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin"), str(other))
    (other / "news").touch()
    git(other, "add", "news")
    git(other, "commit", "--quiet", "--message", "news")
    git(other, "push", "--quiet", "origin", "HEAD:main")
    run_job("promote", checkout, environment="production", images=TWO)
    assert deployed(checkout) == {"quote_app_image": TWO, "snapshots_image": BACKUP}
    assert "nothing to commit" in run_job("promote", checkout, environment="production", images=TWO)
    before = git(checkout, "rev-parse", "HEAD")
    run_job("rollback", checkout, environment="production", commit="")
    assert deployed(checkout)["quote_app_image"] == ONE
    run_job("rollback", checkout, environment="production", commit=before)
    assert deployed(checkout)["quote_app_image"] == TWO
    assert "t0ken" not in git(checkout, "log", "-p", "--all") + (checkout / ".git/config").read_text()


def test_two_deployments_at_once_do_not_undo_each_other(checkout: Path, tmp_path: Path) -> None:
    run_job("promote", checkout, environment="production", images=ONE)
    late = tmp_path / "late"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin"), str(late))
    for name in (".ci", ".venv", "bin"):
        (late / name).symlink_to(checkout / name)
    (late / "roles").mkdir()
    run_job("promote", checkout, environment="production", images=TWO)
    third = ONE.replace("a" * 64, "d" * 64)
    with pytest.raises(AssertionError, match="changed by another commit meanwhile: run this again"):
        run_job("promote", late, environment="production", images=third)
    assert deployed(checkout)["quote_app_image"] == TWO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["promote", "ghcr.io/team/quote-app:1", "-i", "inventories/production"], "a tag alone may change"),
        (
            ["promote", ONE.replace("quote-app", "other"), "-i", "inventories/production"],
            "quote-app or backup",
        ),
        (["promote", "A", "-i", "inventories/production"], "A: not an image"),
        (["promote", ONE, "-i", "inventories/none"], "inventories/none: no such folder"),
        (["rollback", "-i", "inventories/production"], "nothing has been promoted there"),
        (["rollback", "-i", "inventories/production", "--to=-x"], "--to -x: allowed is the name of a commit"),
    ],
)
def test_wrong_deployments_are_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(checkout)
    result = CliRunner().invoke(release_cli.release, words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_first_deployment_has_nothing_to_go_back_to(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job("promote", checkout, environment="production", images=ONE)
    monkeypatch.chdir(checkout)
    result = CliRunner().invoke(release_cli.release, ["rollback", "-i", "inventories/production"])
    assert result.exit_code == 2
    assert "its history has no other images" in " ".join(result.output.split())
    (checkout / "inventories/production/group_vars/platform/images.yml").write_text("other: 1\n")
    result = CliRunner().invoke(release_cli.release, ["promote", ONE, "-i", "inventories/production"])
    assert result.exit_code == 2
    assert "allowed are quote_app_image and snapshots_image" in " ".join(result.output.split())
