"""Choices that contradict one another, and texts of a wrong form; types were judged before."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError

from quote_platform.paths import vault_password
from quote_platform.proxies import through
from quote_platform.validation.hosts import DNS_NAME, NAME, is_address, is_example

Variables = Mapping[str, Any]

# What has an account and a bucket of its own in the object store.
PURPOSES = ("postgres", "snapshots", "velero")
# Host names under which an Ingress answers, and whether there has to be one.
INGRESS_HOSTS = {
    "application_host": True,
    "quote_app_host": True,
    "monitoring_public_host": True,
    "monitoring_prometheus_host": False,
    "monitoring_alertmanager_host": False,
    "grafana_host": False,
    "logging_kibana_host": False,
}
# What the example in inventories/production leaves to be replaced.
EXAMPLES = ("change-me", "AKIA-EXAMPLE", "example-quotes-")
# Reserved by PostgreSQL, or taken by it and its operator.
SQL_WORDS = set(
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
    collation column concurrently constraint create cross current_catalog current_date current_role
    current_schema current_time current_timestamp current_user default deferrable desc distinct do else
    end except false fetch for foreign freeze from full grant group having ilike in initially inner
    intersect into is isnull join lateral leading left like limit localtime localtimestamp natural not
    notnull null offset on only or order outer overlaps placing primary references returning right select
    session_user similar some symmetric system_user table tablesample then to trailing true union unique
    user using variadic verbose when where window with none postgres public streaming_replica template0
    template1
    """.split()  # noqa: SIM905 (a list of them fills a page)
)


LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(rf"({DNS_NAME.pattern}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")


