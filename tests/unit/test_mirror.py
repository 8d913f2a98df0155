"""The mirror without the network: its catalogue, its keys, what it refuses."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from quote_platform import paths
from quote_platform.images import untagged
from quote_platform.mirror import align, availability, progress, publish, source, storage, upstream
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror import fill as filling
from quote_platform.mirror.storage import MirrorError, RefusedError


@pytest.fixture(scope="module")
def catalogue() -> cat.Catalogue:
    return cat.load()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # A short path: it holds the socket of GnuPG's agent.
    with tempfile.TemporaryDirectory(prefix="m-") as short:
        monkeypatch.setenv("XDG_CACHE_HOME", short)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield Path(short)


def silent(_: str) -> None:
    pass


# --- catalogue ------------------------------------------------------------------------------------------


def test_every_pin_is_in_the_catalogue(catalogue: cat.Catalogue) -> None:
    held = {image.image for image in catalogue.images}
    held |= {name for names in catalogue.unbuildable_images.values() for name in names}
    pinned = {value for name, value in cat.versions().items() if name.endswith("_image")}
    assert pinned <= held, pinned - held
    urls = {manifest.url for manifest in catalogue.release_manifests}
    assert urls == {
        entry["url"]
        for name, value in cat.versions().items()
        if name.endswith("_manifests")
        for entry in value
    }


def test_every_manifest_has_a_checksum_and_a_source(catalogue: cat.Catalogue) -> None:
    for manifest in catalogue.release_manifests:
        assert re.fullmatch(r"[0-9a-f]{64}", manifest.sha256), manifest.url
        assert "/".join(manifest.url.split("/")[3:5]) in catalogue.manifests


def test_what_is_made_of_a_chart_is_what_its_publisher_released(catalogue: cat.Catalogue) -> None:
    """To the byte: the checksums are of the files that its publisher serves."""
    silently = source.Source(catalogue, silent)
    charts = {(where, file) for where, origin in catalogue.manifests.items() for file in origin.charts}
    made = set()
    for manifest in catalogue.release_manifests:
        where, _, file = filling.place(manifest)
        if (where, file) in charts:
            content = filling.manifest_content(catalogue, silently, manifest)
            assert hashlib.sha256(content).hexdigest() == manifest.sha256, manifest.url
            made.add((where, file))
    assert made == charts


def test_sources_are_of_the_pinned_version() -> None:
    versions = cat.versions()
    assert cat.module_version("kubernetes") == versions["kubernetes_version"]
    assert cat.module_version("conformance") == versions["kubernetes_version"]
    assert versions["container_runtime_version"].startswith(f"{cat.module_version('containerd')}-")
    assert versions["kubernetes_packages_cni_version"].startswith(f"{cat.module_version('cni-plugins')}-")
    assert versions["kubernetes_packages_cri_tools_version"].startswith(f"{cat.module_version('cri-tools')}-")
    assert versions["control_plane_etcd_image_tag"].startswith(f"{cat.module_version('etcd')}-")
    for recipe, name in {
        "coredns": "control_plane_coredns_image_tag",
        "kube-router": "pod_network_image",
        "local-path-provisioner": "storage_image",
        "metrics-server": "metrics_server_image",
        "cloudnative-pg": "postgres_operator_image",
        "traefik": "traefik_image",
        "cert-manager": "cert_manager_controller_image",
        "velero": "velero_image",
        "opentelemetry-collector": "logging_opentelemetry_image",
        "eck": "logging_eck_image",
        "pebble": "acme_image",
        "monitoring": "monitoring_operator_image",
        "alertmanager": "monitoring_alertmanager_image",
    }.items():
        version = re.sub(r"-\d+$", "", versions[name].partition("@")[0])  # ours count their builds
        assert version.endswith(cat.module_version(recipe)), name
    # What shares the recipe. Prometheus' module has its major version in the minor one.
    shared = (cat.folder() / "recipes" / "monitoring" / "go.mod").read_text()
    for module, name in {
        "k8s.io/kube-state-metrics/v2": "monitoring_kube_state_metrics_image",
        "github.com/prometheus/node_exporter": "monitoring_node_exporter_image",
        "github.com/prometheus/blackbox_exporter": "monitoring_blackbox_image",
        "github.com/brancz/kube-rbac-proxy": "monitoring_rbac_proxy_image",
    }.items():
        assert f"\t{module} {untagged(versions[name])[1]}\n" in shared, name
    major, minor, patch = untagged(versions["monitoring_prometheus_image"])[1].removeprefix("v").split(".")
    assert f"\tgithub.com/prometheus/prometheus v0.{major}{minor}.{patch}\n" in shared


def test_another_version_of_kubernetes_is_held_beside_the_pinned_one(catalogue: cat.Catalogue) -> None:
    for version, pins in cat.other_kubernetes().items():
        assert cat.module_version(f"kubernetes-{version}") == version == pins["kubernetes_version"]
        other = cat.other(version)
        assert {name: package.version for name, package in other.packages.items()} == dict.fromkeys(
            ("kubelet", "kubectl", "kubeadm"), f"{version}-1.1"
        )
        names = {image.image for image in other.images}
        assert f"registry.k8s.io/kube-apiserver:v{version}" in names
        assert pins["container_runtime_pause_image"] in names
        assert not names & {image.image for image in catalogue.images}
        every = [package.files for package in other.packages.values()] + [
            image.files for image in other.images
        ]
        for files in every:
            assert {name.split("/")[0] for several in files.values() for name in several} <= {
                f"kubernetes-{version}"
            }
        repository = other.repositories["kubernetes"]
        assert f"/v{'.'.join(version.split('.')[:2])}/" in repository.upstream
        assert repository.path == catalogue.repositories["kubernetes"].path
    with pytest.raises(MirrorError, match=r"--kubernetes 1.2.3: allowed is 1.35.4"):
        cat.other("1.2.3")


def test_a_new_package_leaves_those_of_other_versions_that_are_held(cache: Path, tmp_path: Path) -> None:
    repository = cat.Repository(path="kubernetes", upstream="https://example.com/", key="Release.key")
    folder = publish.pool(repository)
    folder.mkdir(parents=True)
    for version in ("1.20.0", "1.35.4", cat.versions()["kubernetes_version"]):
        (folder / f"thing_{version}-1.1_amd64.deb").touch()
    deb = make_deb(tmp_path)
    publish.add_package(repository, "thing", deb)
    kept = {f"thing_{version}-1.1_amd64.deb" for version in ("1.35.4", cat.versions()["kubernetes_version"])}
    assert {file.name for file in folder.iterdir()} == kept | {deb.name}


def test_a_misspelt_key_is_refused(catalogue: cat.Catalogue) -> None:
    with pytest.raises(ValidationError, match="entrypiont"):
        cat.Image.model_validate({"image": "a/b:1", "entrypiont": ["/b"]})


def test_files_name_binaries_that_a_recipe_builds(catalogue: cat.Catalogue) -> None:
    every = [entry.files for entry in catalogue.packages.values()] + [
        image.files for image in catalogue.images
    ]
    for name in [name for files in every for names in files.values() for name in names]:
        recipe, binary = name.split("/")
        assert binary == "*" or binary in catalogue.binaries[recipe].packages, name


# --- archives -------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked_if_it_is_the_pinned_one(
    catalogue: cat.Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, mode in (("tool-1/bin/tool", 0o755), ("tool-1/notes", 0o644), ("tool-1/../../out", 0o644)):
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            file.writestr(member, name)
    content = packed.getvalue()

    class Answer:
        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None: ...

        def raise_for_status(self) -> None: ...

        def iter_bytes(self) -> Iterator[bytes]:
            yield content[:10]
            yield content[10:]

    monkeypatch.setattr("httpx.stream", lambda *_, **__: Answer())
    builder = source.Source(catalogue, silent)
    builder.artifacts = tmp_path / "artifacts"
    url = "https://example.com/tool-1.zip"
    folder = builder.archive(cat.Archive(url=url, sha256=hashlib.sha256(content).hexdigest()))
    assert (folder / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (folder / "notes").read_text() == "tool-1/notes"
    assert not (tmp_path / "out").exists()
    with pytest.raises(RefusedError, match="pinned is 0000"):
        builder.archive(cat.Archive(url=url, sha256="0" * 64))
    assert [path.name for path in (tmp_path / "artifacts/archives").iterdir()] == [folder.name]


# --- keys -----------------------------------------------------------------------------------------------


def test_a_key_follows_what_the_recipe_says(catalogue: cat.Catalogue, tmp_path: Path) -> None:
    builder = source.Source(catalogue, silent)
    before = builder.binaries_key("runc")
    assert before == builder.binaries_key("runc")
    changed = catalogue.binaries["runc"].model_copy(update={"tags": []})
    other = catalogue.model_copy(update={"binaries": catalogue.binaries | {"runc": changed}})
    assert source.Source(other, silent).binaries_key("runc") != before
    file = tmp_path / "go.mod"
    file.write_text("one")
    first = cat.digest(tmp_path)
    file.write_text("two")
    assert cat.digest(tmp_path) != first


def test_a_binary_has_variables_of_its_own(
    catalogue: cat.Catalogue, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(source, "run", lambda command, *_: called.append([str(word) for word in command]))
    packages = {"one": "a/one", "two": "a/two", "three": "a/three"}
    entry = cat.Binaries(packages=packages, variables={"v": "0", "two v": "2"})
    only = catalogue.model_copy(update={"binaries": {"runc": entry}})
    monkeypatch.setattr(source.Source, "go", lambda _: "go")
    assert source.Source(only, silent).binaries("runc").is_relative_to(cache)
    flags = {tuple(word for word in words if word in packages.values()): words for words in called}
    assert "-s -w -X v=0" in flags["a/one", "a/three"]
    assert "-s -w -X v=2" in flags["a/two",]
    assert len(called) == 2


def test_an_image_follows_the_folders_it_holds(
    catalogue: cat.Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cat.Image(image="a/b:1", folders={"/opt/thing": "src/thing"})
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    (tmp_path / "src/thing/__pycache__").mkdir(parents=True)
    (tmp_path / "src/thing/thing.py").write_text("one")
    builder = source.Source(catalogue, silent)
    first = builder.image_key(image)
    (tmp_path / "src/thing/__pycache__/thing.pyc").write_text("of this machine")
    assert builder.image_key(image) == first
    (tmp_path / "src/thing/thing.py").write_text("two")
    assert builder.image_key(image) != first


def test_a_program_of_an_image_runs_as_its_owner_where_the_recipe_says_so(
    catalogue: cat.Catalogue, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cat.Image(image="a/b:1", folders={"/": "files"}, setuid=["/bin/id"])
    usual = cat.Image(image="a/b:1", folders={"/": "files"})
    assert cat.digest(image) != cat.digest(usual)
    assert "setuid" not in usual.model_dump()  # else every image would be made anew
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/data").touch()
    copied: dict[str, int] = {}

    def run(command: list[str | Path], *_: object) -> str:
        if "copy" in command:
            tree = Path(command[-2])
            copied.update({str(one.relative_to(tree)): one.stat().st_mode for one in tree.rglob("*")})
        return ""

    def install(_: source.Source, __: cat.Files, into: Path) -> None:
        (into / "bin").mkdir()
        (into / "bin/id").touch()

    monkeypatch.setattr(source, "run", run)
    monkeypatch.setattr(source.Source, "install", install)
    source.Source(catalogue, silent).image(image, "registry/a/b:1")
    assert oct(copied["bin/id"]) == "0o104755"
    assert "data" in copied


def test_recipes_agree_on_what_they_share(catalogue: cat.Catalogue) -> None:
    """Go compiles a package once for those that have it, and all that it imports, at the same version."""
    assert align.differing(catalogue.binaries) == {}, "run `quote-platform mirror align`"


def test_the_newest_version_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lists = {
        "one": "require a.example/one v1.0.0\n\tb.example v1.9.0 // indirect\n\tc.example v0.0.0\n"
        "replace c.example => c.example v1.2.0\n",
        "two": "require b.example/two v1.0.0\n\tb.example v1.10.0-rc.1 // indirect\n"
        "\tc.example v1.1.0\n\ta.example/one v1.1.0\n",
    }
    for name, text in lists.items():
        (tmp_path / "recipes" / name).mkdir(parents=True)
        (tmp_path / "recipes" / name / "go.mod").write_text(text)
    monkeypatch.setattr(cat, "folder", lambda: tmp_path)
    assert align.differing(lists) == {"one": {"b.example": "v1.10.0-rc.1"}, "two": {"c.example": "v1.2.0"}}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1.9.0", "v1.10.0"),
        ("v1.0.0-rc.2", "v1.0.0"),
        ("v1.0.0-rc.2", "v1.0.0-rc.10"),
        ("v0.0.0-20250101000000-abc", "v0.0.0-20260101000000-0bc"),
        ("v1.36.12-0.20260120151049-f2248ac996af", "v1.36.12"),
        ("v2.0.0+incompatible", "v2.0.1+incompatible"),
    ],
)
def test_versions_have_an_order(older: str, newer: str) -> None:
    assert align.order(older) < align.order(newer)


def test_an_overlay_replaces_and_removes_files_of_modules(
    catalogue: cat.Catalogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("kept.go", "replaced.go", "removed.go"):
        (tmp_path / "up" / "pkg").mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / "pkg" / name).write_text("upstream")
    (tmp_path / "up" / "pkg").chmod(0o555)
    recipe = tmp_path / "recipes" / "one"
    overlay = recipe / "overlay" / "example.com" / "up" / "v2" / "pkg"
    overlay.mkdir(parents=True)
    (overlay / "replaced.go").write_text("ours")
    (overlay / "removed.go").touch()
    (recipe / "go.mod").write_text(
        "module m\n\nrequire example.com/up v1.2.3\n\nrequire (\n\texample.com/up/v2 v2.0.0 // indirect\n)\n"
    )
    monkeypatch.setattr(cat, "folder", lambda: tmp_path)
    builder = source.Source(catalogue, lambda _: None)
    monkeypatch.setattr(builder, "module", lambda _, name: {"example.com/up/v2": tmp_path / "up"}[name])
    with builder.edited("one") as folder:
        assert "replace example.com/up/v2 => ../example.com-up-v2" in (folder / "go.mod").read_text()
        found = {file.name: file.read_text() for file in (folder.parent / "example.com-up-v2/pkg").iterdir()}
    assert found == {"kept.go": "upstream", "replaced.go": "ours"}
    assert "replace" not in (recipe / "go.mod").read_text()
    (tmp_path / "recipes" / "two").mkdir()
    (tmp_path / "recipes" / "two" / "go.mod").write_text("module m\n")
    with builder.edited("two") as folder:
        assert folder == tmp_path / "recipes" / "two"


def test_an_artifact_appears_whole_or_not_at_all(catalogue: cat.Catalogue, cache: Path) -> None:
    builder = source.Source(catalogue, silent)
    target = builder.artifacts / "binaries" / "thing-1"

    def dies(part: Path) -> None:
        (part / "half").write_text("half")
        raise MirrorError("killed")

    with pytest.raises(MirrorError, match="killed"):
        builder._once(target, "thing", dies)
    assert not target.exists()
    assert not list(target.parent.iterdir())
    again = source.Source(catalogue, silent)

    def lives(part: Path) -> None:
        (part / "whole").write_text("whole")

    again._once(target, "thing", lives)
    assert (target / "whole").read_text() == "whole"


def test_prune_keeps_what_the_catalogue_names(catalogue: cat.Catalogue, cache: Path) -> None:
    builder = source.Source(catalogue, silent)
    current = builder.artifacts / "binaries" / f"runc-{builder.binaries_key('runc')}"
    old, killed = current.with_name("runc-0000"), builder.artifacts / "roots" / ".part-x"
    for folder in (current, old, killed):
        folder.mkdir(parents=True)
    assert filling.prune(10) == [str(old), str(killed)]
    assert current.is_dir()
    assert not old.exists()


# --- what is refused ------------------------------------------------------------------------------------


def test_a_manifest_that_differs_is_refused_and_the_good_one_kept(cache: Path) -> None:
    good = b"kind: Namespace\n"
    manifest = cat.Manifest(url="https://example.com/a/b/v1/c.yaml", sha256=hashlib.sha256(good).hexdigest())
    publish.add_manifest(manifest, good)
    with pytest.raises(
        MirrorError, match=r"https://example.com/a/b/v1/c.yaml: sha256 is .* refused; the good one"
    ):
        publish.add_manifest(manifest, b"kind: Evil\n")
    assert publish.manifest_file(manifest.url).read_bytes() == good
    assert publish.manifest_file(manifest.url) == storage.root() / "www/manifests/a/b/v1/c.yaml"


def test_verify_names_a_layer_that_was_changed(cache: Path) -> None:
    content = b"layer"
    name = hashlib.sha256(content).hexdigest()
    layer = storage.root() / "registry/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"
    layer.parent.mkdir(parents=True)
    layer.write_bytes(content)
    assert filling.verify() == []
    layer.write_bytes(b"other")
    assert filling.verify() == [f"image layer sha256:{name}: its content differs"]


# --- apt ------------------------------------------------------------------------------------------------


def make_deb(folder: Path) -> Path:
    (folder / "tree/DEBIAN").mkdir(parents=True)
    fields = "Package: thing\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: a <a@b>\nDescription: thing\n"
    (folder / "tree/DEBIAN/control").write_text(fields)
    deb = folder / "thing_1.0-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--build", folder / "tree", deb], check=True, capture_output=True)
    return deb


@pytest.mark.parametrize(
    ("repository", "release", "flat"),
    [
        (cat.Repository(path="kubernetes", upstream="https://example.com/", key="Release.key"), ".", True),
        (
            cat.Repository(
                path="docker/linux/debian",
                upstream="https://e.com/",
                key="gpg",
                suite="bookworm",
                component="stable",
            ),
            "dists/bookworm",
            False,
        ),
    ],
)
def test_a_repository_is_signed(
    cache: Path, tmp_path: Path, repository: cat.Repository, release: str, flat: bool
) -> None:
    deb = make_deb(tmp_path)
    publish.add_package(repository, "thing", deb)
    publish.sign_repository(repository)
    publish.stop_signing()
    folder = publish.apt_folder(repository)
    assert (folder / repository.key).read_text().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    signed = (folder / release / "InRelease").read_bytes()
    index = "Packages" if flat else "stable/binary-amd64/Packages"
    assert index in upstream._verified((folder / repository.key).read_bytes(), signed)
    with pytest.raises(MirrorError):
        upstream._verified((folder / repository.key).read_bytes(), signed.replace(b"Suite", b"Suiet"))
    packages = (folder / release / index).read_text()
    filename = re.search(r"^Filename: (.+)$", packages, re.MULTILINE)
    assert filename
    assert (folder / filename[1]).is_file(), "apt joins the file's name to the repository's address"


def test_a_kill_before_signing_is_made_good(
    cache: Path, tmp_path: Path, catalogue: cat.Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = catalogue.repositories["kubernetes"]
    assert publish.is_signed(repository), "an empty one needs no signature"
    publish.add_package(repository, "thing", make_deb(tmp_path))
    assert not publish.is_signed(repository)
    assert "repository kubernetes: its signature is older than its packages" in filling.verify()
    monkeypatch.setattr(filling, "artifacts", lambda *_: [])  # all of them are there: nothing to get
    filling.fill(filling.Provider.SOURCE, [], 1, silent)
    assert publish.is_signed(repository)
    assert filling.verify() == []
    signature = publish.apt_folder(repository) / "Release.gpg"
    os.utime(signature, ns=(0, 0))
    assert not publish.is_signed(repository)


def test_packages_from_upstream_are_what_their_repository_signs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = cat.Repository(path="thing", upstream="https://example.com/deb/", key="Release.key")
    deb = make_deb(tmp_path)
    publish.add_package(repository, "thing", deb)
    folder = publish.apt_folder(repository)
    monkeypatch.setattr(publish, "run", with_packed_index(folder))
    publish.sign_repository(repository)
    publish.stop_signing()
    served = {
        f"{repository.upstream}{file.relative_to(folder)}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    monkeypatch.setattr(upstream, "manifest", served.__getitem__)
    assert upstream.package(repository, "thing", "1.0-1") == (deb.name, deb.read_bytes())
    with pytest.raises(MirrorError, match=r"https://example.com/deb/ has no thing 2"):
        upstream.package(repository, "thing", "2")
    for changed, complaint in {
        "InRelease": "not signed by the repository's key: refused",
        "Packages.gz": "not the one that InRelease signs: refused",
        f"amd64/{deb.name}": "thing 1.0-1: its checksum is not the one in Packages.gz: refused",
    }.items():
        address = f"{repository.upstream}{changed}"
        spoilt = gzip.compress(b"Package: evil\n") if changed == "Packages.gz" else unsigned(served[address])
        monkeypatch.setattr(upstream, "manifest", (served | {address: spoilt}).__getitem__)
        with pytest.raises(RefusedError, match=complaint):
            upstream.package(repository, "thing", "1.0-1")


def with_packed_index(folder: Path) -> Callable[..., str]:
    """Upstream has its index compressed; ours are small enough without."""

    def run(command: list[str | Path], **options: Any) -> str:
        if command[-2:] == ["release", "."]:
            (folder / "Packages.gz").write_bytes(gzip.compress((folder / "Packages").read_bytes()))
        return source.run(command, **options)

    return run


def unsigned(content: bytes) -> bytes:
    """Return an OpenPGP message without a signature, which `gpg --decrypt` would take."""
    with tempfile.TemporaryDirectory() as home:
        command = ["gpg", "--homedir", home, "--batch", "--store"]
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout


# --- providers ------------------------------------------------------------------------------------------


def artifact(build: bool, fetched: list[str]) -> filling.Artifact:
    return filling.Artifact(
        kind="image",
        name="example.com/thing",
        version="1",
        host="example.com",
        component="thing",
        key=lambda: "key",
        there=lambda: False,
        fetch=lambda _: fetched.append("upstream"),
        build=(lambda _: fetched.append("source")) if build else None,
    )


@pytest.mark.parametrize(
    ("provider", "reachable", "build", "origin"),
    [
        (filling.Provider.AUTO, True, True, "upstream"),
        (filling.Provider.AUTO, False, True, "source"),
        (filling.Provider.SOURCE, True, True, "source"),
        (filling.Provider.UPSTREAM, True, False, "upstream"),
    ],
)
def test_the_provider(  # noqa: PLR0917
    cache: Path,
    catalogue: cat.Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    provider: filling.Provider,
    reachable: bool,
    build: bool,
    origin: str,
) -> None:
    monkeypatch.setattr(upstream, "reachable", lambda _: reachable)
    fetched: list[str] = []
    one = artifact(build, fetched)
    assert filling._get(one, provider, "registry", catalogue) == origin
    assert fetched == [origin]
    assert f'"origin": "{origin}"' in one.record.read_text()


def test_what_cannot_be_had_is_named(
    cache: Path, catalogue: cat.Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "reachable", lambda _: False)
    with pytest.raises(filling.NotToBeHad, match=r"example.com is out of reach and it has no source recipe"):
        filling._get(artifact(False, []), filling.Provider.AUTO, "registry", catalogue)
    with pytest.raises(MirrorError, match=r"example.com cannot be reached"):
        filling._get(artifact(True, []), filling.Provider.UPSTREAM, "registry", catalogue)
    availability.record([availability.Unavailable("thing", "gone")])
    assert availability.unavailable() == [availability.Unavailable("thing", "gone")]


def test_what_upstream_forged_is_not_replaced_in_silence(
    cache: Path, catalogue: cat.Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forged(_: str) -> None:
        raise RefusedError("sha256 differs: refused")

    monkeypatch.setattr(upstream, "reachable", lambda _: True)
    fetched: list[str] = []
    one = replace(artifact(True, fetched), fetch=forged)
    with pytest.raises(RefusedError, match="refused"):
        filling._get(one, filling.Provider.AUTO, "registry", catalogue)
    assert fetched == []
    assert not one.record.exists()


@pytest.mark.parametrize(
    ("name", "all_of_it"), [("example.com/a/b:1", False), ("example.com/a/b:1@sha256:0f", True)]
)
def test_an_image_pinned_by_digest_comes_with_all_that_the_digest_covers(
    monkeypatch: pytest.MonkeyPatch, name: str, all_of_it: bool
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(upstream, "run", commands.append)
    upstream.image(name, "127.0.0.1:1/example.com/a/b:1")
    assert ("--all" in commands[0]) is all_of_it
    assert commands[0][-2] == f"docker://{name.replace(':1@', '@')}"


# --- parts of the platform ------------------------------------------------------------------------------

# Whose pins are not the core's, by the prefix of their variable; the longest one counts.
PARTS = {
    "": {cat.Part.CORE},
    "acme": {cat.Part.CERTIFICATES},
    "cert_manager": {cat.Part.CERTIFICATES},
    "flux": {cat.Part.DELIVERY},
    "grafana": {cat.Part.MONITORING},
    "logging": {cat.Part.LOGS},
    "log_store": {cat.Part.LOGS},
    "monitoring": {cat.Part.MONITORING},
    "postgres_backup": {cat.Part.BACKUPS},
    "secrets_delivery": {cat.Part.SECRETS},
    "velero": {cat.Part.BACKUPS},
}


def test_each_pin_is_of_the_part_that_needs_it(catalogue: cat.Catalogue) -> None:
    parts = {image.image: set(image.part) for image in catalogue.images}
    for component, names in catalogue.unbuildable_images.items():
        parts |= {name: set(catalogue.unbuildable[component].part) for name in names}
    for one in filling.artifacts(catalogue, source.Source(catalogue, silent)):
        if one.kind == "manifest":
            parts[one.name] = set(one.parts)
    shared = cat.versions()["snapshots_image"]  # of every part that speaks to a store, or has Python
    for name, value in cat.versions().items():
        found = [entry["url"] for entry in value] if name.endswith("_manifests") else [value]
        if name.endswith(("_image", "_manifests")) and value != shared:
            prefix = max((prefix for prefix in PARTS if name.startswith(prefix)), key=len)
            assert all(parts[one] == PARTS[prefix] for one in found), name
    assert parts[shared] == set(cat.USUAL) - {cat.Part.CORE, cat.Part.CERTIFICATES}


def test_a_part_says_nothing_of_what_an_artifact_is_made_of() -> None:
    one = cat.Image.model_validate({"image": "a/b:1"})
    assert cat.digest(one) == cat.digest(cat.Image.model_validate({"image": "a/b:1", "part": "logs"}))
    with pytest.raises(ValidationError, match="part"):
        cat.Image.model_validate({"image": "a/b:1", "part": "longs"})


def test_a_fill_of_one_part_leaves_the_others_alone(
    cache: Path, catalogue: cat.Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def registry() -> Iterator[str]:
        yield "registry"

    fetched: list[str] = []
    core = replace(artifact(True, fetched), name="example.com/core", version="1")
    gone = replace(artifact(False, []), name="example.com/gone", component="gone")
    logs = replace(
        artifact(True, fetched), name="example.com/logs", component="kibana", parts=(cat.Part.LOGS,)
    )
    monkeypatch.setattr(filling, "artifacts", lambda *_: [core, gone, logs])
    monkeypatch.setattr(publish, "registry", registry)
    monkeypatch.setattr(upstream, "reachable", lambda _: False)
    before = [availability.Unavailable("kibana", "nobody has it"), availability.Unavailable("gone", "old")]
    availability.record(before)
    report = filling.fill(filling.Provider.AUTO, [], 1, silent, parts=[cat.Part.CORE])
    assert report.ready == ["example.com/core"]
    assert fetched == ["source"]
    assert [(one.name, one.reason[:11]) for one in availability.unavailable()] == [
        ("kibana", "nobody has "),
        ("gone", "example.com"),
    ]
    assert filling.lacking([cat.Part.LOGS]) == [], "it is known not to be had"
    availability.record([])
    assert filling.lacking([cat.Part.LOGS]) == ["image example.com/logs"]


# --- progress -------------------------------------------------------------------------------------------

SPINS = "import sys, time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_a_command_tells_what_it_does_while_it_runs_and_costs_its_step(cache: Path, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    script = tmp_path / "compile.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "for name in ('a/b', 'c/d'): print(name, file=sys.stderr, flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.01)\n"
        f"{SPINS}\nprint('# c/d\\nc/d.go:1:1: wrong', file=sys.stderr)\nsys.exit(1)\n"
    )

    def seen(line: str) -> bool:
        if line == "c/d":  # who hears it only when all is over waits for ever
            go_on.touch()
        return progress.compiled(line)

    work = progress.Work()
    with work.step("thing") as step, pytest.raises(MirrorError) as error:
        source.run(["timeout", "60", sys.executable, script], tmp_path / "log", seen=seen)
    assert step.packages == 2
    assert step.cost.cpu >= 0.3
    assert "c/d.go:1:1: wrong" in str(error.value)
    assert "a/b" not in str(error.value), "what was compiled is no part of the error"
    assert "a/b\n" in (tmp_path / "log").read_text()


def test_steps_within_and_other_threads_are_not_counted_twice(cache: Path) -> None:
    work = progress.Work()
    with work.step("image") as outer:
        with work.step("recipe") as inner:
            source.run([sys.executable, "-c", SPINS])
            assert [step.name for step in work.steps] == ["image", "recipe"]
            assert outer.waits_since is not None
        with ThreadPoolExecutor() as pool:
            pool.submit(source.run, [sys.executable, "-c", SPINS]).result()
    assert inner.cost.cpu >= 0.3
    assert outer.cost.cpu == 0
    assert work.whole.cpu >= 0.6


def test_the_time_left_is_told_from_the_last_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    known = {"big": progress.Cost(400, 800, 1000), "image one": progress.Cost(10, 20)}
    known |= {"image two": progress.Cost(10, 20)}
    monkeypatch.setattr(progress, "costs", lambda: known)
    work = progress.Work()
    work.plan({"image one": frozenset({"big"}), "image two": frozenset({"big"})})
    assert work.done_and_left() == (0, 420)
    with work.step("image one"):
        with work.step("big") as step:
            for number in range(500):
                assert progress.compiled(f"k8s.io/api/v{number}")
            assert not progress.compiled("go: downloading k8s.io/api v0.36.0")
            clock[0] += 200
            whole, one = work.lines()
            assert whole == "0 of 2 artifacts after 3 min 20 s, about 3 min 40 s left"
            assert one == (
                "big: 500 of 1000 packages, now k8s.io/api/v499, 3 min 20 s, about 3 min 20 s left"
            )
            step.packages = 2000  # it has grown since: no promise
            assert str(step) == "big: 2000 packages, now k8s.io/api/v499, 3 min 20 s"
        clock[0] += 10
    assert work.took["image one"] == progress.Cost(10, 0), "it waited for the rest"
    assert work.lines()[0].startswith("1 of 2 artifacts after 3 min 30 s, about ")
    work.known = {}
    assert work.done_and_left()[1] == -1
    assert work.lines() == ["1 of 2 artifacts after 3 min 30 s"]


def test_what_each_recipe_takes_is_known_before_the_first_fill(cache: Path, catalogue: cat.Catalogue) -> None:
    known = set(progress.costs())
    lacking = {*catalogue.binaries, *(f"root file system {name}" for name in catalogue.roots)} - known
    assert not lacking, (
        f"copy them from {storage.root() / 'timing.json'} to lab/mirror/timing.json after a fill"
    )


def test_what_steps_took_is_kept_for_the_next_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cat, "folder", lambda: cache)
    (cache / "timing.json").write_text('{"old": {"wall": 9, "cpu": 8}, "traefik": {"wall": 7, "cpu": 6}}')
    work = progress.Work()
    work.took = {"traefik": progress.Cost(90, 170, 1200), "small": progress.Cost(0.2, 0.1)}
    work.record()
    assert set(json.loads((storage.root() / "timing.json").read_text())) == {"traefik", "fill"}
    work.took = {"other": progress.Cost(5, 4)}
    work.record()
    costs = progress.costs()
    assert costs["traefik"] == progress.Cost(90, 170, 1200)
    assert costs["old"] == progress.Cost(9, 8)
    assert set(costs) == {"old", "traefik", "other", "fill"}


def test_a_log_gets_a_line_now_and_then(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.SECONDS_BETWEEN_LINES <= 15
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    written = io.StringIO()
    work = progress.Work()
    with progress.shown(work, Console(file=written)):
        deadline = time.monotonic() + 10
        while written.getvalue().count("reading the catalogue") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    before = written.getvalue()
    time.sleep(0.2)
    assert written.getvalue() == before, "it is over"
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with progress.shown(work, terminal):
        pass
    assert "reading the catalogue" in terminal.file.getvalue()  # type: ignore[attr-defined]


# --- Go's caches ----------------------------------------------------------------------------------------


def test_a_large_cache_is_out_of_the_way_at_once_and_off_the_disk_in_the_end(cache: Path) -> None:
    folder = paths.cache() / "go"
    for name, size in (("build", 10), ("mod", 4000), (".old-mod-1", 10)):  # the last: a run was killed
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_bytes(b"x" * size)
    assert filling.set_aside(1e-6 * 8) == [str(folder / "mod")]
    assert not (folder / "mod").exists()
    assert len(list(folder.glob(".old-*"))) == 2
    filling.settle()
    assert list(folder.glob(".old-*")) == []
    assert (folder / "build" / "file").is_file()
    filling.settle()  # nothing to do
