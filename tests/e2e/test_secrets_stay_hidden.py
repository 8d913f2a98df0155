"""After everything else: no secret of the lab stands where others than its user can read it."""

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from quote_platform import paths

from .conftest import LOGS, NAME, ROOT, Lab

SHORTEST = 12
# What lies beside secrets: names, addresses, certificates, public keys.
PUBLIC_KEYS = {
    "username",
    "ca.crt",
    "tls.crt",
    "host",
    "auth-extra-groups",
    "description",
    "expiration",
    "SIDECAR_IMAGE",
}
PUBLIC_FILES = {"authorized_keys", "cluster-id", "inventory", "names.env", "postgres-recovery.yml"}
# Settings of the store of logs, and the lines that it holds.
PUBLIC_FILES |= {"roles.yml", "elasticsearch.yml", "jvm.options", "log4j2.properties"}
PUBLIC_FOLDER = paths.state() / "labs" / NAME / "logs" / "data"
PATTERNS = "/run/secret-scan"
GREP = f"grep --text --only-matching --with-filename --null --no-messages --fixed-strings --file={PATTERNS}"
ON_NODES = f"""
export LC_ALL=C
cat /proc/[0-9]*/cmdline | {GREP} --label="command line"
for one in $(grep -alsFf {PATTERNS} /proc/[0-9]*/environ); do
  {GREP} --label="environment of $(cat "${{one%environ}}comm")" < "$one"
done
journalctl --no-pager --all --output cat --output-fields MESSAGE,_CMDLINE | {GREP} --label=journal
{GREP} --recursive --exclude-dir=journal /var/log
find /var/log -name '*.gz' -exec zcat {{}} + | {GREP} --label="rotated logs"
"""
ON_API = f"""
export KUBECONFIG=/etc/kubernetes/admin.conf
kinds=$(kubectl api-resources --verbs=list -o name | grep -vx secrets | paste -sd ,)
kubectl get "$kinds" -A -o json | {GREP} --label="objects that are no Secrets"
"""
# versitygw takes the key of its first account from nowhere else; only root and itself read its environment.
ALLOWED = {(f"{NAME}-store-1: environment of versitygw", f"{NAME}/object-store.yml root")}


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a structure, with the key above it."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from leaves(below, str(name))
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below, key)
    else:
        yield key, str(value)


def needles(text: str) -> Iterator[str]:
    """Yield what to look for: the value and its base64; of a key each line, since logs break them."""
    text = text.strip()
    if "-----BEGIN CERTIFICATE" in text or len(text) < SHORTEST:
        return
    encoded = base64.b64encode(text.encode()).decode().rstrip("=")
    if "-----BEGIN" in text:
        yield from (line for line in text.splitlines() if len(line) >= 40 and not line.startswith("---"))
        yield encoded[80:160]
    elif "\n" not in text:
        yield text
        yield encoded[:-1]  # its last letter depends on what follows


def secrets(lab: Lab) -> dict[str, str]:
    """Return what must not be found, and what it is."""
    found: dict[str, str] = {}

    def add(name: str, key: str, text: str) -> None:
        if key not in PUBLIC_KEYS:
            found.update(dict.fromkeys(needles(text), f"{name} {key}".strip()))

    for secret in json.loads(lab.kubectl("get secrets -A -o json"))["items"]:
        name = f"Secret {secret['metadata']['namespace']}/{secret['metadata']['name']}"
        for key, value in (secret.get("data") or {}).items():
            add(name, key, base64.b64decode(value).decode(errors="replace"))
    folders = [ROOT / "secrets" / NAME, paths.state() / "labs" / NAME]
    files = [file for folder in folders for file in folder.rglob("*") if file.stat().st_size < 1_000_000]
    for file in (*files, paths.vault_password(NAME)):
        if not file.is_file() or file.suffix in {".crt", ".pub", ".pem"}:
            continue
        if file.name in PUBLIC_FILES or file.is_relative_to(PUBLIC_FOLDER):
            continue
        text, name = file.read_text(errors="replace"), str(file.relative_to(file.parents[1]))
        if file.name == "kubeconfig":
            add(
                name,
                "",
                base64.b64decode(yaml.safe_load(text)["users"][0]["user"]["client-key-data"]).decode(),
            )
            continue
        for key, value in leaves(yaml.safe_load(text) if file.suffix == ".yml" else text):
            add(name, key, value)
    return found


