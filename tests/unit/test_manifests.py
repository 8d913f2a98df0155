"""Every object that a role renders fits the API schema of the pinned Kubernetes."""

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4
from releases import RELEASES
from rendering import render

from quote_platform import quantities, roledocs
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source
from quote_platform.verify import metrics

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = [
    "admission/templates/policies.yaml.j2",
    "pod_network/templates/kube-router.yaml.j2",
    "storage/templates/storage-class.yaml.j2",
    "postgres/templates/cluster.yaml.j2",
    "postgres/templates/backup.yaml.j2",
    "traefik/templates/traefik.yaml.j2",
    "cert_manager/templates/cert-manager.yaml.j2",
    "cert_manager/templates/patches.yaml.j2",
    "cert_manager/templates/issuers.yaml.j2",
    "ingress_nginx/templates/ingress-nginx.yaml.j2",
    "quote_app/templates/access.yaml.j2",
    "quote_app/templates/quote-app.yaml.j2",
    "flux/templates/flux.yaml.j2",
    "flux/templates/delivery.yaml.j2",
    "snapshots/templates/snapshots.yaml.j2",
    "velero/templates/velero.yaml.j2",
    "grafana/templates/grafana.yaml.j2",
    "vault_server/templates/snapshots.yaml.j2",
    "secrets_delivery/templates/operator.yaml.j2",
    "secrets_delivery/templates/application.yaml.j2",
    "secrets_delivery/templates/csi-provider.yaml.j2",
    "logging/templates/logging.yaml.j2",
    "logging/templates/eck.yaml.j2",
    "logging/templates/eck-patches.yaml.j2",
    "monitoring/templates/operator.yaml.j2",
    "monitoring/templates/nodes.yaml.j2",
    "monitoring/templates/monitoring.yaml.j2",
    "monitoring/templates/scrape.yaml.j2",
    "monitoring/templates/alertmanager-secrets.yaml.j2",
    "monitoring/templates/rules.yaml.j2",
]
# Kinds that an operator brings; the live API server judges them.
FOREIGN = {
    "postgresql.cnpg.io",
    "barmancloud.cnpg.io",
    "traefik.io",
    "cert-manager.io",
    "velero.io",
    "source.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
    "snapshot.storage.k8s.io",
    "external-secrets.io",
    "generators.external-secrets.io",
    "secrets-store.csi.x-k8s.io",
    "elasticsearch.k8s.elastic.co",
    "kibana.k8s.elastic.co",
    "monitoring.coreos.com",
}


@cache
def definitions() -> dict[str, Any]:
    """Return the schema of the pinned Kubernetes: it lies in the module that the mirror builds."""
    folder = Source(cat.load(), lambda _: None).module("kubernetes")
    found: dict[str, Any] = json.loads((folder / "api/openapi-spec/swagger.json").read_text())["definitions"]
    for definition in found.values():
        if "properties" in definition and "additionalProperties" not in definition:
            definition["additionalProperties"] = False
        # The document says so of types that are written as number or text.
        if definition.get("format") == "int-or-string":
            del definition["type"]
    found["io.k8s.apimachinery.pkg.api.resource.Quantity"].pop("type")
    return found


@cache
def registry() -> Registry[Any]:
    """Return the schema as it is referred to; read through once, not for each object."""
    resource = Resource.from_contents({"definitions": definitions()}, default_specification=DRAFT4)
    known: Registry[Any] = Registry().with_resource("urn:kubernetes", resource)
    return known.crawl()


@cache
def kinds() -> dict[tuple[str, str, str], str]:
    return {
        (kind["group"], kind["version"], kind["kind"]): name
        for name, definition in definitions().items()
        for kind in definition.get("x-kubernetes-group-version-kind", [])
    }


