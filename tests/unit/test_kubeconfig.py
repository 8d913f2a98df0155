"""A kubeconfig that leads nowhere is said by one sentence, whoever opens it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from quote_platform import component, node_settings, rotation, upgrade
from quote_platform.component.server import Server
from quote_platform.delivery import DeliveryError, prune
from quote_platform.jobs import metrics
from quote_platform.kubeconfig import Unusable
from quote_platform.verify.target import Failed, Target


def prunes(kubeconfig: Path) -> None:
    component.prune({"kubeconfig": str(kubeconfig), "names": ["one"], "timeout": 1}, dry_run=False)


def settles(kubeconfig: Path) -> None:
    node_settings.reconcile({"kubeconfig": str(kubeconfig), "nodes": {"one": {}}}, dry_run=False)


def waits(kubeconfig: Path) -> None:
    upgrade.hold({"kubeconfig": str(kubeconfig), "held": False}, dry_run=False)


def verifies(kubeconfig: Path) -> None:
    target = Target(str(kubeconfig), version="", host="", addresses=[], image="")
    target.core.list_node(_request_timeout=1)


def reads_metrics(kubeconfig: Path) -> None:
    metrics.ConfigMap(kubeconfig, "watched", str(kubeconfig.parent)).read("backup")


USERS: list[tuple[Callable[[Path], Any], type[Exception]]] = [
    (prunes, Unusable),
    (lambda path: Server(str(path), True, 1), Unusable),
    (settles, Unusable),
    (waits, Unusable),
    (prune.running, DeliveryError),
    (reads_metrics, Unusable),
    (verifies, Failed),
]
users = pytest.mark.parametrize(("use", "refused"), USERS)


@users
@pytest.mark.parametrize("text", ["", "a: [", "[]", "current-context: none", "clusters: 1"])
def test_one_that_cannot_be_read_is_named(
    use: Callable[[Path], Any], refused: type[Exception], text: str, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(text)
    with pytest.raises(refused, match=rf"{kubeconfig}.* cannot be used: "):
        use(kubeconfig)


@pytest.mark.parametrize(("use", "refused"), USERS[:5])
def test_an_api_server_that_does_not_answer_is_named(
    use: Callable[[Path], Any], refused: type[Exception], tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    name = {"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}
    cluster = {"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}
    kubeconfig.write_text(json.dumps(name | {"clusters": [cluster], "users": [{"name": "x", "user": {}}]}))
    with pytest.raises(refused, match=r"the API server does not answer: .*port=9.* Connection refused"):
        use(kubeconfig)


def test_a_command_says_so_without_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("a: [")
    with pytest.raises(typer.Exit):
        rotation.run(lambda: rotation.rotation(kubeconfig, "shop", "account", 1).rotate(0))
    assert f"{kubeconfig} cannot be used" in capsys.readouterr().err
