"""Apply one component to the API server: fetch, merge, one server-side apply."""
# Everything in one module, since one task per object or per fetch would make a second run slow.

from __future__ import annotations

import copy
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from kubernetes import config, dynamic
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from urllib3.exceptions import HTTPError

DOCUMENTATION = """
module: apply_component
short_description: Apply the release manifests and own objects of one component, server-side, in one go
description:
  - Fetches release manifests by URL and SHA-256 into a cache, deep-merges patches into them, adds own
    objects and applies all of it with one field manager. Supports check mode and diff.
options:
  name: {type: str, required: true, description: Name of the component, for messages.}
  namespace: {type: str, description: Namespace of namespaced objects that name none.}
  kubeconfig: {type: path, required: true, description: How to reach the API server.}
  manifests: {type: list, elements: dict, description: "Release manifests, each url and sha256."}
  base_url: {type: str, description: Replaces scheme and host of each URL; the path stays.}
  cache: {type: path, required: true, description: Folder on the controller that keeps fetched manifests.}
  patches: {type: list, elements: dict, description: Merged into the object of the same kind and name.}
  objects: {type: list, elements: dict, description: Objects of our own.}
  timeout: {type: int, description: Seconds to wait for new kinds and for webhooks that do not answer yet.}
author: [Quote Platform]
"""

FIELD_MANAGER = "quote-platform"
# What has to exist before the rest, and what would intercept the rest if it came earlier.
FIRST = ("Namespace", "CustomResourceDefinition", "PriorityClass", "StorageClass", "IngressClass")
LAST = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService")
# The server writes these; they say nothing about what we want.
SERVER_FIELDS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")

Document = dict[str, Any]


class Refused(Exception):
    """The component cannot be applied; the text says why and what to do."""


def loader() -> Any:
    """Return the fast YAML loader where libyaml is there."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
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


def assemble(texts: list[str], patches: list[Document], objects: list[Document]) -> list[Document]:
    """Return the component's documents, patched."""
    documents: list[Document] = []
    for text in texts:
        for document in yaml.load_all(text, Loader=loader()):
            if document:
                documents += document["items"] if document.get("kind") == "List" else [document]
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


def title(document: Document) -> str:
    """Return what an object is called in messages."""
    metadata = document["metadata"]
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{document['kind']} {where}{metadata['name']}"


def stages(documents: list[Document]) -> list[list[Document]]:
    """Return the documents in the order in which they can be applied; a stage goes in side by side."""
    first = [item for item in documents if item["kind"] in FIRST]
    last = [item for item in documents if item["kind"] in LAST]
    middle = [item for item in documents if item["kind"] not in (*FIRST, *LAST)]
    return [
        [item for item in first if item["kind"] == "Namespace"],
        [item for item in first if item["kind"] != "Namespace"],
        middle,
        last,
    ]


def clean(found: Document | None) -> Document:
    """Return an object without what the server writes; values of Secrets become hashes."""
    if not found:
        return {}
    found = copy.deepcopy(found)
    found.pop("status", None)
    for name in SERVER_FIELDS:
        found.get("metadata", {}).pop(name, None)
    if found.get("kind") == "Secret":
        for part in ("data", "stringData"):
            for name, value in (found.get(part) or {}).items():
                found[part][name] = f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()[:12]}"
    return found


