"""What the platform renders, in a Git repository: a commit for each change.

All objects of a cluster, in a repository of its own, or the application's as a chart in a folder of any.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from quote_platform.component.objects import Document, Dumper
from quote_platform.component.staging import mask, public
from quote_platform.delivery import chart
from quote_platform.difference import difference

# What the task commit_objects is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["judged", "committed"], "default": "committed"},
    "cluster": {"type": "str", "required": True},
    "repository": {"type": "path", "required": True},
    "branch": {"type": "str", "default": "main"},
    "remote": {"type": "str", "default": ""},
    "project": {"type": "path", "required": True},
    "secrets_dir": {"type": "path", "required": True},
    "staging": {"type": "path", "default": ""},
    "pins": {"type": "dict", "default": {}},
    "chart": {"type": "str", "default": ""},
    "folder": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
}
# Says whose repository it is; other files than these, and than those of objects, are the user's.
MARK = "cluster.yml"
PINS = "pins.yml"
# Where objects lie that are in no namespace; no namespace can have this name.
CLUSTER_WIDE = "_cluster"
OBJECTS = "objects"
# Kubernetes' own kinds that are in no namespace; of others their CustomResourceDefinition says so.
NOT_NAMESPACED = {
    *("APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole", "ClusterRoleBinding"),
    *("CustomResourceDefinition", "DeviceClass", "FlowSchema", "IngressClass", "MutatingAdmissionPolicy"),
    *("MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration", "Namespace", "Node"),
    *("PersistentVolume", "PriorityClass", "PriorityLevelConfiguration", "RuntimeClass", "ServiceCIDR"),
    *("StorageClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    *("ValidatingWebhookConfiguration", "VolumeAttachment", "VolumeAttributesClass", "VolumeSnapshotClass"),
}
# Of secrets on the controller; shorter ones may be any word.
LEAST = 8
ALLOWED = "allowed is an empty folder, or a new one, or this cluster's repository, such as /srv/objects/NAME"
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Refused(Exception):
    """Objects cannot be committed; the text says why and what to do."""


def written(value: Any) -> str:
    """Return a value as its file has it: no line is broken, so that a change is seen in its own."""
    return str(yaml.dump(value, Dumper=Dumper, width=2**30, allow_unicode=True, sort_keys=True))


# --- what the repository holds ----------------------------------------------------------------------------


def files(staged: list[Document]) -> dict[str, Document]:
    """Return the objects of all components, each by the path of its file."""
    definitions = [
        document
        for one in staged
        for document in one["documents"]
        if document["kind"] == "CustomResourceDefinition"
    ]
    wide = {
        (one["spec"]["group"], one["spec"]["names"]["kind"])
        for one in definitions
        if one["spec"]["scope"] == "Cluster"
    }
    found: dict[str, Document] = {}
    for one in staged:
        for document in one["documents"]:
            metadata, group = document["metadata"], document["apiVersion"].rpartition("/")[0]
            kind, own = document["kind"], any(group == known for known, _ in wide)
            namespaced = (group, kind) not in wide if own else kind not in NOT_NAMESPACED
            space = metadata.get("namespace") or one["namespace"] or "default"
            whole = document | {"metadata": metadata | {"namespace": space}} if namespaced else document
            folder = f"{OBJECTS}/{one['component']}/{space if namespaced else CLUSTER_WIDE}"
            path = f"{folder}/{kind.lower()}-{metadata['name'].replace(':', '_')}.yaml"
            other = found.get(path)
            if other and other["apiVersion"].rpartition("/")[0] != group:
                path = path.replace(f"/{kind.lower()}-", f"/{kind.lower()}.{group or 'core'}-")
            found[path] = whole
    return found


def kept_secrets(folder: Path) -> set[str]:
    """Return the secrets that lie on the controller: of each file what it has, and each value in it."""
    found: set[str] = set()
    for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
        try:
            text = file.read_text().strip() if file.is_file() else ""
        except UnicodeDecodeError:
            continue
        if "PRIVATE KEY" in text or "\n" not in text:
            found.add(text)
        if file.suffix in {".yml", ".yaml", ".json"} or file.name == "kubeconfig":
            found |= set(_leaves(yaml.safe_load(text)))
    # Paths, addresses and names of the cluster are no secrets.
    return {
        text
        for text in found
        if len(text) >= LEAST and not public(text) and not re.match(r"(https?://|/|inventories)", text)
    }


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value.strip()] if isinstance(value, str) else []


# --- the repository ---------------------------------------------------------------------------------------


@dataclass
class Repository:
    """A Git repository of objects."""

    path: Path
    branch: str

    def git(self, *arguments: str, check: bool = True) -> str:
        """Run Git in it; return what it printed."""
        # Of a hook that this may run in, or that asks a person.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
        kept.pop("GIT_INDEX_FILE", None)
        kept.pop("GIT_WORK_TREE", None)
        environment = kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(
            [
                "git",
                "-C",
                str(self.path),
                "-c",
                "core.autocrlf=false",
                "-c",
                "core.quotePath=false",
                *arguments,
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-500:]
            raise Refused(f"{self.path}: git {arguments[0]} failed: {said}")
        return done.stdout if done.returncode == 0 else ""

    @property
    def there(self) -> bool:
        """Tell whether it is there, and not only a folder above it."""
        return (self.path / ".git").exists()

    def has(self, reference: str) -> bool:
        """Tell whether a branch is there."""
        return bool(self.git("rev-parse", "--verify", "--quiet", reference, check=False).strip())

    def at(self, reference: str, ours: list[str]) -> dict[str, str]:
        """Return the files of a commit that are ours."""
        names = self.git("ls-tree", "-r", "--name-only", "-z", reference, "--", *ours)
        return {name: self.git("show", f"{reference}:{name}") for name in names.split("\0") if name}


def judge(given: Document) -> list[str]:
    """Return why a repository cannot be used, each with what is allowed; nothing is changed."""
    wrong = []
    if not BRANCH.fullmatch(given["branch"]) or given["branch"].endswith((".lock", ".")):
        wrong.append(f"render_branch: {given['branch']!r} is not a branch; allowed is a name such as main")
    if given["remote"].startswith("-"):
        wrong.append(f"render_remote: {given['remote']!r} is not an address; allowed is what git clone takes")
    elif "://" in given["remote"] and urlsplit(given["remote"]).password:
        wrong.append(
            "render_remote: it has a password, which Git would keep in clear; allowed is an address without "
            "one, and a key of SSH or a credential helper"
        )
    if given.get("chart") and not FOLDER.fullmatch(given["folder"]):
        wrong.append(f"flux_path: {given['folder']!r} is not a folder; allowed is a path such as production")
        return wrong
    reason = _misplaced(given) or _unfit(Repository(Path(given["repository"]), given["branch"]), given)
    if reason:
        where = f"{given['repository']} {reason}" if given["repository"] else reason
        allowed = "allowed is a folder of its own: flux_path" if given.get("chart") else ALLOWED
        wrong.append(f"render_repository: {where}; {allowed}")
    return wrong


def _misplaced(given: Document) -> str:
    """Return what is wrong with where a repository lies."""
    path, project = Path(given["repository"]), Path(given["project"]).resolve()
    real, secrets = path.resolve(), Path(given["secrets_dir"]).resolve()
    above = (real, *real.parents)
    places = {
        "empty": not given["repository"],
        "is no whole path": not path.is_absolute(),
        f"is the checkout {project}, or in it, or above it": project in above or real in project.parents,
        f"is among the secrets in {secrets}": secrets in above,
        "is a place of the system or a home": real == Path.home().resolve()
        or len(real.parts) < 3
        or real.parts[1] in _SYSTEM,
        "is a file": path.is_file(),
    }
    return next((reason for reason, holds in places.items() if holds), "")


def ours(given: Document) -> list[str]:
    """Return the paths whose files are ours."""
    if not given.get("chart"):
        return [OBJECTS, PINS, MARK]
    return [f"{given['folder']}/{name}" for name in (chart.CHART, chart.VALUES, chart.TEMPLATES)]


def _unfit(repository: Repository, given: Document) -> str:
    """Return what is wrong with what a folder holds."""
    if not repository.there:
        holds = repository.path.is_dir() and any(repository.path.iterdir())
        return "is no Git repository, and is not empty" if holds else ""
    if changes := repository.git("status", "--porcelain", "--untracked-files=all").splitlines():
        shown = ", ".join(line[3:] for line in changes[:5]) + (" and more" if len(changes) > 5 else "")
        return f"has changes that are not committed ({shown}): commit or discard them"
    return _others(repository, given)


def _others(repository: Repository, given: Document) -> str:
    """Return whose the repository is, or the chart's folder, if it is not this cluster's."""
    cluster = given["cluster"]
    if not repository.has("HEAD"):
        return ""
    if given.get("chart"):
        text = repository.git("show", f"HEAD:{given['folder']}/{chart.CHART}", check=False)
        notes = (yaml.safe_load(text) or {}).get("annotations") or {} if text else {chart.OWNER: cluster}
        whose = notes.get(chart.OWNER)
        return (
            "" if whose == cluster else f"has in {given['folder']} the chart of {whose or 'something else'}"
        )
    mark = yaml.safe_load(repository.git("show", f"HEAD:{MARK}", check=False) or "null")
    whose = mark.get("cluster") if isinstance(mark, dict) else None
    if whose == cluster:
        return ""
    return f"is that of the cluster {whose}" if whose else f"has no {MARK}, so holds something else"


_SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"}


def run(given: Document, secrets: set[str], dry_run: bool) -> Document:
    """Judge the repository, or commit what was staged; return what the task returns."""
    if wrong := judge(given):
        raise Refused("\n".join(wrong))
    if given["state"] == "judged":
        return {"changed": False}
    staged = [json.loads(file.read_text()) for file in sorted(Path(given["staging"]).glob("*.json"))]
    if not staged:
        raise Refused("no component was rendered; nothing is committed")
    known = secrets | kept_secrets(Path(given["secrets_dir"]))
    if given.get("chart"):
        return _commit(given, _chart(given, staged, known), dry_run)
    warnings, wanted = [], {}
    for path, document in files(staged).items():
        masked = mask(document, known)
        if masked != document:
            warnings.append(f"{path}: it has a secret outside of a Secret, which was marked")
        wanted[path] = written(masked)
    wanted[PINS] = written(mask(given["pins"], known))
    wanted[MARK] = written({"cluster": given["cluster"]})
    return _commit(given, wanted, dry_run) | ({"warnings": warnings} if warnings else {})


def _chart(given: Document, staged: list[Document], known: set[str]) -> dict[str, str]:
    """Return the files of a component's chart. A secret cannot be marked, since that would be applied."""
    documents = [item for one in staged if one["component"] == given["chart"] for item in one["documents"]]
    if not documents:
        raise Refused(f"nothing was rendered of {given['chart']}; nothing is committed")
    for document in documents:
        title = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Secret" or mask(document, known) != document:
            raise Refused(f"{title} has a secret in it; nothing is committed")
    found = chart.files(given["chart"], given["cluster"], documents, given["image"], written)
    return {f"{given['folder']}/{path}": text for path, text in found.items()}


