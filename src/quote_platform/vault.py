"""Use Vault through its API: initialise it, unseal it, bring its resources to a state, restore a snapshot."""
# Keys and tokens stay in the memory of the process that asks.

from __future__ import annotations

import base64
import copy
import hashlib
import os
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, get_file_vault_secret

from quote_platform.difference import difference

Document = dict[str, Any]

RESOURCE: Document = {
    "path": {"type": "str", "required": True},
    "data": {"type": "dict", "default": {}},
    "once": {"type": "dict", "default": {}},
    "secret": {"type": "dict", "default": {}},
    "after": {"type": "list", "elements": "str", "default": []},
    "hidden": {"type": "bool", "default": False},
    "call": {"type": "bool", "default": False},
}
# What the task use_vault is given; plugins/modules has what each means.
SPEC: Document = {
    "address": {"type": "str", "required": True},
    "ca": {"type": "str", "default": ""},
    "keys_file": {"type": "path", "required": True},
    "password_file": {"type": "path", "required": True},
    "initialize": {"type": "bool", "default": False},
    "shares": {"type": "int", "default": 5},
    "threshold": {"type": "int", "default": 3},
    "snapshot": {"type": "path", "default": ""},
    "resources": {"type": "list", "elements": "dict", "default": [], "options": RESOURCE},
    "read": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 120},
}
RUNBOOK = "see docs/vault.md"
# What Vault answers while it is about to do something.
# A database may be on its way, or the way to it.
PASSING = re.compile(r"Upgrading from non-versioned|local node not active|error verifying connection")
ROOT_TTL = "30m"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Refused(Exception):
    """Vault cannot be used so; the text says why and what to do."""


class Api:
    """Vault's API at one address."""

    def __init__(self, address: str, client: httpx.Client, timeout: float) -> None:
        self.address = address
        self.client = client
        self.timeout = timeout
        self.token = ""

    @classmethod
    def open(cls, address: str, ca: str, timeout: float) -> Api:
        """Return the API; an empty authority means those that the system trusts."""
        context = ssl.create_default_context(cadata=ca or None)
        return cls(address, httpx.Client(base_url=f"{address}/v1/", verify=context, timeout=60), timeout)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request."""
        headers = {"X-Vault-Request": "true"} | ({"X-Vault-Token": self.token} if self.token else {})
        return self.client.request(method, path, headers=headers, **options)

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        """Repeat a check until it returns something; an address that does not answer may come to it."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                if found := check():
                    return found
                why = what
            except httpx.TransportError as error:
                why = f"does not answer: {error}; try `systemctl status vault` there"
                if "certificate verify failed" in str(error).lower():
                    raise Refused(f"{self.address} shows a certificate that vault_ca did not sign") from error
            if time.monotonic() > deadline:
                raise Refused(f"{self.address} {why} (after {self.timeout:.0f} s)")
            time.sleep(0.5)

    def call(self, method: str, path: str, body: Document | None = None) -> Document:
        """Send one request and return its answer; what has not come up yet is waited for."""
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self.ask(method, path, json=body)
            if answer.is_success:
                return dict(answer.json()) if answer.content else {}
            errors = "; ".join(answer.json().get("errors") or []) if answer.content else ""
            errors = errors or f"status {answer.status_code}"
            if not PASSING.search(errors) or time.monotonic() > deadline:
                raise Refused(f"{self.address} {method} {path}: {errors.strip()}")
            time.sleep(0.5)

    def status(self) -> Document:
        """Return whether it is initialised and sealed, and how it is unsealed."""
        return dict(self.until("has no seal", lambda: self.ask("GET", "sys/seal-status").json()))

    def wait_ready(self) -> None:
        """Wait until it serves, as the active one or a standby that knows it."""

        def serves() -> bool:
            if self.ask("GET", "sys/health?standbyok=true&perfstandbyok=true").status_code != 200:
                return False
            leader = self.ask("GET", "sys/leader").json()
            return bool(leader["is_self"] or leader["leader_address"])

        self.until(f"is not ready; {RUNBOOK}", serves)


