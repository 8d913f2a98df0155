"""The checks: each uses one function of the platform as its users do."""

import base64
import hashlib
import re
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import httpx
from cryptography import x509
from kubernetes import client
from kubernetes.client import ApiException

from quote_platform.verify import backups, metrics
from quote_platform.verify.certificates import certificates, shown
from quote_platform.verify.logs import logs
from quote_platform.verify.target import PROBE_PORT, Failed, NotRun, Seen, Target, wait

ROLLOUT_RATE = 20  # requests a second while the application is replaced; far below the rate limit
BURST = 900  # requests at most to find the rate limit
LIMITED = {429, 503}

CheckFunction = Callable[[Target], str | Seen]


def intrusive(what: str) -> Callable[[CheckFunction], CheckFunction]:
    """Mark a check that users may notice: it runs only where the target allows it."""

    def mark(function: CheckFunction) -> CheckFunction:
        @wraps(function)
        def guarded(target: Target) -> str | Seen:
            if not target.intrusive:
                raise NotRun(f"it {what}: only with -e verify_intrusive=true")
            return function(target)

        return guarded

    return mark


def nodes_ready(target: Target) -> str:
    """Every node is Ready at the wanted version."""
    nodes = target.core.list_node().items
    wrong = []
    for node in nodes:
        ready = next((item.status for item in node.status.conditions if item.type == "Ready"), "Unknown")
        version = node.status.node_info.kubelet_version
        if ready != "True":
            wrong.append(f"{node.metadata.name} is not Ready")
        if version != f"v{target.version}":
            wrong.append(f"{node.metadata.name} runs {version}, wanted v{target.version}")
    if wrong or not nodes:
        raise Failed("; ".join(wrong) or "the cluster has no nodes", "kubectl describe nodes")
    return f"{len(nodes)} nodes at v{target.version}"


# --- network: one probe on every node, in this order ------------------------------------------------------


def _probes(target: Target) -> list[str]:
    pods = target.core.list_namespaced_pod(target.scratch, label_selector="app=probe,net=true").items
    if not pods:
        raise NotRun("its pods are made by the check `pod to pod`")
    return sorted(pod.metadata.name for pod in pods)


def pod_to_pod(target: Target) -> str:
    """A pod on every node reaches a pod on every node."""
    nodes = [node.metadata.name for node in target.core.list_node().items]
    names = []
    for number, node in enumerate(nodes):
        name = f"net-{number}"
        names.append(name)
        target.create_pod(
            name,
            ["netexec", f"--http-port={PROBE_PORT}"],
            nodeName=node,
            container={
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": PROBE_PORT}, "periodSeconds": 1}
            },
        )
        target.core.patch_namespaced_pod(name, target.scratch, {"metadata": {"labels": {"net": "true"}}})
    addresses = target.wait_ready(names)
    targets = {f"{address}:{PROBE_PORT}": name for name, address in addresses.items()}
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda name: target.connects(name, *targets), names))
    broken = [
        f"{nodes[number]} cannot reach {nodes[names.index(targets[address])]} ({why})"
        for number, failed in enumerate(results)
        for address, why in failed.items()
    ]
    if broken:
        raise Failed("; ".join(broken), "kubectl logs --namespace kube-system daemonset/kube-router")
    return f"{len(names) ** 2} paths between {len(names)} nodes"


def service_address(target: Target) -> str:
    """A service's address leads to its pods."""
    body = {
        "metadata": {"name": "probe"},
        "spec": {"selector": {"net": "true"}, "ports": [{"port": 80, "targetPort": PROBE_PORT}]},
    }
    service = target.core.create_namespaced_service(target.scratch, body)
    address = f"{service.spec.cluster_ip}:80"
    names = _probes(target)

    def reached() -> bool:
        return all(not target.connects(name, address) for name in names)

    wait(reached, 20, lambda: f"{address} does not answer on every node", "kubectl get endpointslices -A")
    return f"{address} from {len(names)} nodes"


def names_resolve(target: Target) -> str:
    """Pods on every node resolve names of services."""
    wanted = [f"probe.{target.scratch}.svc:80", f"kubernetes.default.svc.{target.domain}:443"]
    for name in _probes(target):
        if failed := target.connects(name, *wanted):
            raise Failed(f"{name}: {failed}", "kubectl logs --namespace kube-system deployment/coredns")
    return " and ".join(wanted)