def _commit(given: Document, wanted: dict[str, str], dry_run: bool) -> Document:
    repository = Repository(Path(given["repository"]), given["branch"])
    remote = given["remote"]
    if not dry_run:
        _open(repository, remote)
        if reason := _others(repository, given):  # by what its remote has
            raise Refused(f"render_remote: {remote} {reason}; {ALLOWED}")
    before: dict[str, str] = {}
    if repository.there:
        start = given["branch"] if repository.has(f"refs/heads/{given['branch']}") else "HEAD"
        before = repository.at(start, ours(given)) if repository.has(start) else {}
    changed = {
        path: (before.get(path, ""), wanted.get(path, ""))
        for path in sorted(before.keys() | wanted.keys())
        if before.get(path) != wanted.get(path)
    }
    message = _message(given, changed)
    result: Document = {
        "changed": bool(changed),
        "message": message if changed else "",
        "commit": "",
        "pushed": False,
        "diff": [difference(path, old, new) for path, (old, new) in changed.items()],
    }
    if dry_run:
        return result
    if changed:
        _write(repository.path, {path: new for path, (_, new) in changed.items()})
        try:
            repository.git("add", "--all", "--force", "--", *sorted({path.split("/")[0] for path in changed}))
            repository.git(*_author(repository), "commit", "--quiet", "--message", message)
        except Refused:  # by a hook, for example: the repository is left as it was
            _write(repository.path, {path: old for path, (old, _) in changed.items()})
            repository.git("reset", "--quiet")
            raise
    result["commit"] = repository.git("rev-parse", "HEAD").strip()
    if remote:
        result["pushed"] = _push(repository)
        result["changed"] = result["changed"] or result["pushed"]
    return result


