"""What a lab is, the inventory it writes, and what it must never delete."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from quote_platform import components, machine, paths
from quote_platform.lab import (
    acme,
    application,
    cli,
    containers,
    host,
    hostile,
    image,
    inventory,
    lifecycle,
    logs,
    podman,
)
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab, Unkind
from quote_platform.mirror import fill as filling
from quote_platform.mirror.catalogue import Part


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, a cache and a state of their own, and no podman."""
    (tmp_path / "roles").mkdir()
    (tmp_path / "site.yml").touch()
    (tmp_path / components.FILE).parent.mkdir(parents=True)
    (tmp_path / components.FILE).symlink_to(paths.repository() / components.FILE)
    versions = Path("group_vars/all/versions.yml")
    (tmp_path / versions).parent.mkdir(parents=True)
    (tmp_path / versions).symlink_to(paths.repository() / versions)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(podman, "run", lambda *_, **__: "[]")
    monkeypatch.setattr(host, "restore", lambda: None)
    return tmp_path


def test_nodes_have_the_names_and_addresses_of_the_contract() -> None:
    lab = Lab(name="ci", subnet="10.89.43.0/24")
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
    without = inventory.write(Lab(name="ci", logs=False), Path("/state"))
    file = without / "group_vars" / "platform" / "mirror.yml"
    assert yaml.safe_load(file.read_text())["logging_enabled"] is False

    monkeypatch.setattr("os.chown", lambda *_: None)
    lab, home = Lab(name="ci"), checkout / "state"
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
    inventory.write(Lab(name="ci"), paths.lab("ci"))
    for folder in (paths.lab("ci"), checkout / "secrets" / "ci"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    lifecycle.down("ci")
    left = [path for path in checkout.rglob("*") if path.name == "ci"]
    assert left == []


def test_destroying_a_node_leaves_the_others(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, called = Lab(name="ci"), []
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


# --- components -----------------------------------------------------------------------------------------


def test_a_lab_is_the_whole_platform_unless_components_are_chosen(checkout: Path) -> None:
    whole, core = Lab(name="ci"), Lab.model_validate({"name": "ci", "components": ["core"]})
    roles = [node.role for node in [*whole.nodes, *whole.services]]
    assert roles == ["master", "worker", "worker", "worker", "store", "vault", "mirror", "logs"]
    assert {node.role for node in [*core.nodes, *core.services]} == {"master", "worker", "mirror"}
    assert acme.wanted(whole)
    assert not acme.wanted(core)
    file = inventory.write(core, Path("/state")) / "group_vars" / "platform" / "mirror.yml"
    settings = yaml.safe_load(file.read_text())
    switches = ("backups_enabled", "logging_enabled", "monitoring_enabled")
    assert [settings.get(name) for name in switches] == [False] * 3
    assert "certificate_issuer" not in settings
    assert settings["components_unavailable"] == [], "what nobody wants can be had all the same"
    inventory.write(whole, Path("/state"))
    assert not set(switches) & set(yaml.safe_load(file.read_text()))
    some = Lab.model_validate({"name": "ci", "components": ["logs"]})
    assert Part.CORE in some.components
    assert some.logs


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, ...]]]:
    """What would be started and run, in the place of it."""
    done: dict[str, list[tuple[str, ...]]] = {"started": [], "run": []}
    monkeypatch.setattr(host, "prepare", lambda: None)
    monkeypatch.setattr(image, "ensure", lambda _: None)
    monkeypatch.setattr(podman, "containers", lambda _: {})
    monkeypatch.setattr(podman, "execute", lambda *words: done["run"].append((words[0], *words[1])))
    monkeypatch.setattr(containers, "start", lambda _, node: done["started"].append((node.name,)))
    monkeypatch.setattr(containers, "wait", lambda *_: None)
    for part in (acme, logs):
        monkeypatch.setattr(part, "prepare", lambda *_: None)
        monkeypatch.setattr(part, "settings", lambda *_: {})
    monkeypatch.setattr(logs, "start", lambda *_: None)
    return done


