"""Vault, as far as a snapshot needs it: log in as a ServiceAccount, read one, judge whether it is whole."""

import contextlib
import hashlib
import http.client
import io
import json
import os
import ssl
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from quote_platform.backup.store import PART, BackupError

SECONDS = 60
UNSEAL = "ansible-playbook -i INVENTORY playbooks/vault.yml"


class Vault:
    """Vault's API."""

    def __init__(self, address: str, context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.context = context
        self.token = ""

    @classmethod
    def from_environment(cls) -> "Vault":
        """Open the Vault that the environment names."""
        address = os.environ.get("VAULT_ADDR", "")
        if not address.startswith("https://"):
            raise BackupError(f"VAULT_ADDR is {address!r}: set it to the https:// address of Vault")
        return cls(address, ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT") or None))

    @contextlib.contextmanager
    def _asked(self, path: str, body: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
        """Send a request; what goes wrong until its answer was read is told in a sentence."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"X-Vault-Token": self.token} if self.token else {}
        request = urllib.request.Request(f"{self.address}/v1/{path}", data, headers)  # noqa: S310 (https)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=self.context) as answer:  # noqa: S310
                yield answer
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace").strip()
            what = f"it is sealed: run {UNSEAL}" if error.code == 503 else "check its role and policy"
            raise BackupError(f"{self.address} answers {error.code} to {path}: {text}: {what}") from error
        except (OSError, http.client.HTTPException) as error:
            raise BackupError(
                f"{self.address} does not answer to {path}: {error}: check the network"
            ) from error

    def login(self, role: str, token: Path) -> None:
        """Log in as a ServiceAccount."""
        with self._asked("auth/kubernetes/login", {"role": role, "jwt": token.read_text().strip()}) as answer:
            self.token = json.load(answer)["auth"]["client_token"]

    def snapshot(self) -> Generator[bytes]:
        """Yield a snapshot in parts of an upload."""
        with self._asked("sys/storage/raft/snapshot") as answer:
            while block := answer.read(PART):
                yield block


class _Stream(io.RawIOBase):
    """Blocks as a file that can be read once."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = iter(blocks)
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def] # noqa: ANN001 (io's own type is private)
        self.rest = self.rest or next(self.blocks, b"")
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def whole(blocks: Iterable[bytes], where: str) -> None:
    """Refuse what is no whole snapshot: an archive whose list of checksums has the state and is right."""
    sums: dict[str, str] = {}
    listed: dict[str, str] = {}
    stream = _Stream(blocks)
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is None:
                    continue
                if member.name == "SHA256SUMS":
                    lines = file.read().decode().splitlines()
                    listed = {name: checksum for checksum, name in (line.split() for line in lines)}
                else:
                    sums[member.name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise BackupError(
            f"{where} is no whole snapshot of Vault ({error}), and no backup: run again"
        ) from error
    wrong = [name for name, checksum in listed.items() if sums.get(name) != checksum]
    if wrong or "state.bin" not in listed:
        raise BackupError(
            f"{where} is no whole snapshot of Vault ({wrong or 'no state'}), and no backup: run again"
        )
    for _ in stream.blocks:  # the rest, for the checksum of all
        pass