def is_network(text: str) -> bool:
    """Tell whether a text is an IPv4 address or a network of them."""
    try:
        ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Tell whether a text is a name or an address; of a name the first part may stand for all."""
    return is_address(text) or bool(DNS_NAME.fullmatch(text.lower().removeprefix("*.")))


def is_port(text: str) -> bool:
    """Tell whether a text is the number of a port."""
    return text.isdecimal() and 1 <= int(text) <= 65535


def is_target(text: str) -> bool:
    """Tell whether a text is HOST:PORT."""
    host, _, port = text.rpartition(":")
    return is_host(host) and is_port(port)


# What each item of a list has to be, by the names of the variables; what it is called, what is allowed.
ITEMS: tuple[tuple[str, Callable[[str], object], str, str], ...] = (
    (r".*_namespaces", NAME.fullmatch, "a namespace", "up to 63 of a-z, 0-9 and - (RFC 1123)"),
    (r".*_ports", is_port, "a port", "1 to 65535"),
    (
        r".*_cidrs|(database|quote_app_database|postgres_external)_networks",
        is_network,
        "an IPv4 network",
        "for example 10.0.0.0/8",
    ),
    (
        r"control_plane_certificate_sans|monitoring_public_addresses|secrets_delivery_database_hosts",
        is_host,
        "a host",
        "names and addresses",
    ),
    (
        r"monitoring_databases|monitoring_vault_targets",
        is_target,
        "HOST:PORT",
        "for example db.example.com:5432",
    ),
    (
        r"admission_registries",
        re.compile(r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+)(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*").fullmatch,
        "a registry",
        "HOST[:PORT], or one with a path, such as ghcr.io/quote-platform; no tag, no / at the end",
    ),
    (r"admission_capabilities", re.compile(r"[A-Z]+(_[A-Z]+)*").fullmatch, "a capability", "as NET_ADMIN"),
    (r"monitoring_probes", re.compile(r"https?://[^/\s]+.*").fullmatch, "a URL", "http:// or https://"),
)


def items(given: Variables) -> list[str]:
    """Return what in lists of names, addresses and labels is none; of what is written."""
    wrong = []
    for name, value in given.items():
        rule = next((rule for rule in ITEMS if re.fullmatch(rule[0], name)), None)
        if rule and isinstance(value, (list, dict)):
            _, right, called, allowed = rule
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in parts:
                place = f"{name}.{key}" if isinstance(value, dict) else f"{name}[{key}]"
                if not right(str(item)):
                    wrong.append(f"{place}: {item!r} is not {called}; allowed are {allowed}")
    if "velero_namespaces" in given and not given["velero_namespaces"] and given.get("backups_enabled", True):
        wrong.append(
            "velero_namespaces: empty, by which Velero understands all; allowed is one namespace or more"
        )
    return wrong + _schedule_names(given) + _labels(given)


def _schedule_names(given: Variables) -> list[str]:
    wrong = []
    names = [str(item.get("name")) for item in given.get("velero_schedules") or []]
    if "velero_schedules" in given and not names:
        wrong.append("velero_schedules: empty; allowed is one or more, or backups_enabled: false")
    for index, name in enumerate(names):
        if not NAME.fullmatch(name):
            wrong.append(
                f"velero_schedules[{index}].name: {name!r} is not a name; allowed are "
                "up to 63 of a-z, 0-9 and -"
            )
        elif name in names[:index]:
            wrong.append(f"velero_schedules[{index}].name: {name} is there twice; allowed is another name")
    return wrong


def _labels(given: Variables) -> list[str]:
    """Return which labels are none; without any, every pod is meant."""
    chosen = {f"postgres_clients[{i}]": item for i, item in enumerate(given.get("postgres_clients") or [])}
    for index, client in enumerate(given.get("monitoring_clients") or []):
        chosen[f"monitoring_clients[{index}].labels"] = client.get("labels") or {}
    wrong = []
    for place, labels in chosen.items():
        if not labels:
            wrong.append(f"{place}: empty, which lets every pod in; allowed is one label or more")
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(str(key)) or not isinstance(value, str) or not LABEL.fullmatch(value):
                wrong.append(
                    f"{place}: {key}: {value!r} is not a label; allowed is text of up to 63 letters, digits, "
                    "-, _ and ."
                )
    return wrong


def minor(version: Any) -> tuple[int, int] | None:
    """Return major and minor of a version."""
    match = re.match(r"v?(\d+)\.(\d+)", str(version))
    return (int(match[1]), int(match[2])) if match else None


def versions(given: Variables) -> list[str]:
    """Return which versions do not fit together."""
    wrong = []
    wanted = str(given.get("kubernetes_version", ""))
    if not re.fullmatch(r"\d+\.\d+\.\d+", wanted):
        return [
            f"kubernetes_version: {wanted!r} is not a version; allowed is MAJOR.MINOR.PATCH, such as 1.36.3"
        ]
    if not (1, 34) <= (minor(wanted) or (0, 0)) <= (1, 36):
        wrong.append(f"kubernetes_version: {wanted} is not supported; allowed are 1.34 to 1.36")
    if not str(given.get("kubernetes_packages_version", "")).startswith(f"{wanted}-"):
        wrong.append(
            f"kubernetes_packages_version: {given.get('kubernetes_packages_version')} does not belong to "
            f"kubernetes_version {wanted}; allowed is {wanted}-REVISION"
        )
    tools = given.get("kubernetes_packages_cri_tools_version")
    if (minor(tools) or (0, 0)) < (minor(wanted) or (0, 0)):
        wrong.append(
            f"kubernetes_packages_cri_tools_version: {tools} is older than kubernetes_version {wanted}; "
            "allowed is its minor version or a newer one"
        )
    runtime = given.get("container_runtime_version")
    if (minor(runtime) or (0, 0)) < (2, 0):
        wrong.append(f"container_runtime_version: {runtime} is too old for {wanted}; allowed is 2.0 or newer")
    return wrong


def unavailable(given: Variables) -> dict[str, str]:
    """Return the components that cannot be had, and why."""
    return {
        str(item.get("name")): str(item.get("reason")) for item in given.get("components_unavailable") or []
    }


def unobtainable(given: Variables) -> list[str]:
    """Return which choices ask for components that cannot be had, where they may not be left out."""
    wrong, missing = [], unavailable(given)
    listed = given.get("platform_components", [])
    chosen = {one["name"] for one in listed if one["chosen"]}
    variants = [one for one in given.get("platform_variants", []) if one["of"] in chosen]
    for one in [*listed, *variants]:
        name, refused = one["name"], one.get("refused")
        if not refused or not one["chosen"] or name not in missing:
            continue
        value = given[refused["choice"]]
        what = "is not available here" if value == name else f"needs {name}, which is not available here"
        wrong.append(f"{refused['choice']}: {value} {what} ({missing[name]}); {refused['instead']}")
    return wrong


def urls(given: Variables) -> list[str]:
    """Return what is not a URL."""
    wrong = []
    for name in (
        "kubernetes_packages_repository",
        "container_runtime_repository",
        "image_registry_base_url",
        "manifest_base_url",
        "versitygw_repository",
        "vault_server_repository",
        "vault_address",
        "object_store_endpoint",
        "logging_url",
        "monitoring_pagerduty_url",
        "monitoring_runbook_base_url",
    ):
        value = given.get(name)
        if value and not re.match(r"^https?://[^/\s]+", str(value)):
            wrong.append(
                f"{name}: {value!r} is not a URL; allowed is http:// or https://, or empty for upstream"
            )
        elif re.match(r"^https?://\[", str(value)):
            wrong.append(f"{name}: {value!r} has an IPv6 address, which the platform does not support yet")
        elif is_example(urlsplit(str(value)).hostname or ""):
            wrong.append(
                f"{name}: {value!r} has an address that is reserved for examples (RFC 5737); write your own"
            )
    return wrong


def names(given: Variables, written: Variables) -> list[str]:
    """Return which names are not such as systems allow; of namespaces and hosts those that are written."""
    wrong = []
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", str(given.get("cluster_name", ""))):
        wrong.append(f"cluster_name: {given.get('cluster_name')!r}; allowed are a-z, 0-9 and -")
    if not re.fullmatch(
        r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]+", str(given.get("cluster_dns_domain", ""))
    ):
        wrong.append(
            f"cluster_dns_domain: {given.get('cluster_dns_domain')!r} is not a DNS name like cluster.local"
        )
    sql = ("application_database", "application_database_owner", "postgres_database", "postgres_owner")
    for name in sql:
        value = str(given.get(name))
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value) or value.startswith("pg_") or value in SQL_WORDS:
            wrong.append(
                f"{name}: {value!r} would need quotes in SQL, or is PostgreSQL's own; allowed are up to "
                "63 of a-z, 0-9 and _, and no word of SQL"
            )
    for name, value in written.items():
        if name.endswith("_namespace") and not NAME.fullmatch(str(value)):
            wrong.append(
                f"{name}: {value!r} is not a namespace; allowed are up to 63 of a-z, 0-9 and - (RFC 1123)"
            )
    refused = set()
    for name, required in INGRESS_HOSTS.items():
        host = str(written.get(name, ""))
        if name not in written or host in refused or (not host and not required):
            continue
        if not DNS_NAME.fullmatch(host) or is_address(host):
            refused.add(host)  # some have the value of another
            wrong.append(
                f"{name}: {host!r} is not a host name; allowed are a-z, 0-9 and -, with dots in between, "
                f"such as shop.example.com{'' if required else ', or empty'}"
            )
    return wrong


def scale(given: Variables, workers: int) -> list[str]:
    """Return which numbers of instances do not go together."""
    wrong = []
    instances, synchronous = given["postgres_instances"], given["postgres_synchronous_replicas"]
    inside = given.get("database") != "external"
    if inside and synchronous >= instances:
        wrong.append(f"postgres_synchronous_replicas: {synchronous}; allowed are 0 to {instances - 1}")
    if inside and given.get("postgres_spread") == "required" and instances > workers:
        wrong.append(
            f"postgres_instances: {instances} need as many workers, there are {workers}; "
            "add workers or set postgres_spread: preferred"
        )
    replicas, most = given["quote_app_replicas"], given["quote_app_replicas_max"]
    if most < replicas:
        wrong.append(f"quote_app_replicas_max: {most}; allowed is {replicas} (no autoscaler) or more")
    if not 0 <= (seconds := given["quote_app_database_retry_seconds"]) <= 60:
        wrong.append(f"quote_app_database_retry_seconds: {seconds}; allowed are 0 to 60")
    return wrong


def schedules(given: Variables) -> list[str]:
    """Return which times are no cron expressions; the operator of PostgreSQL wants seconds first."""
    wrong = []
    wanted = {
        name: (given.get(name), fields)
        for name, fields in (
            ("postgres_backup_schedule", 6),
            ("postgres_dump_schedule", 5),
            ("snapshots_schedule", 5),
            ("vault_server_snapshots_schedule", 5),
        )
    }
    for index, item in enumerate(given.get("velero_schedules") or []):
        wanted[f"velero_schedules[{index}].schedule"] = (item.get("schedule"), 5)
    for name, (value, fields) in wanted.items():
        found = str(value).split()
        example = "0 0 1 * * *, seconds first" if fields == 6 else "0 1 * * *"
        try:
            CronSim(" ".join(found[-5:]), datetime.datetime.now(datetime.UTC))
            right = len(found) == fields and (fields == 5 or re.fullmatch(r"[0-5]?\d", found[0]))
        except CronSimError:
            right = False
        if not right:
            wrong.append(
                f"{name}: {value!r} is not a schedule; allowed are {fields} cron fields, such as {example}"
            )
    return wrong


def placeholders(given: Variables) -> list[str]:
    """Return which values are still those of the example."""
    wrong = []
    for name in sorted(given):
        for path, text in _texts(name, given[name]):
            left = next((word for word in EXAMPLES if word in text), None)
            if left:
                wrong.append(f"{path}: still has the example's {left!r}; write your own")
    return wrong


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(f"{path}[{index}]", inner)


def parameters(given: Variables) -> list[str]:
    """Return which settings of PostgreSQL are not text, which its operator's API wants."""
    return [
        f"postgres_parameters.{key}: {value} is not text; write it in quotes, as PostgreSQL does"
        for key, value in given["postgres_parameters"].items()
        if not isinstance(value, str)
    ]


