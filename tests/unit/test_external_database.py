"""A PostgreSQL outside of the cluster: what roles render for its pods is run against a real one, over TLS."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml
from api_server import ApiServer, api_server
from postgres_server import PostgresServer, started
from rendering import render
from test_manifests import mistakes

from quote_platform import certificates
from quote_platform.component import record

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "apps/quote-app"
PASSWORD = "of-the-application"  # noqa: S105
OF_BOSS = "of the administrator #1 = {so} \\d"
HBA = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
TEMPLATES = {
    "application": "quote_app/templates/quote-app.yaml.j2",
    "external": "postgres/templates/external.yaml.j2",
    "dump": "postgres/templates/backup.yaml.j2",
    "rules": "monitoring/templates/rules.yaml.j2",
    "scrape": "monitoring/templates/scrape.yaml.j2",
    "grafana": "grafana/templates/grafana.yaml.j2",
}
ADMINISTRATOR: dict[str, Any] = {"database_administrator": "boss", "database_administrator_password": OF_BOSS}


class Server(PostgresServer):
    """A PostgreSQL of this machine that lets nobody in but over TLS with a password, or by its own socket."""

    def __init__(self, programs: Path, folder: Path) -> None:
        for name, path in (("authority", "ca"), ("stranger", "other")):
            certificates.make(folder / path, name, [], 10, issuer=None, is_ca=True)
        self.authority, self.stranger = ((folder / f"{one}.crt").read_text() for one in ("ca", "other"))
        for name in ("localhost", "elsewhere"):
            issuer = certificates.load(folder / "ca")
            certificates.make(folder / name, name, [name], 10, issuer=issuer, is_ca=False)
        super().__init__(programs, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "data/pg_hba.conf").write_text(HBA)
        shown = f"-c ssl=on -c ssl_cert_file={folder}/localhost.crt -c ssl_key_file={folder}/localhost.key"
        self.start(f"-c listen_addresses=127.0.0.1 {shown} -c log_statement=all")

    @contextlib.contextmanager
    def showing(self, name: str) -> Iterator[None]:
        """Have it show the certificate of another name."""
        own = self.folder / "localhost.crt", self.folder / "localhost.key"
        other = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        kept = [one.read_bytes() for one in own]
        try:
            for one, its in zip(own, other, strict=True):
                one.write_bytes(its.read_bytes())
            self.call("pg_ctl", *self.data, "reload")
            time.sleep(0.5)
            yield
        finally:
            for one, content in zip(own, kept, strict=True):
                one.write_bytes(content)
            self.call("pg_ctl", *self.data, "reload")
            time.sleep(0.5)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started(Server) as made:
        # What a managed service gives: no superuser.
        made.sql("postgres", f"create role boss login createrole createdb password $${OF_BOSS}$$")
        yield made


Objects = dict[tuple[str, str], dict[str, Any]]


@dataclass
class Rendered:
    """The texts of templates by their names."""

    texts: dict[str, str]

    def objects(self, *names: str) -> Objects:
        """Return the objects of some of them by kind and name."""
        every = [one for name in names for one in yaml.safe_load_all(self.texts[name]) if one]
        return {(one["kind"], one["metadata"]["name"]): one for one in every}


@pytest.fixture(scope="module")
def rendered(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    given = {
        "database": "external",
        "database_host": "localhost",
        "database_port": server.port,
        "database_authority": server.authority,
        "database_networks": ["192.0.2.0/26", "192.0.2.64/26"],
        "database_password": PASSWORD,
        "secrets_backend": "",
    }
    wanted = {name: (path, given) for name, path in TEMPLATES.items()}
    wanted["usual"] = TEMPLATES["application"], {"secrets_backend": ""}
    wanted["delivered"] = TEMPLATES["external"], given | {"secrets_backend": "aws-secrets-manager"}
    wanted["made"] = TEMPLATES["external"], given | ADMINISTRATOR
    wanted["administrator"] = "postgres/templates/pg_service.conf.j2", given | ADMINISTRATOR
    for name, own in (
        ("strong", {"application_database_owner": "strong"}),
        ("theirs", {"application_database": "theirs"}),
    ):
        wanted[name] = TEMPLATES["external"], given | ADMINISTRATOR | own
    folder = tmp_path_factory.mktemp("external")
    return Rendered(dict(zip(wanted, render(folder, *wanted.values()), strict=True)))


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of the pods of a Deployment or a CronJob."""
    spec = document["spec"].get("jobTemplate", document)["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def secret(objects: Objects, name: str) -> dict[str, str]:
    """Return what a Secret holds."""
    return {key: base64.b64decode(text).decode() for key, text in objects["Secret", name]["data"].items()}


@dataclass
class Container:
    """A container of a pod, as its kubelet would start it: with the files and words of the objects alone."""

    environment: dict[str, str]
    command: list[str]


def container(folder: Path, pod: dict[str, Any], objects: Objects) -> Container:
    """Lay the pod's Secrets into a folder; what names a mounted path names it there."""
    (one,) = pod["containers"]
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    paths = {}
    for mount in one["volumeMounts"]:
        source = sources[mount["name"]]["secret"]
        place = folder / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True)
        data = secret(objects, source["secretName"])
        for item in source.get("items", [{"key": key, "path": key} for key in data]):
            (place / item["path"]).write_text(data[item["key"]])
        paths[mount["mountPath"]] = str(place)

    def here(text: str) -> str:
        for path, place in paths.items():
            text = text.replace(f"{path}/", f"{place}/")
        return text

    environment = {}
    for variable in one["env"]:
        if reference := variable.get("valueFrom"):
            key = reference["secretKeyRef"]
            environment[variable["name"]] = secret(objects, key["name"])[key["key"]]
        else:
            environment[variable["name"]] = here(variable["value"])
    return Container(environment, [here(word) for word in one.get("command", [])])


