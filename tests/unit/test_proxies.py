"""Pods that ask something outside are told of the proxy, by a Secret, and let out to it; nobody else is."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.utils import get_environ_proxies
from releases import RELEASES
from rendering import render
from test_manifests import TEMPLATES, mistakes

from quote_platform import digests, proxies
from quote_platform.validation import choices

ROOT = Path(__file__).resolve().parents[2]
URL = "http://platform:s3cret%2F@proxy.example.com:3128"
PROXY = {"http": "", "https": URL, "no_proxy": [".svc", "10.96.0.0/16", "vault.example.com", "192.0.2.30"]}
PLACE = {
    "cluster_http_proxy": URL,
    # AWS, for all that can lie there.
    "object_store_endpoint": "",
    "object_store_ca": "",
    "secrets_backend": "aws-secrets-manager",
    "monitoring_receivers": ["slack", "pagerduty", "email"],
    "monitoring_slack_url": "https://hooks.slack.com/services/T0/B0/word",  # pragma: allowlist secret
    "monitoring_pagerduty_key": "key",
    "monitoring_email_to": "ops@example.com",
    "monitoring_email_from": "alerts@example.com",
    "monitoring_email_server": "mail.example.com:587",
}
# What has pods that ask outside: the Secret by which they are told, and its namespace.
TOLD = {
    "postgres-backup.yaml": ("postgres-proxy", "quote-lab"),
    "snapshots-snapshots.yaml": ("proxy", "etcd-snapshots"),
    "vault_server-snapshots.yaml": ("proxy", "vault-snapshots"),
    "velero-velero.yaml": ("proxy", "velero"),
    "cert_manager-cert-manager.yaml": ("proxy", "cert-manager"),
    "secrets_delivery-operator.yaml": ("proxy", "secrets-delivery"),
}
# By name: it may have any address, but none of the cluster's.
OUT = {
    "ports": [{"protocol": "TCP", "port": 3128}],
    "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16", "10.96.0.0/16"]}}],
}
Rendered = dict[str, list[dict[str, Any]]]


def texts(folder: Path, given: dict[str, Any], templates: list[str]) -> dict[str, str]:
    """Return what templates become in a place, each by its role and file."""
    names = [name.replace("/templates/", "-").removesuffix(".j2") for name in templates]
    return dict(zip(names, render(folder, *((name, given) for name in templates)), strict=True))


def objects(folder: Path, given: dict[str, Any], templates: list[str] = TEMPLATES) -> Rendered:
    found = {
        file: [document for document in yaml.safe_load_all(text) if document]
        for file, text in texts(folder, given, templates).items()
    }
    for name, release in RELEASES.items():
        if name in templates:
            file = name.replace("/templates/", "-").removesuffix(".j2")
            found[file] = release.patched(found[file])
    return found


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return objects(tmp_path_factory.mktemp("proxied"), PLACE)


def named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def content(secret: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def containers(part: Any) -> dict[str, dict[str, Any]]:
    """Return all containers of pods within an object, by their names."""
    if isinstance(part, list):
        return {name: one for item in part for name, one in containers(item).items()}
    if not isinstance(part, dict):
        return {}
    own = {one["name"]: one for key in ("initContainers", "containers") for one in part.get(key) or []}
    return own | {name: one for item in part.values() for name, one in containers(item).items()}


def egress(documents: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return list(named(documents, "NetworkPolicy", name)["spec"]["egress"])


def anywhere(rules: list[dict[str, Any]]) -> set[int]:
    return {port["port"] for rule in rules if not rule.get("to") for port in rule["ports"]}


def test_what_is_rendered_fits_the_api(rendered: Rendered) -> None:
    found = {
        file: wrong
        for file, documents in rendered.items()
        for document in documents
        if (wrong := "kind" in document and mistakes(document))
    }
    assert not found


@pytest.mark.parametrize("file", TOLD)
def test_the_secret_has_all_that_a_program_asks_for(rendered: Rendered, file: str) -> None:
    name, namespace = TOLD[file]
    secret = named(rendered[file], "Secret", name)
    assert secret["metadata"]["namespace"] == namespace
    found = content(secret)
    assert (found["HTTP_PROXY"], found["HTTPS_PROXY"]) == (URL, URL)
    # Services, pods, the API server, nodes, Vault, the machine's own metadata.
    assert {".svc", ".cluster.local", "10.244.0.0/16", "10.96.0.0/16", "kubernetes.default"} < set(
        found["NO_PROXY"].split(",")
    )
    assert {"192.0.2.11", "192.0.2.21", "vault.example.com", "169.254.169.254"} < set(
        found["NO_PROXY"].split(",")
    )


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("postgres-backup.yaml", {"dump", "prune", "lifecycle"}),
        ("snapshots-snapshots.yaml", {"store", "prune"}),
        ("vault_server-snapshots.yaml", {"store", "prune"}),
        ("velero-velero.yaml", {"velero", "node-agent"}),
        ("cert_manager-patches.yaml", {"cert-manager-controller"}),
        ("secrets_delivery-operator.yaml", {"external-secrets"}),
    ],
)
def test_who_asks_outside_has_it_in_the_environment_and_nobody_else(
    rendered: Rendered, file: str, told: set[str]
) -> None:
    known = containers(rendered[file])
    assert {name for name, one in known.items() if "envFrom" in one} == told
    for name in told:
        assert known[name]["envFrom"] == [{"secretRef": {"name": TOLD.get(file, ("proxy", ""))[0]}}]


def test_what_is_read_at_the_start_only_starts_anew_with_another_proxy(rendered: Rendered) -> None:
    found = [
        document["metadata"]["name"]
        for documents in rendered.values()
        for document in documents
        if document.get("kind") in {"Deployment", "DaemonSet"}
        and "quote-platform/proxy" in document["spec"]["template"]["metadata"].get("annotations", {})
    ]
    assert sorted(found) == ["cert-manager", "external-secrets", "node-agent", "velero"]


def test_barman_cloud_is_told_beside_each_instance(rendered: Rendered) -> None:
    store = named(rendered["postgres-backup.yaml"], "ObjectStore", "postgres")
    env = {one["name"]: one for one in store["spec"]["instanceSidecarConfiguration"]["env"]}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        found = env[name]["valueFrom"]["secretKeyRef"]
        assert found == {"name": "postgres-proxy", "key": name, "optional": True}
    assert len(env["PROXY_VERSION"]["value"]) == 8


@pytest.mark.parametrize(
    ("file", "policy", "left"),
    [
        ("postgres-backup.yaml", "postgres-dump", set()),
        ("postgres-cluster.yaml", "postgres", set()),
        ("snapshots-snapshots.yaml", "etcd-snapshot", {2379}),
        ("vault_server-snapshots.yaml", "vault-snapshot", {8200}),
        ("velero-velero.yaml", "velero", set()),
        # A challenge of a host that is an exception.
        ("cert_manager-cert-manager.yaml", "cert-manager-controller", {80}),
        ("secrets_delivery-operator.yaml", "external-secrets", set()),
        ("monitoring-monitoring.yaml", "alertmanager", {587}),
        ("logging-eck.yaml", "elasticsearch", set()),
    ],
)
def test_the_proxy_is_the_only_way_out(rendered: Rendered, file: str, policy: str, left: set[int]) -> None:
    rules = egress(rendered[file], policy)
    assert [rule for rule in rules if rule.get("ports") == OUT["ports"]] == [OUT]
    assert anywhere(rules) == left


def test_alertmanager_is_told_by_its_configuration(rendered: Rendered) -> None:
    secret = named(rendered["monitoring-alertmanager-secrets.yaml"], "Secret", "alertmanager-configuration")
    told = yaml.safe_load(content(secret)["alertmanager.yaml"])["global"]["http_config"]
    assert told["proxy_url"] == URL
    assert ".svc" in told["no_proxy"].split(",")


def test_elasticsearch_has_the_account_in_its_keystore(rendered: Rendered) -> None:
    keys = content(named(rendered["logging-eck.yaml"], "Secret", "archive"))
    assert keys["s3.client.default.proxy.username"] == "platform"
    assert keys["s3.client.default.proxy.password"] == "s3cret/"
    (nodes,) = named(rendered["logging-eck.yaml"], "Elasticsearch", "logs")["spec"]["nodeSets"]
    assert nodes["config"]["s3.client.default.proxy.host"] == "proxy.example.com"
    assert nodes["config"]["s3.client.default.proxy.port"] == 3128


def test_the_password_is_in_secrets_only(rendered: Rendered) -> None:
    for file, documents in rendered.items():
        for document in documents:
            hidden = {"data": ""} if document.get("kind") == "Secret" else {}
            text = json.dumps(document | hidden)
            assert "s3cret" not in text, file
            for encoded in (URL, "s3cret/"):
                assert base64.b64encode(encoded.encode()).decode() not in text, file


def test_the_metadata_service_is_reached_by_who_has_no_access_key(tmp_path: Path) -> None:
    template = "secrets_delivery/templates/operator.yaml.j2"
    keys = {"secrets_delivery_aws_access_key": "key", "secrets_delivery_aws_secret_key": "word"}
    backends = ["aws-secrets-manager", "aws-secrets-manager", "vault"]
    given = [{"secrets_backend": one} | more for one, more in zip(backends, [{}, keys, {}], strict=True)]
    found = [
        {"ports": [{"protocol": "TCP", "port": 80}], "to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}
        in egress(list(yaml.safe_load_all(text)), "external-secrets")
        for text in render(tmp_path, *((template, own) for own in given))
    ]
    assert found == [True, False, False]


OF_STORES = [
    "postgres/templates/cluster.yaml.j2",
    "postgres/templates/backup.yaml.j2",
    "snapshots/templates/snapshots.yaml.j2",
    "velero/templates/velero.yaml.j2",
    "vault_server/templates/snapshots.yaml.j2",
    "logging/templates/eck.yaml.j2",
]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return texts(tmp_path_factory.mktemp("without"), {}, OF_STORES)


@pytest.mark.parametrize(
    "given",
    [
        # A store of one's own, in a network that is excepted: Python's programs would not know that it is.
        {"cluster_http_proxy": URL, "cluster_proxy_exceptions": ["192.0.2.0/24"]},
        {"cluster_http_proxy": URL, "cluster_pod_proxy": {}},
    ],
    ids=["excepted", "off"],
)
def test_pods_that_need_no_proxy_are_as_they_are_without(
    tmp_path: Path, without: dict[str, str], given: dict[str, Any]
) -> None:
    assert texts(tmp_path, given, OF_STORES) == without


EXTERNAL = {
    "logging_store": "external",
    "logging_url": "https://logs.example.com:9243",
    "logging_user": "writer",
    "logging_password": "word",
}


def test_an_external_store_of_logs_is_reached_by_it(tmp_path: Path) -> None:
    file = "logging-logging.yaml"
    documents = objects(tmp_path, PLACE | EXTERNAL, ["logging/templates/logging.yaml.j2"])[file]
    assert all(content(named(documents, "Secret", name))["proxy"] == URL for name in ("collector", "setup"))
    config = yaml.safe_load(named(documents, "ConfigMap", "collector")["data"]["collector.yaml"])
    assert config["exporters"]["elasticsearch"]["proxy_url"] == "${file:/etc/account/proxy}"
    pod = named(documents, "DaemonSet", "collector")["spec"]["template"]["spec"]
    (account,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "account")
    assert {"key": "proxy", "path": "proxy"} in account["items"]
    (setup,) = containers(named(documents, "CronJob", "setup")).values()
    assert {
        "name": "HTTPS_PROXY",
        "valueFrom": {"secretKeyRef": {"name": "setup", "key": "proxy"}},
    } in setup["env"]
    rules = egress(documents, "collector")
    assert OUT in rules
    assert anywhere(rules) == set()


def test_lines_reach_their_archive_by_it(tmp_path: Path) -> None:
    """Its exporter knows the environment only; the keys are in a file."""
    file, own = "logging-logging.yaml", EXTERNAL | {"logging_line_archive": "s3"}
    direct = {
        "logging_archive_endpoint": "https://192.0.2.30:7070",
        "logging_archive_ca": "PEM",
        "logging_proxy": {},
    }
    by_proxy, directly = (
        objects(tmp_path, PLACE | own | more, ["logging/templates/logging.yaml.j2"])[file]
        for more in ({}, direct)
    )
    secret = content(named(by_proxy, "Secret", "line-archive"))
    assert (secret["HTTPS_PROXY"], "ca.crt" in secret) == (URL, False)
    assert {".svc", "192.0.2.11", "kubernetes.default"} < set(secret["NO_PROXY"].split(","))
    (collector,) = containers(named(by_proxy, "DaemonSet", "collector")).values()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        assert {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": "line-archive", "key": name}},
        } in collector["env"]
    assert OUT in egress(by_proxy, "collector")
    assert anywhere(egress(by_proxy, "collector")) == set()
    assert anywhere(egress(directly, "collector")) == {7070, 9243}
    assert set(content(named(directly, "Secret", "line-archive"))) == {"credentials", "ca.crt"}
    (collector,) = containers(named(directly, "DaemonSet", "collector")).values()
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/archive/ca.crt"} in collector["env"]
    assert not any("PROXY" in one["name"] for one in collector["env"])


def test_a_port_that_only_the_proxy_needs_is_not_asked_for() -> None:
    given = PLACE | {
        "monitoring_slack_url": "https://hooks.example.com:8443/services/word",
        "monitoring_alertmanager_egress_ports": [443, 587],
        "monitoring_email_time": "08:00",
        "monitoring_pagerduty_url": "https://events.pagerduty.com/v2/enqueue",
    }
    lacks = "monitoring_alertmanager_egress_ports: lacks 8443, which monitoring_slack_url needs"
    assert choices.receivers(given) == [lacks]
    assert choices.receivers(given | {"monitoring_proxy": PROXY}) == []


# --- what programs make of it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://hooks.slack.com/x", False),
        ("https://bucket.s3.eu-central-1.amazonaws.com", False),
        ("https://vault.example.com:8200", True),
        ("https://a.vault.example.com", True),
        ("https://avault.example.com", False),
        ("https://kubernetes.default.svc", True),
        ("https://svc", False),
        ("https://10.96.0.1", True),
        ("https://10.97.0.1", False),
        ("https://192.0.2.30:7070", True),
        ("https://192.0.2.3", False),
        ("http://hooks.slack.com/x", True),
    ],
)
def test_what_is_reached_directly(url: str, direct: bool) -> None:
    assert proxies.through(url, PROXY) == ("" if direct else URL)


def test_nobody_is_told_who_needs_none() -> None:
    assert proxies.environment(PROXY, "https://vault.example.com:8200") == {}
    assert proxies.environment({}, "https://hooks.slack.com") == {}
    assert proxies.environment(PROXY, "https://vault.example.com", "https://hooks.slack.com") == {
        "HTTPS_PROXY": URL,
        "NO_PROXY": ".svc,10.96.0.0/16,vault.example.com,192.0.2.30",
    }


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://192.0.2.30:7070", True),
        ("https://vault.example.com:8200", True),
        ("https://bucket.s3.eu-central-1.amazonaws.com", False),
        # What it does not know: what lies in such a network is either named, or not told of the proxy at all.
        ("https://10.96.0.1", False),
    ],
)
def test_botocore_judges_addresses_and_names_the_same_but_knows_no_networks(
    monkeypatch: pytest.MonkeyPatch, url: str, direct: bool
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, text in proxies.environment(PROXY, "https://hooks.slack.com").items():
        monkeypatch.setenv(name, text)
    assert get_environ_proxies(url).get("https", "") == ("" if direct else URL)


@pytest.mark.parametrize(
    ("host", "cidr"), [("192.0.2.9", "192.0.2.9/32"), ("[2001:db8::9]", "2001:db8::9/128")]
)
def test_a_proxy_with_an_address_is_all_that_is_reached(host: str, cidr: str) -> None:
    told = {"HTTPS_PROXY": f"http://me:a@{host}:8080", "NO_PROXY": "x"}  # pragma: allowlist secret
    rule = {"ports": [{"protocol": "TCP", "port": 8080}], "to": [{"ipBlock": {"cidr": cidr}}]}
    assert proxies.rules(told, ["10.244.0.0/16"]) == [rule]
    assert proxies.rules({}, []) == []


# --- what a pod shows of a password -----------------------------------------------------------------------

SHOWN = {
    "logging/templates/logging.yaml.j2": r"quote-platform/config: (\w{64})",
    "velero/templates/velero.yaml.j2": r"quote-platform/proxy: (\w{64})",
    "cert_manager/templates/patches.yaml.j2": r"quote-platform/proxy: (\w{64})",
    "secrets_delivery/templates/operator.yaml.j2": r"quote-platform/proxy: (\w{64})",
    "postgres/templates/backup.yaml.j2": r'PROXY_VERSION, value: "(\w{8})"',
}


def test_who_sees_a_pod_cannot_try_passwords_against_its_digests(tmp_path: Path) -> None:
    """They follow the password, and a key that the cluster does not have; otherwise they stay as they are."""
    own = PLACE | EXTERNAL | {"logging_collector": "fluentd", "cluster_digest_key_file": f"{tmp_path}/one"}
    weak = own | {"logging_password": "summer", "cluster_http_proxy": URL.replace("s3cret", "summer")}
    places = [own, own, weak, own | {"cluster_digest_key_file": f"{tmp_path}/other"}]
    files = [(name, place) for place in places for name in SHOWN]
    rendered = render(tmp_path, *files)
    for number, (name, pattern) in enumerate(SHOWN.items()):
        first, again, other_password, other_key = (
            re.findall(pattern, rendered[number + at]) for at in range(0, len(files), len(SHOWN))
        )
        assert first, name
        assert first == again
        assert not set(first) & set(other_password), name
        assert not set(first) & set(other_key), name
    assert (tmp_path / "one").stat().st_mode & 0o077 == 0


def test_no_role_shows_the_digest_of_a_password_alone() -> None:
    found = 0
    for file in sorted([*ROOT.glob("roles/*/templates/*.j2"), *ROOT.glob("roles/*/vars/*.yml")]):
        text = file.read_text()
        found += text.count("keyed_digest")
        for at in re.finditer(r"\{\{((?!\}\}).)*hash\('sha256'\)", text, re.DOTALL):
            assert not re.search(r"proxy|account|password|secret_key|token", at[0]), f"{file}: {at[0]}"
    assert found >= 8


def test_the_key_of_digests_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "cluster" / "digest-key"
    assert digests.keyed({"b": 1, "a": 2}, str(file)) == digests.keyed({"a": 2, "b": 1}, str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["digest-key"]
    before = digests.keyed("a", str(file))
    file.write_text("another\n")
    assert digests.keyed("a", str(file)) != before