def network_policy(target: Target) -> str:
    """A NetworkPolicy refuses everybody, then lets one in."""
    names = _probes(target)
    if len(names) < 3:
        raise NotRun("it takes three nodes: a server, a friend and a stranger")
    server, friend, stranger = names[0], names[-1], names[len(names) // 2]
    address = f"{target.core.read_namespaced_pod(server, target.scratch).status.pod_ip}:{PROBE_PORT}"
    policy = {
        "metadata": {"name": "probe"},
        "spec": {"podSelector": {"matchLabels": {"probe": server}}, "policyTypes": ["Ingress"]},
    }
    target.network.create_namespaced_network_policy(target.scratch, policy)
    hint = "kubectl logs --namespace kube-system daemonset/kube-router"
    wait(lambda: bool(target.connects(friend, address, seconds=1)), 30, lambda: "nothing is refused", hint)
    allow = {"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"probe": friend}}}]}]}}
    target.network.patch_namespaced_network_policy("probe", target.scratch, allow)
    wait(
        lambda: not target.connects(friend, address, seconds=1), 30, lambda: "the friend stays refused", hint
    )
    if not target.connects(stranger, address, seconds=1):
        raise Failed("a pod that no rule names gets through", hint)
    target.network.delete_namespaced_network_policy("probe", target.scratch)
    return "refused, then allowed for one"


# --- storage ----------------------------------------------------------------------------------------------


def volume_keeps_data(target: Target) -> str:
    """A volume keeps its data when its pod is replaced."""
    word = uuid.uuid4().hex
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }
    target.core.create_namespaced_persistent_volume_claim(target.scratch, claim)
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volume = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    for name in ("writer", "reader"):
        # The volume may lie on a node's disk, so the scheduler chooses; it must not choose a control plane.
        target.create_pod(name, ["pause"], volumes=volume, tolerations=[], container=mount)
        target.wait_ready([name])
        if name == "writer":
            target.execute(name, "sh", "-c", f"echo {word} > /data/word; sync")
            target.core.delete_namespaced_pod(name, target.scratch)
    found = target.execute("reader", "cat", "/data/word").strip()
    if found != word:
        raise Failed(f"the second pod reads {found!r}", "kubectl get pv,pvc -A")
    return "written by one pod, read by the next"


# --- application ------------------------------------------------------------------------------------------


def tls(target: Target) -> str:
    """The certificate is the application's and trusted, old protocols are refused, HTTP is sent to HTTPS."""
    address = target.addresses[0]
    try:
        certificate = shown(address, 443, target.host, target.authority)
    except ssl.SSLCertVerificationError as error:
        hint = f"kubectl describe certificate --namespace {target.namespace}"
        raise Failed(f"the certificate is refused: {error.verify_message}", hint) from error
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if target.host not in names.get_values_for_type(x509.DNSName):
        raise Failed(f"the certificate is for {names.get_values_for_type(x509.DNSName)}, not {target.host}")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise Failed(f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    try:
        shown(address, 443, target.host, maximum=ssl.TLSVersion.TLSv1_1)
    except (ssl.SSLError, OSError):
        pass
    else:
        raise Failed("a client that speaks nothing newer than TLS 1.1 is let in")
    plain = httpx.get(f"http://{address}/", headers={"Host": target.host}, timeout=10)
    if plain.status_code not in {301, 302, 307, 308} or not plain.headers["location"].startswith("https://"):
        raise Failed(f"plain HTTP answers {plain.status_code} instead of pointing to HTTPS")
    signer = (
        "self-signed" if certificate.issuer == certificate.subject else certificate.issuer.rfc4514_string()
    ) + (", trusted" if target.authority else "")
    return f"{target.host}, {signer}, until {certificate.not_valid_after_utc:%Y-%m-%d}"


def _instances(target: Target) -> tuple[str, list[str]]:
    """Return the pods of PostgreSQL: the primary and its replicas."""
    pods = target.core.list_namespaced_pod(target.namespace, label_selector="cnpg.io/instanceRole").items
    roles = {pod.metadata.name: pod.metadata.labels["cnpg.io/instanceRole"] for pod in pods}
    primaries = [name for name, role in roles.items() if role == "primary"]
    if len(primaries) != 1:
        raise Failed(f"{len(primaries)} primaries", f"kubectl get pods --namespace {target.namespace}")
    return primaries[0], [name for name, role in roles.items() if role == "replica"]


def _sql(target: Target, pod: str, statement: str) -> str:
    command = [
        "psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        f"--dbname={target.database}",
        "--command",
        statement,
    ]
    return target.execute(pod, *command, namespace=target.namespace, container="postgres").strip()


def archive(target: Target) -> str:
    """The newest segment of the log that is closed reaches the object store."""
    target.has_its_database("its owner archives it")
    primary, _ = _instances(target)
    spec = client.CustomObjectsApi(target.api).get_namespaced_custom_object(
        "postgresql.cnpg.io", "v1", target.namespace, "clusters", target.postgres
    )["spec"]
    if not spec.get("plugins"):
        raise target.absent("backups", backups.REPAIR)
    segment = _sql(
        target,
        primary,
        "select pg_walfile_name(pg_current_wal_lsn() - setting::bigint) from pg_settings"
        " where name = 'wal_segment_size'",
    )
    wait(
        lambda: _sql(target, primary, "select last_archived_wal from pg_stat_archiver") >= segment,
        60,
        lambda: f"segment {segment} does not reach the object store",
        f"kubectl logs --namespace {target.namespace} {primary} --container plugin-barman-cloud",
    )
    return f"segment {segment} lies in the object store"


def replication(target: Target) -> str:
    """Every replica of PostgreSQL has applied what the primary has written."""
    target.has_its_database("its owner replicates it")
    primary, replicas = _instances(target)
    if not replicas:
        raise Failed("there is no replica", f"kubectl get pods --namespace {target.namespace}")
    written = _sql(target, primary, "select pg_current_wal_lsn()")
    for replica in replicas:
        wait(
            lambda pod=replica: _sql(target, pod, f"select pg_last_wal_replay_lsn() >= '{written}'") == "t",  # type: ignore[misc]
            20,
            lambda pod=replica: f"{pod} has not applied {written}",  # type: ignore[misc]
            f"kubectl logs --namespace {target.namespace} {replica}",
        )
    return f"{', '.join(replicas)} at {written} or later"


@intrusive("adds a quote to the application's database and deletes it again")
def row_on_replicas(target: Target) -> str:
    """A quote that is added through the public API is read from every replica of PostgreSQL."""
    target.has_its_database("its owner replicates it, and nobody here could delete the row")
    word = f"verify {uuid.uuid4().hex}"
    with target.http(target.addresses[-1]) as http:
        answer = target.ask(http, "POST", "/api/quotes", json={"text": word, "author": "verify"})
        if answer.status_code != 201:
            logs = f"kubectl logs --namespace {target.namespace} deployment/quote-app"
            raise Failed(f"adding a quote answers {answer.status_code}: {answer.text[:200]}", logs)
        number = int(answer.json()["id"])
    primary, replicas = _instances(target)
    if not replicas:
        raise Failed("there is no replica", f"kubectl get pods --namespace {target.namespace}")
    for replica in replicas:
        wait(
            lambda pod=replica: _sql(target, pod, f"select text from quotes where id = {number}") == word,  # type: ignore[misc] # noqa: S608
            20,
            lambda pod=replica: f"{pod} does not have the row",  # type: ignore[misc]
            f"kubectl logs --namespace {target.namespace} {replica}",
        )
    _sql(target, primary, f"delete from quotes where id = {number}")  # noqa: S608 (a number of our own)
    return f"row {number} on {', '.join(replicas)}"


@intrusive("restarts the application")
def rolling_update(target: Target) -> str:
    """The application is replaced, pod by pod, under constant requests: none fails."""
    stop, answers = threading.Event(), Counter[str]()

    def ask_on(address: str) -> None:
        pause = len(target.addresses) / ROLLOUT_RATE
        with target.http(address) as http:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    answers[str(target.ask(http, "GET", "/api/quotes/random").status_code)] += 1
                except httpx.HTTPError as error:
                    answers[type(error).__name__] += 1
                stop.wait(max(0, pause - (time.monotonic() - started)))

    now = datetime.now(UTC).isoformat()
    patch = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}}
    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask_on, address) for address in target.addresses]
        try:
            target.apps.patch_namespaced_deployment("quote-app", target.namespace, patch)

            def done() -> bool:
                found = target.apps.read_namespaced_deployment("quote-app", target.namespace)
                status, wanted = found.status, found.spec.replicas
                return bool(
                    status.observed_generation >= found.metadata.generation
                    and status.updated_replicas == status.available_replicas == status.replicas == wanted
                )

            wait(done, 180, lambda: "the new pods are not ready", f"kubectl get pods -n {target.namespace}")
            time.sleep(2)  # the last old pod's connections
        finally:
            stop.set()
    for future in asking:
        future.result()
    lost = {what: count for what, count in answers.items() if what != "200"}
    if lost or not answers:
        raise Failed(
            f"of {answers.total()} requests failed: {lost}", f"kubectl get events -n {target.namespace}"
        )
    return f"{answers.total()} requests, none lost"