class Scan:
    """Looks for texts, and says where it has found which secret."""

    def __init__(self, lab: Lab, hidden: dict[str, str], folder: Path) -> None:
        self.lab, self.hidden, self.finds = lab, hidden, set[tuple[str, str]]()
        self.patterns = folder / "patterns"
        self.patterns.touch(mode=0o600)
        self.patterns.write_text("".join(f"{text}\n" for text in hidden))

    def note(self, where: str, output: str) -> None:
        for line in output.splitlines():
            place, _, text = line.partition("\0")
            if text in self.hidden:
                self.finds.add((f"{where}: {place}", self.hidden[text]))

    def here(self, *places: Path) -> None:
        """Look through files of this machine."""
        command = [*GREP.replace(PATTERNS, str(self.patterns)).split(), "--recursive", *map(str, places)]
        self.note("here", subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    def node(self, name: str, script: str) -> None:
        """Look through processes, journal and logs of a node."""
        given = ["quote-platform", "lab", "ssh", "--name", NAME, name, f"umask 077; cat > {PATTERNS}"]
        subprocess.run(given, input=self.patterns.read_bytes(), cwd=ROOT, check=True)
        try:
            self.note(name, self.lab.ssh(name, script, check=False))
        finally:
            self.lab.ssh(name, f"rm {PATTERNS}")


@contextmanager
def planted(lab: Lab, word: str) -> Iterator[set[str]]:
    """Put a word where the scan must find it, in clear and as base64; yield where."""
    log = LOGS / "planted.log"
    log.write_text(f"password: {base64.b64encode(word.encode()).decode()}\n")
    lab.ssh(
        "worker-1", f"logger {word}; echo {word} > /var/log/planted; echo {word} | gzip > /var/log/planted.gz"
    )
    lab.ssh("worker-1", f"(exec -a {word} sleep 600 < /dev/null > /dev/null 2>&1 &)")
    lab.kubectl(f"create configmap planted -n default --from-literal=word={word}")
    try:
        node = f"{NAME}-worker-1"
        yield {
            f"here: {log}",
            f"{node}: command line",
            f"{node}: journal",
            f"{node}: /var/log/planted",
            f"{node}: rotated logs",
            f"{NAME}-master-1: objects that are no Secrets",
        }
    finally:
        log.unlink()
        lab.ssh("worker-1", "rm /var/log/planted*")
        lab.kubectl("delete configmap planted -n default")


def test_no_secret_is_to_be_found(lab: Lab, tmp_path: Path) -> None:
    hidden = secrets(lab)
    assert len(set(hidden.values())) > 15, sorted(set(hidden.values()))
    word = f"planted-{uuid.uuid4().hex}"
    scan = Scan(lab, hidden | dict.fromkeys(needles(word), "planted"), tmp_path)
    state = json.loads(lab.command("quote-platform", "lab", "status", "--name", NAME, "--json"))
    tracked = [ROOT / name for name in lab.command("git", "ls-files").splitlines()]
    with planted(lab, word) as places, ThreadPoolExecutor() as pool:
        scan.here(paths.state() / "logs", ROOT / "reports", *tracked)
        # The store of logs is a process without SSH.
        reached = [node["name"] for node in state["nodes"] if node["role"] != "logs"]
        list(pool.map(lambda name: scan.node(name, ON_NODES), reached))
        scan.node(f"{NAME}-master-1", ON_API)
    assert not places - {place for place, what in scan.finds if what == "planted"}, "the scan is deaf"
    finds = {find for find in scan.finds if find[1] != "planted"} - ALLOWED
    assert not finds, "\n".join(f"{place}: {what}" for place, what in sorted(finds))
