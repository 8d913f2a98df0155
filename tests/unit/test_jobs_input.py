"""Wrong input to jobs is refused before anything starts: the place, what is wrong, what is allowed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quote_platform import inventory as inventories
from quote_platform.cli import app, main
from quote_platform.jobs import cluster, definition
from quote_platform.jobs.definition import WrongInput
from quote_platform.jobs.record import Store

ROOT = Path(__file__).resolve().parents[2]
DURATION = "allowed is a number with s, m, h or d, such as 90m"
HIDDEN = (
    "a secret; records of jobs hold none: write it to a file, encrypted by ansible-vault, and name that in "
    "variables_files, or by -e @FILE"
)


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "hosts.yml").write_text("all: {hosts: {one: {}}}\n")
    return folder


def refused(*arguments: str) -> str:
    """Return what a command says that refuses its input."""
    found = CliRunner().invoke(app, ["job", *arguments])
    assert found.exit_code == 2, found.output
    return found.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: {}", "job: unknown; did you mean jobs?"),
        ("retention: 5", "retention: unknown; allowed are jobs, keep, metrics_directory, minimum_free_mib"),
        ("keep: 0", "keep: 0; allowed is 1 or more"),
        ("keep: many", "keep: 'many' is text; allowed is a whole number"),
        ("minimum_free_mib: 1.5", "minimum_free_mib: 1.5 is a number; allowed is a whole number"),
        ("jobs: [drift]", "jobs: is a list; allowed is a mapping"),
        ("jobs: {drift: nightly}", "jobs.drift: 'nightly' is text; allowed is a mapping"),
        ("jobs: {drift: {chek: true}}", "jobs.drift.chek: unknown; did you mean check?"),
        (
            "jobs: {drift: {check: 'yes'}}",
            "jobs.drift.check: 'yes' is text; allowed is true or false",
        ),
        ("jobs: {nightly: {check: true}}", "jobs.nightly.playbook: required and not set"),
        (
            "jobs: {nightly: {playbook: playbooks/bakup.yml}}",
            "jobs.nightly.playbook: playbooks/bakup.yml is no playbook of the project; "
            "did you mean playbooks/backup.yml?",
        ),
        (
            "jobs: {Nightly_1: {playbook: site.yml}}",
            "jobs.Nightly_1: no name of a job; allowed are a-z, 0-9 and -, at most 40, a letter first",
        ),
        ("jobs: {drift: {timeout: 90}}", f"jobs.drift.timeout: 90 has no unit; {DURATION}"),
        ("jobs: {drift: {timeout: soon}}", f"jobs.drift.timeout: 'soon' is no duration; {DURATION}"),
        ("jobs: {drift: {variables: [a]}}", "jobs.drift.variables: is a list; allowed is a mapping"),
        (
            "jobs: {drift: {variables: {a-b: 1}}}",
            "jobs.drift.variables.a-b: no name of a variable; allowed are letters, digits and _",
        ),
        # By its name, and by what the argument spec of a role says.
        (
            "jobs: {drift: {variables: {admin_password: x}}}",
            f"jobs.drift.variables.admin_password: {HIDDEN}",
        ),
        (
            "jobs: {drift: {variables: {monitoring_slack_url: x}}}",
            f"jobs.drift.variables.monitoring_slack_url: {HIDDEN}",
        ),
        # In an account, too; the name of a Secret is none.
        (
            "jobs: {drift: {variables: {object_store_accounts: {velero: {secret_key: x}}}}}",
            f"jobs.drift.variables.object_store_accounts: {HIDDEN}",
        ),
        (
            "jobs: {drift: {variables: {quote_app_database_secret: a, since: 2026-11-29}}}",
            "jobs.drift.variables.since: 2026-11-29 is a date; write it in quotes",
        ),
        (
            "jobs: {drift: {schedule: {calender: daily}}}",
            "jobs.drift.schedule.calendar: required and not set",
        ),
        (
            "jobs: {drift: {schedule: {calendar: daily, calender: daily}}}",
            "jobs.drift.schedule.calender: unknown; did you mean calendar?",
        ),
        (
            "jobs: {drift: {schedule: {calendar: ''}}}",
            "jobs.drift.schedule.calendar: allowed is one calendar expression of systemd, "
            "such as Mon *-*-* 03:00:00",
        ),
        (
            "jobs: {drift: {schedule: {calendar: daily, time_zone: Europe/Berln}}}",
            "jobs.drift.schedule.time_zone: 'Europe/Berln' is no time zone; did you mean Europe/Berlin?",
        ),
        (
            "jobs: {drift: {schedule: {calendar: daily, random_delay: 5 minutes}}}",
            f"jobs.drift.schedule.random_delay: '5 minutes' is no duration; {DURATION}",
        ),
        ("jobs: {drift: {check: true}, drift: {}}", "line 1: drift stands here a second time"),
        (
            "jobs: {drift: {variables: {a: !vault x}}}",
            "!vault: put encrypted values into a file, and name that in variables_files",
        ),
        ("- jobs", "is a list; allowed is a mapping with jobs, keep, metrics_directory, minimum_free_mib"),
        ("keep: true", "keep: is true or false; allowed is a whole number"),
        (
            "metrics_directory: /gone",
            "metrics_directory: /gone; allowed is the absolute path of a folder in which you may write",
        ),
        (
            "metrics_directory: metrics",
            "metrics_directory: metrics; allowed is the absolute path of a folder in which you may write",
        ),
        ("jobs: {drift: }", "jobs.drift: is empty; allowed is a mapping"),
        (
            "jobs: {1: {playbook: site.yml}}",
            "jobs.1: this name is a number; allowed is text, so put it in quotes",
        ),
        ("jobs: {drift: {expected_every: 24}}", f"jobs.drift.expected_every: 24 has no unit; {DURATION}"),
        ("jobs: {drift: {timeout: true}}", f"jobs.drift.timeout: is true or false; {DURATION}"),
        ("jobs: {drift: {timeout: }}", f"jobs.drift.timeout: is empty; {DURATION}"),
        (
            "jobs: {up: {playbook: ../site.yml}}",
            "jobs.up.playbook: ../site.yml is no playbook of the project; did you mean site.yml?",
        ),
        (
            "jobs: {drift: {variables_files: a.yml}}",
            "jobs.drift.variables_files: 'a.yml' is text; allowed is a list",
        ),
        (
            "jobs: {drift: {variables: {a: [{b: 2026-11-29}]}}}",
            "jobs.drift.variables.a.0.b: 2026-11-29 is a date; write it in quotes",
        ),
        (
            "jobs: {drift: {variables: {a: .nan}}}",
            "jobs.drift.variables.a: nan is a float; write it in quotes",
        ),
        (
            "jobs: {drift: {ara: true}}",
            "jobs.drift.ara: ARA is not installed: uv sync --locked --no-dev --group ara",
        ),
        (
            "jobs: {drift: {variables: {a: !!python/name:os.system x}}}",
            "line 1: python/name:os.system: no such type; allowed are plain values",
        ),
        ("jobs: {? [a] : {}}", "line 1: a name is a list or a mapping; allowed is text"),
        ("jobs: &a {drift: *a}", "line 1: what is repeated here by * contains this place"),
        ("--- {}\n--- {}", "line 2: a second document begins here; allowed is one"),
        ("jobs: {", "line 2: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_mistake_in_jobs_yml_is_named(inventory: Path, text: str, message: str) -> None:
    file = inventory / "jobs.yml"
    file.write_text(f"{text}\n")
    lines = refused("run", "drift", "-i", str(inventory)).splitlines()
    assert lines[0].startswith(f"{file}: ")
    assert lines[0].endswith("; nothing was started.")
    assert message in lines[1:]
    assert not (inventory.parent / "state").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.write_bytes(b"jobs: \xff"), "is no text in UTF-8: byte 7 is 0xff"),
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
        (lambda file: file.symlink_to("gone"), "cannot be read: No such file or directory"),
    ],
)
def test_a_jobs_yml_that_cannot_be_read_is_not_passed_over(
    inventory: Path, make: Callable[[Path], None], message: str
) -> None:
    make(inventory / "jobs.yml")
    assert refused("run", "drift", "-i", str(inventory)).splitlines()[1:] == [message]


def test_what_jobs_have_in_common_is_merged_in(inventory: Path) -> None:
    (inventory / "jobs.yml").write_text(
        "jobs:\n  a: &a {playbook: site.yml, timeout: 1h}\n  b: {<<: *a, timeout: 2h}\n"
    )
    assert definition.load(ROOT, inventory).jobs["b"].timeout == 7200


def test_all_mistakes_are_named_at_once(inventory: Path) -> None:
    (inventory / "jobs.yml").write_text(
        "keep: 0\njobs:\n  drift: {chek: true}\n  nightly: {playbook: nowhere, variables_files: [gone.yml]}\n"
    )
    assert (
        refused("start", "drift", "-i", str(inventory))
        .splitlines()[0]
        .endswith("2 mistakes; nothing was started.")
    )
    (inventory / "jobs.yml").write_text(
        "jobs:\n  nightly: {playbook: nowhere, variables_files: [gone.yml]}\n"
    )
    assert refused("start", "drift", "-i", str(inventory)).splitlines()[1:] == [
        "jobs.nightly.playbook: nowhere is no playbook of the project",
        f"jobs.nightly.variables_files: {inventory}/gone.yml is no file",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drift"], "no inventory: pass -i inventories/NAME"),
        (["drift", "-i", "inventories/producton"], "no such inventory; did you mean inventories/production?"),
        (
            ["drfit", "-i", "INVENTORY"],
            "drfit: no such job; did you mean drift? Known are backup, converge, drift, renew-certificates, "
            "restore-drill, rotate-secrets, update-hosts, upgrade, verify; a playbook is named by its path, "
            "such as playbooks/verify.yml",
        ),
        (
            ["", "-i", "INVENTORY"],
            "'': no such job. Known are backup, converge, drift, renew-certificates, restore-drill, "
            "rotate-secrets, update-hosts, upgrade, verify; a playbook is named by its path, such as "
            "playbooks/verify.yml",
        ),
        (["drift", "-i", ""], "-i .: the checkout itself; allowed is a folder such as inventories/NAME"),
        (["verify", "-i", "INVENTORY", "-e", "@/"], "-e @/: / is no file"),
        (
            ["playbooks/verfy.yml", "-i", "INVENTORY"],
            "playbooks/verfy.yml: no playbook of the project; did you mean playbooks/verify.yml?",
        ),
        (
            ["verify", "-i", "INVENTORY", "-e", "novalue"],
            "-e: allowed are NAME=VALUE, one for each -e, and @FILE",
        ),
        (["verify", "-i", "INVENTORY", "-e", "@/gone.yml"], "-e @/gone.yml: /gone.yml is no file"),
        (["verify", "-i", "INVENTORY", "-e", "token=x"], f"-e token: {HIDDEN}"),
        (
            ["verify", "-i", "INVENTORY", "--timeout", "1.5h"],
            f"--timeout: '1.5h' is no duration; {DURATION}",
        ),
        (
            ["verify", "-i", "INVENTORY", "--vault-password-file", "/gone"],
            "--vault-password-file: /gone is no file",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_named(inventory: Path, arguments: list[str], message: str) -> None:
    given = [str(inventory) if one == "INVENTORY" else one for one in arguments]
    assert refused("run", *given).splitlines()[-1].endswith(message)
    assert not (inventory.parent / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "latest"], "latest: no such job; see quote-platform job list"),
        (["cancel", "../etc"], "../etc: no such job; see quote-platform job list"),
        (["retry", ""], "'': no such job; see quote-platform job list"),
        (["prune", "--older-than", "week"], f"--older-than: 'week' is no duration; {DURATION}"),
    ],
)
def test_a_mistake_about_jobs_that_ran_is_named(inventory: Path, arguments: list[str], message: str) -> None:
    assert refused(*arguments) == f"{message}\n"


def test_how_processes_are_kept_together_is_one_of_three(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTE_PLATFORM_JOB_GROUP", "docker")
    assert refused("run", "drift", "-i", str(inventory)) == (
        "QUOTE_PLATFORM_JOB_GROUP: docker; allowed are systemd, cgroup, processes\n"
    )


def test_an_inventory_that_vanished_is_refused_by_retry(inventory: Path) -> None:
    wanted, variables = definition.plan("drift", ROOT, inventory, [])
    store = Store()
    record = store.create(wanted, variables)
    record.state = "done"
    store.save(record)
    shutil.rmtree(inventory)
    assert refused("retry", record.id) == f"{record.id}: its inventory is gone: {inventory}\n"


def test_what_jobs_yml_says_stands_over_the_jobs_that_come_with_the_project(inventory: Path) -> None:
    (inventory / "jobs.yml").write_text("keep: 7\njobs: {drift: {timeout: 3h}, site: {playbook: site.yml}}\n")
    found = definition.load(ROOT, inventory)
    drift = found.jobs["drift"]
    assert (found.keep, drift.playbook, drift.check, drift.timeout) == (7, "site.yml", True, 3 * 3600)
    assert set(found.jobs) == {*definition.BUILT_IN, "site"}


def test_every_job_that_comes_with_the_project_has_its_playbook(inventory: Path) -> None:
    found = definition.load(ROOT, inventory).jobs
    assert found.keys() == definition.BUILT_IN.keys()
    assert {one.playbook for one in found.values()} <= set(definition.playbooks(ROOT))


def test_only_jobs_that_change_a_cluster_hold_it(inventory: Path) -> None:
    changes = {
        name: definition.plan(name, ROOT, inventory, [])[0].changes
        for name in [*definition.BUILT_IN, "playbooks/validate.yml", "playbooks/reset.yml"]
    }
    assert [name for name, found in changes.items() if not found] == [
        "drift",
        "verify",
        "playbooks/validate.yml",
    ]
    assert not definition.plan("converge", ROOT, inventory, [], check=True)[0].changes
    assert definition.plan("verify", ROOT, inventory, ["verify_intrusive=true"])[0].changes


def test_the_cluster_of_an_inventory_is_what_ansible_takes_it_for(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inventory / "hosts.yml").write_text("control_plane: {hosts: {one: {}}}\n")
    (inventory / "password").write_text("open")
    hidden = inventory / "group_vars" / "all.yml"
    hidden.parent.mkdir()
    hidden.write_text("cluster_name: hidden\n")
    command = ["ansible-vault", "encrypt", "--vault-password-file", f"{inventory}/password", str(hidden)]
    subprocess.run(command, check=True, capture_output=True)
    wanted, variables = definition.plan(
        "converge", ROOT, inventory, [], vault_password_file=inventory / "password"
    )
    environment = os.environ | {"ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg"}
    found = cluster.ask(wanted, variables, environment)
    assert (found.name, found.kubeconfig) == ("hidden", f"{ROOT}/secrets/hidden/kubeconfig")
    closed = cluster.ask(wanted.model_copy(update={"vault_password_file": ""}), variables, environment)
    assert closed.name == str(inventory).strip("/").replace("/", "_")
    assert "vault secrets" in closed.unknown


@pytest.mark.parametrize(
    ("named", "used"), [("C", "C.UTF-8"), ("xx_XX.UTF-8", "C.UTF-8"), ("C.UTF-8", "C.UTF-8"), ("", "")]
)
def test_a_locale_in_which_ansible_does_not_start_is_not_handed_on(
    named: str, used: str, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSH brings that of where somebody sits."""
    (inventory / "hosts.yml").write_text("control_plane: {hosts: {one: {cluster_name: own}}}\n")
    monkeypatch.setenv("LC_ALL", named)
    monkeypatch.setenv("LANG", "C.UTF-8")
    main()
    assert os.environ["LC_ALL"] == used
    assert inventories.variables(inventory, ["cluster_name"]) == {"cluster_name": "own"}


def test_ansible_takes_jobs_yml_for_no_source_of_hosts(inventory: Path) -> None:
    (inventory / "jobs.yml").write_text("jobs: {drift: {timeout: 3h}}\n")
    done = subprocess.run(
        ["ansible-inventory", "-i", str(inventory), "--graph"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "jobs" not in done.stdout
    assert "one" in done.stdout


def test_a_refusal_is_an_exception_with_all_of_it(inventory: Path) -> None:
    (inventory / "jobs.yml").write_text("keep: 0\n")
    with pytest.raises(
        WrongInput, match=r"jobs.yml: 1 mistake; nothing was started.\nkeep: 0; allowed is 1 or more$"
    ):
        definition.load(ROOT, inventory)