@intrusive(f"sends up to {BURST} requests to the application")
def rate_limit(target: Target) -> str:
    """A burst over the limit is answered with 429 or 503."""
    deadline = time.monotonic() + 15
    left, lock, answers = [BURST], threading.Lock(), Counter[int]()

    def burst(_: int) -> None:
        with target.http(target.addresses[0]) as http:
            while time.monotonic() < deadline and not LIMITED & answers.keys():
                with lock:
                    left[0] -= 1
                    if left[0] < 0:
                        return
                answers[target.ask(http, "GET", "/api/quotes/random").status_code] += 1

    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(burst, range(16)))
    rate = answers.total() / (time.monotonic() - started)
    if LIMITED & answers.keys():
        code = next(iter(LIMITED & answers.keys()))
        return f"{code} after {answers.total()} requests at {rate:.0f}/s"
    if rate < 150:
        raise NotRun(f"this machine sends only {rate:.0f} requests a second, below the limit")
    raise Failed(f"{answers.total()} requests at {rate:.0f}/s, none refused", "kubectl describe ingress -A")


def node_figures(target: Target) -> str:
    """CPU and memory of every node can be asked for."""
    nodes = {node.metadata.name for node in target.core.list_node().items}

    def known() -> set[str]:
        try:
            answer = client.CustomObjectsApi(target.api).list_cluster_custom_object(
                "metrics.k8s.io", "v1beta1", "nodes"
            )
        except ApiException:
            return set()
        return {item["metadata"]["name"] for item in answer["items"]}

    hint = "kubectl logs --namespace kube-system deployment/metrics-server"
    wait(lambda: known() == nodes, 90, lambda: f"no figures of {', '.join(sorted(nodes - known()))}", hint)
    return f"{len(nodes)} nodes"


