"""Alerts: each is made to fire by its fault, arrives over its channel, and is over when the fault is.

They wait for minutes before they fire, so this belongs to `make proof`. Alone, and some of them by name:
`E2E_ALERTS=NodeDown,EtcdSlow pytest tests/e2e -x -s -k 'converge or alerts'`. It writes the table of
docs/alerts.md to reports/alerts.md.
"""

import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from quote_platform.jobs import metrics

from .conftest import GATEWAY, NAME, ROOT, Eventually, Lab, ask, primary_of, repeated, replica_of, sql, writer

WANTED = set(os.environ.get("E2E_ALERTS", "").split(",")) - {""}  # all without any
RULES = {
    rule["alert"]: rule
    for file in (ROOT / "roles/monitoring/files/alerts").glob("*.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
}
LAB = yaml.safe_load((ROOT / "inventories/lab/group_vars/platform/lab.yml").read_text())
KNOWN = set(LAB["verify_known_alerts"])  # of the host, whose processors all nodes report
FIRING = 'ALERTS{alertstate="firing"}'
IMAGE = "docker.io/library/busybox:1.37.0"
SPACE = "drill"
PKI, MANIFESTS = "/etc/kubernetes/pki", "/etc/kubernetes/manifests"
Objects = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """Something that breaks, and the alerts that tell of it."""

    make: Callable[[Lab], AbstractContextManager[None]]
    alerts: tuple[str, ...]
    part: int

    @property
    def text(self) -> str:
        return str(self.make.__doc__).rstrip(".")


FAULTS: list[Fault] = []


def fault(*alerts: str, part: int = 0) -> Callable[..., Any]:
    """Register a fault. Those of one part go on side by side; part 0 is beside all the others."""

    def register(make: Callable[[Lab], Iterator[None]]) -> Callable[[Lab], Iterator[None]]:
        FAULTS.append(Fault(contextmanager(make), alerts, part))
        return make

    return register


def apply(lab: Lab, *objects: Objects) -> None:
    for space in {space_of(one) for one in objects}:
        items = [one for one in objects if space_of(one) == space]
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        lab.kubectl(f"apply -n {space} -f - <<'EOF'\n{given}\nEOF")


def space_of(one: Objects) -> str:
    return str(one["metadata"].get("namespace", SPACE))


@contextmanager
def applied(lab: Lab, *objects: Objects) -> Iterator[None]:
    apply(lab, *objects)
    try:
        yield
    finally:
        for one in objects:
            space = space_of(one)
            kind = f"{one['kind']}.{one['apiVersion'].rpartition('/')[0]}".rstrip(".")
            lab.kubectl(f"delete {kind} -n {space} {one['metadata']['name']} --wait=false --grace-period=1")


def pod(name: str, script: str, **container: Any) -> Objects:
    main = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script], **container}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [main]}}


def deployment(name: str, **container: Any) -> Objects:
    labels = {"app": name}
    spec = pod(name, "while :; do :; done", **container)["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def node_of(lab: Lab, space: str, name: str) -> str:
    return lab.kubectl(f"get pod -n {space} {name} -o jsonpath={{.spec.nodeName}}").strip()


@contextmanager
def program(*command: str) -> Iterator[None]:
    """Run something on this machine, the first to be killed when memory is short."""
    with subprocess.Popen(["choom", "--adjust", "1000", "--", *command]) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def moved(lab: Lab, manifest: str) -> Iterator[None]:
    """Stop a part of the control plane."""
    lab.ssh("master-1", f"mv {MANIFESTS}/{manifest}.yaml /root/")
    try:
        yield
    finally:
        lab.ssh("master-1", f"mv /root/{manifest}.yaml {MANIFESTS}/")


Signed = tuple[str, str]  # certificate and key, as PEM


def signed(
    by: Signed | None, days: float, names: dict[x509.ObjectIdentifier, str], address: str = ""
) -> Signed:
    """Return a certificate that ends in so many days: by an authority, or by itself."""
    key, usage = ec.generate_private_key(ec.SECP256R1()), ExtendedKeyUsageOID
    subject = x509.Name([x509.NameAttribute(kind, value) for kind, value in names.items()])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.load_pem_x509_certificate(by[0].encode()).subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3) if days < 0 else now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.ExtendedKeyUsage([usage.CLIENT_AUTH, usage.SERVER_AUTH]),
            critical=False,
        )
    )
    if address:
        name = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        builder = builder.add_extension(name, critical=False)
    signer = serialization.load_pem_private_key(by[1].encode(), None) if by else key
    made = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), text.decode()