def issuers(given: Variables) -> list[str]:
    """Return what is wrong with how certificates are asked for."""
    wrong = []
    for name in ("cert_manager_acme_production", "cert_manager_acme_staging"):
        value = given.get(name)
        if not re.match(r"^https://[^/\s]+", str(value)):
            wrong.append(f"{name}: {value!r} is not the URL of an ACME directory; allowed is https://")
    email = str(given.get("cert_manager_email") or "")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
        wrong.append(f"cert_manager_email: {email!r} is not an address; allowed is NAME@DOMAIN, or empty")
    for name in ("cert_manager_acme_ca", "certificate_authority"):
        authority = str(given.get(name) or "")
        if authority and "-----BEGIN CERTIFICATE-----" not in authority:
            wrong.append(f"{name}: not a certificate; allowed is PEM text, or empty")
    if given.get("cert_manager_solver") == "cloudflare" and not given.get("cert_manager_dns_secret"):
        wrong.append(
            "cert_manager_dns_secret: empty; cert_manager_solver cloudflare needs the name of a Secret "
            "with the key api-token"
        )
    for server in given["cert_manager_nameservers"]:
        if not re.fullmatch(r"\S+:\d+", str(server)):
            wrong.append(f"cert_manager_nameservers: {server!r} is not HOST:PORT, such as 9.9.9.9:53")
    return wrong


