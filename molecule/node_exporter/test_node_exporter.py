"""A machine tells its figures over TLS, to whoever has the password."""

import base64
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(scope="module")
def ask(variables: dict[str, Any], secrets: Path) -> Callable[[str], str]:
    def call(password: str) -> str:
        request = urllib.request.Request(f"https://{variables['ansible_host']}:9100/metrics")
        if password:
            word = base64.b64encode(f"prometheus:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        context = ssl.create_default_context(cafile=str(secrets / "certificates/authority.crt"))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
            return str(answer.read().decode())

    return call


def test_figures_are_told_to_whoever_has_the_password(
    ask: Callable[[str], str], secrets: Path, variables: dict[str, Any]
) -> None:
    password = (secrets / "node-exporter-password").read_text().split()[0]
    figures = ask(password)
    for name in ("node_memory_MemAvailable_bytes", "node_filesystem_avail_bytes", "node_systemd_unit_state"):
        assert f"\n{name}" in figures
    assert f'version="{variables["node_exporter_version"]}"' in figures


@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_else_is_told(ask: Callable[[str], str], password: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(password)


def test_the_service_is_confined_and_its_key_is_closed(host: Host) -> None:
    assert host.process.get(comm="prometheus-node").user == "prometheus"
    assert host.file("/etc/prometheus-node-exporter/tls.key").mode == 0o640
    assert host.file("/etc/prometheus-node-exporter/web.yml").mode == 0o640
