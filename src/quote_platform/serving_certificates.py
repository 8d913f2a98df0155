#!/usr/bin/env python3
"""Approve the serving certificates that kubelets of known nodes ask for; first ones and renewals alike.

Managed by Ansible: the role control_plane puts this file on every control plane, where the distribution's own
Python runs it. It keeps to what Ubuntu 22.04 has, Python 3.10 and cryptography 3.4, and to kubectl.

The kubelet of node X may ask for the common name system:node:X, the DNS name X and X's known addresses.
Anything else is left pending and logged.

kubelet-csr-approver does this from a pod, which needs the pod network first, and judges by DNS, and by
patterns of names and networks; here each node has its own addresses, of the inventory.
"""

import base64
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

SIGNER = "kubernetes.io/kubelet-serving"
# The second is what kubelets ask for whose key is of an elliptic curve.
USAGES = (
    {"digital signature", "key encipherment", "server auth"},
    {"digital signature", "server auth"},
)
Known = dict[str, list[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def objection(spec: dict[str, Any], known: Known) -> str:
    """Say why a request must not be approved; empty when it may."""
    user = spec.get("username", "")
    name = user.removeprefix("system:node:")
    if spec.get("signerName") != SIGNER:
        return f"signer {spec.get('signerName')}"
    if name == user or "system:nodes" not in spec.get("groups", []):
        return f"asked for by {user}, which is no node"
    if name not in known:
        return f"node {name} is not in the inventory"
    if set(spec.get("usages", [])) not in USAGES:
        return f"usages {spec.get('usages')}"
    return next(objections_to_content(base64.b64decode(spec["request"]), name, addresses(known, name)), "")


def addresses(known: Known, name: str) -> set[Address]:
    """Return the addresses of a node; one that another node has as well proves neither."""
    parsed = {node: {ipaddress.ip_address(text) for text in texts} for node, texts in known.items()}
    return parsed.pop(name).difference(*parsed.values())


def objections_to_content(pem: bytes, name: str, allowed: set[Address]) -> Iterator[str]:
    """Say what a request holds that the node may not ask for; values are compared, never a tool's text."""
    request = x509.load_pem_x509_csr(pem)
    subject = [[(part.oid, part.value) for part in parts] for parts in request.subject.rdns]
    if subject != [
        [(NameOID.ORGANIZATION_NAME, "system:nodes")],
        [(NameOID.COMMON_NAME, f"system:node:{name}")],
    ]:
        yield f"subject {request.subject.rfc4514_string()!r}"
    for extension in request.extensions:
        if extension.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            yield f"extension {extension.oid.dotted_string}"
            continue
        for entry in extension.value:
            named = isinstance(entry, x509.DNSName) and entry.value == name
            if not named and not (isinstance(entry, x509.IPAddress) and entry.value in allowed):
                yield f"{entry.value!r} is not known for {name}, or not for it alone"
    if not list(request.extensions):
        yield "no names asked for"
    if not request.is_signature_valid:
        yield "signature does not fit"
    if not shown_whole(request, pem):
        yield "holds more than names, or is written in another way than kubelets do"


def shown_whole(request: x509.CertificateSigningRequest, pem: bytes) -> bool:
    """Tell whether the library has shown all that a request holds.

    Parsers differ, on a second PEM block or a second set of extensions, and the signer has another one.
    Therefore the request is written anew from what was shown, and must come out the same, byte by byte.
    """
    asked = request.public_key()
    if not isinstance(asked, ec.EllipticCurvePublicKey):
        return False
    builder = x509.CertificateSigningRequestBuilder().subject_name(request.subject)
    for extension in request.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    key = ec.generate_private_key(asked.curve)
    anew = builder.sign(key, hashes.SHA256()).tbs_certrequest_bytes.replace(
        encoded(key.public_key()), encoded(asked)
    )
    return request.tbs_certrequest_bytes == anew and request.public_bytes(serialization.Encoding.PEM) == pem


def encoded(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as requests hold it."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def kubectl(*arguments: str) -> str:
    """Return what kubectl prints."""
    return subprocess.run(
        ("kubectl", *arguments), check=True, capture_output=True, timeout=30, text=True
    ).stdout


def main() -> int:
    """Judge every pending request once."""
    known = json.loads(Path(sys.argv[1]).read_text())
    requests = json.loads(
        kubectl("get", "csr", f"--field-selector=spec.signerName={SIGNER}", "--output=json")
    )
    for request in requests["items"]:
        if request.get("status", {}).get("conditions"):
            continue
        name = request["metadata"]["name"]
        try:
            if reason := objection(request["spec"], known):
                print(f"{name} not approved: {reason}", file=sys.stderr)
            else:
                print(kubectl("certificate", "approve", name).strip())
        except Exception as error:  # whatever one node sends, the others get theirs
            print(f"{name} not approved: {error!r}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