def mistakes(document: dict[str, Any]) -> list[str]:
    group, _, version = document["apiVersion"].rpartition("/")
    if group in FOREIGN:
        return []
    name = kinds().get((group, version, document["kind"]))
    if name is None:
        return [f"{document['apiVersion']} {document['kind']}: no such kind"]
    validator = jsonschema.Draft4Validator(
        {"$ref": f"urn:kubernetes#/definitions/{name}"}, registry=registry()
    )
    return [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in validator.iter_errors(document)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rendered")


@pytest.fixture(scope="module")
def rendered(folder: Path) -> dict[str, list[dict[str, Any]]]:
    # Not its default: whoever names it has to follow.
    own = {"secrets_delivery_namespace": "delivery"}
    texts = render(folder, *((name, own) for name in TEMPLATES), workloads=True)
    found = {}
    for name, text in zip(TEMPLATES, texts, strict=True):
        documents = [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]
        if name in RELEASES:
            documents = RELEASES[name].patched(documents)
        found[name.replace("/templates/", "-").removesuffix(".j2")] = documents
    return found


def test_every_object_fits(rendered: dict[str, list[dict[str, Any]]]) -> None:
    assert len(rendered) == len(TEMPLATES)
    wrong = [
        f"{name}: {document['kind']}/{document['metadata']['name']}: {mistake}"
        for name, documents in rendered.items()
        for document in documents
        for mistake in mistakes(document)
    ]
    assert not wrong, "\n".join(wrong)
    assert sum(map(len, rendered.values())) > 30


def test_a_wrong_object_does_not_fit(rendered: dict[str, list[dict[str, Any]]]) -> None:
    deployment = next(d for d in rendered["quote_app-quote-app.yaml"] if d["kind"] == "Deployment")
    assert mistakes(deployment) == []
    misspelt = copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert any("readinesProbe" in mistake for mistake in mistakes(misspelt))
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["replicas"] = "three"
    assert mistakes(wrong) == ["spec.replicas: 'three' is not of type 'integer'"]


def named(value: Any, key: str = "") -> Iterator[str]:
    """Yield the namespaces that an object names, by a key that has them or by the name of a Service."""
    if isinstance(value, dict):
        if value.get("key") == "kubernetes.io/metadata.name":
            yield from value.get("values", [])
        for inner, found in value.items():
            yield from named(found, str(inner))
    elif isinstance(value, list):
        for found in value:
            yield from named(found, key)
    elif isinstance(value, str):
        if key in {"namespace", "namespaces", "matchNames", "kubernetes.io/metadata.name"}:
            yield value
        yield from re.findall(r"[.]([a-z0-9-]+)[.]svc\b", value)


def test_a_namespace_that_is_chosen_is_known_to_all(tmp_path: Path) -> None:
    """Else a policy keeps the ingress controller, Prometheus or Grafana out, and nothing tells why."""
    usual = {"cluster_monitoring_namespace": "monitoring", "application_namespace": "quote-lab"} | {
        name: str(space)
        for role in roledocs.roles()
        for name, space in roledocs.defaults(role).items()
        if name.endswith("_namespace") and space and "{{" not in str(space)
    }
    chosen = {name: f"own-{number}" for number, name in enumerate(usual)}
    texts = render(tmp_path, *((name, chosen) for name in TEMPLATES))
    found = {
        name: set(named(list(yaml.load_all(text, Loader=yaml.CSafeLoader))))
        for name, text in zip(TEMPLATES, texts, strict=True)
    }
    wrong = {name: sorted(spaces & set(usual.values())) for name, spaces in found.items()}
    assert {name: spaces for name, spaces in wrong.items() if spaces} == {}
    assert set(chosen.values()) == set().union(*found.values()) & set(chosen.values())


def test_alerts_arrive_unchanged_with_their_runbook(rendered: dict[str, list[dict[str, Any]]]) -> None:
    kept: dict[str, Any] = {}
    for file in (ROOT / "roles/monitoring/files/alerts").glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            kept |= {rule["alert"]: rule for rule in group["rules"]}
    sent = {
        rule["alert"]: rule
        for document in rendered["monitoring-rules.yaml"]
        for group in document["spec"]["groups"]
        for rule in group["rules"]
    }
    urls = {name: rule["annotations"].pop("runbook_url") for name, rule in sent.items()}
    assert sent == kept
    assert all(url.endswith(f"/docs/runbooks/{name}.md") for name, url in urls.items())


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def test_a_node_can_be_drained(rendered: dict[str, list[dict[str, Any]]]) -> None:
    objects = [document for documents in rendered.values() for document in documents]
    budgets = [one for one in objects if one["kind"] == "PodDisruptionBudget"]
    # A minimum of pods keeps a node from being drained as soon as there may be no more of them.
    assert {one["metadata"]["name"]: one["spec"].get("maxUnavailable") for one in budgets} == dict.fromkeys(
        ("coredns", "quote-app", "prometheus"), 1
    )
    for one in objects:
        if one.get("spec", {}).get("replicas", 1) > 1:
            template = one["spec"].get("template", {}).get("metadata") or one["spec"]["podMetadata"]
            assert any(
                budget["metadata"]["namespace"] == one["metadata"]["namespace"]
                and selects(budget["spec"]["selector"], template["labels"])
                for budget in budgets
            ), f"{one['kind']} {one['metadata']['name']} has no budget"
    (postgres,) = (one for one in objects if one["kind"] == "Cluster")
    assert postgres["spec"]["enablePDB"] is (postgres["spec"]["instances"] > 1)


# Upstream's objects, of which a role's patch sets the requests.
PATCHED = {
    "Deployment/cnpg-controller-manager": "postgres/templates/operator-patches.yaml.j2",
    "Deployment/barman-cloud": "postgres/templates/backup-patches.yaml.j2",
    "Deployment/local-path-provisioner": "storage/templates/patches.yaml.j2",
    "Deployment/metrics-server": "metrics_server/templates/patches.yaml.j2",
}
# Only with Fluentd, which is not the default; and what upstream's manifest of the driver says.
UNSEEN = {"Deployment/events", "DaemonSet/csi-secrets-store"}


def asked_for(documents: list[dict[str, Any]]) -> dict[str, tuple[str, int | None, quantities.Amount]]:
    """Return where the pods of every object run, how many there are, and what each of them requests."""
    found: dict[str, tuple[str, int | None, quantities.Amount]] = {}
    (operator,) = (
        one
        for one in documents
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "prometheus-operator")
    )
    arguments = dict(
        argument.lstrip("-").split("=", 1)
        for argument in operator["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    reloader = {name: arguments[f"config-reloader-{name}-request"] for name in ("cpu", "memory")}
    for one in documents:
        spec, at, kind = one.get("spec") or {}, "", one["kind"]
        pods = spec.get("replicas", spec.get("instances", spec.get("count", 1)))
        containers = [spec]
        if kind in ("Deployment", "StatefulSet", "DaemonSet"):
            pod = spec["template"]["spec"]
            containers = pod["containers"]
            if kind == "DaemonSet":
                everywhere = pod.get("tolerations") == [{"operator": "Exists"}]
                masters = "node-role.kubernetes.io/control-plane" in pod.get("nodeSelector", {})
                at, pods = "control_plane" if masters else "nodes" if everywhere else "workers", None
        elif kind in ("Prometheus", "Alertmanager"):
            containers = [spec, {"resources": {"requests": reloader}}]
        elif kind == "Elasticsearch":
            (nodes,) = spec["nodeSets"]
            pods, containers = nodes["count"], nodes["podTemplate"]["spec"]["containers"]
        elif kind == "Kibana":
            containers = spec["podTemplate"]["spec"]["containers"]
        elif kind == "ObjectStore":
            # In the pods of the database.
            pods, containers = None, [spec["instanceSidecarConfiguration"]]
        elif kind != "Cluster":
            continue
        each = quantities.total(
            quantities.amount(container["resources"]["requests"]) for container in containers
        )
        found[f"{kind}/{one['metadata']['name']}"] = at, pods, each
    return found


def test_what_validation_sums_up_is_what_is_requested(
    rendered: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    table = json.loads((folder / "workloads.json").read_text())
    found = asked_for([document for documents in rendered.values() for document in documents])
    for name, template in PATCHED.items():
        (text,) = re.findall(r"requests: (\{.*\})", (ROOT / "roles" / template).read_text())
        found[name] = "", 1, quantities.amount(yaml.safe_load(text))
    objects = [name for row in table for name in row.get("objects", [])]
    assert sorted(set(objects)) == sorted(objects)
    assert set(objects) == found.keys() | UNSEEN
    for row in table:
        known = [found[name] for name in row.get("objects", []) if name in found]
        if not known:
            continue
        each = quantities.total(map(quantities.amount, row["requests"]))
        if row["name"] == "PostgreSQL":
            assert (row["pods"], each) == (known[0][1], quantities.total(each for *_, each in known))
        else:
            pods = None if row.get("at") else sum(pods or 0 for _, pods, _ in known)
            assert (row.get("at", ""), row.get("pods"), {each}) == (
                known[0][0],
                pods,
                {each for *_, each in known},
            ), row["name"]


def test_what_validation_knows_to_stay_apart_is_what_the_scheduler_keeps_apart(
    rendered: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    apart = set()
    for one in (document for documents in rendered.values() for document in documents):
        spec = one.get("spec") or {}
        pod = (
            spec.get("template", {}).get("spec", spec) if isinstance(spec.get("template", {}), dict) else spec
        )
        spread = [rule["whenUnsatisfiable"] for rule in pod.get("topologySpreadConstraints", [])]
        if "DoNotSchedule" in spread or spec.get("affinity", {}).get("podAntiAffinityType") == "required":
            apart.add(f"{one['kind']}/{one['metadata']['name']}")
    table = json.loads((folder / "workloads.json").read_text())
    # The first of a row's objects makes its pods.
    assert {row["objects"][0] for row in table if row.get("apart")} == apart
    assert len(apart) == 4


def test_what_validation_says_of_kubeadm_is_what_it_requests(
    rendered: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    table = {row["name"]: row for row in json.loads((folder / "workloads.json").read_text())}
    phases = Source(cat.load(), lambda _: None).module("kubernetes") / "cmd/kubeadm/app/phases"
    pods = re.findall(r'ComponentResources\("(\w+)"\)', (phases / "controlplane/manifests.go").read_text())
    etcd = re.findall(
        r'v1.Resource(CPU|Memory): +resource.MustParse\("(\w+)"\)', (phases / "etcd/local.go").read_text()
    )
    assert table["the control plane"]["requests"] == [
        *({"cpu": cpu} for cpu in pods),
        {name.lower(): value for name, value in etcd},
    ]
    text = (phases / "addons/dns/manifests.go").read_text()
    (requests,) = re.findall(r"requests:\n +cpu: (\w+)\n +memory: (\w+)", text)
    assert table["CoreDNS"]["requests"] == [dict(zip(("cpu", "memory"), requests, strict=True))]


def policies(rendered: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    every = [document for documents in rendered.values() for document in documents]
    return [document for document in every if document["kind"] == "NetworkPolicy"]


def test_no_policy_refuses_what_another_refuses(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """One that allows nothing adds nothing to another one of the same pods."""
    found = policies(rendered)
    for one in found:
        if not one["spec"].keys() & {"ingress", "egress"}:
            assert not [
                other["metadata"]["name"]
                for other in found
                if other is not one
                and other["metadata"]["namespace"] == one["metadata"]["namespace"]
                and other["spec"]["podSelector"] == one["spec"]["podSelector"]
                and set(other["spec"]["policyTypes"]) >= set(one["spec"]["policyTypes"])
            ], one["metadata"]["name"]


def test_pods_reach_the_api_servers_and_the_store_and_nothing_else_there(
    rendered: dict[str, list[dict[str, Any]]],
) -> None:
    anywhere: dict[str, set[int]] = {}
    for policy in policies(rendered):
        for rule in policy["spec"].get("egress", []):
            if not rule.get("to"):
                ports = anywhere.setdefault(policy["metadata"]["namespace"], set())
                ports |= {port["port"] for port in rule["ports"]}
    # Prometheus reads figures everywhere; cert-manager asks issuers.
    assert {space for space, ports in anywhere.items() if 6443 in ports} == {"monitoring", "cert-manager"}
    assert not anywhere.keys() & {"quote-lab", "velero"}, "their store has an address in these inventories"


def test_pods_of_eck_say_what_they_request(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """Its operator writes an empty value where there is none, which the next run would take away."""
    pods = [
        template["podTemplate"]["spec"]
        for document in rendered["logging-eck.yaml"]
        if document["kind"] in {"Elasticsearch", "Kibana"}
        for template in document["spec"].get("nodeSets", [document["spec"]])
    ]
    containers = [one for pod in pods for one in [*pod["containers"], *pod.get("initContainers", [])]]
    assert {one["name"] for one in containers} >= {"elasticsearch", "kibana", "trust"}
    assert [one["name"] for one in containers if not one.get("resources")] == []


def value(expression: str, *given: str) -> Any:
    """Return what Ansible makes of an expression with these variables."""
    command = [
        "ansible",
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-m",
        "debug",
        "-a",
        f'msg="{expression}"',
    ]
    for variables in given:
        command += ["-e", variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return yaml.safe_load(done.stdout.partition("=>")[2])["msg"]


@pytest.mark.parametrize(
    ("endpoint", "port", "cidr"),
    [
        ("", "443", ""),
        ("https://store.example.com:7070", "7070", ""),
        ("https://192.0.2.30:7070", "7070", "192.0.2.30/32"),
        ("http://[2001:db8::30]", "80", "2001:db8::30/128"),
    ],
)
@pytest.mark.parametrize("role", ["postgres", "velero"])
def test_a_store_with_an_address_is_all_that_is_reached(
    role: str, endpoint: str, port: str, cidr: str
) -> None:
    variable, number = {
        "postgres": ("postgres_backup_endpoint", "__postgres_object_store_port"),
        "velero": ("velero_endpoint", "__velero_port"),
    }[role]
    shown = f"{{{{ {{'port': {number}, 'to': __{role}_object_store}} }}}}"
    found = value(shown, f"@roles/{role}/vars/main.yml", json.dumps({variable: endpoint}))
    assert str(found["port"]) == port
    assert found["to"] == ([{"ipBlock": {"cidr": cidr}}] if cidr else [])


def test_who_tells_figures_is_asked_for_them(rendered: dict[str, list[dict[str, Any]]]) -> None:
    monitors = [one for one in rendered["monitoring-scrape.yaml"] if one["kind"] == "PodMonitor"]
    (prometheus,) = (one for one in policies(rendered) if one["metadata"]["name"] == "prometheus")
    reached = {port["port"] for rule in prometheus["spec"]["egress"] for port in rule["ports"]}
    found = set()
    for documents in rendered.values():
        for document in documents:
            template = document.get("spec", {}).get("template", {})
            for container in template.get("spec", {}).get("containers", []):
                for port in container.get("ports", []):
                    if port.get("name") not in {"metrics", "http-metrics"}:
                        continue
                    name = document["metadata"]["name"]
                    jobs = {
                        one["metadata"]["name"]
                        for one in monitors
                        if document["metadata"]["namespace"] in one["spec"]["namespaceSelector"]["matchNames"]
                        and selects(one["spec"]["selector"], template["metadata"]["labels"])
                    }
                    assert len(jobs) == 1, f"{name} is asked by {jobs or 'nobody'}"
                    assert port["containerPort"] in reached, f"a NetworkPolicy keeps Prometheus from {name}"
                    found |= jobs
    assert found >= {"cert-manager", "external-secrets", "log-collector", "eck", "velero", "traefik"}
    looked_for = {*metrics.PODS, *metrics.NODES, *metrics.CONTROL_PLANES}
    assert found <= looked_for, "playbooks/verify.yml does not look for it"


class ApiServer(BaseHTTPRequestHandler):
    """An API server that knows of nodes only."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        names = {"name": "nodes", "singularName": "node", "kind": "Node"}
        resource = names | {"namespaced": False, "verbs": ["get", "list"]}
        nodes: list[dict[str, Any]] = []
        if query == "labelSelector=node-role.kubernetes.io%2Fcontrol-plane":
            for name, *addresses in (("master-2", "10.0.0.12"), ("master-1", "10.0.0.11", "2001:db8::11")):
                found = [{"type": "Hostname", "address": name}]
                found += [{"type": "InternalIP", "address": one} for one in addresses]
                nodes.append({"kind": "Node", "metadata": {"name": name}, "status": {"addresses": found}})
        answers: dict[str, dict[str, Any]] = {
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]},
            "/api/v1/nodes": {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": nodes},
        }
        answer = answers[path.rstrip("/")]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_the_api_servers_are_where_control_planes_are(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    given = {"component_kubeconfig": str(kubeconfig), "cluster_service_cidr": "10.96.0.0/16"}
    asked = ("{{ component_api_servers }}", "@roles/component/vars/main.yml", json.dumps(given))
    assert value(*asked) == [], "a dry run before there is a cluster"
    with ThreadingHTTPServer(("127.0.0.1", 0), ApiServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        kubeconfig.write_text(yaml.safe_dump(content))
        found = value(*asked)
        server.shutdown()
    networks = ["10.0.0.11/32", "10.0.0.12/32", "2001:db8::11/128", "10.96.0.0/16"]
    assert found == [{"ipBlock": {"cidr": network}} for network in networks]


@pytest.mark.parametrize("beside", [True, False])
def test_a_restore_beside_the_database_takes_nothing_from_it(beside: bool) -> None:
    """What is restored there writes into no archive and is nobody's service; the new one is its copy."""
    record = {
        "server": "postgres-2",
        "origin": "postgres-1",
        "time": "2026-11-23T02:00:00Z",
        "copied": not beside,
    }
    own = {"__postgres_cluster": "postgres-restored", "postgres_instances": 1} if beside else {}
    template = "lookup('rendered', 'roles/postgres/templates/cluster.yaml.j2', template_vars=own)"
    given = {
        "own": own | {"postgres_recovery": record},
        "secrets_backend": "vault",
        "object_store_endpoint": "",
    }
    files = (
        "group_vars/all/main",
        "group_vars/all/versions",
        "roles/postgres/defaults/main",
        "roles/postgres/vars/main",
    )
    names = [f"@{name}.yml" for name in files]
    variables = {"component_api_servers": [], "cluster_secrets_dir": "/nowhere"}
    found = value(f"{{{{ {template} | from_yaml_all | list }}}}", *names, json.dumps(given | variables))
    *archives, cluster, policy = found[1:]
    # The archive is read by an object that goes with what is restored.
    assert [item["metadata"]["name"] for item in archives] == (
        ["postgres-restored-archive"] if beside else []
    )
    assert all(item["spec"]["configuration"]["wal"]["maxParallel"] == 4 for item in archives)
    assert cluster["metadata"]["name"] == policy["metadata"]["name"]
    assert {"plugins", "managed"} & cluster["spec"].keys() == (set() if beside else {"plugins", "managed"})
    bootstrap, (source,) = cluster["spec"]["bootstrap"], cluster["spec"]["externalClusters"]
    if beside:
        assert bootstrap["recovery"]["recoveryTarget"] == {"targetTime": record["time"]}
        archive = {"barmanObjectName": "postgres-restored-archive", "serverName": "postgres-1"}
        assert source["plugin"]["parameters"] == archive
    else:
        assert bootstrap["pg_basebackup"]["source"] == source["name"] == "postgres-restored"
        assert source["sslKey"]["name"] == "postgres-restored-replication"
        assert cluster["spec"]["plugins"][0]["parameters"]["serverName"] == "postgres-2"


def test_a_drill_restores_beside_the_database_and_into_no_archive(tmp_path: Path) -> None:
    """What it applies lies in its own namespace, and is what a restore would be."""
    (tmp_path / "templates").symlink_to(ROOT / "roles" / "postgres" / "templates")
    files = ["roles/postgres/defaults/main", "roles/postgres/vars/main", "group_vars/all/main"]
    files += ["group_vars/all/versions"]
    moment = "2026-11-01 12:03:30Z"
    content = "{{ {'objects': __postgres_drill_objects, 'command': __postgres_drill_figures} | to_json }}"
    # Of the task, since files win over a play's variables.
    variables = {
        "component_api_servers": [],
        "cluster_secrets_dir": "/nowhere",
        "object_store_endpoint": "https://192.0.2.30:7070",
        "object_store_ca": "",
        "object_store_accounts": {"postgres": {"bucket": "b", "access_key": "a", "secret_key": "s"}},
        "secrets_backend": "vault",
        "vault_address": "https://vault.example.com:8200",
        "postgres_vault_addresses": ["192.0.2.31"],
        "postgres_recovery": {"server": "postgres-2", "origin": "postgres"},
        "__postgres_drill_until": moment,
    }
    task = {"ansible.builtin.copy": {"content": content, "dest": f"{tmp_path}/found.json"}}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [f"{ROOT}/{one}.yml" for one in files],
        "tasks": [task | {"vars": variables}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    objects = {(one["kind"], one["metadata"]["name"]): one for one in found["objects"]}
    assert set(objects) == {
        ("Namespace", "quote-lab-drill"),
        ("Secret", "postgres-object-store"),
        ("ObjectStore", "postgres-restored-archive"),
        ("Cluster", "postgres-restored"),
        ("NetworkPolicy", "postgres-restored"),
    }
    assert objects["Namespace", "quote-lab-drill"]["metadata"]["labels"]["quote-platform/drill"] == "true"
    assert {one["metadata"].get("namespace", "quote-lab-drill") for one in objects.values()} == {
        "quote-lab-drill"
    }
    spec = objects["Cluster", "postgres-restored"]["spec"]
    assert spec["instances"] == 1
    assert not {"plugins", "managed", "certificates"} & spec.keys()
    assert "synchronous" not in spec["postgresql"]
    assert "recoveryTarget" not in spec["bootstrap"]["recovery"]
    (source,) = spec["externalClusters"]
    assert source["plugin"]["parameters"] == {
        "barmanObjectName": "postgres-restored-archive",
        "serverName": "postgres-2",
    }
    assert not [wrong for one in objects.values() for wrong in mistakes(one)]
    words = shlex.split(found["command"])
    assert words[:2] == ["env", "PGTZ=UTC"]
    assert words[-1].count(moment) == 1
