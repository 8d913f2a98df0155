"""What makes a lab as unkind as real places are; docs/testing.md has all of it."""

import secrets
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from quote_platform import certificates, paths
from quote_platform.lab import podman
from quote_platform.lab.model import Lab, Node, Unkind

PROXY_PORT = 3128
# The registry among them that asks who pulls.
PRIVATE = "ghcr.io"
# What upstream serves, and where the mirror has it: the host, the folder below www.
SITES = {
    "download.docker.com": "apt/docker",
    "apt.releases.hashicorp.com": "apt/hashicorp",
    "raw.githubusercontent.com": "manifests",
    "github.com": "manifests",
    "download.elastic.co": "manifests",
}
NGINX = """
ssl_certificate /srv/outside/tls.crt;
ssl_certificate_key /srv/outside/tls.key;
server {
  listen 443 ssl;
  server_name pkgs.k8s.io;
  location ~ ^/core:/stable:/v[0-9.]+/deb/(.*)$ { alias /srv/mirror/www/apt/kubernetes/$1; }
}
"""
SITE = "server {{ listen 443 ssl; server_name {host}; root /srv/mirror/www/{folder}; }}\n"
REGISTRY = """server {{
  listen 443 ssl;
  server_name {host};
  {who}
  location = /v2/ {{ proxy_pass http://127.0.0.1:5000/v2/; }}
  location /v2/ {{ proxy_pass http://127.0.0.1:5000/v2/{name}/; }}
}}
"""
WHO = 'auth_basic "registry"; auth_basic_user_file /srv/outside/accounts;'
PROXY = """Port {port}
Timeout 600
LogFile "/var/log/proxy.log"
BasicAuth proxy {password}
ConnectPort 443
"""
# What its owner has made of a machine. The language is not installed, as on most.
MACHINE = {
    Unkind.ACCOUNT: """
id {user} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {user}
echo {account} | chpasswd
install --directory --mode 0700 --owner {user} /home/{user}/.ssh
install --mode 0600 --owner {user} /root/.ssh/authorized_keys /home/{user}/.ssh/authorized_keys
echo '{user} ALL=(ALL:ALL) ALL' > /etc/sudoers.d/{user}
echo PermitRootLogin no > /etc/ssh/sshd_config.d/no-root.conf
systemctl reload ssh
""",
    Unkind.LANGUAGE: "echo LANG=fr_FR.UTF-8 > /etc/default/locale\n",
    Unkind.UMASK: """
sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs
cd /etc/pam.d
grep -q pam_umask common-session || echo 'session optional pam_umask.so' >> common-session
""",
    Unkind.CLOCK: "ln -sf /usr/share/zoneinfo/America/St_Johns /etc/localtime\n",
}


def registries() -> dict[str, str]:
    """Return the hosts of the registries that machines know, and how images' names call them."""
    role = paths.repository() / "roles" / "container_runtime"
    known = yaml.safe_load((role / "defaults" / "main.yml").read_text())["container_runtime_registries"]
    return {str(urlsplit(url).hostname): name for name, url in known.items()}


def _secret(file: Path) -> str:
    """Return a password that is made once, of letters and digits, since the proxy knows no others."""
    if not file.is_file():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(12))
    return file.read_text()


def prepare(home: Path) -> None:
    """Fill the folder that the mirror's host sees: sites, certificates, the proxy and its account."""
    folder = home / "outside"
    names = upstream()
    sites = [SITE.format(host=host, folder=path) for host, path in SITES.items()]
    sites += [
        REGISTRY.format(host=host, name=name, who=WHO if host == PRIVATE else "")
        for host, name in registries().items()
    ]
    (folder / "sites.conf").write_text("".join([NGINX, *sites]))
    (folder / "proxy.conf").write_text(PROXY.format(port=PROXY_PORT, password=_secret(home / "proxy")))
    (folder / "accounts").write_text(f"puller:{{PLAIN}}{_secret(home / 'registry')}\n")
    authority = certificates.load(home / "authority") or certificates.make(
        home / "authority", "outside of the lab", [], 3650, issuer=None, is_ca=True
    )
    if not certificates.load(folder / "tls"):
        certificates.make(folder / "tls", names[0], names, 3650, issuer=authority, is_ca=False)


def upstream() -> list[str]:
    """Return the names of upstream's hosts, which only the proxy knows."""
    return ["pkgs.k8s.io", *SITES, *registries()]


def proxy(lab: Lab, home: Path) -> str:
    """Return the proxy's URL; a character of its password is written as an owner writes an @."""
    password = _secret(home / "proxy")
    return f"http://proxy:%{ord(password[0]):02X}{password[1:]}@{lab.mirror.address}:{PROXY_PORT}"


def settings(lab: Lab, home: Path) -> dict[str, Any]:
    """Return what a user has to say of such a place; no base URL is among it."""
    found: dict[str, Any] = {}
    if Unkind.ACCOUNT in lab.unkind:
        found["ansible_become_password"] = _secret(home / "sudo")
    if Unkind.PROXY in lab.unkind:
        found |= {
            "cluster_http_proxy": proxy(lab, home),
            # What has no repository upstream is fetched from here.
            "cluster_proxy_exceptions": [lab.mirror.address],
            "cluster_authorities": (home / "authority.crt").read_text(),
            "image_registry_credentials": {
                PRIVATE: {"username": "puller", "password": _secret(home / "registry")}
            },
        }
    return found


def machine(lab: Lab, home: Path, node: Node) -> None:
    """Make a node's machine unkind; once more does no harm."""
    script = "".join(text for kind, text in MACHINE.items() if kind in lab.unkind)
    if script:
        account = shlex.quote(f"{lab.user}:{_secret(home / 'sudo')}")
        podman.execute(node.name, ["bash", "-euc", script.format(user=lab.user, account=account)])