# --- what is rendered -------------------------------------------------------------------------------------


def test_objects_fit_and_reach_the_database_and_nothing_else(rendered: Rendered, server: Server) -> None:
    found = rendered.objects("application", "made", "dump")
    assert not [wrong for one in found.values() for wrong in mistakes(one)]
    networks = [{"ipBlock": {"cidr": one}} for one in ("192.0.2.0/26", "192.0.2.64/26")]
    for name in ("quote-app", "postgres-account", "postgres-dump"):
        egress = found["NetworkPolicy", name]["spec"]["egress"]
        out = [rule for rule in egress if {"port": 5432, "protocol": "TCP"} in rule["ports"]]
        out += [rule for rule in egress if {"port": server.port, "protocol": "TCP"} in rule["ports"]]
        assert [rule["to"] for rule in out] == [networks], name
        assert all(rule["to"] for rule in egress), f"{name}: a rule without anybody lets out to all the world"
    kinds = {kind for kind, _ in found}
    assert not kinds & {"Cluster", "ObjectStore", "ScheduledBackup"}


def test_the_secrets_have_the_names_and_keys_that_the_application_mounts(rendered: Rendered) -> None:
    found = rendered.objects("application", "external")
    assert secret(found, "external-database") == {"username": "quotes", "password": PASSWORD}
    assert set(secret(found, "external-database-authority")) == {"ca.crt"}
    pod = pod_of(found["Deployment", "quote-app"])
    mounted = {one["name"]: one["secret"] for one in pod["volumes"]}
    assert {name: one["secretName"] for name, one in mounted.items()} == {
        "database": "external-database",
        "database-ca": "external-database-authority",
    }
    delivered = rendered.objects("delivered")
    assert not {("Secret", "external-database"), ("Secret", "quote-app-database")} & set(delivered), (
        "External Secrets makes it"
    )


def test_a_database_in_the_cluster_is_reached_as_before(rendered: Rendered) -> None:
    usual = rendered.objects("usual")
    environment = {
        one["name"]: one["value"] for one in pod_of(usual["Deployment", "quote-app"])["containers"][0]["env"]
    }
    assert environment["PGHOST"] == "postgres-rw" and "PGPORT" not in environment
    (rule,) = (
        one
        for one in usual["NetworkPolicy", "quote-app"]["spec"]["egress"]
        if one["ports"][0]["port"] == 5432
    )
    assert rule["to"] == [{"podSelector": {"matchLabels": {"cnpg.io/cluster": "postgres"}}}]


