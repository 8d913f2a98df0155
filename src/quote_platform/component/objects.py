"""Objects of the API server: their order, their names, what they lack, what of them is shown."""

from __future__ import annotations

import copy
import hashlib
import os
from typing import Any

from ansible.module_utils.common.yaml import SafeDumper  # libyaml's, where it is

Document = dict[str, Any]

FIELD_MANAGER = "quote-platform"
# Gives an autoscaled workload the number of pods it starts with; then the number is the autoscaler's.
STARTER = f"{FIELD_MANAGER}-start"
# What has to exist before the rest, and what would intercept the rest if it came earlier.
FIRST = ("Namespace", "CustomResourceDefinition", "PriorityClass", "StorageClass", "IngressClass")
LAST = (
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "APIService",
)
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


class Refused(Exception):
    """The component cannot be applied; the text says why and what to do."""


class Dumper(SafeDumper):  # type: ignore[misc]  # Ansible has no types
    """Writes objects as YAML, a text of several lines as such."""

    def represent_text(self, text: str) -> Any:
        """Return the node of a text."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, Dumper.represent_text)


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
        shown: Document = next((item for item in status.get("conditions") or [] if item["type"] == kind), {})
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
