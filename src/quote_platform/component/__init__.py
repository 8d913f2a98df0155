"""Apply one component to the API server: fetch, merge, apply, delete what is no longer named, wait."""
# In one piece: a process and its imports for each object would make a second run slow.

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from quote_platform.component import record, staging
from quote_platform.component.manifests import assemble, fetch
from quote_platform.component.objects import (
    Document,
    Dumper,
    Refused,
    autoscaled,
    clean,
    established,
    stages,
    title,
)
from quote_platform.component.server import Server
from quote_platform.difference import difference

__all__ = ["PRUNE", "SPEC", "Refused", "prune", "run"]

# What the task apply_component is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": ""},
    "kubeconfig": {"type": "path", "required": True},
    "manifests": {"type": "list", "elements": "dict", "default": []},
    "base_url": {"type": "str", "default": ""},
    "cache": {"type": "path", "default": ""},
    "namespaces": {"type": "dict", "default": {}},
    "patches": {"type": "list", "elements": "dict", "default": []},
    "objects": {"type": "list", "elements": "dict", "default": []},
    "prune": {"type": "bool", "default": False},
    "gone": {"type": "list", "elements": "str", "default": []},
    "wait": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "int", "default": 120},
    "render": {"type": "path", "default": ""},
}
# And the task prune_components.
PRUNE: dict[str, Any] = {
    "names": {"type": "list", "elements": "str", "required": True},
    "kubeconfig": {"type": "path", "required": True},
    "timeout": {"type": "int", "default": 120},
}


# What an object is called, what it was and what it is; empty where it is not.
Change = tuple[str, Document, Document]


def run(given: Document, dry_run: bool) -> Document:
    """Apply, delete, then wait; return what the task returns."""
    texts = [fetch(manifest, given["base_url"], Path(given["cache"])) for manifest in given["manifests"]]
    documents = assemble(texts, given["patches"], given["objects"], given["namespaces"])
    if given["prune"]:
        _check(given["name"], documents)
    if given.get("render"):
        staging.put(Path(given["render"]), given["name"], given["namespace"], documents)
        return _result([], []) | {"objects": len(documents)}
    # One that is waited for may itself be starting; one that is to be changed is missed at once.
    server = Server(given["kubeconfig"], dry_run, given["timeout"], patient=bool(given["wait"]))
    recorded = _begin(server, given, documents) if given["prune"] and server.client else None
    changes, warnings = _apply(server, documents, given["namespace"], given["gone"]), []
    if recorded:
        wanted = set(record.named(server, documents, given["namespace"]))
        pruned = record.prune(server, recorded, wanted)
        changes += _settle(server, recorded, pruned, wanted | pruned.waiting)
        warnings = pruned.warnings
    if given["wait"] and not dry_run:
        server.wait(given["wait"], given["namespace"])
    return _result(changes, warnings) | {"objects": len(documents)}


def prune(given: Document, dry_run: bool) -> Document:
    """Delete whole components, one after the other; return what the task returns."""
    changes: list[Change] = []
    warnings: list[str] = []
    deleted: list[str] = []
    server = Server(given["kubeconfig"], dry_run, given["timeout"])
    known = {one.component: one for one in record.read_all(server)} if server.client else {}
    for recorded in (known[name] for name in given["names"] if name in known):
        pruned = record.prune(server, recorded, set())
        changes += _settle(server, recorded, pruned, pruned.waiting)
        warnings += pruned.warnings
        deleted += [str(record.Entry.of_document(found)) for found in pruned.deleted]
    return _result(changes, warnings) | {"deleted": deleted}


def _check(name: str, documents: list[Document]) -> None:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?", name):
        raise Refused("its name has other characters than lower-case letters, digits, - and .")
    if not documents:
        raise Refused("it names no objects; prune_components is what deletes all of a component")


def _begin(server: Server, given: Document, documents: list[Document]) -> record.Record:
    """Return the record of a component; on the server, what is about to be applied is in it from now on."""
    recorded = record.read(server, given["name"])
    wanted = set(record.named(server, documents, given["namespace"]))
    planned = (recorded.planned | wanted) - recorded.applied
    if planned != recorded.planned and not server.dry_run:
        server.apply(recorded.listing(recorded.applied, planned), "")
    return recorded


def _settle(
    server: Server, recorded: record.Record, pruned: record.Pruned, left: set[record.Entry]
) -> list[Change]:
    """Record what is left of a component; return what has changed."""
    changes: list[Change] = [(title(found), clean(found), {}) for found in pruned.deleted]
    if left == recorded.applied and not recorded.planned:
        return changes
    listing = recorded.listing(left)
    if not server.dry_run:
        if left:
            server.apply(listing, "")
        elif recorded.found:
            server.delete([recorded.found])
    return [*changes, (title(listing), clean(recorded.found), clean(listing) if left else {})]


def _apply(server: Server, documents: list[Document], namespace: str, gone: list[str]) -> list[Change]:
    """Apply documents in an order that works; return what has changed.

    In a dry run, `gone` are lines of records, of what is still there and would be deleted by now.
    """
    scaled = autoscaled(documents)
    absent = {record.Entry.parse(line).identity for line in gone if server.dry_run}
    changes: list[Change] = []

    def apply(document: Document) -> tuple[Document, Document] | None:
        if absent and record.named(server, [document], namespace)[0].identity in absent:
            return {}, clean(document)
        named = (document["kind"], document["metadata"]["name"])
        return server.apply(document, namespace, named in scaled)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for stage in stages(documents):
            new_kinds = []
            for document, result in zip(stage, pool.map(apply, stage), strict=True):
                if result:
                    changes.append((title(document), *result))
                    if document["kind"] == "CustomResourceDefinition":
                        new_kinds.append(established(document))
            # An operator that starts before a kind is known may do without it, for as long as it runs.
            if new_kinds and not server.dry_run:
                server.wait(new_kinds, "")
    return changes


def _shown(document: Document) -> str:
    """Return an object as a difference shows it."""
    return yaml.dump(document, Dumper=Dumper) if document else ""


def _result(changes: list[Change], warnings: list[str]) -> Document:
    """Return the result of a task."""
    done = [
        ("delete" if not after else "change" if before else "create", name) for name, before, after in changes
    ]
    return {
        "changed": bool(changes),
        "changes": [f"{verb} {name}" for verb, name in done],
        "diff": [difference(name, _shown(before), _shown(after)) for name, before, after in changes],
    } | ({"warnings": warnings} if warnings else {})
