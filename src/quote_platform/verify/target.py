"""The platform that is verified: its API server, its address, pods to look around from."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import yaml
from kubernetes import client
from kubernetes.client import ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from quote_platform.kubeconfig import Unusable, connect

PROBE_PORT = 8080
LABEL = "quote-platform.verify"


class Seen(NamedTuple):
    """What a check has seen that passed, and the moment that it is about."""

    detail: str
    moment: datetime


class Failed(Exception):
    """A function does not work; the text says how, `next_command` where to look."""

    def __init__(self, text: str, next_command: str = "", moment: datetime | None = None) -> None:
        super().__init__(text)
        self.next_command, self.moment = next_command, moment


class Unheard(Failed):
    """A command did not come to run; the next try may."""


class NotRun(Exception):
    """A check has nothing to work on here; the text says why."""


@dataclass
class Target:
    """A platform, and what is expected of it."""

    kubeconfig: str
    version: str
    host: str
    addresses: list[str]
    image: str
    # How users judge the application's certificate: authorities as PEM, `public`, or empty where nobody can.
    authority: str = ""
    servers: list[str] = field(default_factory=list)  # other TLS servers of the platform, host:port
    nodes: dict[str, str] = field(default_factory=dict)  # node -> address by which it is reached from here
    certificate_days: int = 21
    # Where each part lies: application (with its database), logging, monitoring, snapshots, velero.
    namespaces: dict[str, str] = field(default_factory=dict)
    domain: str = ""  # of the cluster's names
    postgres: str = "postgres"  # the Cluster of the application's database, and below the database itself
    database: str = ""
    outside: bool = False  # whether PostgreSQL is outside of the cluster
    secret: str = ""  # the Secret, and ExternalSecret, with the application's account
    intrusive: bool = False  # whether checks may run that users may notice
    known_alerts: list[str] = field(default_factory=list)  # may fire
    vaults: list[str] = field(default_factory=list)
    vault_ca: str = ""
    left_out: dict[str, str] = field(default_factory=dict)  # component -> why it is not installed

    def __post_init__(self) -> None:
        try:
            self.api = connect(self.kubeconfig)
        except Unusable as error:
            raise Failed(str(error)) from error
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.network = client.NetworkingV1Api(self.api)
        self.scratch = f"quote-verify-{uuid.uuid4().hex[:6]}"

    @property
    def namespace(self) -> str:
        """Return the namespace of the application and its database."""
        return self.namespaces["application"]

    def absent(self, component: str, next_command: str) -> Exception:
        """Judge a component that is not there: left out by choice or for want of it, or else missing."""
        if component in self.left_out:
            return NotRun(self.left_out[component])
        return Failed(f"{component} should be installed and is not", next_command)

    # --- a namespace of our own ---------------------------------------------------------------------

    def has_its_database(self, else_so: str) -> None:
        """Raise NotRun where PostgreSQL is outside of the cluster: what its owner does is not judged here."""
        if self.outside:
            raise NotRun(f"PostgreSQL is outside of the cluster (database: external): {else_so}")

    def open(self) -> None:
        """Make the namespace for the checks' objects; it is held to the strictest level like any other."""
        level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        body = {"metadata": {"name": self.scratch, "labels": level | {LABEL: "true"}}}
        self.core.create_namespace(body)

    def close(self) -> None:
        """Delete what the checks made, also what a run that was killed an hour ago left."""
        for namespace in self.core.list_namespace(label_selector=f"{LABEL}=true").items:
            age = datetime.now(UTC) - namespace.metadata.creation_timestamp
            if namespace.metadata.name != self.scratch and age < timedelta(hours=1):
                continue  # another run's
            try:
                self.core.delete_namespace(namespace.metadata.name)
            except ApiException as error:
                if error.status not in {404, 409}:
                    raise
        for pod in self.core.list_pod_for_all_namespaces(label_selector=f"{LABEL}=true").items:
            if datetime.now(UTC) - pod.metadata.creation_timestamp > timedelta(hours=1):
                self.core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace)

    # --- pods ---------------------------------------------------------------------------------------

    def create_pod(self, name: str, arguments: list[str], **spec: Any) -> None:
        """Create a pod that the restricted level admits."""
        container = {
            "name": "main",
            "image": self.image,
            "args": arguments,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            **spec.pop("container", {}),
        }
        body = {
            "metadata": {"name": name, "labels": {"app": "probe", "probe": name}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "fsGroup": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                **spec,
            },
        }
        self.core.create_namespaced_pod(self.scratch, body)

    def wait_ready(self, names: list[str], seconds: int = 120) -> dict[str, str]:
        """Wait until pods are ready; return their addresses."""
        found: dict[str, str] = {}

        def ready() -> bool:
            for name in names:
                pod = self.core.read_namespaced_pod(name, self.scratch)
                conditions = pod.status.conditions or []
                if any(item.type == "Ready" and item.status == "True" for item in conditions):
                    found[name] = pod.status.pod_ip
            return len(found) == len(names)

        missing = "kubectl describe pods --namespace " + self.scratch
        wait(ready, seconds, lambda: f"pods are not ready: {', '.join(set(names) - set(found))}", missing)
        return found

    # A node's serving certificate may still wait for its approval.
    @retry(
        stop=stop_after_delay(60), wait=wait_fixed(2), retry=retry_if_exception_type(Unheard), reraise=True
    )
    def execute(self, pod: str, *command: str, namespace: str = "", container: str = "main") -> str:
        """Run a command in a pod and return what it prints; errors of the command are printed too."""
        # A stream turns its client into one for web sockets while it lasts, so each has its own.
        own = client.CoreV1Api(connect(self.kubeconfig))
        session = stream(
            own.connect_get_namespaced_pod_exec,
            pod,
            namespace or self.scratch,
            container=container,
            command=list(command),
            stderr=True,
            stdin=False,
            stdout=True,
            tty=False,
            _preload_content=False,
        )
        session.run_forever(timeout=120)
        # What the API server or the node says when it could not run the command at all.
        ended = yaml.safe_load(session.read_channel(ERROR_CHANNEL) or "{}")
        output = str(session.read_all())
        session.close()
        if ended.get("status") != "Success" and ended.get("reason") != "NonZeroExitCode":
            node = self.core.read_namespaced_pod(pod, namespace or self.scratch).spec.node_name
            why = ended.get("message") or "the connection broke off"
            raise Unheard(f"{pod} on {node} runs no command: {why}", f"kubectl get csr; journalctl on {node}")
        return output

    def run_once(self, namespace: str, template: Any) -> str:
        """Run a pod of a template to its end and return what it prints; it goes away again."""
        labels = template.metadata.labels | {LABEL: "true"}
        metadata = client.V1ObjectMeta(generate_name="verify-", labels=labels)
        body = client.V1Pod(metadata=metadata, spec=template.spec)
        pod = self.core.create_namespaced_pod(namespace, body).metadata.name

        def phase() -> str:
            return str(self.core.read_namespaced_pod(pod, namespace).status.phase)

        try:
            hint = f"kubectl --namespace {namespace} get pods"
            wait(lambda: phase() in {"Succeeded", "Failed"}, 60, lambda: f"the pod {pod} does not end", hint)
            # As it is: the client would take JSON apart.
            log = self.core.read_namespaced_pod_log(pod, namespace, _preload_content=False)
            output = str(log.data, "utf-8")
            if phase() == "Failed":
                raise Failed(f"the store cannot be asked: {output.strip()[-300:]}", hint)
        finally:
            self.core.delete_namespaced_pod(pod, namespace)
        return output

    def connects(self, pod: str, *targets: str, seconds: int = 3) -> dict[str, str]:
        """Try to reach host:port from a pod; return the error of each that cannot be reached."""
        script = "; ".join(
            f'out=$(/agnhost connect {target} --timeout={seconds}s 2>&1) && echo "{target} ok" '
            f'|| echo "{target} $out"'
            for target in targets
        )
        output = self.execute(pod, "sh", "-c", script)
        answers = dict(line.split(" ", 1) for line in output.splitlines() if " " in line)
        nothing = f"no answer: {output.strip()[-200:]!r}"
        return {name: answers.get(name, nothing) for name in targets if answers.get(name) != "ok"}

    # --- the application's address ------------------------------------------------------------------

    def http(self, address: str) -> httpx.Client:
        """Return a client that asks one address for the application's host; TLS itself has its own check."""
        return httpx.Client(
            base_url=f"https://{address}",
            headers={"Host": self.host},
            verify=False,  # noqa: S501 (a self-signed certificate is expected; see the check "TLS")
            timeout=10,
        )

    def ask(self, http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the application's name in the TLS greeting."""
        return http.request(method, path, extensions={"sni_hostname": self.host}, **options)


def wait(done: Callable[[], bool], seconds: float, text: Callable[[], str], next_command: str = "") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Failed(f"{text()} after {seconds:.0f} s", next_command)
        time.sleep(0.5)
