"""Every object in Git: a commit for what has changed and for nothing else, no secret, no wrong repository."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from quote_platform import component, history
from quote_platform import secrets as secret_variables
from quote_platform.component import staging

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct-horse-battery-staple"  # noqa: S105 (planted, to be found nowhere)
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvgIBADANBgkq\n-----END PRIVATE KEY-----"  # pragma: allowlist secret


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def commits(repository: Path) -> int:
    return len(git(repository, "log", "--format=%H").split())


def everything(repository: Path) -> str:
    """Return all that a clone would have: every version of every file, and every message."""
    return git(repository, "log", "--patch", "--format=fuller", "--all")


def thing(kind: str, name: str, api: str = "v1", **more: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Return what the task is given, with two components staged."""
    given = {
        "state": "committed",
        "cluster": "shop",
        "repository": str(tmp_path / "objects" / "shop"),
        "branch": "main",
        "remote": "",
        "project": str(ROOT),
        "secrets_dir": str(tmp_path / "secrets"),
        "staging": str(tmp_path / "staging"),
        "pins": {"web_image": "example.com/web:1", "web_manifests": []},
    }
    (tmp_path / "secrets").mkdir()
    stage(given)
    return given


def stage(given: dict[str, Any], image: str = "example.com/web:1", **more: Any) -> None:
    """Render two components, by what the task apply_component does."""
    folder = Path(given["staging"])
    folder.mkdir(exist_ok=True)
    definition = thing(
        "CustomResourceDefinition",
        "roofs.example.com",
        "apiextensions.k8s.io/v1",
        spec={"group": "example.com", "names": {"kind": "Roof"}, "scope": "Cluster"},
    )
    web = [
        thing("Deployment", "web", "apps/v1", spec={"image": image, "args": ["--verbose"], "z": 1, "a": 2}),
        thing("Secret", "account", data={"password": base64.b64encode(PASSWORD.encode()).decode()}),
        thing("ConfigMap", "web", data={"config": f"line 1\npassword={PASSWORD}\nline 3\n"} | more),
        thing("ClusterRole", "system:web", "rbac.authorization.k8s.io/v1"),
    ]
    roof = [definition, thing("Roof", "one", "example.com/v1"), thing("Namespace", "shop")]
    for name, documents in {"web": web, "roof": roof}.items():
        asked = {name: option.get("default") for name, option in component.SPEC.items()}
        asked |= {"name": name, "namespace": "shop", "objects": documents, "render": str(folder), "cache": ""}
        assert component.run(asked, dry_run=False)["changed"] is False


def run(given: dict[str, Any], dry_run: bool = False, secrets: set[str] | None = None) -> dict[str, Any]:
    return history.run(given, secrets or set(), dry_run)


def test_an_object_is_a_file_and_its_keys_are_sorted(given: dict[str, Any]) -> None:
    assert run(given)["changed"]
    repository = Path(given["repository"])
    assert git(repository, "ls-files").split() == [
        "cluster.yml",
        "objects/roof/_cluster/customresourcedefinition-roofs.example.com.yaml",
        "objects/roof/_cluster/namespace-shop.yaml",
        "objects/roof/_cluster/roof-one.yaml",
        "objects/web/_cluster/clusterrole-system_web.yaml",
        "objects/web/shop/configmap-web.yaml",
        "objects/web/shop/deployment-web.yaml",
        "objects/web/shop/secret-account.yaml",
        "pins.yml",
    ]
    assert (repository / "objects/web/shop/deployment-web.yaml").read_text() == (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\n"
        "spec:\n  a: 2\n  args:\n  - --verbose\n  image: example.com/web:1\n  z: 1\n"
    )


def test_nothing_new_is_no_commit(given: dict[str, Any]) -> None:
    first = run(given)
    second = run(given)
    assert (second["changed"], second["commit"], second["message"]) == (False, first["commit"], "")
    assert commits(Path(given["repository"])) == 1


