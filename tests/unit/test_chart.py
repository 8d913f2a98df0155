"""quote-app as a chart in a Git repository: what is in it, when there is a commit, what is refused."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from quote_platform import history

IMAGE = "ghcr.io/quote-platform/quote-app:0.1.0"


def deployment(image: str = IMAGE, **more: Any) -> dict[str, Any]:
    container = {"name": "quote-app", "image": image, "env": [{"name": "TEXT", "value": "{{ as it is }}"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quote-app", "namespace": "quote-lab"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [container]}}},
        **more,
    }


SCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "quote-app", "namespace": "quote-lab"},
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "quote-app"}},
}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    for name in ("project", "secrets", "staging"):
        (tmp_path / name).mkdir()
    return {
        "state": "committed",
        "cluster": "production",
        "repository": str(tmp_path / "delivery"),
        "branch": "main",
        "remote": "",
        "project": str(tmp_path / "project"),
        "secrets_dir": str(tmp_path / "secrets"),
        "staging": str(tmp_path / "staging"),
        "pins": {},
        "chart": "quote-app",
        "folder": "clusters/production",
        "image": IMAGE,
    }


def run(given: dict[str, Any], *documents: dict[str, Any], secrets: set[str] | None = None) -> dict[str, Any]:
    for component, items in {"quote-app": documents, "quote-app-access": [{"kind": "Namespace"}]}.items():
        staged = {"component": component, "namespace": "quote-lab", "documents": list(items)}
        Path(given["staging"], f"{component}.json").write_text(json.dumps(staged))
    return history.run(given, secrets or set(), False)


def files(given: dict[str, Any]) -> dict[str, str]:
    folder = Path(given["repository"], given["folder"])
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_text() for file in found}


def test_objects_are_literal_but_for_their_image(given: dict[str, Any]) -> None:
    assert run(given, deployment())["changed"]
    found = files(given)
    name = "templates/deployment-quote-app.yaml"
    assert set(found) == {"Chart.yaml", "values.yaml", name}
    assert yaml.safe_load(found["values.yaml"]) == {"quote_app_image": IMAGE}
    assert "image: {{ .Values.quote_app_image | quote }}" in found[name]
    assert '{{ "{{" }} as it is }}' in found[name]
    assert "namespace" not in found[name]
    assert "replicas: 3" in found[name]


def test_the_number_of_pods_is_left_to_an_autoscaler(given: dict[str, Any]) -> None:
    run(given, deployment(), SCALER)
    assert "replicas" not in files(given)["templates/deployment-quote-app.yaml"]


def test_nothing_new_is_no_commit_and_a_new_image_is_one_line(given: dict[str, Any]) -> None:
    first = run(given, deployment())["commit"]
    again = run(given, deployment())
    assert (again["changed"], again["commit"]) == (False, first)
    new = f"{IMAGE.replace('0.1.0', '0.2.0')}@sha256:{'a' * 64}"
    changed = run(given | {"image": new}, deployment(new))
    git = ["git", "-C", given["repository"], "show", "--format=", "--numstat", changed["commit"]]
    shown = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["1", "1", "clusters/production/values.yaml"]


def test_what_is_gone_is_deleted_and_what_is_others_stays(given: dict[str, Any]) -> None:
    run(given, deployment(), SCALER)
    root = Path(given["repository"])
    (root / "clusters/production/README.md").write_text("ours")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "more"], check=True)
    run(given, deployment())
    assert "templates/horizontalpodautoscaler-quote-app.yaml" not in files(given)
    assert "README.md" in files(given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster": "staging"}, "has in clusters/production the chart of production"),
        ({"folder": "../elsewhere"}, "flux_path: '../elsewhere' is not a folder"),
        ({"folder": ""}, "flux_path: '' is not a folder"),
        ({"chart": "shop"}, "nothing was rendered of shop"),
    ],
)
def test_refused(given: dict[str, Any], change: dict[str, str], words: str) -> None:
    run(given, deployment())
    with pytest.raises(history.Refused, match=words.replace(".", r"\.")):
        run(given | change, deployment())


def test_a_secret_is_never_committed(given: dict[str, Any]) -> None:
    with pytest.raises(history.Refused, match="Deployment quote-app has a secret in it"):
        run(given, deployment(notes="the-word-that-nobody-knows"), secrets={"the-word-that-nobody-knows"})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "account"}, "data": {"a": "Yg=="}}
    with pytest.raises(history.Refused, match="Secret account has a secret in it"):
        run(given, deployment(), secret)