def load(context: ssl.SSLContext, pair: Signed) -> None:
    """Have TLS use a certificate; it reads files only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write("".join(pair))
        file.flush()
        context.load_cert_chain(file.name)


def cluster_authority(lab: Lab) -> Signed:
    return lab.ssh("master-1", f"cat {PKI}/ca.crt"), lab.ssh("master-1", f"cat {PKI}/ca.key")


@contextmanager
def disk(lab: Lab, node: str, name: str, script: str) -> Iterator[None]:
    """Mount a small disk on a node, give it to a pod as a volume as well, and fill it."""
    place = f"/mnt/{SPACE}-{name}"
    lab.ssh(
        node,
        f"set -e; mkdir -p {place}; truncate -s 64M {place}.img; mkfs.ext4 -q -m 0 {place}.img;"
        f" mount -o loop {place}.img {place}; rm -d {place}/lost+found",
    )
    host = {"key": "kubernetes.io/hostname", "operator": "In", "values": [f"{NAME}-{node}"]}
    access = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{SPACE}-{name}"},
        "spec": {
            **access,
            "capacity": {"storage": "64Mi"},
            "local": {"path": place},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            **access,
            "volumeName": f"{SPACE}-{name}",
            "resources": {"requests": {"storage": "64Mi"}},
        },
    }
    user = pod(f"disk-{name}", script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    user["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
    try:
        with applied(lab, volume, claim, user):
            yield
        lab.kubectl(f"wait -n {SPACE} --for=delete pod/disk-{name} --timeout=60s", check=False)
    finally:
        lab.ssh(node, f"umount {place}; rm -rf {place} {place}.img")


@fault("PodCrashLooping")
def crash(lab: Lab) -> Iterator[None]:
    """A pod ends as soon as it has started."""
    with applied(lab, pod("crash", "exit 1")):
        yield


@fault("WorkloadNotAvailable")
def never_ready(lab: Lab) -> Iterator[None]:
    """A Deployment's pod never becomes ready."""
    probe = {"exec": {"command": ["false"]}}
    with applied(lab, deployment("never-ready", command=["sleep", "86400"], readinessProbe=probe)):
        yield


@fault("ContainerMemoryHigh")
def hungry(lab: Lab) -> Iterator[None]:
    """A container uses most of the memory that it may have."""
    script = "dd if=/dev/zero of=/dev/shm/much bs=1M count=60; sleep 86400"
    with applied(lab, pod("hungry", script, resources={"limits": {"memory": "64Mi"}})):
        yield


@fault("AutoscalerAtMaximum")
def busy(lab: Lab) -> Iterator[None]:
    """A Deployment has more load than its autoscaler may answer with pods."""
    resources = {"requests": {"cpu": "1m"}, "limits": {"cpu": "20m"}}
    target = {"type": "Utilization", "averageUtilization": 1}
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": {
            "minReplicas": 1,
            "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
    with applied(lab, deployment("busy", resources=resources), scaler):
        yield


@fault("TargetDown", "MonitoringLimitHit")
def flood(lab: Lab) -> Iterator[None]:
    """A target has more samples than its limit."""
    script = (
        "mkdir /tmp/www; seq 60000 | sed 's/.*/flood{user=\"&\"} 1/' > /tmp/www/metrics;"
        " exec busybox httpd -f -p 8085 -h /tmp/www"
    )
    found = pod("flood", script, ports=[{"name": "metrics", "containerPort": 8085}])
    found["metadata"] |= {"namespace": "velero", "labels": {"app.kubernetes.io/name": "velero"}}
    with applied(lab, found):
        yield


