"""Signatures by a key of one's own: of images as cosign keeps them, of statements as DSSE envelopes.

`cosign verify --key PUBLIC --insecure-ignore-tlog=true IMAGE` reads the same signatures.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quote_platform.delivery import DeliveryError, NotThereError, RefusedError
from quote_platform.delivery.registry import CONFIG, MANIFEST, Repository, canonical, digest

PASSWORD = "QUOTE_PLATFORM_SIGNING_PASSWORD"  # noqa: S105 (where it stands)
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
STATEMENT = "application/vnd.in-toto+json"
ALGORITHM = ec.ECDSA(hashes.SHA256())

Private = ec.EllipticCurvePrivateKey
Public = ec.EllipticCurvePublicKey


def _password() -> bytes | None:
    given = os.environ.get(PASSWORD, "")
    return given.encode() if given else None


def make_key(file: Path) -> Path:
    """Make a key pair: FILE, closed by the password of the environment, and FILE.pub; return the latter."""
    password = _password()
    if password is None:
        raise DeliveryError(f"{PASSWORD} is empty: put the password that is to close the key there")
    public = file.with_name(f"{file.name}.pub")
    for one in (file, public):
        if one.exists():
            raise DeliveryError(f"{one} is there: a key is never overwritten")
    key = ec.generate_private_key(ec.SECP256R1())
    closed = serialization.BestAvailableEncryption(password)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:  # noqa: PTH123
        out.write(pem)
    public.write_bytes(public_pem(key.public_key()))
    return public


def private_key(file: Path) -> Private:
    """Read a private key (PEM, NIST P-256), closed by the password of the environment or by none."""
    try:
        content, password = file.read_bytes(), _password()
        if b"ENCRYPTED" not in content:
            password = None
        key = serialization.load_pem_private_key(content, password)
    except OSError as error:
        raise DeliveryError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise DeliveryError(f"{file}: not a private key in PEM, or {PASSWORD} does not open it") from error
    if not isinstance(key, Private) or not isinstance(key.curve, ec.SECP256R1):
        raise DeliveryError(f"{file}: allowed is a key on the curve P-256")
    return key


def public_key(file: Path) -> Public:
    """Read a public key (PEM, NIST P-256)."""
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise DeliveryError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DeliveryError(f"{file}: not a public key in PEM") from error
    if not isinstance(key, Public) or not isinstance(key.curve, ec.SECP256R1):
        raise DeliveryError(f"{file}: allowed is a key on the curve P-256")
    return key


def public_pem(key: Public) -> bytes:
    """Return a public key as text."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def good(key: Public, signature: bytes, content: bytes) -> bool:
    """Tell whether a key has signed a content."""
    try:
        key.verify(signature, content, ALGORITHM)
    except InvalidSignature:
        return False
    return True


# --- images ---------------------------------------------------------------------------------------------


def tag_of(image: str) -> str:
    """Return the tag under which the signatures of an image lie."""
    return f"{image.replace(':', '-')}.sig"


def payload(name: str, image: str) -> bytes:
    """Return what is signed of an image: its digest, and the name under which it was released."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": image},
        "type": "cosign container image signature",
    }
    return canonical({"critical": critical, "optional": None})


def sign(repository: Repository, image: str, key: Private) -> bool:
    """Sign an image beside the signatures it has; tell whether that was necessary."""
    if is_signed(repository, image, key.public_key(), repository.name):
        return False
    content = payload(repository.name, image)
    layer = {
        "mediaType": SIMPLE,
        "digest": repository.put_blob(content),
        "size": len(content),
        "annotations": {SIGNATURE: base64.b64encode(key.sign(content, ALGORITHM)).decode()},
    }
    layers = [*_layers(repository, image), layer]
    rootfs = {"type": "layers", "diff_ids": [one["digest"] for one in layers]}
    config = canonical({"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
    described = {"mediaType": CONFIG, "digest": repository.put_blob(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    repository.put_manifest(canonical(manifest), MANIFEST, tag_of(image))
    return True


def _layers(repository: Repository, image: str) -> list[dict[str, Any]]:
    try:
        manifest = json.loads(repository.manifest(tag_of(image))[1])
    except NotThereError:
        return []
    return [layer for layer in manifest.get("layers", []) if layer.get("mediaType") == SIMPLE]


def is_signed(repository: Repository, image: str, key: Public, name: str) -> bool:
    """Tell whether a key has signed an image under a name."""
    return any(
        good(key, signature, content) and _says(content, name, image)
        for signature, content in _signatures(repository, image)
    )


def _signatures(repository: Repository, image: str) -> list[tuple[bytes, bytes]]:
    found = []
    for layer in _layers(repository, image):
        text = (layer.get("annotations") or {}).get(SIGNATURE, "")
        try:
            found.append((base64.b64decode(text, validate=True), repository.blob(layer["digest"])))
        except ValueError:
            continue
    return found


def _says(content: bytes, name: str, image: str) -> bool:
    try:
        critical = json.loads(content)["critical"]
        told = critical["identity"]["docker-reference"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(told == (name, image))


def require(repository: Repository, image: str, key: Public, name: str) -> None:
    """Refuse an image that a key has not signed under a name."""
    there = _signatures(repository, image)
    if not there:
        raise RefusedError(f"{repository.name}@{image}: not signed")
    mine = [content for signature, content in there if good(key, signature, content)]
    if not mine:
        raise RefusedError(f"{repository.name}@{image}: none of its {len(there)} signatures is by this key")
    if not any(_says(content, name, image) for content in mine):
        raise RefusedError(
            f"{repository.name}@{image}: what this key has signed is another image, or not named {name}"
        )


# --- statements -----------------------------------------------------------------------------------------


def _encoded(kind: str, content: bytes) -> bytes:
    """Return what DSSE signs: kind and content with their lengths."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(content), content)


def envelope(statement: Mapping[str, Any], key: Private) -> bytes:
    """Return a signed statement."""
    content = canonical(statement)
    signature = key.sign(_encoded(STATEMENT, content), ALGORITHM)
    return canonical(
        {
            "payloadType": STATEMENT,
            "payload": base64.b64encode(content).decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
    )


def opened(text: bytes, key: Public, what: str) -> dict[str, Any]:
    """Return the statement of an envelope; one that the key has not signed is refused."""
    try:
        given = json.loads(text)
        content, kind = base64.b64decode(given["payload"], validate=True), str(given["payloadType"])
        signatures = [base64.b64decode(one["sig"], validate=True) for one in given["signatures"]]
        statement = dict(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{what}: not an envelope of a statement") from error
    if kind != STATEMENT or not any(good(key, one, _encoded(kind, content)) for one in signatures):
        raise RefusedError(f"{what}: not signed by this key")
    return statement


def content_digest(content: bytes) -> dict[str, str]:
    """Return a digest as statements name it."""
    return {"sha256": digest(content).removeprefix("sha256:")}
