"""Flux's own controllers with the role's objects and rights, at a real API server, with Git over HTTPS.

Pods are played: nothing here runs them. A version whose tag begins with `bad` never becomes ready.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml
from api_server import ApiServer, _end, _free_port, api_server
from git_server import PASSWORD, USER, GitServer, git_server
from rendering import render

from quote_platform import component
from quote_platform.delivery import chart, environment
from quote_platform.history import written
from quote_platform.images import Reference
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source

ROOT = Path(__file__).resolve().parents[2]
SPACE, FLUX = "quote-lab", "flux"
REPOSITORY = "ghcr.io/quote-platform/quote-app"
RELEASE = f"/apis/helm.toolkit.fluxcd.io/v2/namespaces/{FLUX}/helmreleases/quote-app"
SOURCE = f"/apis/source.toolkit.fluxcd.io/v1/namespaces/{FLUX}/gitrepositories/quote-app"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{SPACE}/deployments/quote-app"
SERVICE = f"/api/v1/namespaces/{SPACE}/services/quote-app"
PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "GitRepository": "gitrepositories"}
PLURALS |= {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
PROMOTED = "inventories/production/group_vars/platform/images.yml"
MERGE = "application/merge-patch+json"


class World:
    """A cluster with Flux in it, and the repository that it applies."""

    def __init__(self, server: ApiServer, git: GitServer, documents: list[dict[str, Any]]) -> None:
        self.server, self.git, self.documents = server, git, documents
        found = next(one for one in documents if one["kind"] == "Deployment")
        self.rendered = found["spec"]["template"]["spec"]["containers"][0]["image"]
        self.promoted: dict[str, str] = {}
        self.logs: list[Path] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def get(self, path: str) -> dict[str, Any]:
        return dict(self.server.ask("GET", path).json())

    def patch(self, path: str, body: Any) -> httpx.Response:
        return self.server.ask("PATCH", path, body, content=MERGE)

    def commit(self, tag: str, **more: str) -> str:
        """Commit the chart with a version of the image; `more` replaces files of it by their names."""
        made = chart.files("quote-app", "production", self.documents, self.rendered, written)
        made["values.yaml"] = written({"quote_app_image": f"{REPOSITORY}:{tag}"})
        made |= {name.replace("__", "/").replace("_yaml", ".yaml"): text for name, text in more.items()}
        return self.git.commit({f"production/{path}": text for path, text in made.items()} | self.promoted)

    def image(self) -> str:
        return str(self.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["image"])

    def ready(self, path: str = RELEASE) -> dict[str, Any]:
        """Return the condition Ready; of a release only what it says of the generation that there is."""
        conditions = self.get(path).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Ready"), {"status": "", "message": ""})

    def revision(self) -> str:
        """Return which commit the release has tried last."""
        return str(self.get(RELEASE).get("status", {}).get("lastAttemptedRevision", ""))

    def until(self, holds: Callable[[], Any], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            said = {
                path.rpartition("/")[0].rpartition("/")[2]: self.ready(path) for path in (SOURCE, RELEASE)
            }
            tails = "\n".join(log.read_text()[-1500:] for log in self.logs)
            alive = all(process.poll() is None for process in self.processes)
            assert alive and time.monotonic() < deadline, f"{json.dumps(said)}\n{tails}"
            time.sleep(0.3)

    def deliver(self, tag: str) -> None:
        """Commit a version, and wait until it is there."""
        commit = self.commit(tag)
        self.until(lambda: self.image() == f"{REPOSITORY}:{tag}")
        self.until(lambda: commit[:12] in self.revision() and self.ready()["status"] == "True")


def plural(kind: str) -> str:
    return PLURALS.get(kind, f"{kind.lower()}s")


def play_pods(server: ApiServer, ended: Event) -> None:
    """Say of the Deployment what its controller and nodes would say."""
    while not ended.wait(0.3):
        with contextlib.suppress(httpx.HTTPError, KeyError):
            found = server.ask("GET", DEPLOYMENT).json()
            metadata, spec = found["metadata"], found["spec"]
            good = ":bad" not in spec["template"]["spec"]["containers"][0]["image"]
            number = spec["replicas"]
            status = {"observedGeneration": metadata["generation"], "replicas": number + (not good)}
            status |= {"updatedReplicas": number if good else 1, "readyReplicas": number}
            status |= {"availableReplicas": number, "unavailableReplicas": 0 if good else 1}
            progress = {"reason": "NewReplicaSetAvailable"} if good else {"reason": "ReplicaSetUpdated"}
            conditions = [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True"}]
            conditions[1] |= progress
            wanted = {"status": status | {"conditions": conditions}}
            if any(found.get("status", {}).get(key) != value for key, value in status.items()):
                server.ask("PATCH", f"{DEPLOYMENT}/status", wanted, content=MERGE)


def token(server: ApiServer, account: str) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = server.ask("POST", f"/api/v1/namespaces/{FLUX}/serviceaccounts/{account}/token", body)
    assert answer.is_success, answer.text
    return str(answer.json()["status"]["token"])


def binaries(recipe: str, *names: str) -> Path:
    """Return where the mirror has compiled them, or skip."""
    source = Source(cat.load(), lambda _: None)
    folder = source.artifacts / "binaries" / f"{recipe}-{source.binaries_key(recipe)}"
    if not all((folder / name).is_file() for name in names):
        pytest.skip(
            f"the mirror has compiled no {' and '.join(names)}: quote-platform mirror fill --part delivery"
        )
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = binaries("flux", "source-controller", "helm-controller")
    source = Source(cat.load(), lambda _: None)
    with contextlib.ExitStack() as running:
        server = running.enter_context(api_server(tmp_path_factory.mktemp("server")))
        git = running.enter_context(git_server(tmp_path_factory.mktemp("git")))
        given: dict[str, Any] = {
            "flux_repository": f"https://127.0.0.1:{git.port}/app.git",
            "flux_ca": git.ca,
        }
        given |= {"flux_username": USER, "flux_password": PASSWORD, "flux_path": "production"}
        given |= {"flux_interval": 2, "flux_rollout_timeout": 15, "flux_image_file": PROMOTED}
        texts = render(
            tmp_path_factory.mktemp("rendered"),
            ("quote_app/templates/quote-app.yaml.j2", {}),
            ("quote_app/templates/access.yaml.j2", {}),
            ("flux/templates/flux.yaml.j2", given),
            ("flux/templates/delivery.yaml.j2", given),
        )
        app, access, flux, delivery = (
            [document for document in yaml.safe_load_all(text) if document] for text in texts
        )
        for module in ("", "github.com/fluxcd/helm-controller"):
            for file in (source.module("flux", module) / "config/crd/bases").glob("*.yaml"):
                server.apply("customresourcedefinitions", yaml.safe_load(file.read_text()))
        # As the playbooks have it until now, with a tag of theirs.
        app = [one for one in app if one["kind"] != "Middleware"]  # Traefik's, which is not here
        for document in access:
            server.apply(plural(document["kind"]), document)
        task = {name: option.get("default") for name, option in component.SPEC.items()}
        task |= {"name": "quote-app", "objects": app}
        task |= {"kubeconfig": str(server.kubeconfig(tmp_path_factory.mktemp("playbooks") / "kubeconfig"))}
        component.run(task, dry_run=False)
        one = World(server, git, app)
        one.commit("0.1.0")
        for document in flux:
            if document["kind"] != "Deployment":
                server.apply(plural(document["kind"]), document)
        ended = Event()
        running.callback(ended.set)
        Thread(target=play_pods, args=(server, ended), daemon=True).start()
        storage, home = _free_port(), tmp_path_factory.mktemp("flux")
        for name, arguments in {
            "source-controller": [
                f"--storage-path={home}",
                f"--storage-addr=127.0.0.1:{storage}",
                f"--storage-adv-addr=127.0.0.1:{storage}",
            ],
            "helm-controller": ["--override-manager=quote-platform", "--no-cross-namespace-refs"],
        }.items():
            config = server.kubeconfig(home / f"{name}.kubeconfig")
            content = json.loads(config.read_text())
            content["users"][0]["user"]["token"] = token(server, name)  # with the rights of the role alone
            config.write_text(json.dumps(content))
            log = home / f"{name}.log"
            one.logs.append(log)
            out = running.enter_context(log.open("wb"))
            # Without an election of a leader, which works in a cluster only.
            command = [str(folder / name), "--watch-all-namespaces=false"]
            command += [f"--metrics-addr=127.0.0.1:{_free_port()}", f"--health-addr=127.0.0.1:{_free_port()}"]
            environment = os.environ | {"KUBECONFIG": str(config), "RUNTIME_NAMESPACE": FLUX}
            process = subprocess.Popen([*command, *arguments], stdout=out, stderr=out, env=environment)
            one.processes.append(process)
            running.callback(_end, process)
        for document in delivery:
            server.apply(plural(document["kind"]), document)
        yield one


def managers(document: dict[str, Any]) -> set[str]:
    fields = document["metadata"]["managedFields"]
    return {item["manager"] for item in fields if item["operation"] == "Apply"}


def test_it_takes_over_from_the_playbooks_without_a_rollout(world: World) -> None:
    before = world.get(DEPLOYMENT)
    world.until(lambda: world.ready()["status"] == "True")
    after = world.get(DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["spec"]["replicas"] == before["spec"]["replicas"]
    world.until(
        lambda: not any("quote-platform" in managers(world.get(one)) for one in (DEPLOYMENT, SERVICE))
    )
    assert all("helm-controller" in managers(world.get(one)) for one in (DEPLOYMENT, SERVICE))


def test_a_commit_is_applied(world: World) -> None:
    world.deliver("0.2.0")


def test_a_promotion_is_a_deployment(world: World) -> None:
    world.deliver("0.2.0")
    image = f"{REPOSITORY}:0.2.9@sha256:{'a' * 64}"
    (world.git.work / "inventories/production").mkdir(parents=True)
    environment.promote(world.git.work / "inventories/production", [Reference.parse(image)])
    world.promoted = {PROMOTED: (world.git.work / PROMOTED).read_text()}
    try:
        world.commit("0.2.0")
        world.until(lambda: world.image() == image)
    finally:
        world.promoted = {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("kind: Service\n  broken: [", "YAML"), ("{{ .Values.nothing | required", "unclosed action")],
)
def test_a_chart_that_is_none_is_told_and_what_is_there_stays(world: World, text: str, words: str) -> None:
    world.deliver("0.2.1")
    uid = world.get(SERVICE)["metadata"]["uid"]
    commit = world.commit("0.2.2", templates__service_quote_app_yaml=text)
    world.until(lambda: world.ready()["status"] == "False")
    world.until(lambda: commit[:12] in world.revision())
    assert words in world.ready()["message"]
    assert world.image() == f"{REPOSITORY}:0.2.1"
    assert world.get(SERVICE)["metadata"]["uid"] == uid


def test_what_its_account_may_not_is_refused(world: World) -> None:
    """Nobody gives himself rights by a commit."""
    world.deliver("0.2.3")
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "more"}}
    world.commit("0.2.4", templates__role_yaml=json.dumps(role | {"rules": []}))
    world.until(lambda: "forbidden" in world.ready()["message"])
    assert world.image() == f"{REPOSITORY}:0.2.3"


def test_a_version_that_does_not_become_ready_is_rolled_back(world: World) -> None:
    world.deliver("0.3.0")
    started = time.monotonic()
    commit = world.commit("bad-0.4.0")
    world.until(lambda: world.image().endswith(":bad-0.4.0"))
    world.until(lambda: world.image().endswith(":0.3.0"))
    assert time.monotonic() - started < 60
    world.until(lambda: world.ready()["status"] == "False")
    assert commit[:12] in world.revision()
    time.sleep(5)  # it does not try it again and again
    assert world.image() == f"{REPOSITORY}:0.3.0"
    world.deliver("0.4.1")  # the next commit ends it


def test_a_change_by_hand_is_undone(world: World) -> None:
    world.deliver("0.5.0")
    path = "/spec/template/spec/containers/0/image"
    by_hand = [{"op": "replace", "path": path, "value": f"{REPOSITORY}:0.4.9"}]
    answer = world.server.ask("PATCH", DEPLOYMENT, by_hand, content="application/json-patch+json")
    assert answer.is_success, answer.text
    world.until(lambda: world.image() == f"{REPOSITORY}:0.5.0")
    world.patch(SERVICE, {"spec": {"selector": {"app.kubernetes.io/name": "elsewhere"}}})
    world.until(lambda: world.get(SERVICE)["spec"]["selector"] == {"app.kubernetes.io/name": "quote-app"})
    world.server.ask("DELETE", SERVICE)
    world.until(lambda: world.get(SERVICE).get("kind") == "Service")


def test_the_number_of_pods_stays_the_autoscalers(world: World) -> None:
    world.deliver("0.5.1")
    world.patch(DEPLOYMENT, {"spec": {"replicas": 5}})
    world.deliver("0.5.2")
    time.sleep(5)
    assert world.get(DEPLOYMENT)["spec"]["replicas"] == 5


def test_without_the_git_server_nothing_is_lost(world: World) -> None:
    world.deliver("0.6.0")
    world.git.stop()
    try:
        world.until(lambda: world.ready(SOURCE)["status"] == "False")
        assert world.image() == f"{REPOSITORY}:0.6.0"
        world.server.ask("DELETE", SERVICE)  # what it has, it goes on applying
        world.until(lambda: world.get(SERVICE).get("kind") == "Service")
        world.commit("0.6.1")
    finally:
        world.git.start()
    world.until(lambda: world.image() == f"{REPOSITORY}:0.6.1")


def test_its_record_cannot_be_deleted_while_it_applies(world: World) -> None:
    answer = world.server.ask("DELETE", RELEASE)
    assert answer.status_code in {403, 422}, answer.text
    assert "delivery: playbook" in answer.json()["message"]


@pytest.fixture
def metrics(world: World, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Run kube-state-metrics with the configuration of the role; return what it tells."""
    folder = binaries("monitoring", "kube-state-metrics")
    given = {"monitoring_delivery": True}
    text = render(tmp_path, ("monitoring/templates/monitoring.yaml.j2", given))[0]
    documents = [one for one in yaml.safe_load_all(text) if one]
    name = "kube-state-metrics"
    found = next(one for one in documents if one["kind"] == "Deployment" and one["metadata"]["name"] == name)
    arguments = found["spec"]["template"]["spec"]["containers"][0]["args"]
    config = next(one for one in arguments if "custom-resource-state-config" in one)
    port, kubeconfig = _free_port(), world.server.kubeconfig(tmp_path / "kubeconfig")
    command = [str(folder / name), f"--kubeconfig={kubeconfig}", f"--port={port}", "--host=127.0.0.1"]
    command += [f"--telemetry-port={_free_port()}", "--telemetry-host=127.0.0.1", "--resources=nodes", config]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield lambda: _told(port)
        finally:
            _end(process)