def of_monitoring(kind: str, name: str, spec: Objects) -> Objects:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": {"name": f"{SPACE}-{name}", "namespace": "monitoring"},
        "spec": spec,
    }


@fault("MonitoringObjectRejected")
def wrong_monitor(lab: Lab) -> Iterator[None]:
    """A PodMonitor has an invalid regular expression."""
    endpoint = {"port": "metrics", "relabelings": [{"action": "keep", "regex": "("}]}
    with applied(
        lab, of_monitoring("PodMonitor", "wrong", {"selector": {}, "podMetricsEndpoints": [endpoint]})
    ):
        yield


@fault("RuleFailing")
def wrong_rule(lab: Lab) -> Iterator[None]:
    """A rule joins what cannot be joined."""
    rule = {"record": "drill:up", "expr": "up * on () up"}
    with applied(
        lab, of_monitoring("PrometheusRule", "wrong", {"groups": [{"name": SPACE, "rules": [rule]}]})
    ):
        yield


@fault("MonitoringReloadFailed")
def wrong_template(lab: Lab) -> Iterator[None]:
    """Alertmanager is given a template that it cannot read."""
    secret = "secret -n monitoring alertmanager-configuration"  # noqa: S105
    right = lab.kubectl(f'get {secret} -o "jsonpath={{.data.notifications\\.tmpl}}"').strip()

    def write(text: str) -> None:
        patch = json.dumps({"data": {"notifications.tmpl": text}})
        lab.kubectl(f"patch {secret} --type=merge --patch '{patch}'")

    write("e3sgZGVmaW5lIH19")  # {{ define }}
    try:
        yield
    finally:
        write(right)


@fault("CertificateNotRenewed")
def no_issuer(lab: Lab) -> Iterator[None]:
    """The issuer of a certificate that has ended is gone."""
    certificate, key = signed(None, -1, {x509.NameOID.COMMON_NAME: "old.example.com"})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "old"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    }
    wanted = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "old"},
        "spec": {"secretName": "old", "dnsNames": ["old.example.com"], "issuerRef": {"name": "gone"}},
    }
    with applied(lab, secret, wanted):
        yield


