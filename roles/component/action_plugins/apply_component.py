"""Apply one component to the API server: fetch, merge, one server-side apply; and wait for what it became."""
# An action plugin, in one piece: a process and its imports for each object would make a second run slow.

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase
from kubernetes import config, dynamic
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from urllib3.exceptions import HTTPError

SPEC = {
    "name": {"type": "str", "required": True},  # of the component, for messages
    "namespace": {"type": "str", "default": ""},  # of namespaced objects that name none
    "kubeconfig": {"type": "path", "required": True},
    "manifests": {"type": "list", "elements": "dict", "default": []},  # each url and sha256
    "base_url": {"type": "str", "default": ""},  # replaces scheme and host of each URL; the path stays
    "cache": {"type": "path", "default": ""},  # folder on the controller that keeps fetched manifests
    "patches": {"type": "list", "elements": "dict", "default": []},  # merged into the object of the same name
    "objects": {"type": "list", "elements": "dict", "default": []},
    "wait": {"type": "list", "elements": "dict", "default": []},  # each api_version, kind, name, condition
    "timeout": {"type": "int", "default": 120},
}
FIELD_MANAGER = "quote-platform"
# Gives an autoscaled workload the number of pods it starts with; then the number is the autoscaler's.
STARTER = f"{FIELD_MANAGER}-start"
# What has to exist before the rest, and what would intercept the rest if it came earlier.
FIRST = ("Namespace", "CustomResourceDefinition", "PriorityClass", "StorageClass", "IngressClass")
LAST = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService")
# The server writes these; they say nothing about what we want.
SERVER_FIELDS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
# What a workload's status must say of its pods before it is rolled out.
ROLLED_OUT = {
    "Deployment": ("replicas", "updatedReplicas", "availableReplicas"),
    "StatefulSet": ("replicas", "updatedReplicas", "readyReplicas"),
    "DaemonSet": ("updatedNumberScheduled", "numberReady"),
}
# Makes the hashes of secrets in a difference good for comparing, and for nothing else.
SALT = os.urandom(16)

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
    secrets = [item for item in documents if item["kind"] == "Secret"]  # pods mount them
    middle = [item for item in documents if item["kind"] not in (*FIRST, *LAST, "Secret")]
    return [
        [item for item in first if item["kind"] == "Namespace"],
        [item for item in first if item["kind"] != "Namespace"] + secrets,
        middle,
        last,
    ]


def autoscaled(documents: list[Document]) -> set[tuple[str, str]]:
    """Return kind and name of what the component's autoscalers scale."""
    targets = [
        item["spec"]["scaleTargetRef"] for item in documents if item["kind"] == "HorizontalPodAutoscaler"
    ]
    return {(target["kind"], target["name"]) for target in targets}


def owns_replicas(found: Document) -> bool:
    """Tell whether we have written the number of pods, as before there was an autoscaler."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in found["metadata"].get("managedFields") or []
    )


def lacking(found: Document, condition: Document | None, fields: Document | None) -> str:
    """Return what an object's status lacks, or nothing."""
    status = found.get("status") or {}
    for name, wanted in (fields or {}).items():
        if status.get(name) != wanted:
            return f"{name} is {status.get(name, 'not known yet')}: {status.get('message', '')}"
    if condition:
        kind, wanted = condition["type"], condition.get("status", "True")
        shown = next((item for item in status.get("conditions") or [] if item["type"] == kind), {})
        if shown.get("status") != wanted:
            return f"{kind} is {shown.get('status', 'not known yet')}: {shown.get('message', '')}"
    elif counts := ROLLED_OUT.get(found["kind"]):
        if (status.get("observedGeneration") or 0) < found["metadata"].get("generation", 0):
            return "its newest generation has not been looked at yet"
        wanted = status.get("desiredNumberScheduled", found["spec"].get("replicas"))
        for count in counts:
            if (status.get(count) or 0) != wanted:
                return f"{count} is {status.get(count) or 0} of {wanted}"
    return ""


def established(definition: Document) -> Document:
    """Return what is waited for before a new kind is used."""
    return {
        "api_version": definition["apiVersion"],
        "kind": definition["kind"],
        "name": definition["metadata"]["name"],
        "condition": {"type": "Established"},
    }


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
                found[part][name] = f"hash:{hashlib.sha256(SALT + str(value).encode()).hexdigest()[:12]}"
    return found


