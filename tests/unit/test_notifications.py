"""Who is told what: the real Alertmanager with our configuration, and receivers over the real protocols."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rendering import render

from e2e.receiver import PAGERDUTY_KEY, SLACK_PATH, Receiver, free_port, receiving
from proxy import proxying

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/monitoring"
# In Alertmanager's pod; here they lie elsewhere.
CONFIG, KEYS = "/etc/alertmanager/config/", "/etc/alertmanager/secrets/alertmanager-credentials/"
RECEIVERS = ("slack", "pagerduty", "email")
# Who is told of what is critical, and of a warning.
FEWER = {
    (): ("nobody", "nobody"),
    ("slack",): ("slack", "slack"),
    ("pagerduty",): ("pagerduty", "nobody"),
    ("email",): ("email,nobody", "email,nobody"),
}


def at_home(folder: Path, text: str, variables: dict[str, Any]) -> Path:
    """Put a configuration and what it names into a folder."""
    (folder / "notifications.tmpl").write_text((ROLE / "files/notifications.tmpl").read_text())
    (folder / "slack-url").write_text(variables["monitoring_slack_url"])
    (folder / "pagerduty-key").write_text(variables["monitoring_pagerduty_key"])
    file = folder / "alertmanager.yml"
    file.write_text(text.replace(KEYS, f"{folder}/").replace(CONFIG, f"{folder}/"))
    return file


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def configurations(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> dict[tuple[str, ...] | None, str]:
    """The configuration, as the role makes it, with all receivers (None) and with fewer."""
    given: dict[tuple[str, ...] | None, dict[str, Any]] = {None: receiver.variables()}
    for some in FEWER:
        own = {"monitoring_receivers": list(some), "monitoring_email_time": "23:45"}
        given[some] = receiver.variables() | own
    template = "monitoring/templates/alertmanager.yml.j2"
    texts = render(tmp_path_factory.mktemp("rendered"), *((template, own) for own in given.values()))
    return dict(zip(given, texts, strict=True))


@pytest.fixture(scope="module")
def configuration(
    tmp_path_factory: pytest.TempPathFactory,
    receiver: Receiver,
    configurations: dict[tuple[str, ...] | None, str],
) -> Path:
    return at_home(tmp_path_factory.mktemp("alertmanager"), configurations[None], receiver.variables())


def amtool(*arguments: str | Path) -> str:
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("alertname=Watchdog severity=none", "email,nobody"),
        ("alertname=NodeDown severity=critical node=worker-1", "email,pagerduty"),
        ("alertname=TargetDown severity=warning job=etcd", "email,slack"),
        ("alertname=SomebodyElses", "email,slack"),
    ],
)
def test_routes(configuration: Path, labels: str, told: str) -> None:
    arguments = [f"--config.file={configuration}", f"--verify.receivers={told}", *labels.split()]
    amtool("config", "routes", "test", *arguments)


@pytest.mark.parametrize(("receivers", "told"), [(list(some), told) for some, told in FEWER.items()])
def test_fewer_receivers(
    tmp_path: Path,
    receiver: Receiver,
    configurations: dict[tuple[str, ...] | None, str],
    receivers: list[str],
    told: tuple[str, str],
) -> None:
    file = at_home(tmp_path, configurations[tuple(receivers)], receiver.variables())
    assert "SUCCESS" in amtool("check-config", file)
    for severity, names in zip(("critical", "warning"), told, strict=True):
        amtool(
            "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={names}",
            f"severity={severity}",
        )  # fmt: skip


def test_secrets_stay_out_of_the_configuration(configuration: Path) -> None:
    text = configuration.read_text()
    assert PAGERDUTY_KEY not in text
    assert SLACK_PATH not in text
    assert "templates: [" in text


def test_inhibition_names_alerts_that_exist() -> None:
    text = (ROLE / "templates/alertmanager.yml.j2").read_text()
    named = set(re.findall(r"[A-Z]\w+", " ".join(re.findall(r'alertname!?=~?"([^"]+)"', text))))
    files = (ROLE / "files/alerts").glob("*.yml")
    rules = [
        rule
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len(named) > 10
    assert named <= {rule["alert"] for rule in rules}


@contextmanager
def running(configuration: Path) -> Iterator[str]:
    """Run Debian's, which is older than ours and reads the same."""
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    log = configuration.with_suffix(".log")
    command = [
        "prometheus-alertmanager",
        f"--config.file={configuration}",
        f"--storage.path={configuration.parent}/data",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
    ]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        for _ in range(150):
            try:
                httpx.get(f"{url}/-/ready").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
        yield url
        process.terminate()


