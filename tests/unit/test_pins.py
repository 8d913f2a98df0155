"""Pins against registries: what is there, what is newer, and what is written."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from registry_double import PASSWORD, USER, Registry, served
from typer.testing import CliRunner

from quote_platform import paths
from quote_platform.delivery import DeliveryError, NotThereError, RefusedError
from quote_platform.delivery import cli as commands
from quote_platform.delivery.pins import Pins, State, Within, newest
from quote_platform.delivery.registry import Access, accounts
from quote_platform.delivery.settings import settings
from quote_platform.delivery.versions import Versions
from quote_platform.images import Reference
from quote_platform.lab import inventory
from quote_platform.mirror import catalogue, publish, source, storage

ONE = f"sha256:{'1' * 64}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with served() as one:
        yield one


def mirrored(registry: Registry, account: tuple[str, str] | None = None) -> Access:
    return Access(f"http://{registry.address}", accounts={registry.address: account} if account else {})


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("registry.k8s.io/pause", "registry.k8s.io/pause"),
        (f"quay.io/a/b:v1@{ONE}", f"quay.io/a/b:v1@{ONE}"),
        ("localhost:5000/a/b", "localhost:5000/a/b"),
        (f"localhost:5000/a@{ONE}", f"localhost:5000/a@{ONE}"),
    ],
)
def test_a_name_is_read_as_containerd_reads_it(text: str, whole: str) -> None:
    assert str(Reference.parse(text)) == whole


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("quay.io/A/b:v1", "not an image"),
        ("quay.io/a/b:-1", "not a tag: '-1'"),
        ("quay.io/a/b:1@sha256:12", "not a digest: 'sha256:12'"),
        ("", "not an image"),
    ],
)
def test_a_wrong_name_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("tag", "within", "expected"),
    [
        ("v1.15.1", Within.PATCH, "v1.15.10"),
        ("v1.15.1", Within.MINOR, "v1.16.0"),
        ("v1.15.1", Within.DIGEST, ""),
        ("v1.16.0", Within.MINOR, ""),
        ("1.15.1", Within.MINOR, ""),  # without a v it is another scheme
        ("17.12-standard-trixie", Within.PATCH, "17.14-standard-trixie"),
        ("17.12-standard-trixie", Within.MINOR, "17.14-standard-trixie"),
        ("3.6.14-0", Within.PATCH, "3.6.14-2"),
        ("latest", Within.MINOR, ""),
        ("3", Within.MINOR, ""),
    ],
)
def test_newer_is_of_the_same_scheme(tag: str, within: Within, expected: str) -> None:
    there = ["v1.15.2", "v1.15.10", "v1.15.11-rc.1", "v1.16.0", "v2.0.0", "v1.17", "latest", "4"]
    there += [
        "17.13-standard-trixie",
        "17.14-standard-trixie",
        "17.15-minimal-trixie",
        "18.1-standard-trixie",
    ]
    there += ["3.6.14-1", "3.6.14-2", "3.6.15"]
    assert newest(tag, there, within) == expected


# --- registries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["basic", "token"])
def test_an_account_is_answered_with(registry: Registry, entry: str) -> None:
    registry.entry, name = entry, "quay.io/team/one"
    registry.image(name, "1.0")
    with mirrored(registry, (USER, PASSWORD)).repository("quay.io", "team/one") as one:
        assert one.tags() == ["1.0"]
        assert one.put_blob(b"more"), "a token to read does not write: another is asked for"
    with (
        mirrored(registry).repository("quay.io", "team/one") as one,
        pytest.raises(DeliveryError, match="team/one"),
    ):
        one.tags()


def test_all_pages_of_tags_are_read(registry: Registry) -> None:
    registry.page = 2
    for number in range(7):
        registry.image("quay.io/a", f"1.{number}")
    with mirrored(registry).repository("quay.io", "a") as one:
        assert one.tags() == [f"1.{number}" for number in range(7)]


def test_another_content_than_its_digest_is_refused(registry: Registry) -> None:
    digest = registry.image("quay.io/a", "1.0")
    config = next(name for _, name in registry.blobs)
    kind, content = registry.manifests["quay.io/a", digest]
    registry.manifests["quay.io/a", digest] = (kind, content + b" ")
    registry.blobs["quay.io/a", config] += b" "
    with mirrored(registry).repository("quay.io", "a") as one:
        with pytest.raises(RefusedError, match=f"quay.io/a@{digest}: altered"):
            one.manifest(digest)
        with pytest.raises(RefusedError, match=f"blob {config} is altered"):
            one.blob(config)
        with pytest.raises(NotThereError, match=r"no manifests/2\.0"):
            one.resolve("2.0")


@pytest.mark.parametrize("knows", [True, False])
def test_documents_are_attached_with_and_without_the_api_of_referrers(
    registry: Registry, knows: bool
) -> None:
    registry.knows_referrers = knows
    digest = registry.image("a", "1.0")
    subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    with Access().repository(f"http://{registry.address}", "a") as one:
        for _ in range(2):  # a second time changes nothing
            made = [
                one.attach(subject, f"application/{name}", name.encode(), "text/plain", {}) for name in "xy"
            ]
        found = one.referrers(digest)
    assert {entry["digest"] for entry in found} == set(made)
    assert len(found) == 2
    assert {entry["artifactType"] for entry in found} == {"application/x", "application/y"}


def test_accounts_are_those_that_login_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert accounts() == {}
    packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file.write_text(json.dumps({"auths": {"quay.io": {"auth": packed}, "empty": {}}}))
    assert accounts() == {"quay.io": (USER, PASSWORD)}
    file.write_text("[]")
    with pytest.raises(DeliveryError, match=r"auth\.json: not a file of accounts"):
        accounts()


@pytest.mark.parametrize("host", ["ftp://a", "http://a/b", "a b"])
def test_a_wrong_registry_is_refused(host: str) -> None:
    with pytest.raises(DeliveryError, match="not a registry; allowed is"):
        Access().repository(host, "a")


# --- pins -----------------------------------------------------------------------------------------------

PINS = """\
# Comments stay,
one_image: quay.io/team/one:v1.0.0   # this one too
two_image: "ghcr.io/team/two:{{ two_version }}"