class Keys:
    """The unseal (or recovery) keys, encrypted by ansible-vault in a file of the controller."""

    def __init__(self, file: Path, password_file: Path) -> None:
        self.file = file
        self.password_file = password_file

    @property
    def there(self) -> bool:
        """Tell whether keys are kept."""
        return self.file.is_file()

    def _vault(self) -> VaultLib:
        try:
            secret = get_file_vault_secret(filename=str(self.password_file), loader=DataLoader())
            secret.load()
        except AnsibleError as error:
            raise Refused(
                f"the password of {self.file} cannot be had from vault_server_password_file: {error}"
            ) from error
        return VaultLib([("default", secret)])

    def kept(self) -> Document:
        """Return the keys and how many of them it takes."""
        if not self.there:
            raise Refused(f"{self.file} is missing: nothing else can open Vault; {RUNBOOK}")
        try:
            return dict(yaml.safe_load(self._vault().decrypt(self.file.read_bytes())))
        except AnsibleError as error:
            raise Refused(f"{self.file} cannot be decrypted with {self.password_file}: {error}") from error

    def load(self) -> list[str]:
        """Return as many keys as it takes."""
        kept = self.kept()
        return list(kept["keys"][: kept["threshold"]])

    def keep(self, make: Callable[[], Document]) -> None:
        """Keep what is made, which is made only once it is sure that it can be kept."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.password_file.exists():
            self.password_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with create(self.password_file) as file:
                file.write(secrets.token_urlsafe(32).encode() + b"\n")
        vault = self._vault()
        part = self.file.with_name(f".{self.file.name}.part")
        part.unlink(missing_ok=True)
        with create(part) as file:
            file.write(vault.encrypt(yaml.safe_dump(make())))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.file)


@contextmanager
def create(path: Path) -> Iterator[Any]:
    """Open a new file that nobody else can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


# --- initialise, unseal, restore ------------------------------------------------------------------------


def initialize(api: Api, auto: bool, shares: int, threshold: int) -> tuple[Document, str]:
    """Initialise Vault; return what must be kept, and the root token."""
    kind = "recovery" if auto else "secret"
    answer = api.call("PUT", "sys/init", {f"{kind}_shares": shares, f"{kind}_threshold": threshold})
    keys = answer["recovery_keys_base64" if auto else "keys_base64"]
    return {"kind": kind, "threshold": threshold, "keys": keys}, answer["root_token"]


def begin(api: Api, keys: Keys, auto: bool, given: Document) -> None:
    """Initialise Vault for good: its keys are kept first of all, its first root token ends at once."""
    tokens = []

    def make() -> Document:
        kept, token = initialize(api, auto, given["shares"], given["threshold"])
        tokens.append(token)
        return kept

    keys.keep(make)
    if not auto:
        unseal(api, keys.load())
    api.wait_ready()
    with owning(api, tokens[0]):
        pass


def unseal(api: Api, keys: list[str]) -> None:
    """Hand over keys until it is open."""
    try:
        for key in keys:
            if not api.call("PUT", "sys/unseal", {"key": key}).get("sealed"):
                break
    except Refused as error:
        raise Refused(f"{error}: the kept keys do not open this Vault; {RUNBOOK}") from error
    api.wait_ready()


@contextmanager
def root(api: Api, keys: list[str]) -> Iterator[None]:
    """Use the API as root: a token is made of the keys for this, and revoked at the end.

    It ends by itself, should nobody revoke it. The one of the keys does not, so it only makes that one.
    """
    api.call("DELETE", "sys/generate-root/attempt")  # one that was cut off
    begun = api.call("PUT", "sys/generate-root/attempt", {})
    done: Document = {}
    for key in keys:
        done = api.call("PUT", "sys/generate-root/update", {"key": key, "nonce": begun["nonce"]})
        if done.get("complete"):
            break
    encoded = done.get("encoded_token") or ""
    if not encoded:
        raise Refused(f"{api.address} makes no token of the kept keys; {RUNBOOK}")
    mixed = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    with owning(api, bytes(a ^ b for a, b in zip(mixed, begun["otp"].encode(), strict=True)).decode()):
        wanted = {"policies": ["root"], "ttl": ROOT_TTL, "renewable": False, "no_parent": True}
        made = api.call("POST", "auth/token/create", wanted)
    with owning(api, made["auth"]["client_token"]):
        yield