# --- secrets ----------------------------------------------------------------------------------------------

# What each status of its health says, where it is not well.
VAULT_STATES = {
    501: "is not initialised",
    503: "is sealed: what has credentials keeps them until they end, nobody gets new ones",
}


def vault(target: Target) -> str:
    """Every member of Vault answers and is open, one of them is active."""
    if not target.vaults:
        raise NotRun(target.left_out.get("secrets", "secrets do not come from Vault (secrets_backend)"))
    context = ssl.create_default_context(cadata=target.vault_ca or None)
    answers, wrong = {}, []
    with httpx.Client(verify=context, timeout=10) as http:
        for address in target.vaults:
            try:
                status = http.get(f"{address}/v1/sys/health", params={"standbyok": "true"}).status_code
            except httpx.HTTPError as error:
                wrong.append(f"{address} does not answer: {error}")
                continue
            answers[address] = http.get(f"{address}/v1/sys/leader").json() if status == 200 else {}
            if status != 200:
                wrong.append(f"{address} {VAULT_STATES.get(status, f'answers {status}')}")
    if wrong:
        raise Failed("; ".join(wrong), "ansible-playbook -i INVENTORY playbooks/vault.yml (docs/vault.md)")
    active = [address for address, answer in answers.items() if answer["is_self"]]
    if not active:
        raise Failed("no member is active", "journalctl --unit vault on each of them")
    return f"{len(answers)} open, {active[0]} is active"


