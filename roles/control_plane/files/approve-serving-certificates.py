#!/usr/bin/env python3
"""Approve the serving certificates that kubelets of known nodes ask for; first ones and renewals alike.

Managed by Ansible. Standard library, kubectl and openssl only: it runs on every control plane, whatever its
distribution. A request is approved when the kubelet of node X asks for CN system:node:X, and names nothing
but X and X's known addresses. Anything else is left pending and logged.
"""

import base64
import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path

SIGNER = "kubernetes.io/kubelet-serving"
OPENSSL = ("openssl", "req", "-noout", "-text", "-verify", "-nameopt", "RFC2253")
USAGES = {"key encipherment", "digital signature", "server auth"}


def run(*command: str, stdin: bytes | None = None) -> str:
    """Return what a command prints."""
    return subprocess.run(command, input=stdin, check=True, capture_output=True, timeout=30).stdout.decode()


def objection(spec: dict, known: dict[str, list[str]]) -> str:
    """Say why a request must not be approved; empty when it may."""
    user = spec.get("username", "")
    name = user.removeprefix("system:node:")
    if name == user or "system:nodes" not in spec.get("groups", []):
        return f"asked for by {user}, which is no node"
    if name not in known:
        return f"node {name} is not in the inventory"
    if not set(spec.get("usages", [])) <= USAGES:
        return f"usages {spec.get('usages')}"
    return objection_to_content(run(*OPENSSL, stdin=base64.b64decode(spec["request"])), name, known[name])


def objection_to_content(text: str, name: str, addresses: list[str]) -> str:
    """Say what a request asks for that the node may not have, from openssl's text of it."""
    subject = re.search(r"Subject: (.*)", text)
    parts = sorted(subject.group(1).strip().split(",")) if subject else []
    if parts != sorted([f"CN=system:node:{name}", "O=system:nodes"]):
        return f"subject {parts}"
    names = re.search(r"Subject Alternative Name:[^\n]*\n\s*([^\n]*)", text)
    if not names:
        return "no names asked for"
    for entry in (item.strip() for item in names.group(1).split(",")):
        kind, _, value = entry.partition(":")
        if kind == "DNS" and value == name:
            continue
        if kind == "IP Address" and ipaddress.ip_address(value) in map(ipaddress.ip_address, addresses):
            continue
        return f"{entry} is not known for {name}"
    return ""


def main() -> int:
    """Judge every pending request once."""
    known = json.loads(Path(sys.argv[1]).read_text())
    selector = f"--field-selector=spec.signerName={SIGNER}"
    requests = json.loads(run("kubectl", "get", "csr", selector, "-o", "json"))
    for request in requests["items"]:
        if request.get("status", {}).get("conditions"):
            continue
        try:
            reason = objection(request["spec"], known)
        except (subprocess.SubprocessError, ValueError) as error:
            reason = f"cannot be read: {error}"
        name = request["metadata"]["name"]
        if reason:
            print(f"{name} not approved: {reason}", file=sys.stderr)
        else:
            print(run("kubectl", "certificate", "approve", name).strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
