"""Releases: the same image for the same commit, what goes with it, and what is refused."""

import base64
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from registry_double import Registry, served
from typer.testing import CliRunner

from quote_platform import paths
from quote_platform.delivery import DeliveryError, RefusedError, documents, oci, release_cli, signature
from quote_platform.delivery import release as releasing
from quote_platform.delivery.pins import Signatures
from quote_platform.delivery.registry import Access, Repository, canonical, digest
from quote_platform.delivery.release import Release
from quote_platform.images import Reference
from quote_platform.mirror import catalogue, publish, source

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.5.1-1+deb13u1
Description: libraries
 more: text

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
EPOCH = 1_700_000_000


def root_file_system(folder: Path, time: int = 0) -> Path:
    """Write a small one, with a device and with owners' names as a machine may have them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "root.tar", "w") as packed:
        for name, content in {
            "./etc/os-release": b"ID=debian\n",
            "./var/lib/dpkg/status": STATUS.encode(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), time, folder.name
            packed.addfile(member, io.BytesIO(content))
        device = tarfile.TarInfo("./dev/null")
        device.type = tarfile.CHRTYPE
        packed.addfile(device)
    return folder / "root.tar"


def members(layer: oci.Layer) -> list[tarfile.TarInfo]:
    with tarfile.open(layer.file) as packed:
        return packed.getmembers()


def cloned(target: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", "--shared", paths.repository(), target], check=True)
    root_file_system(target.parent / f"root-of-{target.name}", time=len(target.name))
    return target


def entered(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(target.parent / f"cache-of-{target.name}"))
    root = target.parent / f"root-of-{target.name}" / "root.tar"
    monkeypatch.setattr(releasing, "_root", lambda *_: root)
    monkeypatch.chdir(target)


@pytest.fixture(scope="module")
def one_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cloned(tmp_path_factory.mktemp("clones") / "one")


@pytest.fixture
def clone(one_clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of this repository, and a small root file system."""
    entered(one_clone, monkeypatch)
    return one_clone


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, signature.Private]:
    folder = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(signature.PASSWORD, "closed")
        for name in ("ours", "others"):
            signature.make_key(folder / name)
        return {name: signature.private_key(folder / name) for name in ("ours", "others")}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with served() as one:
        yield one


@contextmanager
def pushed(
    registry: Registry, key: signature.Private | None, **more: Any
) -> Iterator[tuple[Release, Repository, Reference]]:
    """Yield a release of the backup image that has been pushed."""
    with (
        releasing.build("backup", releasing.commit(), **more) as release,
        releasing.target("backup", f"http://{registry.address}/team", Access()) as repository,
    ):
        releasing.push(release, repository, key)
        yield release, repository, Reference.parse(f"{repository.name}:{release.tag}@{release.built.digest}")


# --- the same image -------------------------------------------------------------------------------------


