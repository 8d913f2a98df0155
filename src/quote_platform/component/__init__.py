"""Apply one component to the API server: fetch, merge, one server-side apply; and wait for what it became."""
# In one piece: a process and its imports for each object would make a second run slow.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from quote_platform.component.manifests import assemble, fetch
from quote_platform.component.objects import Document, Refused, autoscaled, established, stages, title
from quote_platform.component.server import Server

__all__ = ["SPEC", "Refused", "run"]

# What the task apply_component is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": ""},
    "kubeconfig": {"type": "path", "required": True},
    "manifests": {"type": "list", "elements": "dict", "default": []},
    "base_url": {"type": "str", "default": ""},
    "cache": {"type": "path", "default": ""},
    "patches": {"type": "list", "elements": "dict", "default": []},
    "objects": {"type": "list", "elements": "dict", "default": []},
    "wait": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "int", "default": 120},
}


def run(given: Document, dry_run: bool) -> Document:
    """Apply, then wait; return what the task returns."""
    texts = [fetch(manifest, given["base_url"], Path(given["cache"])) for manifest in given["manifests"]]
    documents = assemble(texts, given["patches"], given["objects"])
    scaled = autoscaled(documents)
    # One that is waited for may itself be starting; one that is to be changed is missed at once.
    server = Server(given["kubeconfig"], dry_run, given["timeout"], patient=bool(given["wait"]))
    changes: list[tuple[str, Document, Document]] = []

    def apply(document: Document) -> tuple[Document, Document] | None:
        named = (document["kind"], document["metadata"]["name"])
        return server.apply(document, given["namespace"], named in scaled)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for stage in stages(documents):
            new_kinds = []
            for document, result in zip(stage, pool.map(apply, stage), strict=True):
                if result:
                    changes.append((title(document), *result))
                    if document["kind"] == "CustomResourceDefinition":
                        new_kinds.append(established(document))
            # An operator that starts before a kind is known may do without it, for as long as it runs.
            if new_kinds and not dry_run:
                server.wait(new_kinds, "")
    if given["wait"] and not dry_run:
        server.wait(given["wait"], given["namespace"])
    return {
        "changed": bool(changes),
        "objects": len(documents),
        "changes": [f"{'change' if before else 'create'} {name}" for name, before, _ in changes],
        "diff": [
            {
                "before_header": name,
                "after_header": name,
                "before": yaml.safe_dump(before) if before else "",
                "after": yaml.safe_dump(after),
            }
            for name, before, after in changes
        ],
    }
