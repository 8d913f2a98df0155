"""What a registry keeps: the newest, what is used, and nothing that belonged to what is gone."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_double import ApiHandler
from registry_double import Registry, served
from typer.testing import CliRunner

from quote_platform.delivery import DeliveryError, prune, prune_cli
from quote_platform.delivery.prune import Used, plan, used
from quote_platform.delivery.registry import Access, Repository
from quote_platform.delivery.signature import tag_of
from quote_platform.mirror import publish

ONE = f"sha256:{'1' * 64}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with served() as one:
        yield one


def filled(registry: Registry, count: int = 6) -> dict[str, str]:
    """Put images 1.0 … whose order by name is not the one by age; return their digests by tag."""
    ages = {f"1.{number}": f"2026-01-{1 + number * 7 % 27:02d}T00:00:00Z" for number in range(count)}
    return {tag: registry.image("team/app", tag, created) for tag, created in ages.items()}


@contextmanager
def repository(registry: Registry) -> Iterator[Repository]:
    with Access().repository(f"http://{registry.address}", "team/app") as one:
        yield one


def tags(registry: Registry) -> set[str]:
    return {tag for _, tag in registry.tags}


def test_the_newest_stay(registry: Registry) -> None:
    filled(registry)  # ages of the month: 1, 8, 15, 22, 2 (29 mod 27), 9
    with repository(registry) as one:
        found = plan(one, 2, Used())
        assert found.kept == {"1.3": "new", "1.2": "new"}
        assert [version.tags for version in found.gone] == [("1.5",), ("1.1",), ("1.4",), ("1.0",)]
        assert len(tags(registry)) == 6, "a plan deletes nothing"
        assert not plan(one, 30, Used()).gone


def test_two_tags_of_one_image_count_once(registry: Registry) -> None:
    digests = filled(registry)
    registry.tags["team/app", "stable"] = digests["1.3"]
    with repository(registry) as one:
        found = plan(one, 2, Used())
        assert set(found.kept) == {"1.3", "stable", "1.2"}
        prune.carry_out(one, found)
    assert tags(registry) == {"1.3", "stable", "1.2"}


@pytest.mark.parametrize("by", ["digest", "tag", "other registry", "covered by an index"])
def test_what_is_used_stays(registry: Registry, by: str) -> None:
    digests = filled(registry)
    images = {
        "digest": f"docker-pullable://quay.io/any/app@{digests['1.0']}",
        "tag": f"{registry.address}/team/app:1.0",
        "other registry": "ghcr.io/other/app:1.0",
        "covered by an index": f"quay.io/any/app@{digests['1.0']}",
    }
    if by == "covered by an index":
        kind = "application/vnd.oci.image.index.v1+json"
        entry = {
            "digest": digests["1.0"],
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 1,
        }
        registry.put("team/app", "1.0", {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]})
    with repository(registry) as one:
        found = plan(one, 2, used([images[by]]))
    assert found.kept == {"1.3": "new", "1.2": "new", "1.0": "used"}


@pytest.mark.parametrize("knows", [True, False])
def test_signatures_and_documents_go_with_their_image(registry: Registry, knows: bool) -> None:
    registry.knows_referrers = knows
    digests = filled(registry, 2)
    with repository(registry) as one:
        for digest in digests.values():
            registry.image("team/app", tag_of(digest), signature=digest)
            subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
            one.attach(subject, "application/vnd.cyclonedx+json", b"{}", "application/json", {"of": digest})
        found = plan(one, 1, Used())
        assert [version.digest for version in found.gone] == [digests["1.0"]]
        assert found.orphans == []
        prune.carry_out(one, found)
        assert plan(one, 1, Used()).data() == plan(one, 1, Used()).data() | {"gone": [], "orphans": []}
    left = json.dumps([json.loads(content) for _, content in registry.manifests.values()])
    assert digests["1.0"] not in left
    assert digests["1.1"] in left
    assert not [tag for tag in tags(registry) if digests["1.0"].replace(":", "-") in tag]


def test_what_an_interrupted_run_left_is_deleted(registry: Registry) -> None:
    filled(registry, 1)
    registry.image("team/app", tag_of(ONE), signature=ONE)
    with repository(registry) as one:
        found = plan(one, 1, Used())
        assert found.orphans == [tag_of(ONE)]
        prune.carry_out(one, found)
    assert tags(registry) == {"1.0"}


def test_an_image_of_no_age_stops_it(registry: Registry) -> None:
    filled(registry)
    registry.image("team/app", "old", created="")
    with repository(registry) as one, pytest.raises(DeliveryError, match="team/app:old: says not when"):
        plan(one, 2, Used())


def test_a_registry_that_does_not_delete_is_named(registry: Registry) -> None:
    filled(registry)
    registry.deletes = False
    with repository(registry) as one, pytest.raises(DeliveryError, match="deletes nothing by its API"):
        prune.carry_out(one, plan(one, 2, Used()))


# --- with a cluster -------------------------------------------------------------------------------------


def pod(image: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "a", "image": image}]}}


LISTS: dict[str, list[dict[str, Any]]] = {
    "/api/v1/pods": [
        {
            **pod("ghcr.io/team/app:1.0"),
            "status": {
                "containerStatuses": [
                    {"name": "a", "image": "x", "imageID": f"a/b@{ONE}", "ready": True, "restartCount": 0}
                ]
            },
        }
    ],
    "/apis/apps/v1/deployments": [{"spec": {"selector": {}, "template": pod("ghcr.io/team/app:1.1")}}],
    "/apis/apps/v1/replicasets": [{"spec": {"selector": {}, "template": pod("ghcr.io/team/app:1.2")}}],
    "/apis/apps/v1/statefulsets": [
        {"spec": {"selector": {}, "serviceName": "a", "template": pod("ghcr.io/team/app:1.3")}}
    ],
    "/apis/apps/v1/daemonsets": [{"spec": {"selector": {}, "template": pod("ghcr.io/team/app:1.4")}}],
    "/apis/batch/v1/jobs": [{"spec": {"template": pod("ghcr.io/team/app:1.5")}}],
    "/apis/batch/v1/cronjobs": [
        {
            "spec": {
                "schedule": "* * * * *",
                "jobTemplate": {"spec": {"template": pod("ghcr.io/team/app:1.6")}},
            }
        }
    ],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield the kubeconfig of an API server, and the paths that it refuses."""
    refused = set[str]()

    class Handler(ApiHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in refused:
                self.answer(403, {"kind": "Status", "reason": "Forbidden"})
            else:
                self.answer(200, {"kind": "List", "metadata": {}, "items": LISTS[path]})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    file = tmp_path / "kubeconfig"
    named = {"name": "a"}
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "a",
                "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{**named, "user": {}}],
                "contexts": [{**named, "context": {"cluster": "a", "user": "a"}}],
            }
        )
    )
    yield file, refused
    server.shutdown()
    server.server_close()
    thread.join()


