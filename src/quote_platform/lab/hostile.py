"""What makes a lab as unkind as real places are; docs/testing.md has all of it."""

import secrets
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from quote_platform import certificates, paths
from quote_platform.lab import host, image, podman
from quote_platform.lab.model import Lab, Node, Unkind
from quote_platform.mirror.source import run

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
echo {account} | chpasswd --crypt-method SHA512
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
# Of nodes of the cluster, once: what the platform has replaced or switched off since stays so.
NODE = {
    Unkind.RUNTIME: """
if ! dpkg-query --search /usr/bin/containerd >/dev/null 2>&1; then
  dpkg --install /srv/runtime/*.deb
  systemctl is-active --quiet containerd
fi
""",
    # The kernel has it on or off for all nodes of this machine.
    Unkind.SWAP: """
if ! grep -q /swap.img /etc/fstab; then
  echo '/swap.img none swap sw 0 0' >> /etc/fstab
  dd if=/dev/zero of=/var/swap bs=1M count=1 status=none
  chmod 600 /var/swap
  mkswap --quiet /var/swap
  printf '%s\\n' '[Swap]' What=/var/swap '[Install]' WantedBy=multi-user.target \
    > /etc/systemd/system/var-swap.swap
  systemctl enable --quiet var-swap.swap
  swapon /swap.img || true
fi
""",
}
# The distribution's own runtime of containers.
PACKAGES = ("containerd", "runc")
KUBERNETES = ("master", "worker")
SWAP_BYTES = 16 * 1024**2
MEMINFO = """MemTotal: {size} kB
MemFree: {size} kB
MemAvailable: {size} kB
Buffers: 0 kB
Cached: 0 kB
SwapCached: 0 kB
SwapTotal: 0 kB
SwapFree: 0 kB
"""


def registries() -> dict[str, str]:
    """Return the hosts of the registries that machines know, and how images' names call them."""
    role = paths.repository() / "roles" / "container_runtime"
    known = yaml.safe_load((role / "defaults" / "main.yml").read_text())["container_runtime_registries"]
    return {str(urlsplit(url).hostname): name for name, url in known.items()}


def _secret(file: Path) -> str:
    """Return a password that is made once, of letters and digits, since the proxy knows no others."""
    return paths.secret(file, secrets.token_hex(12))


def prepare(lab: Lab, home: Path) -> None:
    """Make what machines of such a place are given when they start."""
    if Unkind.PROXY in lab.unkind:
        _outside(home)
    swap = home / "swap.img"
    if Unkind.SWAP in lab.unkind and not swap.is_file():
        part = home / "swap.part"
        part.write_bytes(bytes(SWAP_BYTES))  # without holes, in which nothing can be swapped
        part.chmod(0o600)
        subprocess.run(["mkswap", "--quiet", part], check=True)
        part.rename(swap)
    for node in lab.nodes if Unkind.MEMORY in lab.unkind else []:
        (home / f"meminfo-{node.name}").write_text(MEMINFO.format(size=node.mebibytes * 1024))


def mounts(lab: Lab, home: Path, node: Node) -> list[str]:
    """Return what of that a node sees, as podman writes volumes."""
    found = []
    if Unkind.RUNTIME in lab.unkind and node.role in KUBERNETES:
        found.append(f"{runtime()}:/srv/runtime:ro")
    if Unkind.SWAP in lab.unkind and node.role in KUBERNETES:
        found.append(f"{home / 'swap.img'}:/swap.img")
    if Unkind.MEMORY in lab.unkind and node in lab.nodes:
        found.append(f"{home / f'meminfo-{node.name}'}:/proc/meminfo:ro")  # else the whole machine's
    return found


def runtime() -> Path:
    """Return the folder of the distribution's own packages, fetching them first if nobody has."""
    with host.lock("runtime"):
        suite = image.recipe()["suite"]
        folder = paths.cache() / "lab" / f"runtime-{suite}"
        if not folder.is_dir():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            fetched = " ".join(f'"$1"/var/cache/apt/archives/{name}_*.deb' for name in PACKAGES)
            hook = f"--extract-hook=cp {fetched} {shlex.quote(str(part))}"
            # Of the nodes' distribution, whatever this machine runs; nothing is kept but the packages.
            command = ["mmdebstrap", "--variant=extract", "--format=null", f"--include={','.join(PACKAGES)}"]
            run([*command, hook, suite, "/dev/null"], paths.state() / "logs" / "runtime.log")
            part.replace(folder)
        return folder


def release(home: Path) -> None:
    """Switch the swap of a lab off, which outlives its nodes."""
    if (home / "swap.img").is_file():
        # Mostly it is off already.
        subprocess.run(["swapoff", home / "swap.img"], capture_output=True, check=False)


def _outside(home: Path) -> None:
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
    wanted = MACHINE | (NODE if node.role in KUBERNETES else {})
    script = "".join(text for kind, text in wanted.items() if kind in lab.unkind)
    if script:
        account = shlex.quote(f"{lab.user}:{_secret(home / 'sudo')}")
        podman.execute(node.name, ["bash", "-euc", script.format(user=lab.user, account=account)])