def test_no_object_has_the_administrators_password(rendered: Rendered) -> None:
    shown = json.dumps(rendered.texts | {"administrator": ""})
    packed = base64.b64encode(rendered.texts["administrator"].encode()).decode()
    assert OF_BOSS not in shown and packed not in shown
    assert PASSWORD not in shown
    assert PASSWORD not in secret(rendered.objects("made"), "postgres-account")["account.sql"]


def test_alerts_and_dashboards_of_the_cluster_are_left_out(rendered: Rendered, server: Server) -> None:
    rules = rendered.objects("rules")
    alerts = {
        rule["alert"] for one in rules.values() for group in one["spec"]["groups"] for rule in group["rules"]
    }
    # Without instances of its own it would fire for ever.
    assert "PostgresNoPrimary" not in alerts
    assert alerts >= {"PostgresCertificateNearEnd", "BackupJobTooOld", "PublicUrlDown"}
    probe = rendered.objects("scrape")["Probe", "database"]
    assert probe["spec"]["targets"]["staticConfig"]["static"] == [f"localhost:{server.port}"]
    dashboards = rendered.texts["grafana"]
    assert "postgresql.json" not in dashboards and "backups.json" in dashboards


# --- what it does -----------------------------------------------------------------------------------------


def make_account(
    rendered: Rendered, server: Server, folder: Path, which: str = "made"
) -> subprocess.CompletedProcess[str]:
    """Do what the Job does, as its pod has it."""
    objects = rendered.objects(which)
    service = base64.b64encode(rendered.texts["administrator"].encode()).decode()
    objects["Secret", "postgres-administrator"] = {"data": {"pg_service.conf": service}}
    started = container(folder, pod_of(objects["CronJob", "postgres-account"]), objects)
    assert objects["CronJob", "postgres-account"]["spec"]["suspend"] is True
    told = json.dumps([started.command, started.environment])
    assert OF_BOSS not in told, "neither a list of processes nor the container's runtime is told"
    command = [str(server.programs / started.command[0]), *started.command[1:]]
    environment = {"PATH": os.environ["PATH"], **started.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def account(rendered: Rendered, server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = make_account(rendered, server, tmp_path_factory.mktemp("account"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("account")
def test_the_account_is_made_with_no_more_rights_than_it_needs(
    rendered: Rendered, server: Server, tmp_path: Path
) -> None:
    rights = "rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
    assert server.sql("postgres", f"select {rights} from pg_roles where rolname = 'quotes'") == "t|f|f|f|f|f"  # noqa: S608
    owner = "select rolname from pg_database join pg_roles on pg_roles.oid = datdba where datname = 'quotes'"
    assert server.sql("postgres", owner) == "quotes"
    assert server.sql("postgres", "select has_database_privilege('public', 'quotes', 'connect')") == "f"
    held = "select count(*) from pg_auth_members where member = 'quotes'::regrole"
    assert server.sql("postgres", held) == "0"
    assert server.sql("postgres", "select pg_has_role('boss', 'quotes', 'usage')") == "f", (
        "the administrator keeps none"
    )
    before = server.sql("postgres", "select rolpassword from pg_authid where rolname = 'quotes'")
    again = make_account(rendered, server, tmp_path / "again")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert server.sql("postgres", "select rolpassword from pg_authid where rolname = 'quotes'") == before
    written = (server.folder / "log").read_text()
    assert "alter role quotes login password 'SCRAM-SHA-256$" in written
    assert (
        PASSWORD not in written and OF_BOSS not in written.partition("create role boss")[2].partition("\n")[2]
    )


@pytest.mark.usefixtures("account")
def test_what_is_somebody_elses_is_refused_and_left_alone(
    rendered: Rendered, server: Server, tmp_path: Path
) -> None:
    server.sql("postgres", "create role strong createdb")
    server.sql("postgres", "create database theirs")
    for which, said in (
        ("strong", "the account strong is there and may do more than an application should"),
        ("theirs", "the database theirs is there and is not of quotes"),
    ):
        done = make_account(rendered, server, tmp_path / which, which)
        assert done.returncode != 0 and said in done.stderr
    assert server.sql("postgres", "select rolcanlogin from pg_roles where rolname = 'strong'") == "f"


@contextlib.contextmanager
def running(started: Container) -> Iterator[tuple[str, Path]]:
    """Run the application's own code as its container would; yield its address, and what it says."""
    if not (APP / "node_modules").is_dir():
        pytest.skip("the application's modules are not here: npm ci in apps/quote-app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"PORT": str(port), "HOST": "127.0.0.1", "DRAIN_DELAY_MS": "0", "PATH": os.environ["PATH"]}
    with tempfile.NamedTemporaryFile("w") as said:
        process = subprocess.Popen(
            ["node", APP / "src/main.js"], env=started.environment | own, stdout=said, stderr=said
        )
        try:
            yield f"http://127.0.0.1:{port}", Path(said.name)
        finally:
            process.terminate()
            process.wait(20)


def until(ready: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def status(address: str, path: str) -> int:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address + path, timeout=5).status_code
    return 0


def application(rendered: Rendered, folder: Path, **data: str) -> Container:
    """Return the application's container, but for what a Secret holds."""
    objects = rendered.objects("application", "external")
    for name, key in (("external-database", "password"), ("external-database-authority", "ca.crt")):
        if key in data:
            objects["Secret", name]["data"][key] = base64.b64encode(data[key].encode()).decode()
    return container(folder, pod_of(objects["Deployment", "quote-app"]), objects)


@pytest.mark.usefixtures("account")
def test_the_application_connects_over_tls_that_is_verified(
    rendered: Rendered, server: Server, tmp_path: Path
) -> None:
    started = application(rendered, tmp_path / "pod")
    assert started.environment["PGSSLMODE"] == "verify-full"
    with running(started) as (address, said):
        until(lambda: status(address, "/readyz") == 200)
        row = httpx.post(f"{address}/api/quotes", json={"text": "from outside", "author": "test"}, timeout=10)
        assert row.status_code == 201
        assert PASSWORD not in said.read_text()
        over = (
            "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'quotes'"
        )
        assert server.sql("postgres", over) == "t"
    assert server.sql("quotes", "select count(*) from quotes where text = 'from outside'") == "1"
    assert (
        server.sql("quotes", "select distinct tableowner from pg_tables where schemaname = 'public'")
        == "quotes"
    )


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("wrong", ["authority", "name", "password"])
def test_the_application_refuses_who_is_not_the_database(
    rendered: Rendered, server: Server, tmp_path: Path, wrong: str
) -> None:
    data = {"authority": {"ca.crt": server.stranger}, "password": {"password": "another"}}.get(wrong, {})
    said_of = {
        "authority": "unable to verify|unable to get|self-signed|signature",
        "name": "does not match certificate's altnames",
        "password": "password authentication failed",
    }[wrong]
    shown = server.showing("elsewhere") if wrong == "name" else contextlib.nullcontext()
    with shown, running(application(rendered, tmp_path / "pod", **data)) as (address, said):
        until(lambda: status(address, "/healthz") == 200)
        until(lambda: any(one in said.read_text() for one in said_of.split("|")))
        assert status(address, "/readyz") == 503
        assert "migration applied" not in said.read_text()


@pytest.mark.usefixtures("account")
def test_a_dump_is_made_over_tls_that_is_verified(rendered: Rendered, server: Server, tmp_path: Path) -> None:
    """By the words of the container in which pg_dump runs; where it goes to is another test's question."""
    for authority, right in ((server.authority, True), (server.stranger, False)):
        objects = rendered.objects("external", "dump")
        text = base64.b64encode(authority.encode()).decode()
        objects["Secret", "external-database-authority"]["data"]["ca.crt"] = text
        pod = pod_of(objects["CronJob", "postgres-dump"])
        (dump,) = (one for one in pod["initContainers"] if one["name"] == "dump")
        started = container(tmp_path / str(right), pod | {"containers": [dump]}, objects)
        done = subprocess.run(
            [server.programs / "pg_dump", "--format=plain", "--no-password"],
            env={"PATH": os.environ["PATH"], **started.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is right, done.stderr
        assert ("certificate verify failed" in done.stderr) is not right


@pytest.mark.parametrize("playbook", ["restore-postgres.yml", "restore-drill.yml", "rotate-secrets.yml"])
def test_what_needs_a_database_of_the_cluster_refuses(playbook: str, tmp_path: Path) -> None:
    own = {"database": "external", "secrets_backend": "", "cluster_secrets_dir": str(tmp_path)}
    command = [
        "ansible-playbook",
        "-i",
        "inventories/production",
        f"playbooks/{playbook}",
        "-e",
        json.dumps(own),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "Refuse where the database is outside of the cluster" in said
    assert "database: external" in said and "changed=0" in said


# --- how it is applied ------------------------------------------------------------------------------------


SPACE = "quote-lab"
JOBS = f"/apis/batch/v1/namespaces/{SPACE}/jobs"
SECRETS = f"/api/v1/namespaces/{SPACE}/secrets"
MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"
CLUSTERS = "/apis/postgresql.cnpg.io/v1/namespaces/quote-lab/clusters"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusters.postgresql.cnpg.io"},
    "spec": {
        "group": "postgresql.cnpg.io",
        "names": {"kind": "Cluster", "plural": "clusters"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


class Platform:
    """A real API server, the role's own tasks, and somebody who ends Jobs as their controller does."""

    def __init__(self, server: ApiServer, folder: Path, authority: str) -> None:
        self.server, self.folder = server, folder
        self.ends, self.seen = "Complete", list[str]()
        self.given: dict[str, Any] = {
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "cluster_kubeconfig": str(server.kubeconfig(folder / "kubeconfig")),
            "cluster_secrets_dir": str(folder),
            "secrets_backend": "",
            "object_store_endpoint": "https://192.0.2.30:7070",
            "object_store_ca": "",
            "cluster_pod_proxy": {},
            "database": "external",
            "database_host": "db.quotes.dev",
            "database_authority": authority,
            "database_networks": ["192.0.2.0/26"],
            "postgres_timeout": 20,
        }

    def play(self, steps: str, status: int = 0, check: bool = False, **more: Any) -> str:
        """Run a task file of the role."""
        play = {
            "hosts": "control_plane",
            "gather_facts": False,
            "vars_files": [f"{ROOT}/group_vars/all/{one}.yml" for one in ("main", "versions")],
            "tasks": [{"ansible.builtin.include_role": {"name": "postgres", "tasks_from": steps}}],
        }
        file = self.folder / "play.yml"
        file.write_text(json.dumps([play]))
        hosts = self.folder / "hosts.yml"
        hosts.write_text(
            json.dumps({"control_plane": {"hosts": {"localhost": {"ansible_host": "192.0.2.11"}}}})
        )
        command = ["ansible-playbook", "-i", str(hosts), "-c", "local", str(file), "-v"]
        command += ["-e", json.dumps(self.given | more), *(["--check", "--diff"] if check else [])]
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == status, said[-4000:]
        for word in (OF_BOSS, base64.b64encode(OF_BOSS.encode()).decode(), PASSWORD):
            assert word not in said
        return " ".join(said.split())

    def secret(self, name: str) -> dict[str, str]:
        """Return what a Secret holds; of one that is not there, nothing."""
        data = self.server.ask("GET", f"{SECRETS}/{name}").json().get("data") or {}
        return {key: base64.b64decode(text).decode() for key, text in data.items()}

    def record(self, component: str, *lines: str) -> None:
        """Record objects as those of a component."""
        listing = record.Record(component, None).listing({record.Entry.parse(line) for line in lines})
        self.server.apply("configmaps", listing)

    def end_jobs(self, stop: Event) -> None:
        """End each Job, and keep what its pod would have had of the administrator."""
        kind = "application/merge-patch+json"
        while not stop.wait(0.2):
            # As the garbage collector does.
            for one in self.server.ask("GET", "/api/v1/configmaps").json().get("items", []):
                its, body = one["metadata"], {"metadata": {"finalizers": None}}
                if "deletionTimestamp" in its:
                    path = f"/api/v1/namespaces/{its['namespace']}/configmaps/{its['name']}"
                    self.server.ask("PATCH", path, body, content=kind)
            for job in self.server.ask("GET", JOBS).json().get("items", []):
                if job["status"].get("conditions"):
                    continue
                self.seen.append(self.secret("postgres-administrator").get("pg_service.conf", ""))
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                first = "SuccessCriteriaMet" if self.ends == "Complete" else "FailureTarget"
                conditions = [
                    {"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
                    for kind in (first, self.ends)
                ]
                state: dict[str, Any] = {"startTime": now, "conditions": conditions}
                state |= {"completionTime": now, "succeeded": 1} if self.ends == "Complete" else {}
                path = f"{JOBS}/{job['metadata']['name']}/status"
                answer = self.server.ask("PATCH", path, {"status": state}, content=kind)
                assert answer.is_success, answer.text


@pytest.fixture(scope="module")
def platform(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with api_server(tmp_path_factory.mktemp("api")) as running:
        made = Platform(running, tmp_path_factory.mktemp("secrets"), server.authority)
        stop = Event()
        thread = Thread(target=made.end_jobs, args=[stop], daemon=True)
        thread.start()
        yield made
        stop.set()
        thread.join()


def test_the_administrator_is_known_to_the_cluster_while_the_job_runs_and_not_longer(
    platform: Platform,
) -> None:
    assert re.search(r"changed=[1-9]", platform.play("external", check=True, **ADMINISTRATOR))
    assert platform.seen == [] and platform.server.ask("GET", SECRETS).json().get("items", []) == []
    platform.play("external", **ADMINISTRATOR)
    (handed,) = platform.seen
    assert handed.endswith(f"\n[administrator]\nuser=boss\npassword={OF_BOSS}\n")
    assert platform.secret("postgres-administrator") == {}
    # A password that nobody gave was made, and is what the application has.
    password = (platform.folder / "database-password").read_text()
    assert len(password) == 40
    assert platform.secret("external-database") == {"username": "quotes", "password": password}
    assert password not in platform.secret("postgres-account")["account.sql"]
    again = platform.play("external", **ADMINISTRATOR)
    assert "changed=0" in again and len(platform.seen) == 1
    # AWS replaces the administrator's password, which is no reason.
    platform.play("external", **ADMINISTRATOR | {"database_administrator_password": "replaced"})
    assert len(platform.seen) == 1


def test_a_job_that_fails_leaves_no_administrator_and_is_run_again(platform: Platform) -> None:
    before, platform.ends = len(platform.seen), "Failed"
    said = platform.play("external", 2, **ADMINISTRATOR, database_password=PASSWORD)
    assert "postgres-account failed. The reason is in" in said
    assert platform.secret("postgres-administrator") == {}
    platform.ends = "Complete"
    platform.play("external", **ADMINISTRATOR, database_password=PASSWORD)
    assert len(platform.seen) == before + 2
    assert platform.secret("external-database")["password"] == PASSWORD


def test_a_database_that_stands_in_the_cluster_is_left_by_a_word_only(platform: Platform) -> None:
    own = ADMINISTRATOR | {"database_password": PASSWORD}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    platform.server.apply("namespaces", space)
    platform.server.apply("customresourcedefinitions", DEFINITION)
    metadata = {"name": "postgres", "namespace": SPACE}
    thing = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": metadata}
    until(lambda: platform.server.ask("POST", CLUSTERS, thing).is_success)
    operator = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "operator", "namespace": SPACE}}
    platform.server.apply("configmaps", operator)
    platform.record("postgres-operator", "v1 ConfigMap quote-lab/operator")
    for steps in ("leave", "external"):
        said = platform.play(steps, 2, **own)
        assert "database_moved: true" in said and "Nothing was touched" in said
    said = platform.play("external", **own, database_moved=True)
    assert "kubectl --namespace quote-lab delete cluster.postgresql.cnpg.io postgres" in said
    assert platform.server.ask("GET", f"{CLUSTERS}/postgres").is_success
    kept = f"{MAPS}/operator"
    assert platform.server.ask("GET", kept).is_success, "one that stands needs its operator"
    assert platform.server.ask("DELETE", f"{CLUSTERS}/postgres").is_success
    platform.play("external", **own)
    assert platform.server.ask("GET", kept).status_code == 404