def test_two_clones_make_one_image(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with releasing.build("backup", releasing.commit()) as one:
        first, first_bill = one.built, one.sbom
        base, content = (members(layer) for layer in first.layers)
    other = cloned(tmp_path / "another")
    entered(other, monkeypatch)
    for path in (other / "src/quote_platform/backup").iterdir():
        path.chmod(0o640)
        path.touch()
    (other / "src/quote_platform/backup/left-over.py").touch()
    with releasing.build("backup", releasing.commit()) as two:
        assert (two.built.manifest, two.built.config, two.sbom) == (first.manifest, first.config, first_bill)
    assert {(member.uid, member.gid, member.uname) for member in content} == {(0, 0, "")}
    assert {member.mode for member in content} == {0o644, 0o755}
    assert [member.name for member in content] == sorted(member.name for member in content)
    assert not any(member.isdev() for member in base)
    config = json.loads(first.config)
    made = releasing.commit()
    assert config["created"] == made.created
    assert config["config"]["Labels"] == {
        "org.opencontainers.image.created": made.created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": made.revision,
        "org.opencontainers.image.source": "https://github.com/quote-platform/quote-platform",
        "org.opencontainers.image.title": "backup",
        "org.opencontainers.image.version": two.tag,
    }
    assert config["config"]["Entrypoint"] == ["python3", "-m", "quote_platform.backup"]
    assert config["config"]["User"] == "1000:1000"


def test_a_layer_has_two_modes_links_and_no_caches(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "__pycache__").mkdir(parents=True)
    (tree / "__pycache__" / "a.pyc").touch()
    (tree / "run").touch(0o700)
    (tree / "data").touch(0o600)
    (tree / "link").symlink_to("run")
    layer = oci.own_layer({"/opt/it": tree, "/opt/one": tree / "data"}, EPOCH, tmp_path)
    with tarfile.open(layer.file) as packed:
        found = {member.name: (member.mode, member.mtime, member.linkname) for member in packed}
    assert found == {
        "opt": (0o755, EPOCH, ""),
        "opt/it": (0o755, EPOCH, ""),
        "opt/it/data": (0o644, EPOCH, ""),
        "opt/it/link": (0o777, EPOCH, "run"),
        "opt/it/run": (0o755, EPOCH, ""),
        "opt/one": (0o644, EPOCH, ""),
    }


def test_the_bill_has_the_packages_that_are_installed(clone: Path) -> None:
    with releasing.build("backup", releasing.commit()) as one:
        bill = json.loads(one.sbom)
    assert [component["purl"] for component in bill["components"]] == [
        "pkg:deb/debian/libssl3@3.5.1-1%2Bdeb13u1?arch=amd64"
    ]
    assert bill["metadata"]["component"]["name"] == "backup"
    application = documents.node(paths.repository() / "apps/quote-app")
    both = json.loads(
        documents.bill("a", "1", "2026-01-01T00:00:00Z", documents.debian(STATUS.encode()), application)
    )
    names = {component["name"] for component in both["components"]}
    assert {"fastify", "pg", "quote-app", "libssl3"} <= names
    assert "eslint" not in names, "what only developers need is not in the image"
    refs = {component["bom-ref"] for component in both["components"]} | {"a:1"}
    assert {edge["ref"] for edge in both["dependencies"]} <= refs


def test_scanners_get_a_layout(clone: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        release_cli.release, ["build", "--image", "backup", "--tag", "t1", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    told = result.stdout.split()[-1]
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{tmp_path}/out/backup:backup:t1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["Digest"] == told
    assert (tmp_path / "out" / "backup.cdx.json").is_file()


# --- pushed, signed, verified ---------------------------------------------------------------------------


@pytest.mark.parametrize("knows", [True, False])
def test_a_release_is_pushed_once_and_verified(
    clone: Path, registry: Registry, keys: dict[str, signature.Private], knows: bool
) -> None:
    registry.knows_referrers = knows
    with pushed(registry, keys["ours"]) as (release, repository, reference):
        before = dict(registry.manifests)
        assert not releasing.push(release, repository, keys["ours"]), "a second push changes nothing"
        assert registry.manifests == before
        found = releasing.verify(reference, repository, keys["ours"].public_key())
        assert (found.revision, found.components) == (release.commit.revision, 1)
        by_tag = Reference.parse(f"{repository.name}:{release.tag}")
        assert releasing.verify(by_tag, repository, keys["ours"].public_key()) == found


def test_openssl_reads_the_signature(
    clone: Path, registry: Registry, keys: dict[str, signature.Private], tmp_path: Path
) -> None:
    with pushed(registry, keys["ours"]) as (release, repository, _):
        _, content = repository.manifest(signature.tag_of(release.built.digest))
        layer = json.loads(content)["layers"][0]
        (tmp_path / "payload").write_bytes(repository.blob(layer["digest"]))
    (tmp_path / "signature").write_bytes(base64.b64decode(layer["annotations"][signature.SIGNATURE]))
    (tmp_path / "key").write_bytes(signature.public_pem(keys["ours"].public_key()))
    command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature", "payload"]
    assert b"Verified OK" in subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    told = json.loads((tmp_path / "payload").read_text())["critical"]
    assert told["image"]["docker-manifest-digest"] == release.built.digest
    assert told["type"] == "cosign container image signature"


def test_a_tag_that_is_another_image_is_refused(
    clone: Path, registry: Registry, keys: dict[str, signature.Private]
) -> None:
    registry.image("team/backup", "1.0")
    with (
        pytest.raises(RefusedError, match=r"team/backup:1\.0 is sha256:\w+ already.*raise the version"),
        pushed(registry, keys["ours"], tag="1.0"),
    ):
        pass


def test_what_is_not_ours_is_refused_by_name(
    clone: Path, registry: Registry, keys: dict[str, signature.Private]
) -> None:
    ours, others = (keys[name].public_key() for name in ("ours", "others"))
    with (
        pushed(registry, None) as (_, repository, reference),
        pytest.raises(RefusedError, match=r"backup@.*: not signed"),
    ):
        releasing.verify(reference, repository, ours)
    with pushed(registry, keys["others"]) as (release, repository, reference):
        with pytest.raises(RefusedError, match="none of its 1 signatures is by this key"):
            releasing.verify(reference, repository, ours)
        releasing.push(release, repository, keys["ours"])
        assert releasing.verify(reference, repository, ours) and releasing.verify(
            reference, repository, others
        )
        with pytest.raises(RefusedError, match=r"or not named quay\.io/other/backup"):
            releasing.verify(reference, repository, ours, name="quay.io/other/backup")
        # The signature of one image is put at another.
        other = registry.image("team/backup", "evil")
        registry.tags["team/backup", signature.tag_of(other)] = registry.tags[
            "team/backup", signature.tag_of(release.built.digest)
        ]
        with pytest.raises(RefusedError, match="what this key has signed is another image"):
            releasing.verify(Reference.parse(f"{repository.name}:evil"), repository, ours)
        # The tag is moved to another image.
        registry.tags["team/backup", release.tag] = other
        with pytest.raises(RefusedError, match=f"the tag {release.tag} stands for {other}"):
            releasing.verify(reference, repository, ours)


@pytest.mark.parametrize("what", ["manifest", "config", "layer", "sbom", "provenance"])
def test_what_is_altered_is_refused_by_name(
    clone: Path, registry: Registry, keys: dict[str, signature.Private], what: str
) -> None:
    public = keys["ours"].public_key()
    with pushed(registry, keys["ours"]) as (release, repository, reference):
        name, built = "team/backup", release.built
        if what == "manifest":
            kind, content = registry.manifests[name, built.digest]
            registry.manifests[name, built.digest] = (
                kind,
                content.replace(b"sha256:", b"sha256:", 1) + b"\n",
            )
        elif what in ("config", "layer"):
            blob = digest(built.config) if what == "config" else built.layers[1].digest
            registry.blobs[name, blob] += b"\n"
        else:
            # A whole document is put in place of ours, by somebody without the key.
            kind = documents.CYCLONEDX if what == "sbom" else signature.ENVELOPE
            for of, content in [(key, json.loads(value[1])) for key, value in registry.manifests.items()]:
                if content.get("artifactType") == kind:
                    del registry.manifests[of]
            forged = b"{}" if what == "sbom" else signature.envelope({"subject": []}, keys["others"])
            repository.attach(built.descriptor, kind, forged, kind, {})
        with pytest.raises(RefusedError, match=r"team/backup.*(altered|is not the one|no provenance)"):
            releasing.verify(reference, repository, public)


def test_an_envelope_is_opened_only_by_its_key(keys: dict[str, signature.Private]) -> None:
    closed = signature.envelope({"a": 1}, keys["ours"])
    assert signature.opened(closed, keys["ours"].public_key(), "it") == {"a": 1}
    with pytest.raises(RefusedError, match="it: not signed by this key"):
        signature.opened(closed, keys["others"].public_key(), "it")
    for broken in (b"", b"[]", b"{}", canonical({"payload": "x", "payloadType": "y", "signatures": []})):
        with pytest.raises(RefusedError, match="it: not an envelope"):
            signature.opened(broken, keys["ours"].public_key(), "it")


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(signature.PASSWORD, raising=False)
    with pytest.raises(DeliveryError, match=f"{signature.PASSWORD} is empty"):
        signature.make_key(tmp_path / "key")
    monkeypatch.setenv(signature.PASSWORD, "closed")
    public = signature.make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert signature.public_key(public)
    with pytest.raises(DeliveryError, match="never overwritten"):
        signature.make_key(tmp_path / "key")
    monkeypatch.setenv(signature.PASSWORD, "wrong")
    with pytest.raises(DeliveryError, match="does not open it"):
        signature.private_key(tmp_path / "key")
    with pytest.raises(DeliveryError, match="not a public key"):
        signature.public_key(tmp_path / "key")
    weak: list[str | Path] = [
        "openssl",
        "ecparam",
        "-name",
        "secp384r1",
        "-genkey",
        "-noout",
        "-out",
        tmp_path / "other",
    ]
    subprocess.run(weak, check=True)
    with pytest.raises(DeliveryError, match="allowed is a key on the curve P-256"):
        signature.private_key(tmp_path / "other")


def test_pins_tell_who_has_signed(
    clone: Path, registry: Registry, keys: dict[str, signature.Private]
) -> None:
    registry.image("team/other", "1")
    with (
        pushed(registry, keys["ours"]) as (_, repository, reference),
        Access().repository(f"http://{registry.address}", "team/other") as other,
    ):
        where = (repository, reference.digest), (other, other.resolve("1"))
        found = {
            name: [Signatures(keys[name].public_key()).of(*one) for one in where]
            for name in ("ours", "others")
        }
    assert found == {"ours": ["by the key", "none"], "others": ["attached", "none"]}


def test_an_archive_of_the_commits_time_makes_another_root(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = releasing.Commit("a" * 40, EPOCH)
    assert made.archive(releasing.SNAPSHOTS) == "https://snapshot.debian.org/archive/debian/20231114T221320Z/"
    known = catalogue.load()
    usual = known.roots["node"]
    dated = catalogue.DatedRoot(**usual.model_dump(), archive=made.archive(releasing.SNAPSHOTS))
    calls: list[list[str]] = []
    monkeypatch.setattr(
        source, "run", lambda command, *_, **__: calls.append([str(word) for word in command])
    )
    names = []
    for root in (usual, dated):
        builder = source.Source(known.model_copy(update={"roots": {"node": root}}), lambda _: None)
        names.append(builder.filesystem("node").parent.name)
    assert names[0] != names[1]
    assert calls[1][-1] == dated.archive and "snapshot" not in str(calls[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push"], "give one of --key FILE and --unsigned"),
        (["push", "--unsigned", "--image", "other"], "--image other: allowed is quote-app or backup"),
        (["push", "--unsigned", "--revision", "none"], "git log: "),
        (["push", "--unsigned", "--revision=--all"], "--revision --all: allowed is the name of a commit"),
        (
            ["push", "--unsigned", "--to", "registry", "--image", "backup"],
            "--to registry: allowed is REGISTRY/PATH",
        ),
        (["push", "--key", "/nowhere"], "/nowhere: cannot be read"),
        (["build", "--image", "backup", "--debian", "x"], "--debian x: allowed is the URL"),
        (["build", "--image", "backup", "--tag", "a b"], "--tag 'a b': not a tag"),
        (["verify", "UPPER", "--key", "/nowhere"], "UPPER: not an image"),
    ],
)
def test_wrong_input_is_refused_by_name(clone: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(release_cli.release, words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_release_is_pinned(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = cloned(tmp_path / "own")
    entered(clone, monkeypatch)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/nowhere")
    monkeypatch.setenv(signature.PASSWORD, "closed")
    signature.make_key(tmp_path / "key")
    words = [
        "push",
        "--image",
        "backup",
        "--to",
        f"http://{registry.address}/team",
        "--key",
        str(tmp_path / "key"),
    ]
    result = CliRunner().invoke(release_cli.release, [*words, "--tag", "1.2.3", "--pin", "--json"])
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["images"]
    versions = clone / "group_vars/all/versions.yml"
    assert yaml.safe_load(versions.read_text())["snapshots_image"] == told["image"]
    changed = subprocess.run(
        ["git", "diff", "--numstat"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert changed.stdout.split() == ["1", "1", "group_vars/all/versions.yml"]
    assert not [call for call in registry.calls if "closed" in call]


@pytest.mark.proof(10)
def test_the_application_is_one_image_in_two_clones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, signature.Private]
) -> None:
    """With its real root file system and modules, in the registry that the mirror runs."""
    digests = []
    original = paths.repository()
    with publish.registry() as address:
        for name in ("one", "two"):
            subprocess.run(["git", "clone", "--quiet", original, tmp_path / name], check=True)
            monkeypatch.chdir(tmp_path / name)
            with (
                releasing.build("quote-app", releasing.commit()) as release,
                releasing.target("quote-app", f"http://{address}/proof", Access()) as repository,
            ):
                assert releasing.push(release, repository, keys["ours"]) == (name == "one")
                reference = Reference.parse(f"{repository.name}@{release.built.digest}")
                assert releasing.verify(reference, repository, keys["ours"].public_key()).components > 100
                digests.append(release.built.digest)
    assert digests[0] == digests[1]
