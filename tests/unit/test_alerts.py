"""Every alert fires when it should, stays silent when it should, and says what to do."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "roles/monitoring/files/alerts"
TESTS = ROOT / "tests/alerts"
RUNBOOKS = ROOT / "docs/runbooks"
SUBJECTS = sorted(path.stem for path in RULES.glob("*.yml"))


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alert by its name."""
    found: dict[str, dict[str, Any]] = {}
    for subject in SUBJECTS:
        for group in yaml.safe_load((RULES / f"{subject}.yml").read_text())["groups"]:
            assert group["name"] == subject
            for rule in group["rules"]:
                assert rule["alert"] not in found, f"{rule['alert']} is there twice"
                found[rule["alert"]] = rule
    return found


@pytest.mark.parametrize("subject", SUBJECTS)
def test_alerts_fire_and_stay_silent(subject: str) -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", TESTS / f"{subject}.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    fires, silent = set[str](), set[str]()
    for subject in SUBJECTS:
        for one in yaml.safe_load((TESTS / f"{subject}.yml").read_text())["tests"]:
            for check in one["alert_rule_test"]:
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
    assert fires == set(alerts())
    assert silent == set(alerts()) - {"Watchdog"}  # that one is never silent


def test_a_changed_alert_fails_its_test(tmp_path: Path) -> None:
    """Hold the tests to their purpose: each threshold and each time matters to one of them."""
    rules = (RULES / "nodes.yml").read_text()
    tests = (TESTS / "nodes.yml").read_text().replace("../../roles/monitoring/files/alerts/", "")
    (tmp_path / "test.yml").write_text(tests)
    for before, after in (
        ("> 0.8", "> 0.9"),
        ("> 0.8", "> 0.4"),
        ("idle|iowait", "idle"),
        ("for: 10m", "for: 1s"),
        ("4 * 3600", "1 * 600"),
    ):
        assert before in rules
        (tmp_path / "nodes.yml").write_text(rules.replace(before, after))
        done = subprocess.run(
            ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode != 0, f"{before} became {after}, and no test saw it"


def test_an_alert_says_what_a_person_needs() -> None:
    for name, rule in alerts().items():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert set(rule["labels"]) == {"severity"}, name
        severity = rule["labels"]["severity"]
        assert severity in {"critical", "warning"} or name in {"Watchdog", "NotificationsFailing"}, name


def test_every_alert_has_a_runbook() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(alerts())
    for name in alerts():
        text = (RUNBOOKS / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        for part in ("**Meaning.**", "**First look.**", "**Repair.**", "**Escalate.**"):
            assert text.count(part) == 1, f"{name}: {part}"
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (RUNBOOKS / link).is_file(), f"{name}: {link}"


def test_every_alert_has_a_fault_and_its_time() -> None:
    module = ast.parse((ROOT / "tests/e2e/test_alerts.py").read_text())
    made = [
        str(word.value)
        for function in module.body
        if isinstance(function, ast.FunctionDef)
        for call in function.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "fault"
        for word in call.args
        if isinstance(word, ast.Constant)
    ]
    # The lab's playbooks deliver; tests/unit/test_flux.py has what Flux and kube-state-metrics say of these.
    assert sorted(made) == sorted(set(alerts()) - {"Watchdog", "DeliveryFailed", "DeliverySuspended"})
    rows = re.findall(r"^\|[^|]*\| \[(\w+)\]\(runbooks/\1\.md\)", (ROOT / "docs/alerts.md").read_text(), re.M)
    assert sorted(rows) == sorted(made)


def test_a_log_that_does_not_arrive_is_told_after_a_quarter_of_an_hour(tmp_path: Path) -> None:
    """Hold the tests of LogsNotArriving to each part of it."""
    rules = (RULES / "logging.yml").read_text()
    tests = (TESTS / "logging.yml").read_text().replace("../../roles/monitoring/files/alerts/", "")
    (tmp_path / "test.yml").write_text(tests)
    for before, after in (
        ("[10m]", "[2m]"),
        ("for: 5m", "for: 1m"),
        ('exporter="elasticsearch"', 'exporter=~".+"'),
        ('exporter="awss3"', 'exporter=~".+"'),
        ('exporter="otlp_grpc/archive"', 'exporter="none"'),
        ("[10m])) > 0)\n          or count", "[10m])) >= 0)\n          or count"),
        ("or sum by (job) (increase(fluentd", "or sum by (job) (0 * increase(fluentd"),
        ("\n          - sum by", "\n          - 0 * sum by"),
    ):
        assert before in rules, before
        (tmp_path / "logging.yml").write_text(rules.replace(before, after))
        done = subprocess.run(
            ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode != 0, f"{before} became {after}, and no test saw it"