class Nothing(BaseHTTPRequestHandler):
    """Answers, and has nothing to say."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@fault("ServedCertificateNearEnd", "PostgresCertificateNearEnd")
def short_served(lab: Lab) -> Iterator[None]:
    """A server outside of the cluster, also as a database, shows a certificate that ends in three days."""
    folder = ROOT / "secrets" / NAME / "certificates"
    authority = (folder / "authority.crt").read_text(), (folder / "authority.key").read_text()
    pair = signed(authority, 3, {x509.NameOID.COMMON_NAME: "drill"}, GATEWAY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, pair)
    server = ThreadingHTTPServer((GATEWAY, 443), Nothing)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    targets = {"staticConfig": {"static": [f"https://{GATEWAY}:443/"]}}
    prober = {"url": "blackbox.monitoring.svc:9115", "path": "/probe"}
    spec = {"jobName": SPACE, "prober": prober, "module": "probes", "targets": targets}
    probes = [of_monitoring("Probe", f"short-{job}", spec | {"jobName": job}) for job in (SPACE, "database")]
    try:
        with applied(lab, *probes):
            yield
    finally:
        server.shutdown()
        server.server_close()


@fault("ControlPlaneCertificateNearEnd")
def short_client(lab: Lab) -> Iterator[None]:
    """Somebody asks the API server with a certificate that ends in three days."""
    pair = signed(cluster_authority(lab), 3, {x509.NameOID.COMMON_NAME: "drill"})
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    load(context, pair)
    with httpx.Client(verify=context, base_url="https://10.89.43.11:6443") as http:

        def ask_it() -> None:
            http.get("/version")

        with repeated(ask_it, 0.2):
            yield


@fault("KubeletCertificateNearEnd")
def short_kubelet(lab: Lab) -> Iterator[None]:
    """A kubelet has a certificate that ends in three days."""
    names = {
        x509.NameOID.ORGANIZATION_NAME: "system:nodes",
        x509.NameOID.COMMON_NAME: f"system:node:{NAME}-worker-1",
    }
    pair = "".join(signed(cluster_authority(lab), 3, names))
    folder = "/var/lib/kubelet/pki"
    before = lab.ssh("worker-1", f"readlink {folder}/kubelet-client-current.pem").strip()

    def use(file: str) -> None:
        lab.ssh("worker-1", f"ln -sf {file} {folder}/kubelet-client-current.pem; systemctl restart kubelet")

    lab.ssh("worker-1", f"umask 077; cat > {folder}/kubelet-client-drill.pem <<'EOF'\n{pair}\nEOF")
    use(f"{folder}/kubelet-client-drill.pem")
    try:
        yield
    finally:
        use(before)
        lab.ssh("worker-1", f"rm {folder}/kubelet-client-drill.pem")


@fault("NodePressure")
def pressure(lab: Lab) -> Iterator[None]:
    """A node has fewer processes left than its kubelet wants."""
    config = "/var/lib/kubelet/config.yaml"
    soft = 'evictionSoft: {pid.available: "99.999%"}\nevictionSoftGracePeriod: {pid.available: 2h}'
    lab.ssh(
        "master-1",
        f"cp -p {config} /root/; cat >> {config} <<'EOF'\n{soft}\nEOF\nsystemctl restart kubelet",
    )
    try:
        yield
    finally:
        lab.ssh("master-1", f"mv /root/config.yaml {config}; systemctl restart kubelet")


@fault("NodeDiskFull", "VolumeFull")
def full(lab: Lab) -> Iterator[None]:
    """A disk is full."""
    with disk(lab, "worker-1", "full", "dd if=/dev/zero of=/data/much bs=1M; sleep 86400"):
        yield


@fault("NodeDiskFilling", "VolumeFilling")
def filling(lab: Lab) -> Iterator[None]:
    """A disk fills, and will be full within hours."""
    # 55 MiB: from 9.5 % left to 5.5 % in a quarter of an hour.
    more = "while :; do sleep 30; dd if=/dev/zero bs=1k count=64; done >> /data/much"
    with disk(lab, "worker-2", "filling", f"dd if=/dev/zero of=/data/much bs=1k count=50700; {more}"):
        yield


@fault("NodeCpuHigh")
def hot(lab: Lab) -> Iterator[None]:
    """All processors of a machine are busy."""
    burn = (sys.executable, "-c", "while True: pass")
    with program("nice", "-n", "19", *burn), program("nice", "-n", "19", *burn):
        yield


@fault("PostgresReplicationLag", part=1)
def behind(lab: Lab) -> Iterator[None]:
    """A replica does not apply what the primary writes."""
    replica = replica_of(lab)
    sql(lab, "select pg_wal_replay_pause()", replica)
    try:
        with writer(lab, "lag"):
            yield
    finally:
        sql(lab, "select pg_wal_replay_resume()", replica)


@fault("PostgresConnectionsHigh", part=1)
def many_connections(lab: Lab) -> Iterator[None]:
    """Most connections of the database are taken."""
    primary = primary_of(lab)
    script = (
        "create extension if not exists dblink; "
        "select count(dblink_connect(chr(99) || g, chr(32))) "
        "from generate_series(1, (0.85 * current_setting($$max_connections$$)::int)::int) g; "
        "select pg_sleep(5000)"
    )
    kubectl = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
    lab.ssh(
        "master-1",
        f"nohup {kubectl} exec -n quote-lab {primary} -c postgres -- psql -d quotes -c '{script}'"
        " > /root/connections.log 2>&1 < /dev/null &",
    )
    try:
        yield
    finally:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(5000)'"
        sql(lab, end, primary)  # and with it goes the extension, made in the same transaction


@fault("BackupJobTooOld")
def suspended(lab: Lab) -> Iterator[None]:
    """Snapshots of etcd are suspended."""
    jobs = json.loads(lab.kubectl("get cronjob -A -o json"))["items"]
    space = next(job["metadata"]["namespace"] for job in jobs if job["metadata"]["name"] == "etcd-snapshot")

    def suspend(word: str) -> None:
        patch = f'{{"spec":{{"suspend":{word}}}}}'
        lab.kubectl(f"patch cronjob -n {space} etcd-snapshot --patch '{patch}'")

    suspend("true")
    try:
        yield
    finally:
        suspend("false")


@fault("NamespaceBackupTooOld")
def failed_backup(lab: Lab) -> Iterator[None]:
    """A scheduled backup of a namespace fails."""
    # Velero brings a backup's object back from the store, so a name is of one drill only.
    mark = uuid.uuid4().hex[:8]
    schedule = lab.kubectl("get schedules.velero.io -n velero -o jsonpath={.items[0].metadata.name}").strip()

    def back_up(name: str, **spec: Any) -> Objects:
        labels = {"velero.io/schedule-name": schedule}
        return {
            "apiVersion": "velero.io/v1",
            "kind": "Backup",
            "metadata": {"name": f"{SPACE}-{name}-{mark}", "namespace": "velero", "labels": labels},
            "spec": {"includedNamespaces": [SPACE], "includedResources": ["pods"], "ttl": "1h", **spec},
        }

    command = {"container": "main", "command": ["/bin/false"], "onError": "Fail"}
    hook = {"name": "fail", "includedNamespaces": [SPACE], "pre": [{"exec": command}]}
    with applied(lab, pod("still", "sleep 86400")):
        lab.kubectl(f"wait -n {SPACE} --for=condition=Ready pod/still --timeout=120s")
        apply(lab, back_up("failing", hooks={"resources": [hook]}))
        try:
            yield
        finally:
            apply(lab, back_up("working"))


@fault("BaseBackupTooOld")
def old_backup(lab: Lab) -> Iterator[None]:
    """The last base backup is two days old, by what is recorded of the archive."""
    what = "objectstore.barmancloud.cnpg.io -n quote-lab postgres"
    status = json.loads(lab.kubectl(f"get {what} -o jsonpath={{.status}}"))

    def record(moment: str) -> None:
        windows = {server: {"lastSuccessfulBackupTime": moment} for server in status["serverRecoveryWindow"]}
        patch = json.dumps({"status": {"serverRecoveryWindow": windows}})
        lab.kubectl(f"patch {what} --subresource=status --type=merge --patch '{patch}'")

    record(f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}")
    try:
        yield
    finally:
        (window,) = status["serverRecoveryWindow"].values()
        record(window["lastSuccessfulBackupTime"])


@fault("PostgresRestoreSlow")
def many_segments(lab: Lab) -> Iterator[None]:
    """Ten thousand segments of the log are archived since the last base backup, by the figures of a pod."""
    recovery, archived, backup = (
        "cnpg_pg_replication_in_recovery",
        "cnpg_pg_stat_archiver_last_archived_wal_start_lsn",
        "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
    )
    # What is told within ten minutes after the base backup is where they are counted from.
    figures = rf"{recovery} 0\n{backup} %s\n{archived} %s\n"
    script = (
        f"mkdir /tmp/www; told() {{ printf '{figures}' $since $1 > /tmp/www/metrics; }};"
        " since=$(($(date +%s) - 240)); told 1; (sleep 400; told $((40 * 4294967296))) &"
        " exec busybox httpd -f -p 8085 -h /tmp/www"
    )
    found = pod("segments", script, ports=[{"name": "metrics", "containerPort": 8085}])
    found["metadata"] |= {"namespace": "velero", "labels": {"app.kubernetes.io/name": "velero"}}
    with applied(lab, found):
        time.sleep(400)
        yield


@fault("HighLatency", part=1)
def slow(lab: Lab) -> Iterator[None]:
    """Every write takes the database most of a second."""
    check = "check (pg_sleep(0.7)::text = '') not valid"
    sql(lab, f"alter table quotes add constraint slow {check}")
    try:
        with writer(lab, "slow"):
            yield
    finally:
        sql(lab, "alter table quotes drop constraint slow")


@fault("SecretNotDelivered")
def no_generator(lab: Lab) -> Iterator[None]:
    """An ExternalSecret asks a generator that is not there."""
    generator = {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "VaultDynamicSecret",
        "name": "gone",
    }
    wanted = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": SPACE, "namespace": "quote-lab"},  # the only one that the operator looks at
        "spec": {"target": {"name": SPACE}, "dataFrom": [{"sourceRef": {"generatorRef": generator}}]},
    }
    with applied(lab, wanted):
        yield


JOBS = "configmap quote-platform-jobs -n monitoring"


def job(lab: Lab, *arguments: str) -> Objects:
    """Run a job; return its record."""
    words = ("quote-platform", "job", "run", *arguments, "-i", f"inventories/{lab.name}", "--json")
    found: Objects = json.loads(lab.command(*words, check=False, seconds=1200))
    return found


@fault("JobFailed")
def failed_job(lab: Lab) -> Iterator[None]:
    """A job runs out of time."""
    record = job(lab, "verify", "--timeout", "1s")
    assert record["state"] == "out of time"
    assert not [note for note in record["notes"] if "metrics" in note], record["notes"]
    try:
        yield
    finally:
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write("verify_only: [nodes]\n")
            file.flush()
            assert job(lab, "verify", "-e", f"@{file.name}")["state"] == "done"


@fault("JobOverdue", "DriftFound")
def overdue_job(lab: Lab) -> Iterator[None]:
    """A daily job has found drift two days ago and not run since, by what is recorded of it."""
    since = time.time() - 2 * 86400
    figures = metrics.update({}, 86400, since)
    figures |= {"last_success_timestamp_seconds": since, "drift_found": 2}
    text = metrics.write(figures, SPACE, lab.name)
    lab.kubectl(f"create {JOBS}", check=False)  # or a job has
    lab.kubectl(f"patch {JOBS} -p '{json.dumps({'data': {f'{SPACE}.prom': text}})}'")
    try:
        yield
    finally:
        lab.kubectl(f"patch {JOBS} -p '{json.dumps({'data': {f'{SPACE}.prom': None}})}'")


@fault("LogsNotArriving")
def no_log_store(lab: Lab) -> Iterator[None]:
    """The store of logs is off."""
    with lab.stopped("logs"):
        yield


@fault("ControlPlaneDown", part=2)
def no_scheduler(lab: Lab) -> Iterator[None]:
    """The scheduler is gone."""
    with moved(lab, "kube-scheduler"):
        yield


@fault("VaultSealed", part=1)
def sealed(lab: Lab) -> Iterator[None]:
    """Vault was restarted and is sealed."""
    lab.ssh("vault-1", "systemctl restart vault")
    try:
        yield
    finally:
        lab.play("unsealing after the drill", "playbooks/vault.yml")


@fault("ProbeFailing", "PostgresArchiveFailing", part=2)
def no_store(lab: Lab) -> Iterator[None]:
    """The object store is off."""
    with lab.stopped("store-1"), writer(lab, "store"):
        yield


@fault("PostgresArchiveBehind", part=3)
def much_written(lab: Lab) -> Iterator[None]:
    """More is written than the archive takes."""
    # Files of the log are closed as long as few wait, for half a minute each time.
    script = (
        "do 'begin for i in 1..150 loop"
        " if (select count(*) < 15 from pg_ls_archive_statusdir() where name like ''%.ready'') then"
        " perform pg_logical_emit_message(false, ''drill'', ''much''), pg_switch_wal(); end if;"
        " perform pg_sleep(0.2); end loop; end'"
    )
    primary = primary_of(lab)
    with repeated(lambda: sql(lab, script, primary), 0):
        yield


@fault("PublicUrlDown", "HighErrorRate", part=3)
def no_table(lab: Lab) -> Iterator[None]:
    """The application's table is gone."""
    sql(lab, "alter table quotes rename to away")
    try:
        with lab.requests(lab.workers):
            yield
    finally:
        sql(lab, "alter table away rename to quotes")


