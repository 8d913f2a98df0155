"""A registry over the OCI distribution API: what it has, what is put there, what is deleted."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

from quote_platform.delivery import DeliveryError, NotThereError, RefusedError
from quote_platform.images import DEFAULT, DIGEST

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (INDEX, DOCKER_LIST)
ACCEPTED = ", ".join((INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
# Docker's images are served under another name than they carry, and its account is kept under a third.
HOSTS = {DEFAULT: "registry-1.docker.io"}
ACCOUNTS = {DEFAULT: "https://index.docker.io/v1/"}
SECONDS = 30.0
UPLOAD_SECONDS = 300.0  # a registry that keeps its content elsewhere answers when all of it is there
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def digest(content: bytes) -> str:
    """Return the digest of a content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical(data: Any) -> bytes:
    """Return data as JSON that is the same for the same data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def accounts() -> dict[str, tuple[str, str]]:
    """Return user and password by registry, from where `docker login` and `skopeo login` keep them."""
    config, runtime = os.environ.get("DOCKER_CONFIG"), os.environ.get("XDG_RUNTIME_DIR")
    places = [Path(config) / "config.json" if config else Path.home() / ".docker" / "config.json"]
    if runtime:
        places.append(Path(runtime) / "containers" / "auth.json")
    if own := os.environ.get("REGISTRY_AUTH_FILE"):
        places = [Path(own)]
    found: dict[str, tuple[str, str]] = {}
    for file in places:
        if not file.is_file():
            continue
        try:
            kept = json.loads(file.read_text()).get("auths") or {}
            for name, entry in kept.items():
                if packed := entry.get("auth"):
                    user, _, password = base64.b64decode(packed).decode().partition(":")
                    found.setdefault(name, (user, password))
        except (ValueError, AttributeError) as error:
            raise DeliveryError(f"{file}: not a file of accounts as `docker login` writes it") from error
    return found


@dataclass(frozen=True)
class Access:
    """How registries are reached.

    With a mirror (a URL), all names are asked for there, under the registry they carry, as nodes do.
    """

    mirror: str = ""
    authorities: str = ""  # PEM, beside those of the system
    accounts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def repository(self, host: str, name: str) -> Repository:
        """Return a repository of a registry; HOST may be a URL, for a registry without TLS."""
        scheme, mark, rest = host.rpartition("://")
        host, scheme = rest.rstrip("/"), scheme if mark else "https"
        if scheme not in ("http", "https") or not re.fullmatch(r"[a-zA-Z0-9.-]+(:\d{1,5})?", host):
            raise DeliveryError(f"{host}: not a registry; allowed is HOST, HOST:PORT or http://HOST:PORT")
        account = self.accounts.get(host) or self.accounts.get(ACCOUNTS.get(host, f"https://{host}"))
        if self.mirror:
            own = urlsplit(self.mirror).netloc
            base, path = f"{self.mirror.rstrip('/')}/v2/", f"{host}/{name}"
            account = self.accounts.get(own) or self.accounts.get(f"https://{own}")
        else:
            base, path = f"{scheme}://{HOSTS.get(host, host)}/v2/", name
        return Repository(base, path, f"{host}/{name}", self.client(SECONDS), account)

    def client(self, seconds: float) -> httpx.Client:
        """Return a client that trusts the authorities; redirects are for who asks: see Repository.ask."""
        return httpx.Client(timeout=seconds, verify=_trust(self.authorities))


@cache
def _trust(authorities: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


class Repository:
    """One repository of a registry. All errors are DeliveryErrors that name it."""

    def __init__(
        self, base: str, path: str, name: str, client: httpx.Client, account: tuple[str, str] | None
    ) -> None:
        self.base, self.path, self.name, self.account = base, path, name, account
        self.client = client
        self.authorization = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    # --- requests ---------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        missing: bool = False,
    ) -> httpx.Response:
        """Send a request below the repository, or to a URL that the registry gave; answer its challenge."""
        url = path if path.startswith("http") else f"{self.base}{self.path}/{path}"
        answer = self._send(method, url, headers, content)
        if answer.status_code == 401:
            self.authorization = self._answer(answer.headers.get("www-authenticate", ""))
            answer = self._send(method, url, headers, content)
        if answer.status_code in (401, 403):
            who = (
                f"the account {self.account[0]}"
                if self.account
                else "nobody (`skopeo login` keeps an account)"
            )
            raise DeliveryError(f"{self.name}: the registry does not let {who} {method} {path}")
        if answer.status_code in (301, 302, 303, 307, 308) and method in ("GET", "HEAD"):
            # Storage that registries send their readers to; who asks is not its business.
            target = urljoin(url, answer.headers["location"])
            answer = self._send(
                method, target, headers, None, known=urlsplit(target).netloc == urlsplit(url).netloc
            )
        if answer.status_code == 404 and missing:
            raise NotThereError(f"{self.name}: the registry has no {path}")
        if answer.status_code >= 400:
            text = " ".join(answer.text.split())[:200]
            raise DeliveryError(f"{self.name}: {method} {path} answers {answer.status_code}: {text}")
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | None,
        known: bool = True,
    ) -> httpx.Response:
        if urlsplit(url).netloc != urlsplit(self.base).netloc:
            known = False
        own = {"Authorization": self.authorization} if self.authorization and known else {}
        try:
            seconds = UPLOAD_SECONDS if content else SECONDS
            return self.client.request(
                method, url, headers={**(headers or {}), **own}, content=content, timeout=seconds
            )
        except httpx.HTTPError as error:
            raise DeliveryError(f"{self.name}: {urlsplit(url).netloc} does not answer: {error}") from error

    def _answer(self, challenge: str) -> str:
        """Return the header by which a registry knows us."""
        kind, _, rest = challenge.partition(" ")
        basic = ""
        if self.account:
            basic = "Basic " + base64.b64encode(":".join(self.account).encode()).decode()
        if kind.lower() == "basic":
            return basic
        given = dict(CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in given:
            raise DeliveryError(
                f"{self.name}: the registry asks for {challenge!r}; known are Basic and Bearer"
            )
        if urlsplit(given["realm"]).scheme != "https" and urlsplit(self.base).scheme == "https":
            raise DeliveryError(
                f"{self.name}: the registry sends its accounts to {given['realm']}, without TLS"
            )
        wanted = {name: given[name] for name in ("service", "scope") if name in given}
        try:
            answer = self.client.get(
                given["realm"], params=wanted, headers={"Authorization": basic} if basic else {}
            )
            answer.raise_for_status()
            token = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise DeliveryError(f"{self.name}: {given['realm']} gives no token: {error}") from error
        return f"Bearer {token.get('token') or token.get('access_token')}"

    # --- what is there ----------------------------------------------------------------------------------

    def tags(self) -> list[str]:
        """Return all tags, page by page."""
        found, path = list[str](), "tags/list?n=1000"
        while path:
            answer = self.ask("GET", path, missing=True)
            found += answer.json().get("tags") or []
            following = re.search(r'<([^>]+)>;\s*rel="?next"?', answer.headers.get("link", ""))
            path = urljoin(str(answer.url), following[1]) if following else ""
        return found

    def resolve(self, tag: str) -> str:
        """Return the digest that a tag stands for."""
        answer = self.ask("HEAD", f"manifests/{tag}", headers={"Accept": ACCEPTED}, missing=True)
        told = str(answer.headers.get("docker-content-digest", ""))
        return told if DIGEST.fullmatch(told) else self.manifest(tag)[0]

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """Return digest and content of a manifest; another content than a digest asks for is refused."""
        answer = self.ask("GET", f"manifests/{reference}", headers={"Accept": ACCEPTED}, missing=True)
        found = digest(answer.content)
        if DIGEST.fullmatch(reference) and found != reference:
            raise RefusedError(f"{self.name}@{reference}: altered: what the registry has is {found}")
        return found, answer.content

    def blob(self, wanted: str) -> bytes:
        """Return a blob; another content than its digest says is refused."""
        content = self.ask("GET", f"blobs/{wanted}", missing=True).content
        if digest(content) != wanted:
            raise RefusedError(f"{self.name}: blob {wanted} is altered: its content is {digest(content)}")
        return content

    def referrers(self, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of what is attached to an image, by the API or by the tag in its place."""
        try:
            answer = self.ask("GET", f"referrers/{subject}", missing=True)
            if answer.headers.get("content-type", "").startswith(INDEX):
                return list(answer.json().get("manifests") or [])
        except NotThereError:
            pass
        try:
            return list(json.loads(self.manifest(referrers_tag(subject))[1]).get("manifests") or [])
        except NotThereError:
            return []

    # --- changes ----------------------------------------------------------------------------------------

    def has_blob(self, wanted: str) -> bool:
        """Tell whether a blob is there."""
        try:
            self.ask("HEAD", f"blobs/{wanted}", missing=True)
        except NotThereError:
            return False
        return True

    def put_blob(self, content: bytes) -> str:
        """Put a blob, if it is not there; return its digest."""
        name = digest(content)
        if self.has_blob(name):
            return name
        started = self.ask("POST", "blobs/uploads/", headers={"Content-Length": "0"})
        place = urljoin(str(started.url), started.headers["location"])
        mark = "&" if urlsplit(place).query else "?"
        kind = {"Content-Type": "application/octet-stream"}
        self.ask("PUT", f"{place}{mark}digest={name}", headers=kind, content=content)
        return name

    def put_manifest(self, content: bytes, kind: str, tag: str = "") -> httpx.Response:
        """Put a manifest, under a tag or by its digest only."""
        return self.ask(
            "PUT", f"manifests/{tag or digest(content)}", headers={"Content-Type": kind}, content=content
        )

    def attach(
        self, subject: dict[str, Any], kind: str, content: bytes, layer: str, notes: Mapping[str, str]
    ) -> str:
        """Attach a document to an image as OCI referrer; return the digest of its manifest."""
        empty = self.put_blob(b"{}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": layer, "digest": self.put_blob(content), "size": len(content)}],
            "subject": subject,
            "annotations": dict(notes),
        }
        packed = canonical(manifest)
        answer = self.put_manifest(packed, MANIFEST)
        if "oci-subject" not in answer.headers:  # a registry without that API: its place is a tag
            entry = {
                "mediaType": MANIFEST,
                "digest": digest(packed),
                "size": len(packed),
                "artifactType": kind,
                "annotations": dict(notes),
            }
            others = [one for one in self.referrers(subject["digest"]) if one["digest"] != entry["digest"]]
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]}
            self.put_manifest(canonical(index), INDEX, referrers_tag(subject["digest"]))
        return digest(packed)

    def delete(self, wanted: str) -> None:
        """Delete a manifest by its digest, and so all its tags."""
        try:
            self.ask("DELETE", f"manifests/{wanted}", missing=True)
        except NotThereError:
            return
        except DeliveryError as error:
            if " 405:" in str(error) or "UNSUPPORTED" in str(error):
                raise DeliveryError(
                    f"{self.name}: the registry deletes nothing by its API: use its own retention, such as "
                    "ECR's lifecycle policies or GHCR's package versions"
                ) from error
            raise


def referrers_tag(subject: str) -> str:
    """Return the tag that stands in for the API of referrers."""
    return subject.replace(":", "-")
