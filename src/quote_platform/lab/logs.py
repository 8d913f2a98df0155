"""A store of logs beside the cluster: the core of Elasticsearch, in the place of a whole one."""

import base64
import hashlib
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import yaml

from quote_platform.images import untagged
from quote_platform.lab import podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab
from quote_platform.mirror import catalogue, publish
from quote_platform.mirror.storage import root

# As the role `logging` asks of the owner of an external store.
ROLES = {
    "collector": {
        "cluster": ["monitor"],
        "indices": [{"names": ["logs-*"], "privileges": ["auto_configure", "create_doc"]}],
    },
    "admin": {"cluster": ["monitor", "manage_index_templates"]},
    "reader": {"indices": [{"names": ["logs-*"], "privileges": ["read", "view_index_metadata"]}]},
}
USER = 1000  # of the image; Elasticsearch refuses to run as root
HEAP = "400m"


def hashed(password: str) -> str:
    """Return a password as Elasticsearch keeps it in a file."""
    salt, cost = secrets.token_bytes(16), 10000
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, cost, 32)
    return f"{{PBKDF2}}{cost}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def prepare(lab: Lab, home: Path) -> None:
    """Fill the store's folder: its key, its accounts, its settings."""
    folder = home / "logs"
    config = folder / "config"
    for path in (folder, config, folder / "data"):
        path.mkdir(mode=0o700, exist_ok=True)
    if not (folder / "tls.crt").is_file():
        command = ["openssl", "req", "-x509", "-days", "3650", "-nodes"]
        command += ["-subj", f"/CN=store of logs of the lab {lab.name}"]
        command += ["-addext", f"subjectAltName=IP:{lab.log_store.address}"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-keyout", str(config / "tls.key"), "-out", str(folder / "tls.crt.part")]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "tls.crt.part").replace(folder / "tls.crt")
    (config / "tls.crt").write_bytes((folder / "tls.crt").read_bytes())
    for name in ROLES:
        if not (folder / name).is_file():
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
    if not (config / "users").is_file():
        users = [f"{name}:{hashed((folder / name).read_text())}\n" for name in ROLES]
        (config / "users").write_text("".join(users))
    (config / "users_roles").write_text("".join(f"{name}:{name}\n" for name in ROLES))
    (config / "roles.yml").write_text(yaml.safe_dump(ROLES))  # not JSON: it looks at lines
    settings = {
        "cluster.name": lab.name,
        "node.name": "logs",
        "discovery.type": "single-node",
        "network.host": "0.0.0.0",  # noqa: S104 (of its own container)
        "path.data": "/var/lib/elasticsearch",
        "path.logs": "/tmp",  # noqa: S108 (of its own container)
        # The host's disk is big and half full; it is not the lab's.
        "cluster.routing.allocation.disk.threshold_enabled": False,
        "xpack.security.enabled": True,
        "xpack.security.http.ssl.enabled": True,
        "xpack.security.http.ssl.key": "tls.key",
        "xpack.security.http.ssl.certificate": "tls.crt",
    }
    (config / "elasticsearch.yml").write_text(yaml.safe_dump(settings))
    (config / "jvm.options").write_text(f"-Xms{HEAP}\n-Xmx{HEAP}\n-XX:+UseSerialGC\n")
    (config / "log4j2.properties").write_text(
        "status = error\nappender.console.type = Console\nappender.console.name = console\n"
        "appender.console.layout.type = PatternLayout\n"
        "appender.console.layout.pattern = [%d{ISO8601}][%-5p] %m%n\n"
        "rootLogger.level = warn\nrootLogger.appenderRef.console.ref = console\n"
    )
    for path in (config, folder / "data", *config.iterdir()):
        os.chown(path, USER, USER)


def start(lab: Lab, home: Path) -> None:
    """Start it, if it does not run; nobody waits for it, the platform's collectors do."""
    store = lab.log_store
    match podman.containers(lab.name).get(store.name):
        case "running":
            return
        case "exited" | "stopped":
            podman.run("start", store.name)
            return
    name, tag = untagged(str(catalogue.versions()["log_store_image"]))
    image = f"{name}:{tag}"
    if not publish.image_in(root() / "registry", image):
        raise LabError(f"the mirror does not hold {image}: run `quote-platform mirror fill`")
    ours = f"localhost/quote-platform-logs:{tag}"
    with publish.registry() as address:
        podman.run("pull", "--quiet", "--tls-verify=false", f"{address}/{image}")
        podman.run("tag", f"{address}/{image}", ours)
        podman.run("untag", f"{address}/{image}", f"{address}/{image}")
    arguments = ["--name", store.name, "--hostname", "logs", "--label", f"{podman.LABEL}={lab.name}"]
    arguments += ["--network", lab.network, "--ip", store.address, "--memory", store.memory]
    arguments += ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000"]
    arguments += ["--tmpfs", "/tmp"]  # noqa: S108 (the container's)
    arguments += ["--volume", f"{home / 'logs' / 'config'}:/usr/share/elasticsearch/config"]
    arguments += ["--volume", f"{home / 'logs' / 'data'}:/var/lib/elasticsearch"]
    podman.run("run", "--detach", *arguments, ours)


def settings(lab: Lab, home: Path) -> dict[str, Any]:
    """Return the variables of the inventory."""
    folder = home / "logs"

    def password(name: str) -> str:
        return "{{ lookup('ansible.builtin.file', '" + str(folder / name) + "') }}"

    return {
        "logging_enabled": True,
        "logging_store": "external",
        "logging_url": f"https://{lab.log_store.address}:9200",
        "logging_ca": (folder / "tls.crt").read_text(),
        "logging_user": "collector",
        "logging_password": password("collector"),
        "logging_admin_user": "admin",
        "logging_admin_password": password("admin"),
        "logging_reader_user": "reader",
        "logging_reader_password": password("reader"),
        # It is a part of Elasticsearch: one node, without lifecycle management.
        "logging_replicas": 0,
        "logging_retention_days": 0,
    }
