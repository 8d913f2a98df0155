"""A registry in memory that takes the OCI distribution API at its word, and files beside it."""

import base64
import contextlib
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "robot", "p:ss"
NAME = r"/v2/(?P<name>[a-z0-9._/-]+?)"
INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """What it holds, how it lets people in, and what was asked of it."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, str] = {}
        self.entry = ""  # basic, token
        self.knows_referrers = True
        self.deletes = True
        self.page = 1000
        self.calls: list[str] = []
        self.address = ""

    def put(self, name: str, tag: str, manifest: dict[str, Any]) -> str:
        """Put a manifest as if somebody had pushed it; return its digest."""
        content = json.dumps(manifest).encode()
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        kind = manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json")
        self.manifests[name, found] = (kind, content)
        self.tags[name, tag] = found
        return found

    def image(self, name: str, tag: str, created: str = "2026-01-01T00:00:00Z", **more: Any) -> str:
        """Put an image of a configuration and no layers; return its digest."""
        config = json.dumps({"created": created, "tag": tag} | more).encode()
        found = f"sha256:{hashlib.sha256(config).hexdigest()}"
        self.blobs[name, found] = config
        kind = "application/vnd.oci.image.config.v1+json"
        described = {"mediaType": kind, "digest": found, "size": len(config)}
        return self.put(name, tag, {"schemaVersion": 2, "config": described, "layers": []})


@contextlib.contextmanager
def served() -> Iterator[Registry]:
    """Serve a registry on loopback."""
    registry = Registry()
    handler = type("Handler", (Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    registry.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers the API."""

    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _say(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _wrong(self, status: int, code: str) -> None:
        self._say(status, json.dumps({"errors": [{"code": code}]}).encode())

    def _let_in(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.registry.entry == "basic":
            if given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
                return True
            self._say(401, WWW_Authenticate='Basic realm="registry"')
            return False
        if self.registry.entry == "token":
            name = re.match(NAME + r"/(?:tags|manifests|blobs|referrers)", self.path)
            kind = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            scope = f"repository:{name['name'] if name else ''}:{kind}"
            if given.startswith("Bearer ") and scope in given.removeprefix("Bearer "):
                return True
            where = f'realm="http://{self.registry.address}/token",service="registry",scope="{scope}"'
            self._say(401, WWW_Authenticate=f"Bearer {where}")
            return False
        return True

    def do(self) -> None:
        """Answer a request."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.registry.calls.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            self._token(asked)
        elif parts.path in self.registry.files:
            self._say(200, self.registry.files[parts.path])
        elif self._let_in():
            self._api(parts.path, asked, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def _token(self, asked: dict[str, str]) -> None:
        known = self.headers.get("Authorization", "")
        if known != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            self._wrong(401, "UNAUTHORIZED")
        else:
            self._say(200, json.dumps({"token": asked["scope"]}).encode())

    def _api(self, path: str, asked: dict[str, str], body: bytes) -> None:
        if found := re.fullmatch(NAME + "/tags/list", path):
            self._tags(found["name"], asked)
        elif found := re.fullmatch(NAME + "/manifests/(?P<reference>[^/]+)", path):
            self._manifest(found["name"], found["reference"], body)
        elif found := re.fullmatch(NAME + "/referrers/(?P<digest>[^/]+)", path):
            self._referrers(found["name"], found["digest"])
        elif found := re.fullmatch(NAME + "/blobs/uploads/(?P<upload>[^/]*)", path):
            self._upload(found["name"], found["upload"], asked, body)
        elif found := re.fullmatch(NAME + "/blobs/(?P<digest>sha256:[0-9a-f]{64})", path):
            content = self.registry.blobs.get((found["name"], found["digest"]))
            if content is None:
                self._wrong(404, "BLOB_UNKNOWN")
            else:
                self._say(200, content)
        else:
            self._wrong(404, "NOT_FOUND")

    def _tags(self, name: str, asked: dict[str, str]) -> None:
        every = sorted(tag for of, tag in self.registry.tags if of == name)
        if not every:
            self._wrong(404, "NAME_UNKNOWN")
            return
        after = asked.get("last", "")
        rest = [tag for tag in every if tag > after]
        page = rest[: self.registry.page]
        more = {}
        if len(rest) > len(page):
            more["Link"] = f'</v2/{name}/tags/list?n={self.registry.page}&last={page[-1]}>; rel="next"'
        self._say(200, json.dumps({"name": name, "tags": page}).encode(), **more)

    def _manifest(self, name: str, reference: str, body: bytes) -> None:
        registry = self.registry
        is_digest = reference.startswith("sha256:")
        if self.command == "PUT":
            found = f"sha256:{hashlib.sha256(body).hexdigest()}"
            data = json.loads(body)
            wanted = [one["digest"] for one in [data.get("config"), *data.get("layers", [])] if one]
            if is_digest and reference != found:
                self._wrong(400, "DIGEST_INVALID")
            elif any((name, digest) not in registry.blobs for digest in wanted):
                self._wrong(400, "MANIFEST_BLOB_UNKNOWN")
            else:
                registry.manifests[name, found] = (self.headers["Content-Type"], body)
                if not is_digest:
                    registry.tags[name, reference] = found
                subject = data.get("subject", {}).get("digest") if registry.knows_referrers else None
                self._say(201, Docker_Content_Digest=found, **({"OCI-Subject": subject} if subject else {}))
            return
        found = reference if is_digest else registry.tags.get((name, reference), "")
        if (name, found) not in registry.manifests:
            self._wrong(404, "MANIFEST_UNKNOWN")
        elif self.command == "DELETE":
            if not registry.deletes:
                self._wrong(405, "UNSUPPORTED")
                return
            del registry.manifests[name, found]
            registry.tags = {key: value for key, value in registry.tags.items() if value != found}
            self._say(202)
        else:
            kind, content = registry.manifests[name, found]
            if kind not in self.headers.get("Accept", ""):
                self._wrong(404, "MANIFEST_UNKNOWN")
            else:
                self._say(200, content, Content_Type=kind, Docker_Content_Digest=found)

    def _referrers(self, name: str, subject: str) -> None:
        if not self.registry.knows_referrers:
            self._wrong(404, "NOT_FOUND")
            return
        listed = []
        for (of, digest), (kind, content) in self.registry.manifests.items():
            data = json.loads(content)
            if of == name and data.get("subject", {}).get("digest") == subject:
                listed.append(
                    {
                        "mediaType": kind,
                        "digest": digest,
                        "size": len(content),
                        "artifactType": data.get("artifactType"),
                        "annotations": data.get("annotations", {}),
                    }
                )
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        self._say(200, json.dumps(index).encode(), Content_Type=INDEX)

    def _upload(self, name: str, upload: str, asked: dict[str, str], body: bytes) -> None:
        if self.command == "POST":
            made = uuid.uuid4().hex
            self.registry.uploads[made] = name
            self._say(202, Location=f"/v2/{name}/blobs/uploads/{made}?state=1")
            return
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if self.registry.uploads.pop(upload, "") != name:
            self._wrong(404, "BLOB_UPLOAD_UNKNOWN")
        elif asked.get("digest") != found:
            self._wrong(400, "DIGEST_INVALID")
        else:
            self.registry.blobs[name, found] = body
            self._say(201, Location=f"/v2/{name}/blobs/{found}", Docker_Content_Digest=found)