def vault(given: Variables, hosts: list[str]) -> list[str]:
    """Return what is wrong with how Vault is to be opened and reached."""
    wrong = []
    if given.get("secrets_backend") == "vault" and not hosts:
        wrong.append("secrets_backend: vault needs a host in the group vault; add one, or choose another")
    shares, threshold = given["vault_server_key_shares"], given["vault_server_key_threshold"]
    # Vault itself refuses several keys of which each is enough.
    least = 1 if shares == 1 else 2
    if not least <= threshold <= shares:
        wrong.append(f"vault_server_key_threshold: {threshold}; allowed are {least} to {shares}")
    if given.get("vault_server_seal") == "awskms":
        wrong += [
            f"{name}: empty; vault_server_seal awskms needs it"
            for name in ("vault_server_awskms_key", "vault_server_awskms_region")
            if not given.get(name)
        ]
    return wrong


def lies_beside(given: Variables) -> list[str]:
    """Return whether the password of Vault's keys lies where they do; it works, and may be meant."""
    if given.get("secrets_backend") != "vault":
        return []
    keys, password = (Path(given[f"vault_server_{name}_file"]) for name in ("keys", "password"))
    places = {keys.parent, Path(given["cluster_secrets_dir"])}
    # A program may lie anywhere: what it prints comes from elsewhere.
    if not places & set(password.parents) or (password.is_file() and os.access(password, os.X_OK)):
        return []
    return [
        f"vault_server_password_file: {password} lies beside the keys that it opens, {keys}: whoever has a "
        f"copy of both opens Vault. Move it to {vault_password(given['cluster_name'])}, or name another "
        "place or a program that prints it (docs/vault.md)"
    ]