@contextmanager
def fenced(lab: Lab, instances: str) -> Iterator[None]:
    """Have the operator stop instances of PostgreSQL, and leave it at that."""
    what = "cluster.postgresql.cnpg.io -n quote-lab postgres"
    lab.kubectl(f"annotate {what} cnpg.io/fencedInstances='{instances}'")
    try:
        yield
    finally:
        lab.kubectl(f"annotate {what} cnpg.io/fencedInstances-")


@fault("PostgresInstanceMissing", part=2)
def one_fenced(lab: Lab) -> Iterator[None]:
    """An instance of PostgreSQL is stopped."""
    with fenced(lab, f'["{replica_of(lab)}"]'):
        yield


@fault("PostgresNoPrimary", part=4)
def all_fenced(lab: Lab) -> Iterator[None]:
    """All of PostgreSQL is stopped."""
    with fenced(lab, '["*"]'):
        yield


@fault("NotificationsFailing", part=5)
def no_slack(lab: Lab) -> Iterator[None]:
    """Slack takes no messages."""
    lab.receiver.broken.add("slack")
    try:
        yield from flood(lab)
    finally:
        lab.receiver.broken.clear()


@fault("NodeMemoryLow", part=9)
def no_memory(lab: Lab) -> Iterator[None]:
    """A machine has little memory left."""
    # Alone, and with no more than it takes: it is every node's memory, and that of all caches of files,
    # without which nothing answers any more.
    script = """
import psutil, time
taken = []
while memory := psutil.virtual_memory():
    if memory.available > 0.097 * memory.total:
        taken.append(b"1" * (16 << 20))
    elif memory.available < 0.09 * memory.total and taken:
        taken.pop()
    else:
        time.sleep(1)
"""
    with program(sys.executable, "-c", script):
        yield


