"""What would be applied of a component, put aside in place of that: for playbooks/render.yml."""

from __future__ import annotations

import base64
import binascii
import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quote_platform.component.objects import Document

REDACTED = "<redacted>"
# A value that is shorter may be any word, such as a region or a user's name.
LEAST = 16


def put(folder: Path, name: str, namespace: str, documents: list[Document]) -> None:
    """Put the documents of a component aside, without values of Secrets."""
    values = {value for document in documents for value in secret_values(document)}
    staged = [mask(without_values(document), values) for document in documents]
    content = {"component": name, "namespace": namespace, "documents": staged}
    (folder / f"{name}.json").write_text(json.dumps(content))


def without_values(document: Document) -> Document:
    """Return an object whose values are marked, if it is a Secret: their names stay, their lengths do not."""
    if document.get("kind") != "Secret":
        return document
    found = copy.deepcopy(document)
    for part in ("data", "stringData"):
        if found.get(part):
            found[part] = dict.fromkeys(found[part], REDACTED)
    return found


def secret_values(document: Document) -> set[str]:
    """Return what a Secret keeps and nothing else may have; certificates are public."""
    if document.get("kind") != "Secret":
        return set()
    found = set(map(str, (document.get("stringData") or {}).values()))
    for value in (document.get("data") or {}).values():
        try:
            found.add(base64.b64decode(str(value), validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            found.add(str(value))
    return {value for value in map(str.strip, found) if len(value) >= LEAST and not public(value)}


def public(value: str) -> bool:
    """Tell whether a text is a certificate alone."""
    return "-----BEGIN CERTIFICATE-----" in value and "PRIVATE KEY" not in value


def mask(value: Any, secrets: Iterable[str]) -> Any:
    """Return a value without these texts, be they plain or in base64."""
    forms = {
        form
        for secret in secrets
        for form in (secret, base64.b64encode(secret.encode()).decode(), json.dumps(secret)[1:-1])
    }
    ordered = sorted(filter(None, forms), key=len, reverse=True)
    return _masked(value, ordered) if ordered else value


def _masked(value: Any, forms: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, forms) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, forms) for inner in value]
    if isinstance(value, str):
        for form in forms:
            if form in value:
                value = value.replace(form, REDACTED)
    return value