def logs(given: Variables) -> list[str]:
    """Return what is wrong with how logs are collected and kept."""
    if not given.get("logging_enabled", True):
        return []
    wrong = []
    if given.get("logging_store") == "external":
        wrong += [
            f"{name}: empty; logging_store external needs it"
            for name in (
                "logging_url",
                "logging_user",
                "logging_password",
                "logging_admin_user",
                "logging_admin_password",
            )
            if not given.get(name)
        ]
    authority = str(given.get("logging_ca") or "")
    if authority and "-----BEGIN CERTIFICATE-----" not in authority:
        wrong.append("logging_ca: not a certificate; allowed is PEM text, or empty")
    if given.get("logging_line_archive") == "s3":
        if given.get("logging_collector") == "fluentd":
            wrong.append(
                "logging_line_archive: s3 is not built for logging_collector: fluentd, whose writer to S3 "
                "could not be tried; allowed is none, or logging_collector: opentelemetry"
            )
        if not given.get("backups_enabled", True):
            wrong.append(
                "logging_line_archive: s3 writes to the object store of the backups, which backups_enabled: "
                "false leaves out; allowed is none"
            )
    return wrong


def receivers(given: Variables) -> list[str]:
    """Return what is wrong with who is told of alerts; secrets are not repeated."""
    wrong, ports = [], {}
    chosen = given["monitoring_receivers"]
    needed = {
        "slack": ["monitoring_slack_url"],
        "pagerduty": ["monitoring_pagerduty_key", "monitoring_pagerduty_url"],
        "email": ["monitoring_email_to", "monitoring_email_from", "monitoring_email_server"],
    }
    for receiver in chosen:
        wrong += [
            f"{name}: empty; monitoring_receivers has {receiver}, which needs it"
            for name in needed.get(str(receiver), [])
            if not given.get(name)
        ]
    slack = str(given.get("monitoring_slack_url") or "")
    if slack and not re.match(r"^https?://[^/\s]+/\S", slack):
        wrong.append("monitoring_slack_url: not the URL of a webhook; allowed is https://HOST/PATH")
    for name in ("monitoring_email_to", "monitoring_email_from"):
        value = str(given.get(name) or "")
        if value and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
            wrong.append(f"{name}: {value!r} is not an address; allowed is NAME@DOMAIN")
    server = str(given.get("monitoring_email_server") or "")
    if server and not re.fullmatch(r"\S+:\d+", server):
        wrong.append(f"monitoring_email_server: {server!r} is not HOST:PORT, such as smtp.example.com:587")
    if given.get("monitoring_email_username") and not given.get("monitoring_email_password"):
        wrong.append("monitoring_email_password: empty; monitoring_email_username needs it")
    time = str(given.get("monitoring_email_time"))
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", time):
        wrong.append(f"monitoring_email_time: {time!r}; allowed are '00:00' to '23:59'")
    proxy = given.get("monitoring_proxy")
    proxy = proxy if isinstance(proxy, Mapping) else {}
    for receiver, name in (("slack", "monitoring_slack_url"), ("pagerduty", "monitoring_pagerduty_url")):
        match = re.match(r"^(https?)://[^/:\s]+(?::(\d+))?", str(given.get(name) or ""))
        # By way of a proxy, that one's port is allowed instead.
        if receiver in chosen and match and not through(str(given[name]), proxy):
            ports[name] = int(match[2] or {"http": 80, "https": 443}[match[1]])
    if "email" in chosen and re.fullmatch(r"\S+:\d+", server):
        ports["monitoring_email_server"] = int(server.rpartition(":")[2])
    allowed = given["monitoring_alertmanager_egress_ports"]
    for name, port in ports.items():
        if port not in allowed:
            wrong.append(f"monitoring_alertmanager_egress_ports: lacks {port}, which {name} needs")
    return wrong