def delivered_secret(target: Target) -> str:
    """The application's account was delivered in time, and the next one can be made."""
    objects = client.CustomObjectsApi(target.api)
    name = target.secret

    def found(group: str, version: str, kind: str) -> dict[str, Any] | None:
        try:
            return dict(objects.get_namespaced_custom_object(group, version, target.namespace, kind, name))
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    external = found("external-secrets.io", "v1", "externalsecrets")
    if not external:
        why = "secrets are not delivered by External Secrets Operator (secrets_delivery_method)"
        raise NotRun(target.left_out.get("secrets", why))
    hint = f"kubectl describe externalsecret {name} --namespace {target.namespace} (docs/vault.md)"
    status = external.get("status", {})
    ready: dict[str, str] = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {})
    since = status.get("refreshTime")
    if ready.get("status") != "True" or not since:
        raise Failed(f"{name}: {ready.get('message', 'nobody has looked at it')}; last of {since}", hint)
    hours = int(re.match(r"(\d+)h", external["spec"]["refreshInterval"])[1])  # type: ignore[index]
    age = datetime.now(UTC) - datetime.fromisoformat(since)
    if age > timedelta(hours=hours + 1):
        raise Failed(f"{name}: the last one is of {since}, every {hours} h one is due", hint)
    generator = found("generators.external-secrets.io", "v1alpha1", "vaultdynamicsecrets")
    if generator:
        known = generator["metadata"]["annotations"]["quote-platform/database-authority"]
        data = target.core.read_namespaced_secret(f"{target.postgres}-authority", target.namespace).data
        now = hashlib.sha256(base64.b64decode(data["ca.crt"]).strip()).hexdigest()
        if known != now:
            raise Failed(
                "PostgreSQL has another authority than Vault knows: the next account cannot be made",
                "ansible-playbook -i INVENTORY playbooks/platform.yml",
            )
    return f"{name} of {since}"


def admission(target: Target) -> str:
    """A pod of an image that nobody has allowed is refused in the application's namespace."""
    bindings = client.AdmissionregistrationV1Api(target.api).list_validating_admission_policy_binding(
        label_selector="app.kubernetes.io/name=admission"
    )
    if not bindings.items:
        raise target.absent("admission", "ansible-playbook -i INVENTORY playbooks/platform.yml")
    refusing = [one.metadata.name for one in bindings.items if "Deny" in one.spec.validation_actions]
    if not {"quote-platform-registry", "quote-platform-latest"} & set(refusing):
        raise NotRun("its policies of images only warn or record (admission_action)")
    # By none of the others' fault: it is what the restricted level admits, and requests something.
    container = {
        "name": "main",
        "image": "registry.invalid/nobody/allowed",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    body = {
        "metadata": {"generateName": "verify-"},
        "spec": {"containers": [container], "securityContext": security},
    }
    try:
        target.core.create_namespaced_pod(target.namespace, body, dry_run="All")
    except ApiException as error:
        if error.status == 422 and "ValidatingAdmissionPolicy 'quote-platform-" in str(error.body):
            return f"{len(refusing)} of {len(bindings.items)} policies refuse"
        raise
    hint = "kubectl get validatingadmissionpolicybinding (docs/admission.md)"
    raise Failed(f"a pod of any image is let into {target.namespace}", hint)


# Lists run side by side, the checks of a list one after the other.
LANES: list[list[tuple[str, CheckFunction]]] = [
    [
        ("nodes", nodes_ready),
        ("pod to pod", pod_to_pod),
        ("service address", service_address),
        ("names", names_resolve),
        ("network policy", network_policy),
    ],
    [
        ("certificates", certificates),
        ("volume", volume_keeps_data),
        ("node figures", node_figures),
        ("vault", vault),
        ("delivered secret", delivered_secret),
        ("admission", admission),
        ("logs", logs),
    ],
    [
        ("base backup", backups.base_backup),
        ("dump", backups.dump),
        ("etcd snapshot", backups.snapshot),
        ("namespace backup", backups.namespaces),
        ("metrics", metrics.metrics),
        ("alerts", metrics.alerts),
    ],
    [
        ("TLS", tls),
        ("replication", replication),
        ("row on replicas", row_on_replicas),
        ("archive", archive),
        ("rolling update", rolling_update),
        ("rate limit", rate_limit),
    ],
]
