"""The API server, and what is done with one object of it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from kubernetes import dynamic
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from urllib3.exceptions import HTTPError

from quote_platform.component.objects import (
    FIELD_MANAGER,
    STARTER,
    Document,
    Refused,
    clean,
    lacking,
    owns_replicas,
    title,
)
from quote_platform.kubeconfig import Unusable, answered, connect, trouble


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
                with answered():
                    self.client = dynamic.DynamicClient(connect(kubeconfig))
            except Unusable:
                if not patient or time.monotonic() > self.deadline:
                    raise
                time.sleep(1)

    def apply(
        self, document: Document, namespace: str, scaled: bool = False
    ) -> tuple[Document, Document] | None:
        """Apply one object; return it before and after, or None if nothing changed."""
        document = copy.deepcopy(document)
        if not self.client:
            return {}, clean(document)

        def send() -> tuple[Document, Document] | None:
            try:
                return self._apply(document, namespace, scaled)
            except (ResourceNotFoundError, ApiException, dynamic.exceptions.DynamicApiError) as error:
                if self.dry_run and self._not_yet(error):
                    return {}, clean(document)
                raise

        return self._until_answered(document, send)

    def find(self, document: Document) -> Document | None:
        """Return the object of a document's kind and name, or None if it is not there."""
        name, namespace = document["metadata"]["name"], document["metadata"].get("namespace")

        def ask() -> Document | None:
            return self._read(self._resource(document["apiVersion"], document["kind"]), name, namespace)

        return self._until_answered(document, ask)

    def labelled(self, api_version: str, kind: str, namespace: str, labels: str) -> list[Document]:
        """Return the objects with these labels, as a selector has them."""
        asked = {"kind": kind, "metadata": {"namespace": namespace, "name": labels}}

        def ask() -> list[Document]:
            answer = self._resource(api_version, kind).get(namespace=namespace, label_selector=labels)
            return [{"apiVersion": api_version, "kind": kind} | item for item in answer.to_dict()["items"]]

        return self._until_answered(asked, ask)

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        """Tell whether objects of a kind are in namespaces; None if the kind is not known."""
        try:
            return bool(self._resource(api_version, kind).namespaced)
        except ResourceNotFoundError:
            return None

    @staticmethod
    def each[Result](items: list[Document], work: Callable[[Document], Result]) -> list[Result]:
        """Do something with each, side by side."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            return list(pool.map(work, items))

    def delete(self, documents: list[Document]) -> None:
        """Delete objects that were found, with all that depends on them, and wait until they are gone."""
        self.deadline = time.monotonic() + self.timeout
        self.each(documents, lambda found: self._until_answered(found, lambda: self._delete(found)))
        while there := [found for found in self.each(documents, self._again) if found]:
            if time.monotonic() > self.deadline:
                names = [
                    f"{title(found)}, waiting for {', '.join(found['metadata'].get('finalizers') or ['it'])}"
                    for found in there
                ]
                raise Refused(f"not deleted after {self.timeout} s: {'; '.join(names)}. Run again")
            documents = there
            time.sleep(0.5)

    def _delete(self, found: Document) -> None:
        metadata = found["metadata"]
        # Its pods go before it does: whoever comes next may want their ports.
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": metadata["uid"]}}
        try:
            self._resource(found["apiVersion"], found["kind"]).delete(
                name=metadata["name"], namespace=metadata.get("namespace"), body=options
            )
        except (ApiException, dynamic.exceptions.DynamicApiError) as error:
            if error.status not in {404, 409}:  # somebody else was faster, or made another one
                raise

    def _again(self, found: Document) -> Document | None:
        """Return what has become of an object; None if it is another one."""
        now = self.find(found)
        return now if now and now["metadata"]["uid"] == found["metadata"]["uid"] else None

    def _until_answered[Result](self, document: Document, ask: Callable[[], Result]) -> Result:
        """Repeat a request about an object until it is answered; what passes by itself is no answer."""
        while True:
            try:
                return ask()
            except HTTPError as error:  # the connection, not the answer
                if time.monotonic() > self.deadline:
                    raise Refused(f"{title(document)}: {trouble(error)}") from error
                time.sleep(1)
            except (ResourceNotFoundError, ApiException, dynamic.exceptions.DynamicApiError) as error:
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
