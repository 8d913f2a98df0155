"""Wrong input is refused with its exact message, before any node is contacted; right input passes."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from role_modules import load

ROOT = Path(__file__).resolve().parents[2]
CASES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/fixtures/invalid.yml").read_text())
HOSTS = {
    "control_plane": {"master-1": "192.0.2.11"},
    "workers": {"worker-1": "192.0.2.21", "worker-2": "192.0.2.22", "worker-3": "192.0.2.23"},
}
SECONDS = 10

nodes = load("validate", "action_plugins", "validate_nodes")


def inventory(folder: Path, case: dict[str, Any]) -> Path:
    hosts = case.get("hosts", HOSTS)
    groups = {
        group: {"hosts": {name: {"ansible_host": address} for name, address in members.items()}}
        for group, members in hosts.items()
    }
    tree = {"all": {"children": {"platform": {"children": {"kube_nodes": {"children": groups}}}}}}
    (folder / "group_vars/platform").mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump(tree))
    (folder / "group_vars/platform/main.yml").write_text(yaml.safe_dump(case.get("vars", {})))
    if "group_vars_all" in case:
        (folder / "group_vars/all").mkdir()
        (folder / "group_vars/all/settings.yml").write_text(yaml.safe_dump(case["group_vars_all"]))
    return folder


def judge(folder: Path) -> tuple[int, str, float]:
    started = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", folder, "playbooks/validate.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, float]]:
    base = tmp_path_factory.mktemp("invalid")

    def run(item: tuple[int, dict[str, Any]]) -> tuple[int, str, float]:
        return judge(inventory(base / str(item[0]), item[1]))

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip([case["case"] for case in CASES], pool.map(run, enumerate(CASES)), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"].replace(" ", "-"))
def test_wrong_input_is_refused(case: dict[str, Any], outcomes: dict[str, tuple[int, str, float]]) -> None:
    status, output, seconds = outcomes[case["case"]]
    assert status != 0
    said = [line.strip() for line in output.splitlines()]
    assert {case["message"], *case.get("also", [])} <= set(said), output[-3000:]
    assert seconds < SECONDS
    assert "nothing was touched" in output
    # Nobody answers at these addresses: an attempt would show.
    assert "UNREACHABLE" not in output
    assert "Look at the node]" not in output


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
    assert len({case["case"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", ["right", "production"])
def test_right_input_passes(name: str, tmp_path: Path) -> None:
    folder = ROOT / "inventories/production" if name == "production" else inventory(tmp_path / "right", {})
    done = subprocess.run(
        ["ansible-playbook", "-i", folder, "playbooks/validate.yml", "--tags", "static"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


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
PROBE: dict[str, Any] = {**CLOCKS, "disk_gb": 50, "away": [], "machine_id": "a"}


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
        ({}, {"disk_gb": 3}, ["w: 3 GB of free disk below /var; at least 10 are needed"]),
        ({}, {"time": 900.0}, ["w: its clock is 99 s off, allowed are 10: start its time service"]),
        ({}, {"time": 1100.0}, ["w: its clock is 99 s off, allowed are 10: start its time service"]),
        ({}, {"asked": 970.0, "answered": 1030.0}, []),
        (
            {},
            {"away": ["http://m/apt"]},
            ["w: http://m/apt cannot be reached from it; check the network, or the base URL"],
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


def test_copies_of_one_machine_are_named() -> None:
    assert nodes.twins({"a": {"machine_id": "1"}, "b": {"machine_id": "2"}}) == []
    assert nodes.twins({"a": {"machine_id": "1"}, "b": {"machine_id": "1"}}) == [
        "b: has the machine-id of a; run systemd-machine-id-setup on it"
    ]