def test_a_changed_pin_is_exactly_its_lines(given: dict[str, Any]) -> None:
    run(given)
    long = f"example.com/web:2@sha256:{'a' * 64}"  # no longer line is broken in two
    stage(given, image=long)
    result = run(given | {"pins": {"web_image": long, "web_manifests": []}})
    shown = git(Path(given["repository"]), "show", "--format=%B", "--unified=0")
    assert re.findall(r"^[+-][^+-].*", shown, re.MULTILINE) == [
        "-  image: example.com/web:1",
        f"+  image: {long}",
        "-web_image: example.com/web:1",
        f"+web_image: {long}",
    ]
    assert result["message"].startswith("shop: 1 changed\n\nBy: ")
    assert re.search(r"^Platform: [0-9a-f]{12}( with changes)?$", result["message"], re.MULTILINE)
    assert f"\nPins:\n  web_image: example.com/web:1 -> {long}\n" in result["message"]
    assert result["message"].endswith("\nObjects:\n  ~ web/shop/deployment-web.yaml\n")


def test_what_is_gone_goes_and_what_is_the_users_stays(given: dict[str, Any]) -> None:
    run(given)
    repository = Path(given["repository"])
    (repository / "README.md").write_text("Ours.\n")
    git(repository, "add", "README.md")
    git(repository, "commit", "--quiet", "--message=Ours")
    (Path(given["staging"]) / "roof.json").unlink()
    assert "shop: 3 deleted" in run(given)["message"]
    assert not (repository / "objects/roof").exists()
    assert (repository / "README.md").read_text() == "Ours.\n"


def test_a_dry_run_shows_the_commit_and_makes_none(given: dict[str, Any]) -> None:
    shown = run(given, dry_run=True)
    assert not Path(given["repository"]).exists()
    assert shown["changed"]
    assert "shop: 7 created" in shown["message"]
    assert [part["after_header"] for part in shown["diff"]][:1] == ["cluster.yml"]
    run(given)
    stage(given, image="example.com/web:2")
    (changed,) = run(given, dry_run=True)["diff"]
    assert changed["before"].replace("web:1", "web:2") == changed["after"]
    assert commits(Path(given["repository"])) == 1


def test_no_secret_is_in_it(given: dict[str, Any]) -> None:
    """Neither of a Secret, nor elsewhere what is kept on the controller or in a secret variable."""
    folder = Path(given["secrets_dir"])
    (folder / "keys.yml").write_text("deep: {down: kept-on-the-controller}\n")
    (folder / "server.key").write_text(KEY)
    (folder / "server.crt").write_text("-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----\n")
    stage(
        given,
        one="kept-on-the-controller",
        two=base64.b64encode(KEY.encode()).decode(),
        three="https://user:of-a-variable@example.com",
        four=(folder / "server.crt").read_text(),
    )
    result = run(given, secrets={"of-a-variable"})
    assert len(result["warnings"]) == 1
    assert result["warnings"][0].startswith("objects/web/shop/configmap-web.yaml: it has a secret outside")
    kept = everything(Path(given["repository"]))
    for secret in (PASSWORD, "kept-on-the-controller", "MIIEvgIBADANBgkq", "of-a-variable"):
        assert secret not in kept
        assert base64.b64encode(secret.encode()).decode() not in kept
    assert "  password: <redacted>" in kept
    assert "password=<redacted>" in kept
    assert "https://user:<redacted>@example.com" in kept  # pragma: allowlist secret
    assert "BEGIN CERTIFICATE" in kept, "a certificate is public"


