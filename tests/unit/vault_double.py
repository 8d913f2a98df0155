"""A Vault in memory: its seal, its tokens, its paths, as far as the role asks for them."""

import base64
import json
from typing import Any

import httpx

Document = dict[str, Any]
OTP = "otp-of-26-characters-abcdef"


class Double:
    """What a Vault holds, and what was asked of it."""

    def __init__(self) -> None:
        self.initialized = False
        self.sealed = True
        self.kind = "shamir"
        self.keys: list[str] = []
        self.threshold = 0
        self.given: set[str] = set()
        self.tokens: set[str] = set()
        self.limited: dict[str, str] = {}  # those that end by themselves, and when
        self.made = 0
        self.data: dict[str, Document] = {}
        self.calls: list[str] = []
        self.snapshot: Document | None = None

    def client(self) -> httpx.Client:
        """Return a client that asks this Vault."""
        return httpx.Client(base_url="https://vault/v1/", transport=httpx.MockTransport(self.answer))

    def token(self) -> str:
        """Return a new token."""
        self.made += 1
        token = f"hvs.{self.made:0{len(OTP) - 4}d}"
        self.tokens.add(token)
        return token

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        path = request.url.path.removeprefix("/v1/")
        self.calls.append(f"{request.method} {path}")
        text = request.read()
        body = json.loads(text) if text and path != "sys/storage/raft/snapshot-force" else {}
        if (found := self._system(request.method, path, body)) is not None:
            return httpx.Response(200, json=found)
        if path == "sys/health":
            return httpx.Response(501 if not self.initialized else 503 if self.sealed else 200)
        if self.sealed:
            return httpx.Response(503, json={"errors": ["Vault is sealed"]})
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return httpx.Response(403, json={"errors": ["permission denied"]})
        return self._token(request, path, text) or self._path(request.method, path, body)

    def _token(self, request: httpx.Request, path: str, text: bytes) -> httpx.Response | None:
        if path == "auth/token/revoke-self":
            self.tokens.remove(request.headers["X-Vault-Token"])
            return httpx.Response(204)
        if path == "auth/token/create":
            asked, token = json.loads(text), self.token()
            assert asked["no_parent"], "it would end with the token that has made it"
            self.limited[token] = asked["ttl"]
            return httpx.Response(200, json={"auth": {"client_token": token}})
        if path == "auth/token/lookup-self":
            return httpx.Response(200, json={"data": {}})
        if path == "sys/storage/raft/snapshot-force":
            self.__dict__.update(json.loads(text), sealed=True, tokens=set(), given=set())
            return httpx.Response(204)
        return None

    def _system(self, method: str, path: str, body: Document) -> Document | None:
        told: Document = {
            "sys/seal-status": {"initialized": self.initialized, "sealed": self.sealed, "type": self.kind},
            "sys/leader": {"is_self": not self.sealed, "leader_address": ""},
        }
        if path in told:
            return dict(told[path])
        if path == "sys/init":
            kind = "recovery" if self.kind != "shamir" else "secret"
            self.initialized, self.threshold = True, body[f"{kind}_threshold"]
            self.keys = [f"key-{self.made}-{number}" for number in range(body[f"{kind}_shares"])]
            self.sealed = self.kind == "shamir"
            name = "recovery_keys_base64" if kind == "recovery" else "keys_base64"
            return {name: self.keys, "root_token": self.token()}
        if path == "sys/unseal":
            return self._collect(body["key"], "sealed")
        if path == "sys/generate-root/attempt":
            self.given = set()
            return {"nonce": "n", "otp": OTP} if method == "PUT" else {}
        if path == "sys/generate-root/update":
            return self._collect(body["key"], "complete")
        return None

    def _collect(self, key: str, what: str) -> Document:
        self.given |= {key} & set(self.keys)
        enough = len(self.given) >= self.threshold
        if what == "sealed":
            self.sealed = self.sealed and not enough
            return {"sealed": self.sealed}
        if not enough:
            return {"complete": False}
        mixed = bytes(a ^ b for a, b in zip(self.token().encode(), OTP.encode(), strict=True))
        return {"complete": True, "encoded_token": base64.b64encode(mixed).decode().rstrip("=")}

    def _path(self, method: str, path: str, body: Document) -> httpx.Response:
        if method == "DELETE":
            self.data.pop(path, None)
            return httpx.Response(204)
        if method == "POST":
            if path.endswith("/tune"):
                path = path.removesuffix("/tune")
                body = {"config": {**self.data[path].get("config", {}), **body}}
            self.data[path] = self.data.get(path, {}) | body
            return httpx.Response(204)
        if path == "sys/audit":
            devices = {
                p.rpartition("/")[2] + "/": d for p, d in self.data.items() if p.startswith("sys/audit/")
            }
            return httpx.Response(200, json={"data": devices})
        if path not in self.data:
            mount = path.startswith("sys/mounts/")
            errors = [f"No secret engine mount at {path}/"] if mount else []
            return httpx.Response(400 if mount else 404, json={"errors": errors})
        return httpx.Response(200, json={"data": self.data[path]})
