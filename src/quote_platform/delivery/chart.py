"""What was rendered of an application as a Helm chart: literal objects, and the image as its only value."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

CHART, VALUES, TEMPLATES = "Chart.yaml", "values.yaml", "templates"
# The value is named as the variable, so that the file which `release promote` writes can stand for values.
IMAGE = "quote_app_image"
OWNER = "quote-platform/cluster"
_PLACE = "quote-platform-image"


def files(
    component: str, cluster: str, documents: list[Document], image: str, written: Callable[[Any], str]
) -> dict[str, str]:
    """Return the files of a chart by their paths in it; `written` is how a value becomes YAML.

    Namespaces are left out, since a release is applied to the one that it is told. So is the number of pods
    of what has an autoscaler: it would be set back at each commit.
    """
    chart = {
        "apiVersion": "v2",
        "name": component,
        "version": "0.1.0",  # Flux adds the commit
        "annotations": {OWNER: cluster},
    }
    scaled = {
        document["spec"]["scaleTargetRef"]["name"]
        for document in documents
        if document["kind"] == "HorizontalPodAutoscaler"
    }
    found = {CHART: written(chart), VALUES: written({IMAGE: image})}
    for document in documents:
        one = copy.deepcopy(document)
        one["metadata"].pop("namespace", None)
        if one["kind"] == "Deployment" and one["metadata"]["name"] in scaled:
            one["spec"].pop("replicas", None)
        text = _literal(written(_placed(one, image)))
        name = f"{one['kind'].lower()}-{one['metadata']['name'].replace(':', '_')}.yaml"
        found[f"{TEMPLATES}/{name}"] = text.replace(_PLACE, "{{ .Values." + IMAGE + " | quote }}")
    return found


def _placed(value: Any, image: str) -> Any:
    """Return a value with a word in place of the image of containers."""
    if isinstance(value, dict):
        return {
            key: _PLACE if key == "image" and inner == image else _placed(inner, image)
            for key, inner in value.items()
        }
    return [_placed(inner, image) for inner in value] if isinstance(value, list) else value


def _literal(text: str) -> str:
    """Return a text that Helm's templates leave as it is."""
    return text.replace("{{", '{{ "{{" }}')