def test_secret_variables_are_known_by_spec_and_name() -> None:
    variables = {
        "monitoring_slack_url": "https://hooks.example.com/T0/abcdef",
        "image_registry_credentials": {"ghcr.io": {"username": "puller-one", "password": "pull-password"}},
        "object_store_accounts": {"velero": {"bucket": "shop-velero", "secret_key": "store-secret"}},
        "grafana_admin_password_file": "/srv/secrets/grafana",
        "velero_repository_key": "repository-key",
        "versitygw_root_secret": "root-secret",
        "registry_passphrase": "pass-phrase",
        "quote_app_database_secret": "name-of-a-secret",
        "object_store_access_key": "name-of-an-account",
        "quote_app_image": "example.com/web:1",
    }
    assert secret_variables.values(variables, lambda value: value) == {
        *("https://hooks.example.com/T0/abcdef", "pull-password", "store-secret", "repository-key"),
        *("root-secret", "pass-phrase"),
    }


def test_a_short_value_of_a_secret_is_marked_there_alone() -> None:
    secret = thing("Secret", "a", stringData={"region": "eu-central-1"})
    assert staging.without_values(secret)["stringData"] == {"region": "<redacted>"}
    assert staging.secret_values(secret) == set()


# --- which repository -------------------------------------------------------------------------------------


def made(path: Path, mark: str | None, dirty: bool = False) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "--quiet")
    (path / (history.MARK if mark else "code.py")).write_text(f"cluster: {mark}\n")
    git(path, "add", ".")
    git(path, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message=one")
    if dirty:
        (path / "new.txt").write_text("new")
    return path


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("repository", lambda _: "", "render_repository: empty; allowed is an empty folder"),
    ("repository", lambda _: "objects", "objects is no whole path"),
    ("repository", lambda _: ROOT, "is the checkout"),
    ("repository", lambda _: ROOT / "objects", "is the checkout"),
    ("repository", lambda _: ROOT.parent, "or above it"),
    ("repository", lambda _: "/etc/objects", "is a place of the system or a home"),
    ("repository", lambda _: "/srv", "is a place of the system or a home"),
    ("repository", lambda _: Path.home(), "or"),
    ("repository", lambda folder: folder / "secrets/objects", "is among the secrets"),
    ("repository", lambda folder: folder / "staging", "is no Git repository, and is not empty"),
    ("repository", lambda folder: made(folder / "a", "other"), "is that of the cluster other"),
    ("repository", lambda folder: made(folder / "b", None), "holds something else"),
    ("repository", lambda folder: made(folder / "c", "shop", dirty=True), "not committed (new.txt)"),
    ("branch", lambda _: "--force", "render_branch: '--force' is not a branch"),
    ("branch", lambda _: "a..b/", "is not a branch"),
    ("remote", lambda _: "https://me:word@example.com/objects.git", "render_remote: it has a password"),
    ("remote", lambda _: "--upload-pack=touch", "render_remote: '--upload-pack=touch' is not an address"),
]