def _told(port: int) -> str:
    with contextlib.suppress(httpx.HTTPError):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        return "\n".join(line for line in text.splitlines() if line.startswith("gotk_"))
    return ""


def test_its_figures_say_that_it_is_suspended(world: World, metrics: Callable[[], str]) -> None:
    def line(kind: str) -> str:
        lines = (one for one in metrics().splitlines() if f'customresource_kind="{kind}"' in one)
        return next(lines, "")

    world.deliver("0.7.0")
    world.until(lambda: 'ready="True"' in line("HelmRelease") and 'suspended="false"' in line("HelmRelease"))
    world.until(lambda: 'ready="True"' in line("GitRepository"))
    world.patch(RELEASE, {"spec": {"suspend": True}})
    world.until(lambda: 'suspended="true"' in line("HelmRelease"))
    assert line("HelmRelease").startswith("gotk_resource_info{") and 'name="quote-app"' in line("HelmRelease")
    world.commit("0.7.1")
    time.sleep(6)
    assert world.image() == f"{REPOSITORY}:0.7.0"
    world.patch(RELEASE, {"spec": {"suspend": False}})
    world.until(lambda: world.image() == f"{REPOSITORY}:0.7.1")


def test_the_playbooks_take_it_back_without_a_rollout(world: World, tmp_path: Path) -> None:
    """The last one: it ends the delivery."""
    world.deliver("0.8.0")
    before = world.get(DEPLOYMENT)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "flux", "tasks_from": "withdraw"}}],
    }
    file = tmp_path / "play.yml"
    file.write_text(json.dumps([play]))
    values = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text())
    given = {name: value for name, value in values.items() if name.startswith("flux_")}
    given |= {
        "cluster_kubeconfig": str(world.server.kubeconfig(tmp_path / "kubeconfig")),
        "component_render": "",
    }
    given |= {"cluster_name": "production", "application_namespace": SPACE, "cluster_pod_proxy": {}}
    given |= {"cluster_monitoring_namespace": "monitoring", "flux_timeout": 60}
    given |= {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(file), "-e", json.dumps(given)]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert world.get(RELEASE)["code"] == 404
    after = world.get(DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert managers(after) == {"quote-platform"} | (managers(before) - {"helm-controller"})
    secrets = world.server.ask("GET", f"/api/v1/namespaces/{SPACE}/secrets").json()["items"]
    assert not [one for one in secrets if one["type"].startswith("helm.sh/")]
    for document in world.documents:  # and what is left of Flux goes with what they apply next
        world.server.apply(plural(document["kind"]), document)
    final = world.get(SERVICE)
    assert "meta.helm.sh/release-name" not in final["metadata"].get("annotations", {})
    assert final["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "quote-platform"