def test_components_are_added_to_a_lab_and_not_taken_from_it(
    checkout: Path, machines: dict[str, list[tuple[str, ...]]]
) -> None:
    core = Lab.model_validate({"name": "ci", "components": ["core"]})
    lifecycle.up(core, lambda _: None)
    assert ("ci-vault-1",) not in machines["started"]
    assert machines["run"] == []
    lifecycle.up(Lab(name="ci"), lambda _: None)
    assert ("ci-vault-1",) in machines["started"]
    # The mirror's host runs already, and found no programs when it booted.
    assert machines["run"] == [("ci-mirror", "systemctl", "start", "pebble", "coredns")]
    with pytest.raises(LabError, match=r"lab ci has backups, certificates, logs, monitoring, secrets, and a"):
        lifecycle.up(core, lambda _: None)
    # A lab that an older version has made says nothing of components: it has all.
    file = paths.lab("ci") / "lab.json"
    file.write_text(json.dumps({"name": "ci", "vaults": 0, "logs": False}))
    with pytest.raises(LabError, match="lab ci has backups"):
        lifecycle.up(core, lambda _: None)
    file.write_text(json.dumps({"name": "ci", "profile": "hostile"}))
    with pytest.raises(LabError, match="another version of this: `quote-platform lab down --name ci`"):
        lifecycle.find("ci")


def test_the_inventory_says_by_which_machine_the_others_are_reached(checkout: Path) -> None:
    lab = Lab(name="ci", unkind=frozenset({Unkind.BASTION, Unkind.ACCOUNT}))
    folder = inventory.write(lab, Path("/state"))
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())["all"]["children"]["platform"]["vars"]
    told = yaml.safe_load((folder / "group_vars/platform/mirror.yml").read_text())
    assert hosts["ansible_ssh_common_args"].endswith(" {{ cluster_bastion_jump }}")
    assert told["cluster_bastion"] == f"ops@{lab.bastion.address}"
    assert told["cluster_bastion_arguments"].startswith("-i /state/id_ed25519 -o UserKnownHostsFile=")
    assert (
        told["image_registry_base_url"] and "control_plane_node_ip" not in (folder / "hosts.yml").read_text()
    )


def test_an_unkind_lab_has_one_smaller_worker_and_nodes_that_know_their_memory(checkout: Path) -> None:
    assert [node.memory for node in Lab(name="ci").nodes if node.role == "worker"] == ["8g"] * 3
    lab, home = Lab(name="ci", unkind=frozenset({Unkind.MEMORY})), checkout / "home"
    home.mkdir()
    *_, second, small = [node for node in lab.nodes if node.role == "worker"]
    assert (second.memory, small.memory) == ("8g", "4915m")
    hostile.prepare(lab, home)
    assert (home / "meminfo-ci-worker-3").read_text().startswith(f"MemTotal: {4915 * 1024} kB\n")
    mounts = {node.role: hostile.mounts(lab, home, node) for node in [*lab.nodes, *lab.services]}
    assert mounts.pop("mirror") == mounts.pop("logs") == []
    assert all(one[0].endswith(":/proc/meminfo:ro") for one in mounts.values())
    assert Lab(name="ci", workers=0, unkind=lab.unkind).nodes


def test_the_swap_of_an_unkind_lab_is_made_once_and_mounted_in_its_nodes(checkout: Path) -> None:
    lab, home = Lab(name="ci", unkind=frozenset({Unkind.SWAP})), checkout / "home"
    home.mkdir()
    hostile.prepare(lab, home)
    file = home / "swap.img"
    assert file.read_bytes()[4086:4096] == b"SWAPSPACE2"
    made = file.stat()
    hostile.prepare(lab, home)  # again: it may be on
    assert file.stat().st_mtime_ns == made.st_mtime_ns
    assert made.st_mode & 0o777 == 0o600
    mounts = {node.role: hostile.mounts(lab, home, node) for node in lab.nodes}
    assert mounts["master"] == mounts["worker"] == [f"{file}:/swap.img"]
    assert mounts["store"] == mounts["vault"] == []
    hostile.release(home)  # off already