@pytest.mark.parametrize(("option", "value", "says"), REFUSED)
def test_a_wrong_repository_is_refused_and_left_alone(
    given: dict[str, Any], tmp_path: Path, option: str, value: Callable[[Path], Any], says: str
) -> None:
    given[option] = str(value(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(history.Refused) as refused:
        run(given)
    assert says in str(refused.value)
    assert "; allowed is" in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_into_the_checkout_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ROOT)
    with pytest.raises(history.Refused, match="is the checkout"):
        run(given | {"repository": str(tmp_path / "link" / "objects")})


# --- branches and remotes ---------------------------------------------------------------------------------


def test_a_branch_has_the_change_and_main_stays(given: dict[str, Any]) -> None:
    run(given)
    stage(given, image="example.com/web:2")
    run(given | {"branch": "change/web-2"})
    repository = Path(given["repository"])
    assert git(repository, "diff", "--name-only", "main", "change/web-2").split() == [
        "objects/web/shop/deployment-web.yaml"
    ]
    stage(given)
    assert run(given)["changed"] is False, "main is as it was"


def test_it_is_pushed_and_goes_on_from_what_others_have_pushed(given: dict[str, Any], tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", remote], check=True)
    given["remote"] = str(remote)
    assert run(given)["pushed"]
    assert not run(given)["changed"]
    elsewhere = given | {"repository": str(tmp_path / "objects" / "elsewhere")}
    assert not run(elsewhere)["changed"], "a fresh controller has what was pushed"
    stage(given, image="example.com/web:2")
    assert run(elsewhere)["pushed"]
    assert not run(given)["changed"], "it came by the remote"
    assert commits(remote) == 2

    stage(given, image="example.com/web:3")
    run(given | {"remote": ""})
    stage(given, image="example.com/web:4")
    run(elsewhere)
    with pytest.raises(history.Refused, match=r"have gone different ways \(1 and 1 commits\); rebase it"):
        run(given)


def test_a_remote_of_another_cluster_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    other = made(tmp_path / "other", "other")
    with pytest.raises(history.Refused, match=r"render_remote: .* is that of the cluster other"):
        run(given | {"remote": str(other), "branch": git(other, "branch", "--show-current").strip()})


def test_what_a_hook_refuses_is_not_left_behind(given: dict[str, Any]) -> None:
    run(given)
    repository = Path(given["repository"])
    hook = repository / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho looks like a secret >&2\nexit 1\n")
    hook.chmod(0o755)
    stage(given, image="example.com/web:2")
    (Path(given["staging"]) / "roof.json").unlink()
    with pytest.raises(history.Refused, match="looks like a secret"):
        run(given)
    assert git(repository, "status", "--porcelain") == ""
    hook.unlink()
    assert "shop: 1 changed, 3 deleted" in run(given)["message"]


# --- by the playbook --------------------------------------------------------------------------------------

# All that is fetched is left out.
UNAVAILABLE = yaml.safe_load((ROOT / "playbooks/vars/components.yml").read_text())["platform_components"]


def test_the_playbook_commits_what_roles_render(tmp_path: Path) -> None:
    """The first time, then a changed pin in a dry run; there is no cluster, and nothing is fetched."""
    secrets, repository = tmp_path / "secrets", tmp_path / "objects"
    secrets.mkdir()
    (secrets / "planted").write_text(PASSWORD)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    variables = {
        "render_repository": str(repository),
        "cluster_secrets_dir": str(secrets),
        "components_unavailable": [
            {"name": one["name"], "reason": "not here"} for one in UNAVAILABLE if one["name"] != "admission"
        ],
        "quote_app_database_name": f"shop-{PASSWORD}",
    }

    def play(*options: str, **more: Any) -> str:
        command = ["ansible-playbook", "-i", "inventories/production", "playbooks/render.yml", *options]
        done = subprocess.run(
            [*command, "-e", json.dumps(variables | more)],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        assert not list(temporary.glob("quote-render-*"))
        return done.stdout

    play()
    assert {path.name for path in (repository / "objects").iterdir()} == {
        "admission",
        "kube-router",
        "quote-app",
        "quote-app-access",
    }
    assert PASSWORD not in everything(repository)
    assert (
        "value: shop-<redacted>"
        in (repository / "objects/quote-app/quote-lab/deployment-quote-app.yaml").read_text()
    )
    shown = play("--check", "--diff", quote_app_image="ghcr.io/quote-platform/quote-app:9.9.9")
    lines = re.findall(r"^[+-] .*|^[+-]quote.*", shown, re.MULTILINE)
    assert sorted(lines) == [
        "+        image: ghcr.io/quote-platform/quote-app:9.9.9",
        "+quote_app_image: ghcr.io/quote-platform/quote-app:9.9.9",
        *(line for line in sorted(lines) if line.startswith("-") and "quote-app:" in line),
    ]
    assert len(lines) == 4
    assert "quote: 1 changed" in shown or "production: 1 changed" in shown
    assert commits(repository) == 1
    assert sorted(path.name for path in secrets.iterdir()) == ["planted"], "nothing was generated"
