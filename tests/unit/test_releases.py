"""Release manifests with their patches on a real API server: over what was there before, and once more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, api_server
from releases import RELEASES
from rendering import render

from quote_platform import component

# Of each role: patches, objects of its own, and its workloads of before it had a release manifest: by name,
# with what selects their pods, which cannot change.
ROLES: dict[str, tuple[str, str, str, dict[str, dict[str, str]]]] = {
    "cert_manager": (
        "cert-manager",
        "cert_manager/templates/patches.yaml.j2",
        "cert_manager/templates/cert-manager.yaml.j2",
        {
            name: {"app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": part}
            for name, part in {
                "cert-manager": "controller",
                "cert-manager-webhook": "webhook",
                "cert-manager-cainjector": "cainjector",
            }.items()
        },
    ),
    "logging": (
        "logging",
        "logging/templates/eck-patches.yaml.j2",
        "logging/templates/eck.yaml.j2",
        {"eck": {"app.kubernetes.io/name": "eck"}},
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    names = [name for _, patches, objects, _ in ROLES.values() for name in (patches, objects)]
    texts = render(tmp_path_factory.mktemp("rendered"), *((name, {}) for name in names))
    return {
        name: [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]
        for name, text in zip(names, texts, strict=True)
    }


def earlier(role: str) -> list[dict[str, Any]]:
    """Return the workloads as they were."""
    namespace, _, _, selectors = ROLES[role]
    found: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}]
    for name, labels in selectors.items():
        stateful = role == "logging"
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "old", "image": "example.com/old:1"}]},
        }
        spec = {"selector": {"matchLabels": labels}, "template": template}
        found.append(
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet" if stateful else "Deployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec | ({"serviceName": name} if stateful else {}),
            }
        )
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_release_takes_the_place_of_what_was_there(
    server: ApiServer, rendered: dict[str, list[dict[str, Any]]], tmp_path: Path, role: str
) -> None:
    namespace, patches, objects, _ = ROLES[role]
    release = RELEASES[patches]
    for sha256, text in release.texts().items():
        (tmp_path / sha256).write_text(text)
    asked = {
        "name": role.replace("_", "-"),
        "namespace": namespace,
        "kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")),
        "base_url": "",
        "cache": str(tmp_path),
        "wait": [],
        "gone": [],
        "prune": True,
        "timeout": 60,
    }
    nothing: dict[str, Any] = {"manifests": [], "namespaces": {}, "patches": []}
    before = earlier(role)
    component.run(asked | nothing | {"objects": before}, dry_run=False)
    # Nobody is asked by a webhook here, nor is any object of a kind that its operator would look at.
    own = [one for one in rendered[objects] if not one["apiVersion"].endswith("elastic.co/v1")]
    if role == "logging":
        own = [before[0], *own]
    now = asked | {
        "manifests": [
            {"url": f"https://example.com/{sha256}", "sha256": sha256} for sha256 in release.texts()
        ],
        "namespaces": release.namespaces,
        "patches": rendered[patches],
        "objects": own,
    }
    planned = component.run(now, dry_run=True)["changes"]
    deleted = {"cert_manager": [], "logging": ["delete StatefulSet logging/eck"]}
    assert [change for change in planned if change.startswith("delete")] == deleted[role]
    # Without controllers nothing is ever gone that is deleted.
    now["prune"] = False
    assert component.run(now, dry_run=False)["changes"]
    for dry_run in (True, False):
        assert component.run(now, dry_run=dry_run)["changes"] == []