class Server:
    """The API server, or its absence in a dry run."""

    def __init__(self, kubeconfig: str, dry_run: bool, timeout: int, patient: bool = False) -> None:
        self.dry_run, self.timeout = dry_run, timeout
        self.deadline = time.monotonic() + timeout
        self.client: Any = None
        # The client's table of kinds is not made for several threads: one that clears it robs another.
        self.discovery = Lock()
        if dry_run and not Path(kubeconfig).is_file():
            return  # nothing is there yet: all of it would be created
        while not self.client:
            try:
                self.client = dynamic.DynamicClient(config.new_client_from_config(kubeconfig))
            except (HTTPError, ApiException, config.ConfigException) as error:
                if not patient or time.monotonic() > self.deadline:
                    raise Refused(
                        f"the API server of {kubeconfig} does not answer: {error}. Check it, then run again"
                    ) from error
                time.sleep(1)

    def apply(
        self, document: Document, namespace: str, scaled: bool = False
    ) -> tuple[Document, Document] | None:
        """Apply one object; return it before and after, or None if nothing changed."""
        document = copy.deepcopy(document)
        if not self.client:
            return {}, clean(document)
        while True:
            try:
                return self._apply(document, namespace, scaled)
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
                # Somebody wrote to it since it was read: what is theirs is no change of ours.
                overtaken = getattr(error, "status", 0) == 409
                time.sleep(0.1 if overtaken else 1)

    def _apply(self, document: Document, namespace: str, scaled: bool) -> tuple[Document, Document] | None:
        resource = self._resource(document["apiVersion"], document["kind"])
        if resource.namespaced:
            document["metadata"].setdefault("namespace", namespace or "default")
        before = self._read(resource, document["metadata"]["name"], document["metadata"].get("namespace"))
        if not scaled or (self.dry_run and not before):
            after = self._send(resource, document, before)
        else:
            after = self._send_scaled(resource, document, before)
        old, new = clean(before), clean(after)
        return None if old == new else (old, new)

    def _send_scaled(self, resource: Any, document: Document, before: Document | None) -> Document:
        """Apply an object but for its number of pods, which is given once and then the autoscaler's."""
        unscaled = document | {
            "spec": {key: document["spec"][key] for key in document["spec"] if key != "replicas"}
        }
        number: Document = {key: document[key] for key in ("apiVersion", "kind")}
        number["metadata"] = {key: document["metadata"][key] for key in ("name", "namespace")}
        if before is None:
            self._send(resource, unscaled)
            start = number | {"spec": {"replicas": document["spec"]["replicas"]}}
            return self._send(resource, start, manager=STARTER)
        if owns_replicas(before):
            # Handed over as it is: what its only owner gives up falls back to the default, a single pod.
            kept = {"replicas": before["spec"]["replicas"]}
            if self.dry_run:
                unscaled["spec"] |= kept
            else:
                before = self._send(resource, number | {"spec": kept}, before, STARTER)
        return self._send(resource, unscaled, before)

    def _resource(self, api_version: str, kind: str) -> Any:
        with self.discovery:
            return self.client.resources.get(api_version=api_version, kind=kind)

    @staticmethod
    def _read(resource: Any, name: str, namespace: str | None) -> Document | None:
        try:
            return dict(resource.get(name=name, namespace=namespace).to_dict())
        except (ApiException, dynamic.exceptions.NotFoundError) as error:
            if error.status != 404:
                raise
            return None

    def _send(
        self, resource: Any, document: Document, known: Document | None = None, manager: str = FIELD_MANAGER
    ) -> Document:
        """Apply a document to the object that was read, if it is still the same; return what it became."""
        options = {"dry_run": "All"} if self.dry_run else {}
        metadata = document["metadata"]
        if known:
            metadata = metadata | {"resourceVersion": known["metadata"]["resourceVersion"]}
        answer = self.client.server_side_apply(
            resource,
            body=document | {"metadata": metadata},
            name=document["metadata"]["name"],
            namespace=document["metadata"].get("namespace"),
            field_manager=manager,
            force_conflicts=True,
            **options,
        )
        return dict(answer.to_dict())

    def wait(self, items: list[Document], namespace: str) -> None:
        """Wait until every object is there and as it is waited for."""
        while True:
            with ThreadPoolExecutor(max_workers=4) as pool:
                lacks = list(pool.map(lambda item: self._lacks(item, namespace), items))
            waiting = [(item, lack) for item, lack in zip(items, lacks, strict=True) if lack]
            if not waiting:
                return
            if time.monotonic() > self.deadline:
                texts = [f"{item['kind']} {item['name']}: {lack}" for item, lack in waiting]
                raise Refused(f"not ready after {self.timeout} s: {'; '.join(texts)}")
            items = [item for item, _ in waiting]
            time.sleep(1)

    def _lacks(self, item: Document, namespace: str) -> str:
        try:
            resource = self._resource(item["api_version"], item["kind"])
            found = self._read(resource, item["name"], item.get("namespace") or namespace or None)
        except ResourceNotFoundError:
            with self.discovery:
                self.client.resources.invalidate_cache()
            return "its kind is not known yet"
        except (HTTPError, ApiException, dynamic.exceptions.DynamicApiError) as error:
            return self._reason(error)
        return lacking(found, item.get("condition"), item.get("fields")) if found else "it is not there"

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
        return (
            status in {409, 429, 503, 504}
            or "failed calling webhook" in reason
            or "unable to handle" in reason
        )


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


class ActionModule(ActionBase):
    """Runs on the controller; what it changes is behind the API server."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Document | None = None) -> Document:
        """Do what the task asks for."""
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(SPEC)
        given = json.loads(json.dumps(given))  # YAML cannot write Ansible's own kinds of values
        try:
            return result | run(given, self._task.check_mode)
        except Refused as error:
            return result | {"failed": True, "msg": f"component {given['name']}: {error}"}