@fault("EtcdSpaceLow", part=5)
def small_quota(lab: Lab) -> Iterator[None]:
    """etcd may take little more room than it does."""
    size = float(ask(lab, "etcd_mvcc_db_total_size_in_bytes")[0]["value"][1])
    option = f"    - --quota-backend-bytes={int(size * 1.2)}"
    lab.ssh(
        "master-1",
        f"cp -p {MANIFESTS}/etcd.yaml /root/etcd-before.yaml;"
        f" sed '/^    - etcd$/a\\{option}' /root/etcd-before.yaml > /root/etcd.yaml;"
        f" chmod 600 /root/etcd.yaml; mv /root/etcd.yaml {MANIFESTS}/",
    )
    try:
        yield
    finally:
        lab.ssh("master-1", f"mv /root/etcd-before.yaml {MANIFESTS}/etcd.yaml")


@fault("EtcdSlow", part=8)
def slow_disk(lab: Lab) -> Iterator[None]:
    """etcd's disk takes three writes a second."""
    # In version 1 of control groups, then in version 2.
    script = (
        "pid=$(pgrep -x etcd); disk=$(findmnt --noheadings --output MAJ:MIN --target /var/lib/etcd);"
        " group=/sys/fs/cgroup/blkio$(sed -n 's/.*:blkio://p' /proc/$pid/cgroup);"
        " if [ -d /sys/fs/cgroup/blkio ]; then echo $disk {} > $group/blkio.throttle.write_iops_device;"
        " else echo $disk wiops={} > /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)/io.max; fi"
    )
    lab.ssh("master-1", script.format(3, 3))
    try:
        yield
    finally:
        lab.ssh("master-1", script.format(0, "max"))