def _open(repository: Repository, remote: str) -> None:
    """Make the repository if it is not there, bring it to what its remote has, and to its branch."""
    if not repository.there:
        repository.path.mkdir(parents=True, exist_ok=True)
        repository.git("init", "--quiet", "--initial-branch", repository.branch)
    if remote:
        known = repository.git("remote", "get-url", "origin", check=False).strip()
        if known != remote:
            repository.git("remote", "set-url" if known else "add", "origin", remote)
        repository.git("fetch", "--quiet", "--prune", "origin")
    local, theirs = f"refs/heads/{repository.branch}", f"refs/remotes/origin/{repository.branch}"
    there = bool(remote) and repository.has(theirs)
    if repository.has(local):
        repository.git("switch", "--quiet", repository.branch)
        if there and not repository.git("merge-base", "--is-ancestor", theirs, local, check=False):
            behind = repository.git("rev-list", "--count", f"{local}..{theirs}").strip()
            ahead = repository.git("rev-list", "--count", f"{theirs}..{local}").strip()
            if behind != "0" and ahead != "0":
                raise Refused(
                    f"{repository.path}: {repository.branch} and that of {remote} have gone different ways "
                    f"({ahead} and {behind} commits); rebase it: git -C {repository.path} rebase {theirs}"
                )
            if behind != "0":
                repository.git("merge", "--quiet", "--ff-only", theirs)
    elif there:
        repository.git("switch", "--quiet", "--create", repository.branch, "--track", theirs)
    elif repository.has("HEAD"):
        repository.git("switch", "--quiet", "--create", repository.branch)
    else:
        repository.git("symbolic-ref", "HEAD", local)


