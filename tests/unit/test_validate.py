"""Wrong input is refused with its exact message, before any node is contacted; right input passes."""

import base64
import hashlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import yaml
from ansible import constants
from ansible._internal._templating._jinja_bits import (
    _TEMPLATE_OVERRIDE_FIELD_NAMES as OVERRIDES,
)
from ansible._internal._templating._jinja_bits import (
    AnsibleEnvironment,
    _TemplateCompileContext,
)
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecretsContext
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from plugins.modules import probe_node
from quote_platform import certificates, quantities, validation
from quote_platform.validation import call, capacity, nodes, sources, specs, task

ROOT = Path(__file__).resolve().parents[2]
CASES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/fixtures/invalid.yml").read_text())
HOSTS = {
    "control_plane": {"master-1": "10.77.0.11"},
    "workers": {"worker-1": "10.77.0.21", "worker-2": "10.77.0.22", "worker-3": "10.77.0.23"},
}

init_plugin_loader()
VaultSecretsContext.initialize(VaultSecretsContext(secrets=[]))


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    """Compile an expression once, not for each of the hundred inventories that it is resolved for."""
    known: dict[Any, Any] = {}
    compiling = AnsibleEnvironment.compile

    def cached(self: Any, source: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(source, str):
            return compiling(self, source, *args, **options)
        context = _TemplateCompileContext.current(optional=True)
        settings = [getattr(self, field) for field in OVERRIDES]
        key = (str(source), args, *options.items(), *settings, context and context.escape_backslashes)
        if key not in known:
            known[key] = compiling(self, source, *args, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnsibleEnvironment, "compile", cached)
        yield


def inventory(folder: Path, case: dict[str, Any]) -> Path:
    hosts = case.get("hosts", HOSTS)
    groups = {
        group: {"hosts": {name: {"ansible_host": address} for name, address in members.items()}}
        for group, members in hosts.items()
    }
    tree = {"all": {"children": {"platform": {"children": {"kube_nodes": {"children": groups}}}}}}
    (folder / "group_vars/platform").mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump(case.get("inventory", tree)))
    (folder / "group_vars/platform/main.yml").write_text(
        case.get("text") or yaml.safe_dump(case.get("vars", {}))
    )
    return folder


