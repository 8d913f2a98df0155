"""A machine tells its figures over TLS, to whoever has the password."""

import base64
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def secrets(inventory):
    option = next(one for one in inventory.arguments if "cluster_secrets_dir=" in one)
    return Path(option.split("cluster_secrets_dir=")[1])


@pytest.fixture(scope="module")
def ask(variables, secrets):
    def call(password):
        request = urllib.request.Request(f"https://{variables['ansible_host']}:9100/metrics")
        if password:
            word = base64.b64encode(f"prometheus:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        context = ssl.create_default_context(cafile=str(secrets / "certificates/authority.crt"))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
            return answer.read().decode()

    return call


def test_figures_are_told_to_whoever_has_the_password(ask, secrets, variables):
    password = (secrets / "node-exporter-password").read_text().split()[0]
    figures = ask(password)
    for name in ("node_memory_MemAvailable_bytes", "node_filesystem_avail_bytes", "node_systemd_unit_state"):
        assert f"\n{name}" in figures
    assert f'version="{variables["node_exporter_version"]}"' in figures


@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_else_is_told(ask, password):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(password)


def test_the_service_is_confined_and_its_key_is_closed(host):
    assert host.process.get(comm="prometheus-node").user == "prometheus"
    assert host.file("/etc/prometheus-node-exporter/tls.key").mode == 0o640
    assert host.file("/etc/prometheus-node-exporter/web.yml").mode == 0o640