@fault("EtcdNoQuorum", part=6)
def no_etcd(lab: Lab) -> Iterator[None]:
    """etcd is gone."""
    with moved(lab, "etcd"):
        yield


@fault("NodeDown", part=7)
def node_off(lab: Lab) -> Iterator[None]:
    """A node is off."""
    with lab.stopped(spare_worker(lab)):
        yield


def spare_worker(lab: Lab) -> str:
    """Return a worker without what tells of its loss."""
    busy_ones = {node_of(lab, "monitoring", f"{name}-main-0") for name in ("prometheus", "alertmanager")}
    return next(node for node in (f"{NAME}-worker-{n}" for n in (3, 2, 1)) if node not in busy_ones)


def channel_of(alert: str) -> str:
    severity = RULES[alert]["labels"]["severity"]
    return "pagerduty" if severity == "critical" or "critical" in severity else "slack"


def firing(lab: Lab) -> set[str]:
    return {one["metric"]["alertname"] for one in ask(lab, FIRING)}


def minutes_of(one: Fault) -> int:
    """Return how long its alerts have to be true before they fire."""
    return max(int(RULES[alert].get("for", "0m").removesuffix("m")) for alert in one.alerts)


def drill(lab: Lab, one: Fault, made: Event) -> list[tuple[str, str, float | None, float | None]]:
    """Break something, wait for what is told, mend it, wait until it is told that it is over."""
    told: dict[str, float | None] = dict.fromkeys(one.alerts)
    over: dict[str, float | None] = dict.fromkeys(one.alerts)

    def listen(found: dict[str, float | None], since: float, resolved: bool, minutes: int) -> None:
        deadline = time.time() + 60 * minutes
        while None in found.values() and time.time() < deadline:
            for alert in one.alerts:
                message = lab.receiver.find(alert, channel_of(alert), resolved, since)
                if message and found[alert] is None:
                    found[alert] = message.moment - since
                    print(f"{found[alert]:6.0f} s  {message.text.splitlines()[0]}", flush=True)
            time.sleep(0.5)

    begun = time.time()
    try:
        with one.make(lab):
            made.set()
            listen(told, begun, False, minutes_of(one) + 5)
            mended = time.time()
        if None not in told.values():
            listen(over, mended, True, 20)  # one looks a quarter of an hour back
    except Exception as error:  # the others go on
        print(f"{one.text}: {error!r}", flush=True)
    finally:
        made.set()
    return [(alert, one.text, told[alert], over[alert]) for alert in one.alerts]