@contextmanager
def owning(api: Api, token: str) -> Iterator[None]:
    """Use the API with a token that ends with the block."""
    api.token = token
    try:
        yield
    finally:
        with suppress(Refused, httpx.TransportError):
            api.call("POST", "auth/token/revoke-self")
        api.token = ""


def restore(api: Api, auto: bool, snapshot: Path, kept: Document) -> None:
    """Put a snapshot in the place of everything: into an empty Vault that is made for it."""
    # As many keys as are kept: Vault goes on counting as it did before the snapshot.
    thrown_away, token = initialize(api, auto, len(kept["keys"]), kept["threshold"])
    if not auto:
        unseal(api, thrown_away["keys"][: kept["threshold"]])
    api.wait_ready()
    api.token = token
    with snapshot.open("rb") as file:
        answer = api.ask("POST", "sys/storage/raft/snapshot-force", content=file)
    if not answer.is_success:
        raise Refused(f"{api.address} refuses the snapshot: {answer.text.strip()}")

    # It answers before it begins. Then this token is unknown, and the keys are those of the snapshot.
    def restored() -> bool:
        status = api.ask("GET", "auth/token/lookup-self").status_code
        return status == 403 or (status == 503 and bool(api.ask("GET", "sys/seal-status").json()["sealed"]))

    try:
        api.until("does not take the snapshot; see `journalctl -u vault` there", restored)
    finally:
        api.token = ""


# --- resources ------------------------------------------------------------------------------------------


def read(api: Api, path: str) -> Document | None:
    """Return what Vault has at a path, or nothing."""
    kind, _, name = path.rpartition("/")
    # There is a list of audit devices only.
    answer = api.ask("GET", kind if kind == "sys/audit" else path)
    if answer.status_code == 404:
        return None
    if not answer.is_success:
        errors = "; ".join(answer.json().get("errors") or []) or f"status {answer.status_code}"
        if re.match(r"No (secret|auth) engine", errors):
            return None
        raise Refused(f"{api.address} GET {path}: {errors}")
    found = dict(answer.json().get("data") or {})
    if kind == "sys/audit":
        return found.get(f"{name}/")
    # Where a database's settings lie is Vault's own affair.
    return found | (found.get("connection_details") or {})