def test_an_unkind_lab_has_the_runtime_of_its_nodes_distribution(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch(command: list[str], _: Path) -> str:
        asked.append(command)
        return ""

    (checkout / "lab").symlink_to(Path(__file__).resolve().parents[2] / "lab")
    monkeypatch.setattr(hostile, "run", fetch)
    lab = Lab(name="ci", unkind=frozenset({Unkind.RUNTIME}))
    mounts = {node.role: hostile.mounts(lab, checkout, node) for node in lab.nodes}
    folder = paths.cache() / "lab" / "runtime-bookworm"
    assert mounts["master"] == mounts["worker"] == [f"{folder}:/srv/runtime:ro"]
    assert mounts["store"] == mounts["vault"] == []
    assert len(asked) == 1, "fetched once"
    assert asked[0][-2] == "bookworm"
    assert folder.is_dir()


def test_up_says_what_the_mirror_lacks(
    checkout: Path, machines: dict[str, list[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def lacking(parts: set[str]) -> list[str]:
        asked.append(set(parts))
        return ["image a/b", "image c/d"]

    monkeypatch.setattr(filling, "lacking", lacking)
    monkeypatch.setattr(machine, "check", lambda *_: None)
    result = CliRunner().invoke(cli.app, ["up", "--name", "ci", "--components", "logs"])
    assert result.exit_code == 0, result.output
    assert "lacks 2 artifacts, such as image a/b: before site.yml run `quote-platform mirror fill" in (
        result.output
    )
    assert "fill --part core --part logs`" in result.output
    assert asked == [{"core", "logs"}]


@pytest.mark.parametrize(
    ("words", "fill", "up"),
    [
        ([], "mirror fill \n", "lab up \n"),
        (
            ["components=logs"],
            "mirror fill --part core --part logs\n",
            "lab up --components core --components logs\n",
        ),
    ],
)
def test_make_lab_fills_and_starts_what_was_chosen(words: list[str], fill: str, up: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", "lab", *words]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert fill in said
    assert up in said


# --- the application ------------------------------------------------------------------------------------


def test_the_first_answer_is_timed_and_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(name="ci")
    home = paths.lab("ci")
    home.mkdir(parents=True)
    (checkout / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    (checkout / "group_vars" / "all" / "main.yml").write_text("application_host: shop.example.com\n")
    (home / "answered").write_text("7\n")  # of an earlier run
    asked: list[tuple[str, dict[str, str]]] = []
    answers: Iterator[httpx.ConnectError | httpx.Response] = iter(
        [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200)]
    )

    def get(_: httpx.Client, url: str, headers: dict[str, str], **__: object) -> httpx.Response:
        asked.append((url, headers))
        assert not (home / "answered").exists()
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(httpx.Client, "get", get)
    application.wait(lab, since=time.time() - 125, pause=0)
    assert asked == [("https://10.89.42.21/api/quotes/random", {"Host": "shop.example.com"})] * 3
    (paths.cache() / "mirror").mkdir(parents=True)
    (paths.cache() / "mirror" / "timing.json").write_text('{"fill": {"wall": 61, "cpu": 119}}')
    text = "\n".join(application.summary(lab))
    assert re.search(r"the application answered 2 min [0-5]\d s after the start", text)
    assert "the last fill took 1 min 01 s, 1 min 59 s of processor time" in text
    assert "--insecure --resolve shop.example.com:443:10.89.42.21" in text
    (home / "acme").mkdir()
    (home / "acme" / "roots.pem").touch()
    assert f"--cacert {home}/acme/roots.pem" in "\n".join(application.summary(lab))


def test_a_secret_that_several_make_at_once_is_one(tmp_path: Path) -> None:
    """As machines of a lab start side by side, each with the account of all."""
    file, start = tmp_path / "folder" / "secret", threading.Barrier(16)

    def make(number: int) -> str:
        start.wait()
        return paths.secret(file, f"{number:04d}" * 16)

    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(make, range(16)))
    assert made == {file.read_text().strip()}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
