"""A machine without root, in French, that reaches nothing but by a proxy and authorities of its place."""

import base64
import json
from typing import Any
from urllib.parse import unquote, urlsplit

from testinfra.host import Host

from scenario import Inventory

PUBLIC = "docker.io/library/busybox:1.37.0"


def password(variables: dict[str, Any]) -> str:
    found = unquote(urlsplit(variables["cluster_http_proxy"]).password or "")
    assert found
    return found


def test_the_place_is_unkind(host: Host, variables: dict[str, Any]) -> None:
    assert variables["ansible_user"] != "root"
    assert host.run("su - ops -c 'sudo -n true'").rc != 0
    assert host.check_output("su - ops -c umask") == "0077"
    assert "noexec" in host.check_output("findmnt --noheadings --output OPTIONS /tmp")
    for name in ("registry-1.docker.io", "pkgs.k8s.io"):
        assert host.run(f"getent hosts {name}").rc != 0, "there is another way out than the proxy"


def test_packages_come_from_upstreams_names(host: Host) -> None:
    sources = host.check_output("cat /etc/apt/sources.list.d/*.sources")
    for url in ("https://pkgs.k8s.io/", "https://download.docker.com/linux/debian"):
        assert f"URIs: {url}" in sources
    for package in ("kubelet", "containerd.io"):
        assert host.package(package).is_installed


def test_without_its_password_the_proxy_lets_nobody_out(host: Host, variables: dict[str, Any]) -> None:
    address = urlsplit(variables["cluster_http_proxy"])
    for account, status in (("", "407"), (f"--proxy-user 'proxy:{password(variables)}'", "200")):
        ask = f"curl --silent --proxy http://{address.hostname}:{address.port} {account}"
        said = host.run(
            f"{ask} --output /dev/null --write-out '%{{http_connect}}' https://quay.io/v2/"
        ).stdout
        assert said == status


def test_an_image_is_pulled_and_one_of_a_private_registry_by_its_account_only(
    host: Host, variables: dict[str, Any]
) -> None:
    host.check_output(f"crictl pull {PUBLIC}")
    private = variables["quote_app_image"]
    assert "authorization" in host.run(f"crictl pull {private}").stderr
    accounts = json.loads(host.check_output("cat /var/lib/kubelet/config.json"))["auths"]
    account = base64.b64decode(accounts["ghcr.io"]["auth"]).decode()
    host.check_output(f"crictl pull --creds '{account}' {private}")


def test_the_password_is_nowhere_to_be_seen(
    host: Host, inventory: Inventory, variables: dict[str, Any]
) -> None:
    secret = password(variables)
    for file in ("/etc/apt/apt.conf.d/80quote-platform-proxy", "/etc/containerd/proxy.env"):
        assert host.file(file).mode == 0o600
    shown = host.check_output("systemctl show containerd; systemctl cat containerd; ps axww -o args")
    shown += host.check_output("cat /var/log/*.log; journalctl --no-pager")
    _, output = inventory.converge("--diff", "-vvv", "--check", "--extra-vars", "outbound_no_proxy=[new]")
    assert "80quote-platform-proxy" in output
    for text in (shown, output):
        assert secret not in text
        assert urlsplit(variables["cluster_http_proxy"]).password not in text