def seconds(text: str) -> int | None:
    """Return a duration such as 1h30m in seconds; nothing if it is none."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    parts = re.findall(r"(\d+)([smhd])", text)
    whole = "".join(f"{number}{unit}" for number, unit in parts)
    return sum(int(number) * UNITS[unit] for number, unit in parts) if parts and whole == text else None


def same(wanted: Any, found: Any) -> bool:
    """Tell whether what is found means what is wanted; of a mapping only the wanted keys count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(same(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        items = found.split(",") if isinstance(found, str) and found else found or []
        return sorted(map(str, wanted)) == sorted(map(str, items))
    if isinstance(wanted, bool) or isinstance(found, bool):
        return str(wanted).lower() == str(found).lower()
    if isinstance(found, int) and isinstance(wanted, str):
        return seconds(wanted) == found
    return str(wanted) == ("" if found is None else str(found))


def part(wanted: Document, found: Document) -> Document:
    """Return of what is found what there is a wish for."""
    chosen: Document = {}
    for key in wanted.keys() & found.keys():
        inner = isinstance(wanted[key], dict) and isinstance(found[key], dict)
        chosen[key] = part(wanted[key], found[key]) if inner else found[key]
    return chosen


def veil(value: Any) -> Any:
    """Return a value that tells only whether it has changed."""
    if isinstance(value, dict):
        return {key: veil(item) for key, item in value.items()}
    return f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()[:12]}"


def write(api: Api, resource: Document, found: Document | None) -> None:
    """Bring one resource to its state."""
    path, data = resource["path"], copy.deepcopy(resource["data"]) | resource["secret"]
    mount = re.match(r"sys/(mounts|auth)/", path)
    if found is None:
        api.call("POST", path, data | resource["once"])
        for one in resource["after"]:
            api.call("POST", one)
    elif mount:
        if not same(data.get("type", found["type"]), found["type"]):
            raise Refused(
                f"{path} is of type {found['type']}, wanted is {data['type']}: disable it by hand first"
            )
        data.pop("type", None)
        api.call("POST", f"{path}/tune", data.pop("config", {}) | data)
    else:
        if path.startswith("sys/audit/"):  # it cannot be changed
            api.call("DELETE", path)
        api.call("POST", path, data)


def apply(api: Api, resources: list[Document], dry_run: bool) -> list[Document]:
    """Bring resources to their state, in their order; return the differences."""
    differences = []
    for resource in resources:
        path, data = resource["path"], resource["data"]
        found = None if resource["call"] else read(api, path)
        if not resource["call"] and found is not None and same(data, found):
            continue
        before, after = part(data, found or {}), data
        if resource["hidden"]:
            before, after = veil(before), veil(after)
        header = f"{path} ({'call' if resource['call'] else 'change' if found is not None else 'create'})"
        texts = yaml.safe_dump(before) if before else "", yaml.safe_dump(after) if after else "{}\n"
        differences.append(difference(header, *texts))
        if not dry_run:
            write(api, resource, found)
    return differences


# --- all of it ------------------------------------------------------------------------------------------


def run(given: Document, dry_run: bool) -> Document:
    """Do what a task asks for; return what the task returns."""
    keys = Keys(Path(given["keys_file"]), Path(given["password_file"]))
    try:
        return use(given, dry_run, Api.open(given["address"], given["ca"], given["timeout"]), keys)
    except httpx.TransportError as error:
        raise Refused(str(error)) from error


def use(given: Document, dry_run: bool, api: Api, keys: Keys) -> Document:
    """Do what is asked for, with one Vault and its keys."""
    names = [resource["path"] for resource in given["resources"]]
    if dry_run and not keys.there:
        wish = [f"initialise {api.address}"] if given["initialize"] else names
        return {"changed": bool(wish), "changes": wish, "found": dict.fromkeys(given["read"])}
    done = come_up(given, dry_run, api, keys)
    differences: list[Document] = []
    found: Document = {}
    if done and dry_run:
        done += names
    elif names or given["read"]:
        api.wait_ready()
        with root(api, keys.load()):
            differences = apply(api, given["resources"], dry_run)
            found = {path: read(api, path) for path in given["read"]}
    changes = done + [one["after_header"] for one in differences]
    return {"changed": bool(changes), "changes": changes, "diff": differences, "found": found}


def come_up(given: Document, dry_run: bool, api: Api, keys: Keys) -> list[str]:
    """Make sure that Vault is initialised and open; return what had to be done."""
    done: list[str] = []
    status = api.status()
    auto = status["type"] != "shamir"
    if not status["initialized"]:
        done.append(fill(given, dry_run, api, keys, auto))
        if dry_run:
            return done
        status = api.status()
    elif given["snapshot"]:
        raise Refused(f"{api.address} is not empty: a snapshot takes the place of everything")
    if status["sealed"]:
        done.append("unseal")
        if not dry_run and not auto:
            unseal(api, keys.load())
    if not dry_run:
        api.wait_ready()
    return done


def fill(given: Document, dry_run: bool, api: Api, keys: Keys, auto: bool) -> str:
    """Give an empty Vault its content; return what was done."""
    if given["snapshot"]:
        if not dry_run:
            restore(api, auto, Path(given["snapshot"]), keys.kept())
        return "restore"
    if not given["initialize"]:
        if not dry_run:
            api.until("does not join the others", lambda: api.status()["initialized"])
        return "join"
    if keys.there:
        raise Refused(
            f"{api.address} is empty, and {keys.file} has the keys of one that was there: restore it by "
            "`ansible-playbook -i INVENTORY playbooks/restore-vault.yml`, or move that file away to begin "
            "anew"
        )
    if not dry_run:
        begin(api, keys, auto, given)
    return "initialise"
