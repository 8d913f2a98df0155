"""The documents of a component: release manifests, fetched by checksum, patched, and our own objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.common.yaml import SafeLoader  # libyaml's, where it is
from ansible.module_utils.urls import open_url

from quote_platform.component.objects import Document, Refused


def loader() -> Any:
    """Return the fast YAML loader where libyaml is there."""

    class Loader(SafeLoader):  # type: ignore[misc]
        """A lone `=` is a word to it, as it is to Kubernetes."""

    Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)
    return Loader


def fetch(manifest: Document, base_url: str, cache: Path) -> str:
    """Return a release manifest, from the cache if it is the pinned one."""
    url, pinned = manifest["url"], manifest.get("sha256") or ""
    lock = cache / "manifests.lock.json"
    locked: dict[str, str] = json.loads(lock.read_text()) if lock.is_file() else {}
    wanted = pinned or locked.get(url, "")
    file = cache / (wanted or hashlib.sha256(url.encode()).hexdigest())
    if wanted and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == wanted:
        return file.read_text()
    source = base_url.rstrip("/") + urlsplit(url).path if base_url else url
    try:
        content: bytes = open_url(source, timeout=60).read()
    except OSError as error:
        raise Refused(
            f"{source} cannot be fetched: {error}. Check the network, or manifest_base_url"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if wanted and found != wanted:
        raise Refused(
            f"{source}: its SHA-256 is {found}, pinned is {wanted}: refused. Correct the pin or the mirror"
        )
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f".{found}"
    part.write_bytes(content)
    part.replace(cache / found)
    if not pinned:
        lock.write_text(json.dumps(locked | {url: found}, indent=2, sort_keys=True))
    return content.decode()


def merge(base: Any, patch: Any) -> Any:
    """Merge a patch into a value: mappings by key, lists of named things by name, all else is replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(base[key], value) if key in base else value
        return merged
    if isinstance(base, list) and isinstance(patch, list) and patch and named([*base, *patch]):
        merged_list = list(base)
        for item in patch:
            at = next((i for i, old in enumerate(merged_list) if old["name"] == item["name"]), None)
            if item.get("$patch") == "delete":
                merged_list = [old for old in merged_list if old["name"] != item["name"]]
            elif at is None:
                merged_list.append(item)
            else:
                merged_list[at] = merge(merged_list[at], item)
        return merged_list
    return patch


def named(items: list[Any]) -> bool:
    """Tell whether all items are mappings with a name."""
    return all(isinstance(item, dict) and "name" in item for item in items)


def matches(patch: Document, document: Document) -> bool:
    """Tell whether a patch is meant for a document."""
    wanted, found = patch.get("metadata", {}), document.get("metadata", {})
    return (
        patch.get("kind") == document.get("kind")
        and wanted.get("name") == found.get("name")
        and ("namespace" not in wanted or wanted["namespace"] == found.get("namespace"))
    )


def moved(value: Any, namespaces: Mapping[str, str]) -> Any:
    """Return a part of a document that names other namespaces than it did, as its own or in a reference."""
    if isinstance(value, list):
        return [moved(item, namespaces) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: moved(item, namespaces) for key, item in value.items()}
    if isinstance(name := found.get("namespace"), str):
        found["namespace"] = namespaces.get(name, name)
    if found.get("kind") == "Namespace" and isinstance(metadata := found.get("metadata"), dict):
        metadata["name"] = namespaces.get(metadata["name"], metadata["name"])
    return found


def assemble(
    texts: list[str],
    patches: list[Document],
    objects: list[Document],
    namespaces: Mapping[str, str] | None = None,
) -> list[Document]:
    """Return the component's documents, in the namespaces that are given for the manifests', then patched."""
    documents: list[Document] = []
    for text in texts:
        for document in yaml.load_all(text, Loader=loader()):
            if document:
                documents += document["items"] if document.get("kind") == "List" else [document]
    if namespaces:
        documents = [moved(document, namespaces) for document in documents]
    for patch in patches:
        at = next((i for i, document in enumerate(documents) if matches(patch, document)), None)
        if at is None:
            raise Refused(
                f"a patch matches nothing: {patch.get('kind')}/{patch.get('metadata', {}).get('name')}"
            )
        if patch.get("$patch") == "delete":
            del documents[at]
        else:
            documents[at] = merge(documents[at], patch)
    return documents + [item for item in objects if item]