def test_all_that_runs_or_may_run_again_is_used(cluster: tuple[Path, set[str]]) -> None:
    found = prune.running(cluster[0])
    assert found.digests == {ONE}
    assert {tag for name, tag in found.tags if name == "app"} == {f"1.{number}" for number in range(7)}


def invoke(*words: str) -> Any:
    return CliRunner().invoke(prune_cli.registry, ["prune", *words, "--plain-http"])


def test_the_command_deletes_only_when_told(registry: Registry, cluster: tuple[Path, set[str]]) -> None:
    filled(registry, 9)  # 1.0 to 1.6 are used
    words = [f"{registry.address}/team/app", "--keep", "1", "--kubeconfig", str(cluster[0])]
    dry = invoke(*words)
    assert dry.exit_code == 0, dry.output
    assert f"would delete {registry.address}/team/app@" in dry.output
    assert len(tags(registry)) == 9
    done = invoke(*words, "--delete", "--json")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["repositories"]
    assert [one["tags"] for one in told["gone"]] == [["1.8"]]
    assert {f"1.{number}" for number in range(7)} <= tags(registry)
    assert len(tags(registry)) == 8


def test_nothing_is_deleted_when_a_cluster_cannot_be_read(
    registry: Registry, cluster: tuple[Path, set[str]]
) -> None:
    filled(registry)
    cluster[1].add("/apis/batch/v1/cronjobs")
    words = [f"{registry.address}/team/app", "--keep", "1", "--delete"]
    result = invoke(*words, "--kubeconfig", str(cluster[0]))
    assert result.exit_code == 2
    assert "cannot be read, so nothing is deleted: the API server answers 403 Forbidden" in " ".join(
        result.output.split()
    )
    assert invoke(*words, "--kubeconfig", "/nowhere").exit_code == 2
    assert len(tags(registry)) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quay.io/a"], "give --kubeconfig FILE for each cluster"),
        (["quay.io/a:1", "--no-cluster"], "quay.io/a:1: allowed is REGISTRY/NAME"),
        (["quay.io/A", "--no-cluster"], "quay.io/A: not an image"),
        (["quay.io/a", "--no-cluster", "--keep", "0"], "--keep 0: allowed is 1 or more"),
    ],
)
def test_wrong_input_is_refused_by_name(words: list[str], message: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_real_registry_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that serves the mirror."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with publish.registry() as address, Access().repository(f"http://{address}", "team/app") as one:
        for number in range(3):
            config = json.dumps({"created": f"2026-01-0{number + 1}T00:00:00Z"}).encode()
            kind = "application/vnd.oci.image.config.v1+json"
            described = {"mediaType": kind, "digest": one.put_blob(config), "size": len(config)}
            kind = "application/vnd.oci.image.manifest.v1+json"
            manifest = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": []}
            content = json.dumps(manifest).encode()
            one.put_manifest(content, kind, f"1.{number}")
            subject = {"mediaType": kind, "digest": one.resolve(f"1.{number}"), "size": len(content)}
            one.attach(
                subject, "application/vnd.cyclonedx+json", b"{}", "application/json", {"n": str(number)}
            )
        found = plan(one, 2, Used())
        assert [version.tags for version in found.gone] == [("1.0",)]
        prune.carry_out(one, found)
        assert len(one.tags()) == 4, "two images, and the tags by which their documents are found"
        assert not plan(one, 2, Used()).gone
