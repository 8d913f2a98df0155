"""What a lab is, the inventory it writes, and what it must never delete."""

import json
import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from quote_platform import paths
from quote_platform.lab import acme, host, inventory, lifecycle, logs, podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, a cache and a state of their own, and no podman."""
    (tmp_path / "roles").mkdir()
    (tmp_path / "site.yml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(podman, "run", lambda *_, **__: "[]")
    monkeypatch.setattr(host, "restore", lambda: None)
    return tmp_path


def test_nodes_have_the_names_and_addresses_of_the_contract() -> None:
    lab = Lab(name="ci", subnet="10.89.43.0/24", vaults=1)
    assert {node.name: node.address for node in [lab.mirror, *lab.nodes]} == {
        "ci-mirror": "10.89.43.2",
        "ci-master-1": "10.89.43.11",
        "ci-worker-1": "10.89.43.21",
        "ci-worker-2": "10.89.43.22",
        "ci-worker-3": "10.89.43.23",
        "ci-store-1": "10.89.43.111",
        "ci-vault-1": "10.89.43.121",
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "Lab"}, "name"),
        ({"name": "../production"}, "name"),
        ({"subnet": "10.89.42.0/25"}, "at least 256 addresses"),
        ({"subnet": "8.8.8.0/24"}, "private IPv4 network"),
        ({"subnet": "10.244.7.0/24"}, "overlaps the pods' or services' network 10.244.0.0/16"),
        ({"workers": -1}, "workers"),
        ({"worker_memory": "much"}, "worker_memory"),
    ],
)
def test_wrong_labs_are_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Lab.model_validate({"name": "lab"} | asked)


def test_the_inventory_trusts_only_known_keys(checkout: Path) -> None:
    lab = Lab(name="ci", subnet="10.89.43.0/24", workers=1)
    written = inventory.write(lab, Path("/state/labs/ci"))
    platform = yaml.safe_load((written / "hosts.yml").read_text())["all"]["children"]["platform"]
    assert platform["vars"]["ansible_ssh_common_args"].split("-o ")[1:] == [
        "UserKnownHostsFile=/state/labs/ci/known_hosts ",
        "StrictHostKeyChecking=yes ",
        "IdentitiesOnly=yes",
    ]
    groups = platform["children"]["kube_nodes"]["children"]
    assert groups["control_plane"]["hosts"] == {"ci-master-1": {"ansible_host": "10.89.43.11"}}
    assert groups["workers"]["hosts"] == {"ci-worker-1": {"ansible_host": "10.89.43.21"}}
    shared = written / "group_vars" / "platform" / "lab.yml"
    assert shared.resolve() == checkout / "inventories" / "lab" / "group_vars" / "platform" / "lab.yml"


@pytest.mark.parametrize("lacking", [True, False])
def test_traefik_takes_over_where_the_mirror_lacks_ingress_nginx(checkout: Path, lacking: bool) -> None:
    folder = paths.cache() / "mirror"
    folder.mkdir(parents=True)
    entry = {"name": "ingress-nginx", "reason": "no source"}
    (folder / "unavailable.json").write_text(json.dumps([entry] if lacking else []))
    written = inventory.write(Lab(name="ci"), Path("/state"))
    settings = yaml.safe_load((written / "group_vars" / "platform" / "mirror.yml").read_text())
    assert settings.get("ingress_controller") == ("traefik" if lacking else None)
    assert [one["name"] for one in settings["components_unavailable"]] == ["ingress-nginx"] * lacking
    assert settings["image_registry_base_url"] == "http://10.89.42.2:5000"


def test_an_acme_server_is_offered_where_cert_manager_can_be_had(checkout: Path) -> None:
    folder = paths.cache() / "mirror"
    folder.mkdir(parents=True)
    assert acme.wanted(Lab(name="ci"))
    assert not acme.wanted(Lab(name="ci", acme=False))
    (folder / "unavailable.json").write_text(json.dumps([{"name": "cert-manager", "reason": "no source"}]))
    assert not acme.wanted(Lab(name="ci"))


def test_logs_are_collected_where_a_lab_has_a_store(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = paths.cache() / "mirror"
    folder.mkdir(parents=True)
    entry = {"name": "logging-elasticsearch", "reason": "no source"}
    (folder / "unavailable.json").write_text(json.dumps([entry]))
    without = inventory.write(Lab(name="ci"), Path("/state"))
    file = without / "group_vars" / "platform" / "mirror.yml"
    assert yaml.safe_load(file.read_text())["logging_enabled"] is False

    monkeypatch.setattr("os.chown", lambda *_: None)
    lab, home = Lab(name="ci", logs=True), checkout / "state"
    home.mkdir()
    logs.prepare(lab, home)
    kept = (home / "logs/collector").read_text(), (home / "logs/config/users").read_text()
    logs.prepare(lab, home)  # again: nothing is made anew
    assert kept == ((home / "logs/collector").read_text(), (home / "logs/config/users").read_text())
    assert kept[0] not in kept[1]
    assert (home / "logs/collector").stat().st_mode & 0o777 == 0o600
    inventory.write(lab, Path("/state"), logs.settings(lab, home))
    written = file.read_text()
    settings = yaml.safe_load(written)
    assert settings["logging_enabled"] is True
    assert settings["logging_url"] == "https://10.89.42.3:9200"
    assert kept[0] not in written
    assert {node.name for node in lab.services} == {"ci-mirror", "ci-logs"}
    assert "ci-logs" not in (without / "hosts.yml").read_text()


def test_names_lead_to_a_node_that_takes_pods() -> None:
    assert Lab(name="ci").ingress == "10.89.42.21"
    assert Lab(name="ci", workers=0).ingress == "10.89.42.11"


def _person(checkout: Path, name: str) -> tuple[Path, Path]:
    hosts = checkout / "inventories" / name / "hosts.yml"
    secret = checkout / "secrets" / name / "encryption-key"
    for file in (hosts, secret):
        file.parent.mkdir(parents=True)
        file.write_text("precious\n")
    return hosts, secret


def test_a_lab_never_touches_what_a_person_wrote(checkout: Path) -> None:
    hosts, secret = _person(checkout, "production")
    with pytest.raises(LabError, match="inventories/production was not written by a lab"):
        lifecycle.up(Lab(name="production"), print)
    lifecycle.down("production")
    assert hosts.read_text() == secret.read_text() == "precious\n"


def test_secrets_without_a_lab_stay(checkout: Path) -> None:
    secret = checkout / "secrets" / "elsewhere" / "encryption-key"
    secret.parent.mkdir(parents=True)
    secret.write_text("precious\n")
    lifecycle.down("elsewhere")
    assert secret.read_text() == "precious\n"


def test_down_leaves_nothing_of_a_lab(checkout: Path) -> None:
    inventory.write(Lab(name="ci"), lifecycle.state("ci"))
    for folder in (lifecycle.state("ci"), checkout / "secrets" / "ci"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    lifecycle.down("ci")
    left = [path for path in checkout.rglob("*") if path.name == "ci"]
    assert left == []


def test_destroying_a_node_leaves_the_others(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, called = Lab(name="ci", vaults=1), []
    monkeypatch.setattr(podman, "containers", lambda _: {node.name: "running" for node in lab.nodes})
    monkeypatch.setattr(podman, "run", lambda *words, **_: called.append(words))
    lifecycle.destroy(lab, lifecycle.node_of(lab, "vault-1"))
    assert called == [("rm", "--force", "--volumes", "--time", "0", "ci-vault-1")]


def test_kernel_settings_are_raised_never_lowered_and_put_back(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(checkout / "state"))
    proc = checkout / "proc"
    before = {"fs/inotify/max_user_instances": "128", "vm/max_map_count": "999999"}
    monkeypatch.setattr(host, "NEEDED", {"fs/inotify/max_user_instances": 8192, "vm/max_map_count": 262144})
    for name, value in before.items():
        (proc / name).parent.mkdir(parents=True)
        (proc / name).write_text(value)

    host.prepare(proc)
    host.prepare(proc)  # a second lab must not take the raised value for the host's own
    assert (proc / "fs/inotify/max_user_instances").read_text() == "8192"
    assert (proc / "vm/max_map_count").read_text() == "999999"
    host.restore(proc)
    assert {name: (proc / name).read_text() for name in before} == before


def test_a_lock_keeps_a_second_process_out(checkout: Path) -> None:
    with host.lock("lab-ci"):
        child = os.fork()
        if child == 0:
            import fcntl  # noqa: PLC0415

            with (paths.state() / "locks" / "lab-ci").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os._exit(7)
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