def metrics(given: Variables) -> list[str]:
    """Return what is wrong with how figures are asked for and kept."""
    wrong = []
    for name in (
        "monitoring_scrape_interval",
        "monitoring_prometheus_retention",
        "monitoring_group_wait",
        "monitoring_group_interval",
    ):
        if not re.fullmatch(r"(\d+(y|w|d|h|m|s))+", str(given.get(name))):
            wrong.append(
                f"{name}: {given.get(name)!r} is not a duration; allowed is a number with s, m, h, d, w or y"
            )
    for name in ("monitoring_prometheus_volume_size", "monitoring_alertmanager_volume_size"):
        if not re.fullmatch(r"[1-9]\d*Gi", str(given.get(name))):
            wrong.append(
                f"{name}: {given.get(name)!r} is not a size; allowed is a number of gibibytes, such as 20Gi"
            )
    return wrong


def delivery(given: Variables) -> list[str]:
    """Return what is wrong with how secrets come to applications."""
    wrong: list[str] = []
    backend = given.get("secrets_backend")
    if not backend:
        return wrong
    if given.get("secrets_delivery_method") == "csi" and backend != "vault":
        wrong.append(
            f"secrets_delivery_method: csi knows Vault only, secrets_backend is {backend}; "
            "allowed is external-secrets"
        )
    refresh, lease = given["secrets_delivery_refresh_hours"], given["secrets_delivery_lease_hours"]
    if backend != "vault":
        return wrong
    if not 2 * refresh <= lease <= 768:
        wrong.append(
            f"secrets_delivery_lease_hours: {lease}; allowed are {2 * refresh} (twice "
            "secrets_delivery_refresh_hours) to 768"
        )
    port = given.get("postgres_vault_port")
    if port != given.get("secrets_delivery_database_port"):
        wrong.append(
            f"secrets_delivery_database_port: {given.get('secrets_delivery_database_port')} is not "
            f"postgres_vault_port, {port}; both must be the same"
        )
    for address in given.get("postgres_vault_addresses") or []:
        if not is_network(str(address)):
            wrong.append(
                f"postgres_vault_addresses: {address} is not an IPv4 address or network, by which a "
                "NetworkPolicy knows who comes in"
            )
    return wrong


def accounts(given: Variables) -> list[str]:
    """Return which accounts of the object store lack something."""
    known_accounts = given.get("object_store_accounts") or {}
    archive = given.get("logging_line_archive") == "s3" or (
        given.get("logging_store") == "eck" and given.get("logging_archive_days") != 0
    )
    purposes = (*PURPOSES, *(["logs"] if archive and given.get("logging_enabled", True) else []))
    wrong = [
        f"object_store_accounts: {purpose} is missing; bucket, access_key, secret_key are needed"
        for purpose in purposes
        if purpose not in known_accounts and given.get("backups_enabled", True)
    ]
    for purpose, account in known_accounts.items():
        known = account if isinstance(account, dict) else {}
        # The keys of a store of our own are generated later.
        missing = {"bucket", "access_key", "secret_key"} - {
            k for k, v in known.items() if v or k == "secret_key"
        }
        for name in sorted(missing):
            wrong.append(
                f"object_store_accounts: {purpose} has no {name}; bucket, access_key, secret_key are needed"
            )
    return wrong
