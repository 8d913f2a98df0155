"""What the action apply_component is given and returns."""

DOCUMENTATION = """
module: apply_component
short_description: Apply one component to the API server, or wait for what it became
description:
  - Fetch release manifests by checksum, merge patches into them, add objects of our own, and apply all of it
    server-side with the field manager C(quote-platform), in an order that works and side by side.
  - On request, what was applied under this name before and is no longer named is deleted then, unless it is
    somebody else's now. Namespaces, kinds, volumes, claims and what holds data stay; a warning names them.
  - Runs on the controller. Supports check mode; differences show of Secrets only that they differ.
options:
  name: {type: str, required: true, description: Name of the component.}
  namespace: {type: str, default: "", description: Namespace of namespaced objects that name none.}
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  manifests: {type: list, elements: dict, default: [], description: "Of releases, each with url and sha256."}
  base_url: {type: str, default: "", description: Replaces scheme and host of each URL; the path stays.}
  cache: {type: path, default: "", description: Folder on the controller that keeps fetched manifests.}
  namespaces:
    description: Namespaces of the manifests, each with the one that takes its place; patches come after.
    type: dict
    default: {}
  patches:
    description: Partial objects, each merged into the manifests' object of the same kind and name.
    type: list
    elements: dict
    default: []
  objects: {type: list, elements: dict, default: [], description: Objects of our own.}
  prune:
    description: Record what is applied, in a ConfigMap in C(kube-system), and delete what is no longer named.
    type: bool
    default: false
  gone:
    description: In check mode, what would be deleted by now, as M(prune_components) returns it.
    type: list
    elements: str
    default: []
  wait:
    description: What to wait for, each with api_version, kind, name, and condition or fields of its status;
      without these a workload is waited for until it is rolled out.
    type: list
    elements: dict
    default: []
  timeout: {type: int, default: 120, description: Seconds to wait.}
  render:
    description: Folder into which the objects are written in place of being applied, without values of
      Secrets; no API server is asked. For M(commit_objects).
    type: path
    default: ""
notes:
  - Beside M(kubernetes.core.k8s), which can apply a list of objects server-side, it deletes what is no longer
    named, merges patches into release manifests, waits for kinds and webhooks that are starting, leaves an
    autoscaler its number, and shows nothing of Secrets. It is not faster. 20 objects took 1.8 s at first and
    1.3 s without a change, against 1.5 s and 1.3 s; 104 objects 4.5 s and 3.3 s, against 2.4 s and 1.8 s, in
    about the same processor time (C(bench/modules.py), 2 cores with much other work, 2026-11-30).
author: [Quote Platform]
"""
RETURN = """
objects: {type: int, returned: success, description: Number of objects.}
changes: {type: list, elements: str, returned: success, description: "What was done to which object."}
"""