def _write(root: Path, texts: dict[str, str]) -> None:
    """Write files, and delete those that have no text, with folders that are empty then."""
    for path, text in texts.items():
        file = root / path
        if text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            continue
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == root or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _push(repository: Repository) -> bool:
    theirs = f"refs/remotes/origin/{repository.branch}"
    if repository.has(theirs) and not int(repository.git("rev-list", "--count", f"{theirs}..HEAD")):
        return False
    repository.git("push", "--quiet", "--set-upstream", "origin", repository.branch)
    return True


def _author(repository: Repository) -> list[str]:
    """Return options of Git by which somebody is the author, where its configuration names nobody."""
    if repository.git("config", "user.email", check=False).strip():
        return []
    return [
        "-c",
        f"user.name={getpass.getuser()}",
        "-c",
        f"user.email={getpass.getuser()}@{socket.gethostname()}",
    ]


# --- the message ------------------------------------------------------------------------------------------


def _message(given: Document, changed: dict[str, tuple[str, str]]) -> str:
    top = given["folder"] if given.get("chart") else OBJECTS
    objects = {path: pair for path, pair in changed.items() if path.startswith(f"{top}/")}
    created = sum(not old for old, _ in objects.values())
    deleted = sum(not new for _, new in objects.values())
    counts = {"changed": len(objects) - created - deleted, "created": created, "deleted": deleted}
    said = ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "pins only"
    lines = [f"{given['cluster']}: {said}", ""]
    lines += [
        f"By: {getpass.getuser()} on {socket.gethostname()}",
        f"Platform: {_revision(given['project'])}",
    ]
    if PINS in changed and (pins := _pins(*changed[PINS])):
        lines += ["", "Pins:", *pins]
    if objects:
        marks = {path: "+" if not old else "-" if not new else "~" for path, (old, new) in objects.items()}
        names = [f"  {mark} {path.removeprefix(f'{top}/')}" for path, mark in marks.items()]
        more = [f"  and {len(names) - 100} more"] if len(names) > 100 else []
        lines += ["", "Objects:", *names[:100], *more]
    return "\n".join(lines) + "\n"


def _pins(before: str, after: str) -> list[str]:
    old, new = yaml.safe_load(before) or {}, yaml.safe_load(after) or {}
    if not old:
        return []  # the first commit: all of them are new
    return [
        f"  {name}: {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _short(value: Any) -> str:
    if isinstance(value, list):  # manifests
        return f"{len(value)} manifests, {(value[0] or {}).get('url', '') if value else ''}"
    return "none" if value is None else str(value)


def _revision(project: str) -> str:
    """Return which commit of the platform has rendered, and whether it was changed."""
    checkout = Repository(Path(project), "")
    if not checkout.there:
        return "of no checkout"
    dirty = checkout.git("status", "--porcelain", check=False).strip()
    return checkout.git("rev-parse", "--short=12", "HEAD", check=False).strip() + (
        " with changes" if dirty else ""
    )
