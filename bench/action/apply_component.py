"""In the place of the action of this name: it writes what that would apply to files, for bare-platform.sh."""

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform.component.manifests import assemble, fetch
from quote_platform.component.objects import FIRST, LAST, stages

CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding", "ClusterIssuer", "ValidatingAdmissionPolicy")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs on the controller and contacts nobody."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the objects of one component, numbered in the order in which they are applied."""
        given = self._task.args
        folder = Path((task_vars or {})["render_folder"])
        folder.mkdir(mode=0o700, exist_ok=True)
        texts = [
            fetch(manifest, given.get("base_url", ""), Path(given["cache"]))
            for manifest in given.get("manifests") or []
        ]
        patches, objects = given.get("patches") or [], given.get("objects") or []
        documents = assemble(texts, patches, objects, given.get("namespaces"))
        for document in documents:
            if document["kind"] not in (*FIRST, *LAST, *CLUSTER_WIDE):
                document["metadata"].setdefault("namespace", given.get("namespace") or "default")
        for stage in filter(None, stages(documents)):
            number = len(list(folder.iterdir()))
            (folder / f"{number:03}-{given['name']}.yaml").write_text("\n---\n".join(map(json.dumps, stage)))
        return dict(super().run(tmp, task_vars)) | {"changed": False}