def given(folder: Path, extra: dict[str, Any] | None = None) -> validation.Input:
    """Return what Ansible makes of an inventory, without the second that a run of it takes."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    found = InventoryManager(loader=loader, sources=[str(folder)])
    variables = VariableManager(loader=loader, inventory=found)
    variables._extra_vars = extra or {}
    hostvars = HostVars(inventory=found, variable_manager=variables, loader=loader)
    templar = Templar(loader=loader)
    groups = found.get_groups_dict()
    return validation.Input(
        project=ROOT,
        groups=groups,
        raw={host: hostvars.raw_get(host) for host in groups["all"]},
        templar=lambda context: templar.copy_with_new_env(available_variables=context).template,
        extra=frozenset(extra or {}),
        hostvars=hostvars,
    )


def play(
    folder: Path | str,
    *more: str,
    playbook: str | Path = "validate.yml",
    cwd: Path = ROOT,
    status: int | None = None,
) -> str:
    """Run a playbook as a user does."""
    done = subprocess.run(
        ["ansible-playbook", "-i", folder, Path("playbooks", playbook), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 if status == 0 else done.returncode != 0, output
    # Nobody answers at these addresses: an attempt would show.
    assert "UNREACHABLE" not in output
    assert "Gather the state of the node]" not in output
    return output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"].replace(" ", "-"))
def test_wrong_input_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    said = validation.judge(given(inventory(tmp_path / "wrong", case), case.get("extra")))
    assert {case["message"], *case.get("also", [])} <= set(said)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
    assert len({case["case"] for case in CASES}) == len(CASES)


def test_right_input_passes(tmp_path: Path) -> None:
    assert validation.judge(given(inventory(tmp_path / "right", {}))) == []


def test_a_database_outside_passes_while_its_authority_is_valid(tmp_path: Path) -> None:
    certificates.make(tmp_path / "ca", "ca", [], 10, issuer=None, is_ca=True)
    certificates.make(tmp_path / "old", "old", [], 0, issuer=None, is_ca=True)
    valid, old = ((tmp_path / f"{name}.crt").read_text() for name in ("ca", "old"))
    own: dict[str, Any] = {
        "database": "external",
        "database_host": "db.quotes.dev",
        "database_networks": ["10.0.3.0/24"],
    }
    ended = f"database_authority: ended on {datetime.now(UTC):%Y-%m-%d}; allowed is one that is valid"
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"database_password": "secret"}, []),
        ({"secrets_backend": "aws-secrets-manager"}, []),
        ({"database_administrator": "boss", "database_administrator_password": "secret"}, []),
        # None of them is there, and nothing is said of it.
        ({"database_password": "secret", "postgres_instances": 5}, []),
        ({"database_password": "secret", "database_authority": f"{old}{valid}"}, []),
        ({"database_password": "secret", "database_authority": old}, [ended]),
    ]
    for number, (account, said) in enumerate(cases):
        case = {"vars": own | {"database_authority": valid} | account}
        assert validation.judge(given(inventory(tmp_path / str(number), case))) == said


@pytest.mark.parametrize(
    "asked",
    [
        "{{ rack_pool }}",
        "{{ rack_middle }}",
        "{{ lookup('vars', 'rack_' ~ 'pool') }}",
        "{{ hostvars[inventory_hostname]['rack_pool'] }}",
        "{{ [inventory_hostname] | map('extract', hostvars, 'rack_pool') | first }}",
        "#jinja2:variable_start_string:'<.',variable_end_string:'.>'\n<.rack_pool.>",
    ],
)
def test_what_only_one_host_says_is_judged(asked: str, tmp_path: Path) -> None:
    # application_database is asked for by roles' defaults, which are resolved once for hosts that are alike.
    case = {"vars": {"rack_middle": "{{ rack_pool }}", "application_database": asked}}
    folder = inventory(tmp_path / "racks", case)
    for host, pool in {"master-1": "a", "worker-1": "a", "worker-2": "b", "worker-3": "no-name"}.items():
        (folder / f"host_vars/{host}.yml").parent.mkdir(exist_ok=True)
        (folder / f"host_vars/{host}.yml").write_text(yaml.safe_dump({"rack_pool": pool}))
    assert [line.partition(" would")[0] for line in validation.judge(given(folder))] == [
        "application_database: 'no-name'",
        "postgres_database: 'no-name'",
    ]


def test_equal_values_of_other_meaning_are_told_apart(tmp_path: Path) -> None:
    domain = {"rack_domain": "cluster.local", "cluster_dns_domain": "{{ rack_domain }}"}
    folder = inventory(tmp_path / "equal", {"vars": {"quote_app_replicas": 1} | domain})
    (folder / "host_vars").mkdir()
    (folder / "host_vars/worker-3.yml").write_text(
        "quote_app_replicas: true\ncluster_dns_domain: !unsafe '{{ rack_domain }}'"
    )
    assert validation.judge(given(folder)) == [
        "quote_app_replicas: True is true or false; allowed is a whole number",
        "cluster_dns_domain: '{{ rack_domain }}' is not a DNS name like cluster.local",
    ]


def test_more_hosts_need_no_more_templates(tmp_path: Path) -> None:
    resolved = []
    for number in (3, 40):
        workers = {f"worker-{one}": f"10.77.1.{one}" for one in range(number)}
        found = given(inventory(tmp_path / str(number), {"hosts": HOSTS | {"workers": workers}}))
        values: list[str] = []

        def templar(
            context: dict[str, Any], found: validation.Input = found, values: list[str] = values
        ) -> Callable[[Any], Any]:
            template = found.templar(context)

            def resolve(value: Any) -> Any:
                values.append(str(value))
                return template(value)

            return resolve

        assert validation.judge(replace(found, templar=templar)) == []
        # Facts are each host's own.
        resolved.append(sorted(text for text in values if "{{" in text and "ansible_facts" not in text))
    assert resolved[0] == resolved[1]


def test_groups_of_ones_own_are_allowed_by_name(tmp_path: Path) -> None:
    folder = inventory(tmp_path / "own", {"vars": {"validate_own_groups": ["rack_*"]}})
    tree = yaml.safe_load((folder / "hosts.yml").read_text())
    tree["all"]["children"]["rack_1"] = {"hosts": {"worker-1": {}, "router-1": {}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(tree))
    assert validation.judge(given(folder)) == []


def test_the_example_passes_with_its_placeholders_replaced(tmp_path: Path) -> None:
    said = validation.judge(given(ROOT / "inventories/production"))
    assert said
    assert all("example" in line for line in said), said
    copy = shutil.copytree(ROOT / "inventories/production", tmp_path / "copy")
    for file in copy.rglob("*.yml"):
        text = file.read_text()
        for placeholder in ("AKIA-EXAMPLE", "change-me", "example-quotes"):
            text = text.replace(placeholder, "own")
        text = text.replace("192.0.2.", "10.77.0.")
        file.write_text(text)
    assert validation.judge(given(copy)) == []


def test_the_playbook_refuses_with_all_mistakes_at_once(tmp_path: Path) -> None:
    case = {"vars": {"postgres_instnaces": 3, "ingress_controller": "haproxy"}}
    output = play(inventory(tmp_path / "wrong", case), "-e", "backups_enabled=false")
    assert "3 mistakes; nothing was touched" in output


def test_each_playbook_refuses_text_for_a_number(tmp_path: Path) -> None:
    output = play(inventory(tmp_path / "right", {}), "-e", "quote_app_replicas=2", playbook="app.yml")
    assert "quote_app_replicas: '2' is text; allowed is a whole number" in output


def test_the_playbook_passes_right_input(tmp_path: Path) -> None:
    play(inventory(tmp_path / "right", {}), "--tags", "static", status=0)


def test_the_playbook_warns_of_a_password_that_lies_beside_its_keys(tmp_path: Path) -> None:
    hosts = HOSTS | {"vault": {"vault-1": "10.77.0.31"}}
    secrets = tmp_path / "secrets"
    secrets.mkdir()

    def told(name: str, **settings: Any) -> list[str]:
        given = {"vars": {"cluster_secrets_dir": str(secrets), **settings}, "hosts": hosts}
        return task.warnings(ROOT, *of_a_task(inventory(tmp_path / name, given), "master-1"))

    assert told("default") == []
    program = secrets / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    assert told("program", vault_server_password_file=str(program)) == []
    assert told("elsewhere", vault_server_password_file=str(tmp_path / "password")) == []
    beside = told("named", vault_server_password_file=str(secrets / "apart/password"))
    assert beside[0].startswith(f"vault_server_password_file: {secrets}/apart/password lies beside the keys")
    # Where an earlier version has put it, it goes on to be found.
    (secrets / "vault-password").write_text("password")
    assert told("without", secrets_backend="") == []
    given = {"vars": {"cluster_secrets_dir": str(secrets)}, "hosts": hosts}
    output = play(inventory(tmp_path / "old", given), "--tags", "static", status=0)
    assert f"vault_server_password_file: {secrets}/vault-password lies beside the keys" in " ".join(
        output.split()
    )


def test_hosts_share_nothing_that_one_of_them_learns(tmp_path: Path) -> None:
    """Ansible gives one table to all hosts that a task with run_once gives their first facts to."""
    name = {"own": "{{ inventory_hostname }}", "cacheable": True}
    tasks = [
        {"ansible.builtin.set_fact": name},
        {"ansible.builtin.assert": {"that": "ansible_facts.own == inventory_hostname"}},
    ]
    nodes = {"hosts": "kube_nodes", "gather_facts": False, "connection": "local", "tags": ["static"]}
    plays = [
        {"ansible.builtin.import_playbook": str(ROOT / "playbooks/validate.yml")},
        nodes | {"tasks": tasks},
    ]
    (tmp_path / "plays.yml").write_text(json.dumps(plays))
    play(inventory(tmp_path / "right", {}), "--tags", "static", playbook=tmp_path / "plays.yml", status=0)


def test_the_name_of_a_host_that_is_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {children: {control_plane: {hosts: {1: {}}}}}")
    assert "Host pattern 1 must be a string" in play(tmp_path / "hosts.yml")


@pytest.mark.parametrize("playbook", ["validate.yml", "backup.yml"])
def test_an_inventory_without_hosts_ends_the_run(playbook: str, tmp_path: Path) -> None:
    output = play(inventory(tmp_path / "empty", {"inventory": {"all": {}}}), playbook=playbook)
    assert "the inventory has no hosts" in output


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"masters": HOSTS["control_plane"]}, "masters: not a group of the platform"),
        (HOSTS | {"vaults": {"vault-1": "10.77.0.31"}}, "vaults: not a group of the platform"),
        ({"workers": HOSTS["workers"]}, "control_plane: the group has no hosts"),
    ],
    ids=["masters", "vaults", "none"],
)
def test_each_playbook_refuses_a_group_that_it_would_not_find(
    groups: dict[str, dict[str, str]], said: str, tmp_path: Path
) -> None:
    """Its plays would match no host, and the run would end as if all were well."""
    found = given(inventory(tmp_path / "groups", {"hosts": groups}))
    assert [line[: len(said)] for line in validation.judge(found, together=False)][:1] == [said]


def test_a_file_that_is_no_inventory_ends_the_run(tmp_path: Path) -> None:
    """Ansible takes it for the name of a host."""
    (tmp_path / "hosts.yml").write_text("{{{\n")
    assert "control_plane: the group has no hosts" in play(tmp_path / "hosts.yml", playbook="cluster.yml")


@pytest.mark.parametrize(
    "where", ["hosts.yml", "group_vars/all.yaml", "group_vars/all", "group_vars/all/a.json"]
)
def test_what_an_inventory_says_anywhere_wins(where: str, tmp_path: Path) -> None:
    folder = inventory(tmp_path / "settings", {})
    file, settings = folder / where, {"cluster_pod_cidr": "10.200.0.0/16"}
    file.parent.mkdir(exist_ok=True)
    if where == "hosts.yml":
        tree = yaml.safe_load(file.read_text())
        tree["all"]["vars"] = settings
        settings = tree
    file.write_text(json.dumps(settings))
    found = given(folder)
    assert found.raw["worker-1"]["cluster_pod_cidr"] == "10.200.0.0/16"
    assert validation.judge(found) == []


def test_what_a_playbook_sets_is_for_the_command_line_only(tmp_path: Path) -> None:
    addresses = {"monitoring_public_addresses": ["10.77.0.40"]}
    assert validation.judge(given(inventory(tmp_path / "vars", {"vars": addresses}))) == [
        "monitoring_public_addresses: playbooks/platform.yml sets it by itself, and what an inventory says "
        "has no effect; delete it there"
    ]
    assert validation.judge(given(inventory(tmp_path / "extra", {}), addresses)) == []


@pytest.mark.parametrize("playbook", ["platform.yml", "validate.yml"])
def test_a_limit_that_leaves_machines_out_is_refused(playbook: str, tmp_path: Path) -> None:
    output = play(inventory(tmp_path / "right", {}), "--limit", "worker-2", playbook=playbook)
    assert "--limit worker-2: leaves out master-1, worker-1, worker-3;" in output


@pytest.mark.parametrize(("playbook", "tag"), [("validate.yml", "postgres"), ("cluster.yml", "static")])
def test_a_tag_that_matches_nothing_is_refused(playbook: str, tag: str, tmp_path: Path) -> None:
    output = play(inventory(tmp_path / "right", {}), "--tags", tag, playbook=playbook)
    assert f"--tags {tag}: no task has this tag; allowed is static, for playbooks/validate.yml" in output


def test_a_run_without_the_projects_configuration_is_refused() -> None:
    ours, ansibles = (
        constants.VARIABLE_PRECEDENCE,
        constants.config.get_configuration_definition("VARIABLE_PRECEDENCE"),
    )
    for order, wrong in ((ours, 0), (ansibles["default"], 1)):
        said = call.judge(call.Call(ROOT, order, ["all"], limit="", left_out=[], connection={}))
        assert len(said) == wrong
        assert all(f"run in {ROOT}, or set ANSIBLE_CONFIG={ROOT}/ansible.cfg" in line for line in said)


def test_the_python_of_nodes_is_not_that_of_the_controller(tmp_path: Path) -> None:
    output = play(inventory(tmp_path / "right", {}), "-e", "ansible_python_interpreter=/usr/bin/python3")
    assert "ansible_python_interpreter: given with -e, it applies to the controller too" in output


def test_the_name_of_another_cluster_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kubeconfig"
    found = given(
        inventory(tmp_path / "copy", {"vars": {"cluster_name": "q", "cluster_kubeconfig": str(kept)}})
    )
    for server, wrong in (
        ("https://10.77.0.11:6443", []),
        (
            "https://10.9.0.1:6443",
            [
                f"cluster_name: q is taken: {kept} is for https://10.9.0.1:6443, not for cluster_endpoint "
                f"10.77.0.11:6443; choose another name, or move {tmp_path} away if that cluster is gone"
            ],
        ),
        (None, [f"cluster_kubeconfig: {kept} cannot be read; remove it, and it is fetched again"]),
    ):
        clusters = [{"cluster": {"server": server}}] if server else []
        kept.write_text(yaml.safe_dump({"clusters": clusters}))
        assert validation.judge(found) == wrong


def test_secrets_belong_to_one_inventory_which_may_move(tmp_path: Path) -> None:
    """Before there is a kubeconfig: with the secrets, a playbook records whose they are."""
    secrets = tmp_path / "secrets"

    def run(folder: Path, status: int = 0) -> str:
        extra = json.dumps({"backups_enabled": False, "cluster_secrets_dir": str(secrets)})
        return play(folder, "-e", extra, playbook="object-store.yml", status=status)

    first, second = inventory(tmp_path / "first", {}), inventory(tmp_path / "second", {})
    run(first)
    assert (secrets / "inventory").read_text() == f"{first}\n"
    assert (secrets / "inventory").stat().st_mode & 0o777 == 0o600
    assert "changed=0" in run(first)
    assert (
        f"cluster_name: quote is taken: {secrets} has the secrets of the inventory {first}; choose another "
        f"name, or delete {secrets}/inventory if this inventory takes its place"
    ) in run(second, 1)
    run(first / "hosts.yml")
    run(first)
    first.rename(tmp_path / "moved")
    run(tmp_path / "moved")
    assert (secrets / "inventory").read_text() == f"{tmp_path}/moved\n"


@pytest.mark.parametrize(
    ("recorded", "sources", "refused"),
    [
        ("inventories/production", ["inventories/production"], False),
        ("inventories/production", ["inventories/production/hosts.yml"], False),
        ("inventories/production", ["inventories/production", "more"], False),
        ("inventories/production", ["inventories/lab"], True),
        ("inventories/production", ["localhost,"], True),
        ("inventories/gone", ["inventories/lab"], False),
    ],
)
def test_an_inventory_in_the_checkout_is_known_wherever_that_lies(
    recorded: str, sources: list[str], refused: bool, tmp_path: Path
) -> None:
    (tmp_path / "inventory").write_text(f"{recorded}\n")
    found = given(inventory(tmp_path / "any", {"vars": {"cluster_secrets_dir": str(tmp_path)}}))
    asked = {"ansible_inventory_sources": [one if "," in one else str(ROOT / one) for one in sources]}
    said = validation.judge(replace(found, raw={host: raw | asked for host, raw in found.raw.items()}))
    assert [line.partition(" is taken")[0] for line in said] == ["cluster_name: quote"] * refused


def test_every_default_is_what_its_spec_says() -> None:
    known = specs.load(ROOT / "roles")
    options = {name: option for role in known.values() for name, option in role.items()}
    for name, value in specs.defaults(ROOT / "roles").items():
        if "{{" not in json.dumps(value):
            assert specs.judge(name, options[name], value) == []


# --- nodes ----------------------------------------------------------------------------------------------


BOUNDS: dict[str, Any] = {
    "supported": {"Ubuntu": ["22.04", "24.04"], "Debian": ["12"]},
    "architectures": ["x86_64"],
    "min_cpus": 2,
    "min_memory_mb": 1700,
    "min_disk_gb": 10,
    "max_clock_skew": 10,
}
FACTS: dict[str, Any] = {
    "ansible_distribution": "Ubuntu",
    "ansible_distribution_version": "22.04",
    "ansible_architecture": "x86_64",
    "ansible_processor_vcpus": 4,
    "ansible_memtotal_mb": 8000,
}
CLOCKS = {"asked": 999.0, "time": 1000.0, "answered": 1001.0}
PROBE: dict[str, Any] = {
    **CLOCKS,
    "disk_gb": 50,
    "folder": "/var",
    "ports": {"8200": "vault"},
    "taken": {},
    "away": {},
    "machine_id": "a",
}


@pytest.mark.parametrize(
    ("facts", "probe", "wrong"),
    [
        ({}, {}, []),
        ({"ansible_distribution": "Debian", "ansible_distribution_version": "12.14"}, {}, []),
        (
            {"ansible_distribution_version": "20.04"},
            {},
            ["w: Ubuntu 20.04 is not supported; allowed are Ubuntu 22.04, Ubuntu 24.04, Debian 12"],
        ),
        ({"ansible_architecture": "riscv64"}, {}, ["w: riscv64; allowed are x86_64"]),
        ({"ansible_processor_vcpus": 1}, {}, ["w: 1 CPUs; at least 2 are needed"]),
        ({"ansible_memtotal_mb": 900}, {}, ["w: 900 MB of memory; at least 1700 are needed"]),
        (
            {},
            {"taken": {"8200": "nginx"}},
            ["w: nginx listens on port 8200, which vault needs; stop it, or choose another"],
        ),
        ({}, {"disk_gb": 3}, ["w: 3 GB of free disk below /var; at least 10 are needed"]),
        ({}, {"time": 900.0}, ["w: its clock is 99 s off, allowed are 10: start its time service"]),
        ({}, {"time": 1100.0}, ["w: its clock is 99 s off, allowed are 10: start its time service"]),
        ({}, {"asked": 970.0, "answered": 1030.0}, []),
        (
            {},
            {"away": {"http://m/a": "timed out"}},
            ["w: http://m/a cannot be reached from it: timed out; check the network, its proxy, or the URL"],
        ),
    ],
)
def test_a_node_is_judged(facts: dict[str, Any], probe: dict[str, Any], wrong: list[str]) -> None:
    assert nodes.judge("w", {"ansible_facts": FACTS | facts}, PROBE | probe, BOUNDS) == wrong


def test_a_node_that_does_not_answer_is_named() -> None:
    judge_node = nodes.judge
    (down,) = judge_node("w", {"unreachable": True, "msg": "Connection timed out"}, {}, BOUNDS)
    assert down == "w: cannot be reached over SSH: Connection timed out; try `ssh w`, then run again"
    (bare,) = judge_node("w", {"failed": True, "module_stderr": "/bin/sh: 1: python3: not found"}, {}, BOUNDS)
    assert bare == "w: cannot be asked: /bin/sh: 1: python3: not found; install python3 on it, then run again"


def test_networks_of_a_cluster_that_stands_cannot_change(tmp_path: Path) -> None:
    assert probe_node.lasting(tmp_path) == {}
    for file, text in (
        (
            "etc/kubernetes/manifests/kube-controller-manager.yaml",
            "    - --cluster-cidr=10.244.0.0/16\n    - --service-cluster-ip-range=10.96.0.0/16\n",
        ),
        ("var/lib/kubelet/config.yaml", "cgroupDriver: systemd\nclusterDomain: cluster.local\n"),
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    stands = {
        "cluster_pod_cidr": "10.244.0.0/16",
        "cluster_service_cidr": "10.96.0.0/16",
        "cluster_dns_domain": "cluster.local",
    }
    assert probe_node.lasting(tmp_path) == stands
    asked = stands | {"validate_facts": {"ansible_facts": FACTS}, "validate_answered": 1001.0}
    asked["validate_probe"] = PROBE | {"lasting": stands}
    assert nodes.judge_all(["w"], {"w": asked}, BOUNDS) == []
    assert nodes.judge_all(["w"], {"w": asked | {"cluster_pod_cidr": "10.200.0.0/16"}}, BOUNDS) == [
        "w: its cluster was built with cluster_pod_cidr 10.244.0.0/16, not 10.200.0.0/16, and it cannot be "
        "changed afterwards; set it to 10.244.0.0/16, or build another cluster"
    ]


def test_copies_of_one_machine_are_named() -> None:
    assert nodes.twins({"a": {"machine_id": "1"}, "b": {"machine_id": "2"}}) == []
    assert nodes.twins({"a": {"machine_id": "1"}, "b": {"machine_id": "1"}}) == [
        "b: has the machine-id of a; on it, run `rm -f /etc/machine-id /var/lib/dbus/machine-id && "
        "systemd-machine-id-setup`, and restart it"
    ]


# --- what the components request ------------------------------------------------------------------------


def of_a_task(folder: Path, host: str = "master-1") -> tuple[dict[str, Any], Templar]:
    """Return the variables of a task of the role validate on a host, and what resolves templates."""
    known = given(folder)
    known.hostvars._variable_manager.set_host_facts(host, {"ansible_distribution": "Ubuntu"})
    variables = {
        "role_path": str(ROOT / "roles/validate"),
        "inventory_hostname": host,
        "group_names": sorted(group for group, hosts in known.groups.items() if host in hosts),
        "hostvars": known.hostvars,
        "groups": known.groups,
    }
    return variables, Templar(loader=DataLoader())


def capacity_of(folder: Path, machines: dict[str, tuple[int, int]]) -> list[str]:
    """Judge an inventory with machines of so many CPUs and MB of memory."""
    variables, templar = of_a_task(folder)
    facts = {
        group: {
            host: FACTS
            | {"ansible_processor_vcpus": machines[host][0], "ansible_memtotal_mb": machines[host][1]}
            for host in variables["groups"][group]
        }
        for group in ("control_plane", "workers")
    }
    return task.capacity_faults(facts, variables, templar)


def sizes(master: tuple[int, int], worker: tuple[int, int]) -> dict[str, tuple[int, int]]:
    return {"master-1": master} | dict.fromkeys(("worker-1", "worker-2", "worker-3"), worker)


EVERYTHING: dict[str, Any] = {
    "certificate_issuer": "letsencrypt-prod",
    "logging_collector": "fluentd",
    "monitoring_prometheus_replicas": 2,
    "monitoring_alertmanager_replicas": 3,
    "secrets_backend": "vault",
    "secrets_delivery_method": "csi",
    "control_plane_kubelet_extra": {
        "systemReserved": {"cpu": "200m", "memory": "512Mi"},
        "kubeReserved": {"cpu": "200m", "memory": "512Mi"},
        "evictionHard": {"memory.available": "300Mi"},
    },
}


def test_the_sizes_of_the_reference_hold_everything(tmp_path: Path) -> None:
    # As Linux counts machines of 4 and 8 GB.
    machines = sizes((2, 3800), (4, 7700))
    assert capacity_of(ROOT / "inventories/production", machines) == []
    assert capacity_of(inventory(tmp_path / "everything", {"vars": EVERYTHING}), machines) == []


def test_the_lab_holds_everything(tmp_path: Path) -> None:
    # Each node reports what the host has.
    assert capacity_of(inventory(tmp_path / "lab", {}), sizes((2, 12000), (2, 12000))) == []


def test_more_than_the_nodes_have_is_refused_by_its_sum(tmp_path: Path) -> None:
    folder = inventory(tmp_path / "small", {"vars": {"logging_elasticsearch_nodes": 3}})
    assert capacity_of(folder, sizes((2, 3800), (4, 5000))) == [
        "workers: the chosen components request 15956 MiB of memory, and there are 13380 MiB left for them "
        "on worker-1, worker-2, worker-3; most request Elasticsearch 12288 MiB, Kibana 1024 MiB, PostgreSQL "
        "960 MiB. Take larger machines or more of them, or request less (logging_store: external; "
        "postgres_resources)"
    ]
    folder = inventory(tmp_path / "slow", {"vars": {"quote_app_cpu_request": "1700m"}})
    assert capacity_of(folder, sizes((2, 3800), (2, 16000))) == [
        "workers: the chosen components request 6825m of cpu, and there are 5325m left for them on worker-1, "
        "worker-2, worker-3; most request quote-app 5100m, PostgreSQL 1050m, Elasticsearch 200m. Take larger "
        "machines or more of them, or request less (fewer quote_app_replicas; postgres_resources; "
        "logging_store: external)"
    ]


def test_a_pod_that_no_node_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    folder = inventory(tmp_path / "small", {})
    assert capacity_of(folder, sizes((2, 3800), (4, 3900))) == [
        "Elasticsearch: a pod requests 200m / 4096 MiB, and none of workers has as much left for it "
        "(worker-1 3775m / 3360 MiB, worker-2 3775m / 3360 MiB, worker-3 3775m / 3360 MiB); take a larger "
        "machine, or logging_store: external"
    ]
    # One that can is enough.
    assert capacity_of(folder, sizes((2, 3800), (4, 3900)) | {"worker-2": (4, 8000)}) == []
    # Where it is not kept here, small workers will do.
    external = {"logging_store": "external", "logging_url": "https://logs.example.com"}
    assert (
        capacity_of(inventory(tmp_path / "external", {"vars": external}), sizes((2, 3800), (4, 3900))) == []
    )


def test_one_smaller_node_is_named_where_it_matters(tmp_path: Path) -> None:
    # 40 % less than the others: all of it fits.
    machines = sizes((2, 3800), (4, 7700)) | {"worker-3": (4, 4620)}
    folder = inventory(tmp_path / "usual", {})
    assert capacity_of(folder, machines) == []
    # What runs on each node: that node alone is too small.
    assert capacity_of(folder, machines | {"worker-3": (4, 400)}) == [
        "worker-3: what runs on each of workers requests 225m / 440 MiB, and it has 4000m / 300 MiB; take a "
        "larger machine"
    ]
    large = {"requests": {"cpu": "300m", "memory": "5Gi"}}
    text = (
        "PostgreSQL: 3 pods, each on a node of its own, request 550m / 5184 MiB each, and 2 of workers have "
        "as much left for it, the others not (worker-3 3775m / 4080 MiB); take a larger machine, or "
        "postgres_resources"
    )
    folder = inventory(tmp_path / "apart", {"vars": {"postgres_resources": large}})
    assert [one for one in capacity_of(folder, machines) if "PostgreSQL:" in one] == [text]
    # Where two may share a node, the others hold all of them.
    shared = {"postgres_resources": large, "postgres_spread": "preferred"}
    folder = inventory(tmp_path / "shared", {"vars": shared})
    assert not [one for one in capacity_of(folder, machines) if "PostgreSQL:" in one]


def test_pods_of_every_node_need_room_on_each(tmp_path: Path) -> None:
    assert capacity_of(inventory(tmp_path / "tiny", {}), sizes((1, 400), (4, 8000))) == [
        "master-1: what runs on each of control_plane requests 770m / 388 MiB, and it has 1000m / 300 MiB; "
        "take a larger machine"
    ]


def test_control_planes_that_run_pods_count(tmp_path: Path) -> None:
    folder = inventory(tmp_path / "shared", {"vars": {"control_plane_schedulable": True}})
    assert capacity_of(folder, sizes((8, 16000), (2, 3000))) == []
    assert capacity_of(inventory(tmp_path / "apart", {}), sizes((8, 16000), (2, 3000))) != []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5),
        (2, 2),
        (0.5, 0.5),
        ("1.5Gi", 1.5 * 1024**3),
        ("128Mi", 128 * 1024**2),
        ("1G", 1e9),
        ("7", 7),
    ],
)
def test_a_quantity_is_read(text: Any, number: float) -> None:
    assert quantities.quantity(text) == number


def test_what_is_no_quantity_is_named(tmp_path: Path) -> None:
    folder = inventory(tmp_path / "wrong", {"vars": {"logging_elasticsearch_memory": "4 GB"}})
    assert capacity_of(folder, sizes((2, 3800), (4, 8000))) == [
        "Elasticsearch: requests '4 GB' is not a quantity of Kubernetes; allowed is for example 500m or 4Gi"
    ]


def test_what_the_kubelet_keeps_is_no_pods() -> None:
    kubelet = EVERYTHING["control_plane_kubelet_extra"]
    assert str(capacity.allocatable(FACTS, {})) == "4000m / 7900 MiB"
    assert str(capacity.allocatable(FACTS, kubelet)) == "3600m / 6676 MiB"
    assert (
        str(capacity.allocatable(FACTS, {"evictionHard": {"memory.available": "5%"}})) == "4000m / 7600 MiB"
    )


# --- from where things come -----------------------------------------------------------------------------


UPSTREAM = [
    "https://pkgs.k8s.io/core:/stable:/v1.36/deb/Release.key",
    "https://download.docker.com/linux/ubuntu/gpg",
    "https://registry.k8s.io/v2/",
    "https://registry-1.docker.io/v2/",
    "https://ghcr.io/v2/",
    "https://quay.io/v2/",
    "https://docker.elastic.co/v2/",
]


def test_a_node_is_asked_for_what_it_will_fetch_from(tmp_path: Path) -> None:
    def urls(name: str, **settings: Any) -> list[str]:
        folder = inventory(tmp_path / name, {"vars": settings})
        return list(task.machine_arguments(*of_a_task(folder, "worker-1"))["urls"])

    assert urls("upstream") == UPSTREAM
    # Only what is chosen.
    few = {"monitoring_enabled": False, "logging_enabled": False, "ingress_controller": "traefik"}
    assert urls("few", **few) == UPSTREAM[:5]
    mirror = {
        "kubernetes_packages_repository": "http://m/apt/kubernetes/",
        "container_runtime_repository": "http://m/apt/docker",
        "image_registry_base_url": "http://m:5000",
    }
    ours = ["http://m/apt/kubernetes/Release.key", "http://m/apt/docker/gpg", "http://m:5000/v2/"]
    assert urls("mirror", **mirror) == ours
    # A registry that containerd is not told to mirror.
    own = {"quote_app_image": "registry.example.com:8443/quote-app:1"}
    assert urls("own", **mirror, **own) == [*ours, "https://registry.example.com:8443/v2/"]


def test_the_controller_is_asked_for_manifests_that_it_does_not_have(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    wanted = [
        {"url": "https://a.example.com/one.yaml", "sha256": hashlib.sha256(b"one").hexdigest()},
        {"url": "https://a.example.com/two.yaml", "sha256": hashlib.sha256(b"two").hexdigest()},
        {"url": "https://b.example.com/three.yaml"},
    ]
    cache.mkdir()
    assert sources.manifests(wanted, "", cache) == [
        "https://a.example.com/one.yaml",
        "https://b.example.com/three.yaml",
    ]
    assert sources.manifests(wanted, "http://m/manifests/", cache) == ["http://m/manifests/one.yaml"]
    for text in ("one", "two"):
        (cache / hashlib.sha256(text.encode()).hexdigest()).write_text(text)
    assert sources.manifests(wanted[:2], "", cache) == []
    folder = inventory(tmp_path / "upstream", {"vars": {"component_cache": str(tmp_path / "none")}})
    assert [urlsplit(url).netloc for url in task.controller_urls(*of_a_task(folder))] == [
        "raw.githubusercontent.com",
        "download.elastic.co",
    ]


def test_every_image_and_manifest_has_its_place() -> None:
    """What is installed and named nowhere in the table would not be probed."""
    versions = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text())
    table = (ROOT / "roles/validate/vars/workloads.yml").read_text()
    # For tests and the lab, or by a playbook of its own.
    others = {"log_store_image", "acme_image", "verify_image"}
    pinned = {name for name in versions if name.endswith(("_image", "_manifests"))} - others
    assert {name for name in pinned if f"{{{{ {name} }}}}" not in table} == set()


class Answering(BaseHTTPRequestHandler):
    """Answers with the status that the path names, or with 200, and keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if name == "slow":
            time.sleep(3)
        self.send_response(int(name) if name.isdecimal() else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as one:
        Thread(target=one.serve_forever, daemon=True).start()
        Answering.asked.clear()
        yield f"http://127.0.0.1:{one.server_address[1]}"
        one.shutdown()


def unreached(urls: list[str], timeout: int, **given: Any) -> dict[str, str]:
    spec = {name: option.get("default") for name, option in probe_node.SPEC.items()}
    return probe_node.unreached(spec | {"urls": urls, "timeout": timeout} | given)


def test_any_answer_counts_but_a_gateways(server: str) -> None:
    fine = [f"{server}/v2/{status}" for status in (200, 302, 401, 403, 404, 500)]
    assert unreached(fine, 5) == {}
    assert unreached([f"{server}/503", "http://127.0.0.1:1/"], 5) == {
        f"{server}/503": "HTTP 503",
        "http://127.0.0.1:1/": "[Errno 111] Connection refused",
    }


def test_addresses_are_asked_side_by_side(server: str) -> None:
    begun = time.monotonic()
    away = unreached([f"{server}/{number}/slow" for number in range(20)], 1)
    assert set(away.values()) <= {"timed out", "no answer in 1 s"}
    assert len(away) == 20
    assert time.monotonic() - begun < 10  # twenty in turn take twice that


def test_a_proxy_of_the_environment_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.delenv("no_proxy", raising=False)
    assert unreached(["http://packages.invalid/403", "http://packages.invalid/502"], 5) == {
        "http://packages.invalid/502": "HTTP 502"
    }
    assert sorted(Answering.asked) == ["http://packages.invalid/403", "http://packages.invalid/502"]


def test_the_proxy_that_is_named_is_used_but_for_what_is_reached_without(server: str) -> None:
    proxies, past = {"http": server}, ["10.0.0.0/8", ".corp.example", "db"]
    asked = ["http://packages.invalid/403", "http://packages.invalid/407"]
    assert unreached(asked, 5, proxies=proxies) == {asked[1]: "the proxy refuses the user and password"}
    assert Answering.asked == asked or Answering.asked == asked[::-1]
    assert set(unreached(["http://127.0.0.1:1/"], 5, proxies=proxies, no_proxy=["127.0.0.0/8"])) == {
        "http://127.0.0.1:1/"
    }
    for host, direct in (("10.1.2.3", True), ("11.1.2.3", False), ("a.corp.example", True), ("db", True)):
        assert probe_node.direct(host, past) is direct
    assert not probe_node.direct("corp.example", past)


class Registry(BaseHTTPRequestHandler):
    """Lets one account in."""

    def do_GET(self) -> None:
        right = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:right").decode()
        self.send_response(200 if right else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_an_account_that_a_registry_refuses_is_named() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as one:
        Thread(target=one.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{one.server_address[1]}/v2/"
        assert unreached([url], 5, accounts={url: "me:right"}) == {}
        assert unreached([url], 5) == {}  # without one it asks who is there, and so it is there
        assert unreached([url], 5, accounts={url: "me:wrong"}) == {
            url: "the registry refuses the user and password of image_registry_credentials"
        }
        one.shutdown()


def test_a_registry_that_hands_out_tokens_is_asked_for_one() -> None:
    class Opener:
        def open(self, request: urllib.request.Request, timeout: int) -> None:
            assert request.full_url == "https://auth.example.com/token?service=registry.example.com"
            if request.get_header("Authorization") != "Basic right":
                raise urllib.error.HTTPError(request.full_url, 401, "no", Message(), None)

    asked = 'Bearer realm="https://auth.example.com/token",service="registry.example.com"'
    assert probe_node.denied(Opener(), asked, {"Authorization": "Basic right"}, 5) == ""
    assert "refuses" in probe_node.denied(Opener(), asked, {"Authorization": "Basic wrong"}, 5)
    assert probe_node.denied(Opener(), 'Bearer realm="file:///etc/passwd"', {}, 5) == ""


def test_ports_of_nodes_answer_on_both_networks_where_there_are_two(tmp_path: Path) -> None:
    def known(name: str, hosts: dict[str, Any]) -> task.Chosen:
        groups = {group: {"hosts": machines} for group, machines in hosts.items()}
        tree = {"all": {"children": {"platform": {"children": {"kube_nodes": {"children": groups}}}}}}
        return task.Chosen(*of_a_task(inventory(tmp_path / name, {"inventory": tree}), "m"))

    one = {
        "control_plane": {"m": {"ansible_host": "10.77.0.11", "control_plane_node_ip": "10.77.0.11"}},
        "workers": {"w": {"ansible_host": "w.example.com"}},
    }
    assert known("one", one)["cluster_node_port_addresses"] == []
    two = {
        "control_plane": {"m": {"ansible_host": "10.77.0.11", "control_plane_node_ip": "10.78.0.11"}},
        "workers": {"w": {"ansible_host": "w.example.com", "worker_node_ip": "10.78.0.21,fd00::21"}},
    }
    addresses = ["10.78.0.11/32", "10.77.0.11/32", "10.78.0.21/32", "fd00::21/128"]
    found = known("two", two)
    assert found["cluster_node_port_addresses"] == addresses
    assert {"10.78.0.11", "10.78.0.21"} < set(found["postgres_vault_addresses"])


def test_accounts_go_to_the_addresses_of_their_registries(tmp_path: Path) -> None:
    case = {
        "vars": {
            "cluster_http_proxy": "http://me:a%40b@proxy.example.com:3128",
            "image_registry_credentials": {"docker.io": {"username": "me", "password": "secret"}},
        }
    }
    given = task.machine_arguments(*of_a_task(inventory(tmp_path / "accounts", case)))
    assert given["accounts"] == {"https://registry-1.docker.io/v2/": "me:secret"}
    assert set(given["accounts"]) < set(given["urls"])
    assert given["proxies"] == dict.fromkeys(("http", "https"), "http://me:a%40b@proxy.example.com:3128")
    assert {"worker-1", "10.244.0.0/16", ".svc"} < set(given["no_proxy"])


# --- machines outside of the cluster --------------------------------------------------------------------


def test_a_machine_of_its_own_has_bounds_of_its_own() -> None:
    said = {
        "validate_facts": {"ansible_facts": FACTS | {"ansible_memtotal_mb": 1000}},
        "validate_answered": 1001.0,
    }
    hostvars = {
        host: said
        | {"validate_probe": PROBE | {"machine_id": host, "folder": "/opt/vault/data", "disk_gb": 7}}
        for host in ("v", "w")
    } | {"x": {"validate_facts": {"unreachable": True, "msg": "No route to host"}}}
    bounds = BOUNDS | {"own": {"v": {"min_memory_mb": 900, "min_disk_gb": 5}, "x": {}}}
    assert nodes.judge_all(["w", "v", "x"], hostvars, bounds) == [
        "w: 1000 MB of memory; at least 1700 are needed",
        "w: 7 GB of free disk below /opt/vault/data; at least 10 are needed",
        "x: cannot be reached over SSH: No route to host; try `ssh x`, then run again",
    ]


def test_a_machine_of_its_own_is_asked_for_its_own(tmp_path: Path) -> None:
    machines = {"vault": {"hosts": {"v": {"ansible_host": "10.77.0.31"}}}}
    machines |= {"object_store": {"hosts": {"s": {"ansible_host": "10.77.0.30"}}}}
    kube = {
        group: {"hosts": {name: {"ansible_host": at} for name, at in of.items()}}
        for group, of in HOSTS.items()
    }
    tree = {"platform": {"children": machines | {"kube_nodes": {"children": kube}}}}
    settings = {"versitygw_repository": "http://m/s3/", "vault_server_port": 8300}
    settings |= {"node_exporter_repository": "http://m/exporter/"}
    case = {"inventory": {"all": {"children": tree}}, "vars": settings}
    folder = inventory(tmp_path / "outside", case)
    asked = {name: task.machine_arguments(*of_a_task(folder, name)) for name in "vs"}
    for given in asked.values():  # the way out is that of all machines
        assert given.pop("authorities") == ""
        assert [given.pop(name) for name in ("proxies", "accounts")] == [{}, {}]
        assert given.pop("no_proxy")
    assert asked["v"] == {
        "urls": ["http://m/exporter/key.asc", "https://apt.releases.hashicorp.com/gpg"],
        "folder": "/opt/vault/data",
        "ports": {"8300": "vault", "8201": "vault"},
    }
    assert asked["s"] == {
        "urls": ["http://m/exporter/key.asc", "http://m/s3/key.asc"],
        "folder": "/var/lib/versitygw",
        "ports": {"7070": "versitygw"},
    }


def of_a_master(own: str, **probe: Any) -> dict[str, Any]:
    """Return what a control plane says that has an address on eth0 and, of an earlier run, another."""
    eth0: dict[str, Any] = {"device": "eth0", "ipv4": {"address": own, "netmask": "255.255.255.0"}}
    eth0["ipv4_secondaries"] = [{"address": "10.0.0.10", "netmask": "255.255.255.255"}] * probe.pop(
        "holds", 0
    )
    facts = FACTS | {"ansible_default_ipv4": {"address": own}, "ansible_eth0": eth0}
    probe = PROBE | {"virtual_address": "10.0.0.10", "machine_id": own} | probe
    said = {"validate_facts": {"ansible_facts": facts}, "validate_probe": probe}
    return said | {"group_names": ["control_plane"], "validate_answered": 1001.0}


def without_a_default_route(**given: str) -> dict[str, Any]:
    said = of_a_master("10.0.0.1")
    said["validate_facts"]["ansible_facts"]["ansible_default_ipv4"] = {}
    return said | given


@pytest.mark.parametrize(
    ("node", "wrong"),
    [
        (of_a_master("10.0.0.1"), ""),
        (without_a_default_route(control_plane_node_ip="10.0.0.1"), ""),
        (without_a_default_route(), "has no default route, by which its address in the cluster is found"),
        (
            without_a_default_route(worker_node_ip="10.0.0.1"),
            "has no default route, by which its address in the cluster is found",
        ),
        (
            of_a_master("10.0.0.1") | {"control_plane_node_ip": "10.0.0.9"},
            "none of its interfaces has 10.0.0.9",
        ),
    ],
)
def test_a_node_has_the_address_by_which_it_is_known(node: dict[str, Any], wrong: str) -> None:
    remedy = "set control_plane_node_ip to an address that it has, in the network of the nodes"
    assert nodes.judge_all(["a"], {"a": node}, BOUNDS) == ([f"a: {wrong}; {remedy}"] if wrong else [])
    assert nodes.judge_all(["a"], {"a": node}, BOUNDS | {"own": {"a": {}}}) == []


@pytest.mark.parametrize(
    ("masters", "wrong"),
    [
        ({"a": of_a_master("10.0.0.1"), "b": of_a_master("10.0.0.2")}, []),
        (
            {"a": of_a_master("10.0.0.1"), "b": of_a_master("10.0.0.2", answered_by="02:00:00:00:00:01")},
            [
                "api_endpoint_address: 10.0.0.10 is taken: 02:00:00:00:00:01 answers for it, as b sees; "
                "allowed is a free address"
            ],
        ),
        # One of the cluster answers, whether it was finished or not.
        ({"a": of_a_master("10.0.0.1", holds=1), "b": of_a_master("10.0.0.2", answered_by="02::1")}, []),
        ({"a": of_a_master("10.0.0.1", lasting={"x": "y"}, answered_by="02::1")}, []),
        (
            {"a": of_a_master("10.0.1.1")},
            [
                "a: api_endpoint_address 10.0.0.10 lies outside of its network 10.0.1.0/24; allowed is a "
                "free address of a network that all control planes share"
            ],
        ),
        (
            {"a": of_a_master("10.0.0.1", virtual_address="10.0.0.255")},
            [
                "a: api_endpoint_address 10.0.0.255 lies outside of its network 10.0.0.0/24; allowed is a "
                "free address of a network that all control planes share"
            ],
        ),
        (
            {"a": of_a_master("10.0.0.10")},
            ["a: api_endpoint_address 10.0.0.10 is its own; allowed is a free address"],
        ),
        ({"a": of_a_master("10.0.1.1", virtual_address="")}, []),
        ({"a": {"validate_facts": {"unreachable": True}}, "b": {}}, []),
    ],
)
def test_a_virtual_address_is_free_and_of_the_nodes_network(
    masters: dict[str, Any], wrong: list[str]
) -> None:
    assert nodes.virtual_address(list(masters), masters) == wrong


def test_a_control_plane_is_asked_for_the_virtual_address(tmp_path: Path) -> None:
    folder = inventory(
        tmp_path / "virtual", {"vars": {"api_endpoint": "virtual-ip", "cluster_endpoint": "10.77.0.10:8443"}}
    )
    assert validation.judge(given(folder)) == []
    asked = task.machine_arguments(*of_a_task(folder, "master-1"))
    assert (asked["virtual_address"], asked["ports"]) == ("10.77.0.10", {"8443": "haproxy"})
    assert "virtual_address" not in task.machine_arguments(*of_a_task(folder, "worker-1"))
    external = task.machine_arguments(*of_a_task(inventory(tmp_path / "external", {}), "master-1"))
    assert not external.get("ports")
    assert "virtual_address" not in external


def test_nobody_answers_for_an_address_that_is_free() -> None:
    assert probe_node.answered_by("") == ""
    assert probe_node.answered_by("127.0.0.1", 1) == ""


def test_a_port_is_free_or_ours(server: str) -> None:
    port = server.rpartition(":")[2]
    own = Path("/proc/self/comm").read_text().strip()
    assert probe_node.taken({port: own, "1": "vault"}) == {}
    assert probe_node.taken({port: "vault"}) == {port: own}


def test_disk_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    assert probe_node.existing(tmp_path / "data/vault") == tmp_path


def test_a_machine_that_could_not_be_asked_has_said_nothing() -> None:
    """Where its Python is thought to be is a fact of Ansible's own, and its task counts as no failure."""
    nothing = {"failed": False, "ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3"}}
    assert task.facts_of({"validate_facts": nothing}) == task.facts_of({}) == {}
    assert task.facts_of({"validate_facts": {"ansible_facts": {"ansible_processor_vcpus": 2}}}) != {}
