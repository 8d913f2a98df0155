"""The list of components: complete, and what it comes to for the choices of a user."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from quote_platform import components
from quote_platform.mirror import catalogue
from quote_platform.mirror.catalogue import Part
from quote_platform.validation import plain, specs

ROOT = Path(__file__).resolve().parents[2]
LIST: dict[str, Any] = yaml.safe_load((ROOT / components.FILE).read_text())
COMPONENTS: list[dict[str, Any]] = LIST["platform_components"]
VARIANTS: list[dict[str, Any]] = LIST["platform_variants"]
NAMES = [one["name"] for one in COMPONENTS]
STEPS = ("early", "start", "wait", "late")

components_of_the_list = pytest.mark.parametrize("one", COMPONENTS, ids=lambda one: str(one["name"]))


def evaluate(**choices: Any) -> dict[str, Any]:
    """Return what the list comes to with the defaults, unless others are chosen."""
    context = specs.defaults(ROOT / "roles") | DataLoader().load_from_file(
        str(ROOT / "group_vars/all/main.yml"), trusted_as_template=True
    )
    context |= {"groups": {}, "hostvars": {}, **choices} | components.load(ROOT)
    templar = Templar(loader=DataLoader(), variables=context)
    return {name: plain(templar.template(context[name])) for name in LIST}


def steps(found: dict[str, Any]) -> list[str]:
    """Return the steps that playbooks/platform.yml takes, in their order."""
    wanted = [one for one in found["platform_components"] if one["name"] in found["platform_installed"]]
    files = [(one["role"], file) for step in STEPS for one in wanted for file in one["steps"].get(step, [])]
    return [f"{role} {file}" for role, file in files]


# --- complete ---------------------------------------------------------------------------------------------


@components_of_the_list
def test_a_component_has_a_role_and_its_steps_are_files_of_it(one: dict[str, Any]) -> None:
    assert set(one) <= {"name", "role", "chosen", "steps", "by", "prune", "stays", "refused"}
    assert set(one["steps"]) <= set(STEPS)
    everything = evaluate(secrets_backend="vault")["platform_components"][NAMES.index(one["name"])]
    for files in everything["steps"].values():
        for file in files:
            assert (ROOT / "roles" / one["role"] / "tasks" / f"{file}.yml").is_file(), file
    if "by" in one:
        text = (ROOT / one["by"]).read_text()
        assert f"name: {one['role']}" in text, f"{one['by']} does not install it"
    else:
        assert "verify" in [*one["steps"].get("wait", []), *one["steps"].get("late", [])]


@components_of_the_list
def test_a_component_that_is_not_chosen_is_deleted_or_it_says_why_not(one: dict[str, Any]) -> None:
    if one["chosen"] is True or ("by" in one and "prune" not in one):
        return  # always there, or on a machine of its own
    assert ("prune" in one) != ("stays" in one)


def test_what_is_deleted_is_what_roles_apply() -> None:
    applied: dict[str, set[str]] = {}
    for file in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        found = re.findall(r"component_name: ([a-z-]+)$", file.read_text(), re.MULTILINE)
        applied.setdefault(file.parts[-3], set()).update(found)
    for one in evaluate()["platform_components"]:
        if one.get("prune"):
            of_its_role = set().union(
                *(
                    item.get("prune", [])
                    for item in evaluate()["platform_components"]
                    if item["role"] == one["role"]
                )
            )
            assert of_its_role == applied[one["role"]]


def test_every_component_has_its_row_in_the_docs() -> None:
    rows = re.findall(r"^\| (`.*)$", (ROOT / "docs/components.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert set(NAMES) | {one["name"] for one in VARIANTS} <= named


def test_every_component_with_pods_is_summed_up() -> None:
    table = (ROOT / "roles/validate/vars/workloads.yml").read_text()
    asked = set(re.findall(r"'([a-z-]+)' (?:not )?in __validate_installed", table))
    assert asked <= {*NAMES, *(one["name"] for one in VARIANTS)}
    # Snapshots run for seconds, policies have no pods; the others run outside of the cluster.
    images = table[table.index("__validate_parts:") :]
    assert "'snapshots' in __validate_installed" in images
    assert set(NAMES) - asked == {"admission", "vault-server", "vault-snapshots", "object-store"}
    assert not re.search(r"components_unavailable|chosen: .*(_enabled|_controller|_issuer|_backend)", table)


def test_variants_belong_to_components() -> None:
    assert {one["of"] for one in VARIANTS} <= set(NAMES)
    assert len({*NAMES, *(one["name"] for one in VARIANTS)}) == len(COMPONENTS) + len(VARIANTS)


def test_what_the_mirror_may_lack_is_in_the_list() -> None:
    assert set(catalogue.load().unbuildable) <= {*NAMES, *(one["name"] for one in VARIANTS)}


def test_parts_are_those_of_the_mirror() -> None:
    # The core is always there, and the conformance tests are no part of the platform.
    assert set(LIST["platform_parts"]) == set(Part) - {Part.CORE, Part.CONFORMANCE}
    known = specs.load(ROOT / "roles")["validate"]
    assert {part["switch"] for part in LIST["platform_parts"].values()} <= known.keys()


def test_choices_that_are_refused_are_choices() -> None:
    known = {name for options in specs.load(ROOT / "roles").values() for name in options}
    for one in [*COMPONENTS, *VARIANTS]:
        if "refused" in one:
            assert one["refused"]["choice"] in known
            assert one["refused"]["choice"] in one["chosen"], "its own condition does not ask for it"


# --- what it comes to -------------------------------------------------------------------------------------

CORE = {
    "admission_enabled": False,
    "backups_enabled": False,
    "monitoring_enabled": False,
    "logging_enabled": False,
}


def test_the_core_alone() -> None:
    found = evaluate(**CORE, ingress_controller="traefik")
    assert steps(found) == [
        *("storage main", "postgres operator"),
        *("traefik main", "postgres cluster", "metrics_server main"),
        *("storage verify", "traefik verify", "postgres verify", "metrics_server verify"),
    ]
    assert found["platform_variants_installed"] == []
    assert found["platform_pruned"] == [
        *("vault-snapshot", "etcd-snapshot", "grafana", "monitoring", "prometheus-operator", "logging"),
        *("velero", "ingress-nginx", "admission"),
    ]


def test_everything() -> None:
    everything = {"certificate_issuer": "letsencrypt-prod", "secrets_backend": "vault", "delivery": "flux"}
    found = evaluate(**everything, groups={"object_store": ["store"], "vault": ["vault"]})
    assert steps(found) == [
        *("admission main", "storage main", "postgres operator", "monitoring operator"),
        *("ingress_nginx main", "postgres cluster", "cert_manager main", "metrics_server main"),
        *(
            "velero main",
            "secrets_delivery main",
            "flux main",
            "logging main",
            "monitoring main",
            "grafana main",
            "snapshots main",
        ),
        *(
            "admission verify",
            "storage verify",
            "ingress_nginx verify",
            "postgres verify",
            "cert_manager verify",
        ),
        *("metrics_server verify", "velero verify", "flux verify", "logging verify", "monitoring verify"),
        *("grafana verify", "snapshots verify", "vault_server verify"),
        *("postgres vault", "secrets_delivery deliver", "secrets_delivery verify"),
    ]
    assert found["platform_pruned"] == ["traefik"]
    assert set(NAMES) - set(found["platform_installed"]) == {"traefik", "external-database"}
    assert found["platform_variants_installed"] == [
        *("postgres-backup", "logging-elasticsearch", "logging-kibana")
    ]


@pytest.mark.parametrize(
    ("choices", "there", "away"),
    [
        (
            {"secrets_backend": "aws-secrets-manager"},
            {"secrets-delivery"},
            {"vault-server", "vault-snapshots"},
        ),
        (
            {"secrets_backend": "vault", "vault_server_snapshots": False},
            {"vault-server", "velero"},
            {"vault-snapshots"},
        ),
        ({"secrets_backend": ""}, set(), {"secrets-delivery", "vault-server", "secrets-delivery-csi"}),
        (
            {"secrets_backend": "vault", "secrets_delivery_method": "csi"},
            {"secrets-delivery", "secrets-delivery-csi", "vault-server"},
            set(),
        ),
        ({"database": "external"}, {"external-database"}, {"postgres", "postgres-backup"}),
        ({"database": "cloudnative-pg"}, {"postgres", "postgres-backup"}, {"external-database"}),
        ({"certificate_issuer": ""}, set(), {"cert-manager"}),
        ({"certificate_issuer": "letsencrypt-staging"}, {"cert-manager"}, set()),
        ({"backups_enabled": False}, set(), {"velero", "snapshots", "vault-snapshots", "object-store"}),
        ({"backups_enabled": True, "groups": {"object_store": []}}, {"velero"}, {"object-store"}),
        ({"logging_enabled": False, "logging_collector": "fluentd"}, set(), {"logging", "logging-fluentd"}),
        ({"logging_store": "external"}, {"logging"}, {"logging-elasticsearch", "logging-kibana"}),
        ({"logging_collector": "fluentd"}, {"logging", "logging-fluentd"}, set()),
        ({"components_unavailable": [{"name": "grafana", "reason": "x"}]}, {"monitoring"}, {"grafana"}),
        (
            {"components_unavailable": [{"name": "logging", "reason": "x"}]},
            set(),
            {"logging", "logging-elasticsearch", "logging-kibana"},
        ),
    ],
)
def test_what_is_installed(choices: dict[str, Any], there: set[str], away: set[str]) -> None:
    found = evaluate(**choices)
    installed = {*found["platform_installed"], *found["platform_variants_installed"]}
    assert there <= installed
    assert not away & installed


def test_the_old_ingress_controller_stays_while_the_new_one_cannot_be_had() -> None:
    lacking = [{"name": "ingress-nginx", "reason": "x"}]
    assert evaluate(components_unavailable=lacking, secrets_backend="vault")["platform_pruned"] == []
    assert (
        "ingress-nginx"
        in evaluate(components_unavailable=lacking, ingress_controller="traefik")["platform_pruned"]
    )


def test_a_database_is_left_and_used_by_its_own_steps_and_nothing_of_it_is_deleted() -> None:
    """What deletes it asks the API server first whether a cluster of it stands."""
    found = evaluate(**CORE, database="external")
    assert [one for one in steps(found) if one.startswith("postgres ")] == [
        *("postgres leave", "postgres external", "postgres verify")
    ]
    for database in ("external", "cloudnative-pg"):
        pruned = evaluate(database=database)["platform_pruned"]
        assert not [name for name in pruned if name.startswith("postgres") or name == "external-database"]


def test_what_cannot_be_had_is_not_deleted() -> None:
    lacking = [{"name": "velero", "reason": "x"}]
    assert "velero" not in evaluate(components_unavailable=lacking)["platform_pruned"]


@pytest.mark.parametrize(
    ("groups", "addresses"),
    [
        ({"control_plane": ["a"], "workers": ["b", "c"]}, ["10.77.0.2", "10.77.0.3"]),
        ({"control_plane": ["a"], "workers": []}, ["10.77.0.1"]),
        ({"control_plane": ["a"]}, ["10.77.0.1"]),
    ],
)
def test_the_ingress_is_asked_where_it_runs(groups: dict[str, list[str]], addresses: list[str]) -> None:
    """A cluster of control planes that take pods has no workers, and may have no group of that name."""
    hostvars = {name: {"ansible_host": f"10.77.0.{number}"} for number, name in enumerate("abc", start=1)}
    assert evaluate(groups=groups, hostvars=hostvars)["platform_ingress_addresses"] == addresses


# --- who has it -------------------------------------------------------------------------------------------


def test_no_inventory_overrides_it(tmp_path: Path) -> None:
    """Played as a user does, with the list's own names in the inventory."""
    folder = tmp_path / "inventory"
    (folder / "group_vars/platform").mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        json.dumps({"all": {"children": {"platform": {"hosts": {"one": {"ansible_host": "10.77.0.11"}}}}}})
    )
    mine = {"platform_installed": ["mine"], "platform_components": [], "ingress_controller": "traefik"}
    (folder / "group_vars/platform/main.yml").write_text(json.dumps(mine))
    play = [
        {
            "name": "Show",
            "hosts": "one",
            "gather_facts": False,
            "connection": "local",
            "vars_files": [str(ROOT / components.FILE)],
            "tasks": [{"name": "Show", "ansible.builtin.debug": {"var": "platform_installed"}}],
        }
    ]
    (tmp_path / "show.yml").write_text(json.dumps(play))
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    done = subprocess.run(
        ["ansible-playbook", "-i", folder, tmp_path / "show.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- traefik" in done.stdout
    assert "mine" not in done.stdout


def test_playbooks_that_ask_have_it() -> None:
    for file in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in yaml.safe_load(file.read_text()):
            asked = r"platform_(installed|components|parts|pruned|missing|machines|ingress_addresses)"
            if re.search(asked, yaml.safe_dump(play)):
                assert "vars/components.yml" in play["vars_files"], file


@pytest.mark.parametrize("file", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda file: str(file.name))
def test_no_playbook_decides_by_itself_what_runs(file: Path) -> None:
    """What a playbook refuses may name a choice; which role it runs is up to the list."""
    switches = {part["switch"] for part in LIST["platform_parts"].values()}
    waiting: list[Any] = [yaml.safe_load(file.read_text())]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and any("_role" in key or key == "block" for key in part):
            assert not [name for name in switches if name in str(part.get("when"))], part["name"]
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []


@pytest.mark.parametrize("playbook", ["vault.yml", "object-store.yml", "machines.yml"])
def test_machines_of_what_is_not_chosen_are_left_alone(playbook: str, tmp_path: Path) -> None:
    """They are in the inventory, and nobody answers there."""
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {
        "control_plane": {"master-1": {"ansible_host": "10.77.0.11"}},
        "vault": {"vault-1": away},
        "object_store": {"store-1": away},
    }
    children = {name: {"hosts": members} for name, members in hosts.items()}
    tree = {"kube_nodes": {"children": {"control_plane": children.pop("control_plane")}}, **children}
    inventory = {"all": {"children": {"platform": {"children": tree}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory))
    choices = {"secrets_backend": "", "backups_enabled": False, "cluster_secrets_dir": str(tmp_path / "mine")}
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path, f"playbooks/{playbook}", "--check", "-e", json.dumps(choices)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"(changed|unreachable|failed)=[1-9]", done.stdout), done.stdout