@pytest.fixture(scope="module")
def alertmanager(configuration: Path) -> Iterator[str]:
    with running(configuration) as url:
        yield url


def send(url: str, name: str, severity: str, over: bool = False, **labels: str) -> None:
    now = datetime.now(UTC)
    alert = {
        "labels": {"alertname": name, "severity": severity} | labels,
        "annotations": {
            "summary": f"{name} in a sentence.",
            "description": "What it means.",
            "runbook_url": f"https://example.com/runbooks/{name}.md",
        },
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        "endsAt": (now if over else now + timedelta(hours=1)).isoformat(),
    }
    httpx.post(f"{url}/api/v2/alerts", json=[alert]).raise_for_status()


def test_messages_arrive_and_children_are_silent(alertmanager: str, receiver: Receiver) -> None:
    wait = receiver.wait
    send(alertmanager, "Watchdog", "none")
    send(alertmanager, "NodeDown", "critical", node="worker-1")
    wait(lambda: receiver.find("NodeDown", "pagerduty"), 20, "no event")
    # Explained by the node: its own, and what ran on it. Another node's is not.
    send(alertmanager, "TargetDown", "warning", job="kubelet", node="worker-1")
    send(
        alertmanager,
        "WorkloadNotAvailable",
        "warning",
        namespace="quote-lab",
        workload="deployment/quote-app",
    )
    send(alertmanager, "TargetDown", "warning", job="kubelet", node="worker-2")

    slack = wait(lambda: receiver.find("TargetDown", "slack"), 20, "no message")
    assert slack.text.splitlines()[0] == "TargetDown: TargetDown in a sentence."
    assert "What it means." in slack.text
    assert "<https://example.com/runbooks/TargetDown.md|what to do>" in slack.text
    assert slack.content["title_link"] == "https://example.com/runbooks/TargetDown.md"
    page = receiver.find("NodeDown", "pagerduty")
    assert page
    assert page.content["payload"]["summary"] == "NodeDown: NodeDown in a sentence."
    assert page.content["payload"]["severity"] == "critical"
    assert page.content["payload"]["component"] == "worker-1"
    assert page.content["links"][0]["href"] == "https://example.com/runbooks/NodeDown.md"
    assert "What it means." in page.text

    # The node is back: that is told, and what has lasted until now is told as well.
    send(alertmanager, "NodeDown", "critical", over=True, node="worker-1")
    over = wait(lambda: receiver.find("NodeDown", "pagerduty", resolved=True), 20, "it is not over")
    assert over.content["dedup_key"] == page.content["dedup_key"]
    silent = [
        one for one in receiver.messages if "WorkloadNotAvailable" in one.text and one.moment < over.moment
    ]
    assert not silent
    assert not receiver.find("Watchdog", "slack")
    wait(lambda: receiver.find("WorkloadNotAvailable", "slack"), 30, "what remains is not told")

    # One mail: all that fires, in half a minute of a group's first alert.
    mail = wait(lambda: receiver.find("fire", "email"), 40, "no mail")
    assert "* Watchdog (none), since " in mail.text
    assert "Without Watchdog" in mail.text
    assert mail.content["To"] == "ops@example.com"
    assert [one.channel for one in receiver.messages].count("email") == 1


def test_a_message_goes_through_a_proxy(tmp_path: Path, receiver: Receiver) -> None:
    started, name = time.time(), "slack.example.com"  # which nobody but the proxy knows
    url = receiver.variables()["monitoring_slack_url"].replace("127.0.0.1", name)
    with proxying("platform:s3cret/", {name: "127.0.0.1"}) as proxy:
        variables = receiver.variables() | {
            "monitoring_receivers": ["slack"],
            "monitoring_slack_url": url,
            "cluster_http_proxy": proxy.url("127.0.0.1"),
        }
        (text,) = render(tmp_path, ("monitoring/templates/alertmanager.yml.j2", variables))
        assert re.search(r"^ +no_proxy: .*\.svc,", text, re.MULTILINE)
        # Debian's does not know this line yet.
        file = at_home(tmp_path, re.sub(r"^ +no_proxy: .*\n", "", text, flags=re.MULTILINE), variables)
        with running(file) as alertmanager:
            send(alertmanager, "TargetDown", "warning", job="etcd")
            receiver.wait(lambda: receiver.find("TargetDown", "slack", since=started), 20, "no message")
            shown = httpx.get(f"{alertmanager}/api/v2/status").text
        assert {(one.target, one.account) for one in proxy.asked} == {
            (f"{name}:{receiver.port}", "platform:s3cret/")
        }
    assert "proxy_url" in shown
    assert "s3cret" not in shown
    assert "s3cret" not in file.with_suffix(".log").read_text()