class Server:
    """The API server, or its absence in a dry run."""

    def __init__(self, kubeconfig: str, dry_run: bool, timeout: int) -> None:
        self.dry_run = dry_run
        self.deadline = time.monotonic() + timeout
        self.client: Any = None
        # The client's table of kinds is not made for several threads: one that clears it robs another.
        self.discovery = Lock()
        if dry_run and not Path(kubeconfig).is_file():
            return  # nothing is there yet: all of it would be created
        try:
            self.client = dynamic.DynamicClient(config.new_client_from_config(kubeconfig))
        except (HTTPError, config.ConfigException) as error:
            raise Refused(
                f"the API server of {kubeconfig} does not answer: {error}. Check it, then run again"
            ) from error

    def apply(self, document: Document, namespace: str) -> tuple[Document, Document] | None:
        """Apply one object; return it before and after, or None if nothing changed."""
        document = copy.deepcopy(document)
        if not self.client:
            return {}, clean(document)
        while True:
            try:
                return self._apply(document, namespace)
            except HTTPError as error:  # the connection, not the answer
                if time.monotonic() > self.deadline:
                    raise Refused(f"{title(document)}: the API server does not answer: {error}") from error
                time.sleep(1)
            except (ResourceNotFoundError, ApiException, dynamic.exceptions.DynamicApiError) as error:
                if self.dry_run and self._not_yet(error):
                    return {}, clean(document)
                if not self._passing(error) or time.monotonic() > self.deadline:
                    raise Refused(f"{title(document)}: {self._reason(error)}") from error
                if isinstance(error, ResourceNotFoundError):
                    with self.discovery:
                        self.client.resources.invalidate_cache()
                time.sleep(1)

    def _apply(self, document: Document, namespace: str) -> tuple[Document, Document] | None:
        with self.discovery:
            resource = self.client.resources.get(api_version=document["apiVersion"], kind=document["kind"])
        if resource.namespaced:
            document["metadata"].setdefault("namespace", namespace or "default")
        name, space = document["metadata"]["name"], document["metadata"].get("namespace")
        try:
            before = resource.get(name=name, namespace=space).to_dict()
        except (ApiException, dynamic.exceptions.NotFoundError) as error:
            if error.status != 404:
                raise
            before = None
        options = {"dry_run": "All"} if self.dry_run else {}
        after = self.client.server_side_apply(
            resource,
            body=document,
            name=name,
            namespace=space,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
            **options,
        ).to_dict()
        old, new = clean(before), clean(after)
        return None if old == new else (old, new)

    @staticmethod
    def _reason(error: Exception) -> str:
        body = getattr(error, "body", None)
        if body:
            try:
                return str(json.loads(body)["message"])
            except (ValueError, KeyError, TypeError):
                return str(body)
        return str(error)

    def _not_yet(self, error: Exception) -> bool:
        """Tell whether a dry run misses what the real run creates before: a kind, a namespace, a webhook."""
        if isinstance(error, ResourceNotFoundError) or getattr(error, "status", 0) == 404:
            return True
        return "failed calling webhook" in self._reason(error)

    def _passing(self, error: Exception) -> bool:
        """Tell whether an error goes away by itself: a kind or webhook that is starting, a busy server."""
        if isinstance(error, ResourceNotFoundError):
            return True
        status = getattr(error, "status", 0)
        reason = self._reason(error)
        if status == 404 and "page not found" in reason:
            return True  # a kind that is known already and not served yet
        return status in {429, 503, 504} or "failed calling webhook" in reason or "unable to handle" in reason


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "default": ""},
            "kubeconfig": {"type": "path", "required": True},
            "manifests": {"type": "list", "elements": "dict", "default": []},
            "base_url": {"type": "str", "default": ""},
            "cache": {"type": "path", "required": True},
            "patches": {"type": "list", "elements": "dict", "default": []},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    changes: list[tuple[str, Document, Document]] = []
    try:
        texts = [fetch(manifest, given["base_url"], Path(given["cache"])) for manifest in given["manifests"]]
        documents = assemble(texts, given["patches"], given["objects"])
        server = Server(given["kubeconfig"], module.check_mode, given["timeout"])
        with ThreadPoolExecutor(max_workers=4) as pool:
            for stage in stages(documents):
                results = pool.map(lambda document: server.apply(document, given["namespace"]), stage)
                for document, result in zip(stage, results, strict=True):
                    if result:
                        changes.append((title(document), *result))
    except Refused as error:
        module.fail_json(msg=f"component {given['name']}: {error}")
    module.exit_json(
        changed=bool(changes),
        objects=len(documents),
        changes=[f"{'change' if before else 'create'} {name}" for name, before, _ in changes],
        diff=[
            {
                "before_header": name,
                "after_header": name,
                "before": yaml.safe_dump(before) if before else "",
                "after": yaml.safe_dump(after),
            }
            for name, before, after in changes
        ],
    )


if __name__ == "__main__":
    main()