def test_on_a_healthy_platform_only_the_watchdog_fires(lab: Lab, eventually: Eventually) -> None:
    """What the tests before this one have broken is mended: their alerts are over."""
    eventually(
        lambda: firing(lab) - KNOWN == {"Watchdog"},
        400,
        lambda: f"not only Watchdog fires: {[one['metric'] for one in ask(lab, FIRING)]}",
    )


def test_the_daily_summary_arrives(lab: Lab) -> None:
    mail = lab.receiver.wait(lambda: lab.receiver.find("fire", "email"), 120, "no mail")
    assert "* Watchdog (none), since " in mail.text


def test_every_alert_has_its_fault() -> None:
    known = [alert for one in FAULTS for alert in one.alerts]
    # This lab delivers by its playbooks, not by Flux.
    assert sorted([*known, "Watchdog", "DeliveryFailed", "DeliverySuspended"]) == sorted(RULES)


@pytest.mark.proof(minutes=60)
def test_alerts_fire_and_are_over(lab: Lab) -> None:
    parts: dict[int, list[Fault]] = {}
    for one in FAULTS:
        if not WANTED or WANTED & set(one.alerts):
            parts.setdefault(one.part, []).append(one)
    lab.kubectl(f"create namespace {SPACE}")
    try:
        with ThreadPoolExecutor(max_workers=len(FAULTS)) as pool:
            begun = [(one, Event()) for one in parts.pop(0, [])]
            beside = [pool.submit(drill, lab, one, made) for one, made in begun]
            # Later parts take things away that are needed to make the faults of the first.
            for _, made in begun:
                made.wait()
            rows = []
            for _, chosen in sorted(parts.items()):
                for found in pool.map(lambda one: drill(lab, one, Event()), chosen):
                    rows += found
            rows += [row for future in beside for row in future.result()]
    finally:
        lab.kubectl(f"delete namespace {SPACE} --wait=false")
    lines = ["| fault | alert | notified after | resolved after |", "|---|---|---|---|"]
    for alert, text, told, over in rows:
        first, second = (f"{value:.0f} s" if value is not None else "-" for value in (told, over))
        lines.append(f"| {text} | {alert}, by {channel_of(alert)} | {first} | {second} |")
    (ROOT / "reports").mkdir(exist_ok=True)
    (ROOT / "reports" / "alerts.md").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    silent = [alert for alert, _, told, over in rows if told is None or over is None]
    assert not silent, f"not told, or not that it is over: {silent}"