two_version: 2.0.0
three_image: 'docker.io/library/three:3.0@DIGEST'
same_image: "{{ one_image }}"
one_manifests:
  - url: https://example.org/one/v1.0.0/one-1.0.0.yaml
    sha256: CHECKSUM
  - {url: https://example.org/one/v1.0.0/other.yaml, sha256: CHECKSUM}
"""


@pytest.fixture
def pinned(registry: Registry, tmp_path: Path) -> tuple[Pins, dict[str, str]]:
    """Return pins against a registry that has all of them, one manifest with another content."""
    digests = {
        name: registry.image(f"{host}/{name}", tag)
        for host, name, tag in [
            ("quay.io", "team/one", "v1.0.0"),
            ("ghcr.io", "team/two", "2.0.0"),
            ("docker.io", "library/three", "3.0"),
        ]
    }
    registry.files["/one/v1.0.0/one-1.0.0.yaml"] = b"first"
    registry.files["/one/v1.0.0/other.yaml"] = b"other"
    text = PINS.replace("DIGEST", digests["library/three"])
    text = text.replace(
        "CHECKSUM", "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    )  # first
    (tmp_path / "versions.yml").write_text(text)
    base = f"http://{registry.address}"
    return Pins(Versions(tmp_path / "versions.yml"), Access(base), base), digests


def states(rows: list[Any]) -> dict[str, str]:
    return {row.pinned.split("/")[-1].partition("@")[0]: row.state for row in rows}


def test_what_is_there_is_told(registry: Registry, pinned: tuple[Pins, dict[str, str]]) -> None:
    rows = pinned[0].check()
    assert states(rows) == {
        "one:v1.0.0": State.UNPINNED,
        "two:2.0.0": State.UNPINNED,
        "three:3.0": State.SAME,
        "one-1.0.0.yaml": State.SAME,
        "other.yaml": State.CHANGED,
    }
    moved = registry.image("docker.io/library/three", "3.0", created="2027")
    registry.image("docker.io/library/three", "3.1")
    (row,) = pinned[0].check(only=["three"])
    assert (row.state, row.found, row.newer) == (State.MOVED, moved, "3.1")
    del registry.tags["docker.io/library/three", "3.0"]
    (row,) = pinned[0].check(only=["three"])
    assert (row.state, row.newer) == (State.GONE, "3.1")
    del registry.files["/one/v1.0.0/other.yaml"]
    assert states(pinned[0].check(only=["manifests"]))["other.yaml"] == State.GONE
    with pytest.raises(DeliveryError, match="no pin has four in its name"):
        pinned[0].check(only=["four"])


def test_digests_are_written_and_nothing_else(pinned: tuple[Pins, dict[str, str]]) -> None:
    pins, digests = pinned
    before = pins.versions.text
    _, written = pins.update()
    assert set(written) == {"one_image", "two_image"}
    after = pins.versions.path.read_text()
    expected = before.replace("one:v1.0.0 ", f"one:v1.0.0@{digests['team/one']} ")
    expected = expected.replace("two_version }}", f"two_version }}}}@{digests['team/two']}")
    assert after == expected
    again = Pins(Versions(pins.versions.path), pins.access, pins.base_url)
    assert again.update()[1] == {}, "a second run changes nothing"
    assert pins.versions.path.read_text() == expected


def test_a_moved_tag_is_pinned_anew_only_by_its_name(
    registry: Registry, pinned: tuple[Pins, dict[str, str]]
) -> None:
    moved = registry.image("docker.io/library/three", "3.0", created="2027")
    assert "three_image" not in pinned[0].update()[1]
    assert "three_image" not in pinned[0].update(only=["three"])[1]
    assert pinned[0].update(only=["three_image"])[1]["three_image"].endswith(moved)


def test_a_newer_image_takes_its_manifests_along(
    registry: Registry, pinned: tuple[Pins, dict[str, str]]
) -> None:
    pins, _ = pinned
    digest = registry.image("quay.io/team/one", "v1.0.3")
    registry.image("ghcr.io/team/two", "2.0.1")
    with pytest.raises(NotThereError, match=r"one-1\.0\.3\.yaml"):
        pins.update(Within.PATCH)
    assert "v1.0.3" not in pins.versions.path.read_text(), "nothing half is written"
    registry.files["/one/v1.0.3/one-1.0.3.yaml"] = registry.files["/one/v1.0.3/other.yaml"] = b"next"
    rows, _ = pins.update(Within.PATCH)
    after = yaml.safe_load(pins.versions.path.read_text())
    assert after["one_image"] == f"quay.io/team/one:v1.0.3@{digest}"
    assert [one["url"].split("/")[-2:] for one in after["one_manifests"]] == [
        ["v1.0.3", "one-1.0.3.yaml"],
        ["v1.0.3", "other.yaml"],
    ]
    assert {one["sha256"][:8] for one in after["one_manifests"]} == {"c6c1c9a9"}  # next
    (two,) = [row for row in rows if row.variable == "two_image"]
    assert (two.newer, two.note) == ("2.0.1", "its tag comes from another variable")
    assert after["two_version"] == "2.0.0"


def test_the_command_says_by_its_status_what_it_found(
    registry: Registry,
    pinned: tuple[Pins, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "versions_file", lambda: pinned[0].versions.path)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/nowhere")
    base = f"http://{registry.address}"

    def run(*words: str) -> Any:
        return CliRunner().invoke(
            commands.pins, [words[0], "--mirror", base, "--manifests", base, *words[1:]]
        )

    assert run("check", "--only", "three").exit_code == 0
    found = run("check", "--json")
    assert found.exit_code == 1
    rows = {row["variable"]: row for row in json.loads(found.stdout)["pins"]}
    assert rows["one_image"]["state"] == "unpinned"
    assert rows["one_image"]["differs"]
    told = json.loads(run("check", "--only", "three", "--signatures", "--json").stdout)["pins"]
    assert [row["signed"] for row in told] == ["none"]
    assert "signed" in run("check", "--only", "three", "--signatures").output
    left = run("update")
    assert left.exit_code == 1, "a manifest with another content is left"
    assert "2 pins were written" in left.output
    assert "left: one_manifests: https://example.org/one/v1.0.0/other.yaml: changed" in left.output
    assert run("check", "--only", "_image").exit_code == 0
    assert run("check", "--only", "three", "--authority", "/nowhere").exit_code == 2
    registry.entry = "basic"
    refused = run("check", "--only", "three")
    assert refused.exit_code == 2
    assert "unreachable" in refused.output


def test_an_inventory_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it says so: as Ansible takes it, for whoever is in it."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/nowhere")
    password = tmp_path / "password"
    password.write_text("open")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    encrypt = ["ansible-vault", "encrypt_string", "p"]
    encrypted = subprocess.run(encrypt, check=True, capture_output=True, text=True).stdout
    folder = tmp_path / "inventory"
    variables = folder / "group_vars"
    variables.mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        "platform:\n  hosts: {one: {}}\n  vars: {image_registry_base_url: 'http://{{ where }}:5000'}\n"
    )
    (variables / "all.json").write_text('{"where": "mirror.example.org"}')
    (variables / "platform.yaml").write_text(
        "image_registry_credentials:\n  docker.io:\n    username: u\n    password: "
        + encrypted.strip().replace("\n", "\n  ")
    )
    found = settings(folder)
    assert found.access.mirror == "http://mirror.example.org:5000"
    assert found.access.accounts == {"https://index.docker.io/v1/": ("u", "p")}
    assert settings(folder / "hosts.yml").access.mirror == "http://mirror.example.org:5000"
    assert settings(folder, mirror="http://other").access.mirror == "http://other"
    password.write_text("wrong")
    with pytest.raises(DeliveryError, match=r"image_registry_credentials: .*ecrypt"):
        settings(folder)
    with pytest.raises(DeliveryError, match="none"):
        settings(tmp_path / "none")


# --- who reads a pin with a digest ----------------------------------------------------------------------


@pytest.fixture
def digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Pin every image of versions.yml by a digest; return the variables, rendered."""
    project = paths.repository()
    for name in ("roles", "lab", "src", "apps", "site.yml"):
        (tmp_path / name).symlink_to(project / name)
    file = tmp_path / "group_vars/all/versions.yml"
    file.parent.mkdir(parents=True)
    shutil.copy(project / "group_vars/all/versions.yml", file)
    versions = Versions(file)
    assert versions.edit({one.variable: versions.pinned(one, ONE) for one in versions.images()})
    monkeypatch.chdir(tmp_path)
    return catalogue.versions()


def test_every_pin_can_carry_a_digest(digested: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    images = {name: value for name, value in digested.items() if name.endswith("_image")}
    assert len(images) > 40
    for value in images.values():
        assert Reference.parse(value).digest == ONE
    held = catalogue.load()
    assert {one.image for one in held.images} >= {images["quote_app_image"], images["snapshots_image"]}
    built = source.Source(held, lambda _: None)
    keys = {one.image.partition("@")[0]: built.image_key(one) for one in held.images}
    linked = held.binaries["monitoring"].variables.values()
    assert not any("sha256" in value for value in linked), "versions are without it"
    monkeypatch.undo()
    usual = catalogue.load()
    again = source.Source(usual, lambda _: None)
    assert keys == {one.image.partition("@")[0]: again.image_key(one) for one in usual.images}, (
        "an image that the mirror builds does not change with its publisher's digest"
    )


@pytest.mark.parametrize("variable", ["monitoring_prometheus_image", "monitoring_alertmanager_image"])
def test_a_version_is_read_from_a_pin_with_a_digest(digested: dict[str, str], variable: str) -> None:
    text = (paths.repository() / "roles/monitoring/templates/monitoring.yaml.j2").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("  version:") and variable in line]
    shown = jinja2.Environment(autoescape=True).from_string(line).render({variable: digested[variable]})
    assert shown.startswith("  version: v") and "@" not in shown


def test_a_lab_runs_what_its_mirror_has_built(
    digested: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = f"sha256:{'2' * 64}"
    for variable, found in {"quote_app_image": own, "storage_image": ONE}.items():
        link = publish._link(storage.root() / "registry", digested[variable])
        link.parent.mkdir(parents=True)
        link.write_text(found)
    assert publish.image_in(storage.root() / "registry", digested["quote_app_image"])
    name = digested["quote_app_image"].partition("@")[0]
    assert inventory.built() == {"quote_app_image": f"{name}@{own}"}, "what was fetched has the pinned digest"
