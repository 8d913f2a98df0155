"""Judge the whole input on the controller, before the first connection: every mistake in one go."""

from __future__ import annotations

import difflib
import ipaddress
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
# How near a name must be to a known one to be taken for it, misspelt.
NEAR = 0.84
# Options of an argument spec that a validator of modules knows.
KNOWN_KEYS = ("type", "elements", "choices", "required", "options", "no_log")
# What has an account and a bucket of its own in the object store.
PURPOSES = ("postgres", "snapshots", "velero")

Variables = dict[str, Any]


def load_specs(roles: Path) -> dict[str, dict[str, Variables]]:
    """Return the options of each role, over all its entry points."""
    specs: dict[str, dict[str, Variables]] = {}
    for file in sorted(roles.glob("*/meta/argument_specs.yml")):
        options: dict[str, Variables] = {}
        for entry in yaml.safe_load(file.read_text())["argument_specs"].values():
            options |= entry.get("options") or {}
        specs[file.parent.parent.name] = options
    return specs


def for_validator(options: dict[str, Variables]) -> dict[str, Variables]:
    """Return options as the validator of modules wants them; what is required is looked at apart."""
    found = {}
    for name, option in options.items():
        kept = {key: option[key] for key in KNOWN_KEYS if key in option and key != "required"}
        if "options" in kept:
            inner = for_validator(kept["options"])
            for key, value in kept["options"].items():
                inner[key] |= {"required": True} if value.get("required") else {}
            kept["options"] = inner
        found[name] = kept
    return found


def misspelt(names: set[str], specs: dict[str, dict[str, Variables]]) -> list[str]:
    """Return what is wrong with names that no spec knows."""
    known = {name for options in specs.values() for name in options}
    wrong = []
    for name in sorted(names - known):
        if name.startswith(("ansible_", "_")):
            continue
        role = next(
            (role for role in sorted(specs, key=len, reverse=True) if name.startswith(f"{role}_")), None
        )
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if role else NEAR)
        if role and near:
            wrong.append(f"{name}: role {role} knows no such variable; did you mean {near[0]}?")
        elif role:
            wrong.append(f"{name}: role {role} knows no such variable; see roles/{role}/README.md")
        elif near:
            wrong.append(f"{name}: unknown variable; did you mean {near[0]}?")
    return wrong


def types(role: str, options: dict[str, Variables], given: Variables) -> list[str]:
    """Return which values are of the wrong type, not among the allowed ones, or missing."""
    # What a playbook hands to a role is not here yet; what has a value must not be emptied.
    wrong = [
        f"{name}: required by role {role} and not set"
        for name, option in options.items()
        if option.get("required") and (role == "validate" or name in given) and not given.get(name)
    ]
    for name, option in for_validator({name: options[name] for name in options if name in given}).items():
        result = ArgumentSpecValidator({name: option}).validate({name: given[name]})
        wrong += [f"{name}: {text}" for text in result.error_messages]
    return wrong


def shape(groups: dict[str, list[str]], addresses: dict[str, Any], allow_no_workers: bool) -> list[str]:
    """Return what is wrong with the hosts."""
    masters, workers = groups.get("control_plane", []), groups.get("workers", [])
    wrong = []
    if len(masters) not in (1, 3):
        wrong.append(f"control_plane: the group has {len(masters)} hosts; allowed are 1 or 3")
    if not workers and not allow_no_workers:
        wrong.append(
            "workers: the group has no host; at least 1 is needed, or control_plane_schedulable: true"
        )
    for host in sorted(set(masters) & set(workers)):
        wrong.append(f"{host}: is in control_plane and in workers; a host has one role")
    vaults = groups.get("vault", [])
    if len(vaults) not in (0, 1, 3):
        wrong.append(f"vault: the group has {len(vaults)} hosts; allowed are 1 or 3, or none")
    for host in sorted(set(vaults) & {*masters, *workers, *groups.get("object_store", [])}):
        wrong.append(f"{host}: is in vault and in another group; what holds all secrets holds nothing else")
    seen: dict[str, str] = {}
    for host in dict.fromkeys(
        [*masters, *workers, *groups.get("object_store", []), *groups.get("vault", [])]
    ):
        if not NAME.match(host):
            wrong.append(f"{host}: not a node's name; allowed are up to 63 of a-z, 0-9 and - (RFC 1123)")
        address = str(addresses.get(host) or "")
        if not address:
            wrong.append(f"{host}: ansible_host is not set; allowed is an IP address or a DNS name")
        elif re.fullmatch(r"[\d.]+", address) and not is_address(address):
            wrong.append(f"{host}: ansible_host {address} is not an IP address")
        elif address in seen:
            wrong.append(
                f"{host}: ansible_host {address} is that of {seen[address]} as well; each host needs its own"
            )
        seen.setdefault(address, host)
    return wrong


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def networks(given: Variables, addresses: dict[str, Any]) -> list[str]:
    """Return what is wrong with the networks."""
    wrong, found = [], {}
    for name in ("cluster_pod_cidr", "cluster_service_cidr"):
        try:
            found[name] = ipaddress.ip_network(str(given[name]))
        except (KeyError, ValueError):
            wrong.append(
                f"{name}: {given.get(name)!r} is not a network; allowed is for example 10.244.0.0/16"
            )
    if len(found) == 2 and found["cluster_pod_cidr"].overlaps(found["cluster_service_cidr"]):
        wrong.append("cluster_pod_cidr: overlaps cluster_service_cidr; they must lie apart")
    for name, least in (("cluster_pod_cidr", 22), ("cluster_service_cidr", 24)):
        if name in found and found[name].prefixlen > least:
            wrong.append(f"{name}: /{found[name].prefixlen} is too small; allowed is at most /{least}")
    for host, address in addresses.items():
        for name, network in found.items():
            if is_address(str(address)) and ipaddress.ip_address(str(address)) in network:
                wrong.append(f"{host}: ansible_host {address} lies in {name} {network}; they must lie apart")
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
    if minor(tools) != minor(wanted):
        wrong.append(
            f"kubernetes_packages_cri_tools_version: {tools} is not of the minor version of {wanted}"
        )
    runtime = given.get("container_runtime_version")
    if (minor(runtime) or (0, 0)) < (2, 0):
        wrong.append(f"container_runtime_version: {runtime} is too old for {wanted}; allowed is 2.0 or newer")
    return wrong


def unavailable(given: Variables) -> dict[str, str]:
    """Return the components that cannot be had, and why."""
    return {
        str(item.get("name")): str(item.get("reason"))
        for item in given.get("components_unavailable") or []
        if isinstance(item, dict)
    }


def choices(given: Variables, masters: list[str], addresses: dict[str, Any], workers: int) -> list[str]:
    """Return which choices contradict one another."""
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
    endpoint = str(given.get("cluster_endpoint", ""))
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        wrong.append(f"cluster_endpoint: {endpoint!r} is not HOST:PORT, such as 10.0.0.10:6443")
    elif len(masters) > 1 and host in {str(addresses.get(master)) for master in masters}:
        wrong.append(
            f"cluster_endpoint: {endpoint} is one of three control planes; use a load balancer's address"
        )
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", str(given.get("cluster_name", ""))):
        wrong.append(f"cluster_name: {given.get('cluster_name')!r}; allowed are a-z, 0-9 and -")
    if not re.fullmatch(
        r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]+", str(given.get("cluster_dns_domain", ""))
    ):
        wrong.append(
            f"cluster_dns_domain: {given.get('cluster_dns_domain')!r} is not a DNS name like cluster.local"
        )
    missing = unavailable(given)
    controller = given.get("ingress_controller")
    if controller in missing:
        wrong.append(
            f"ingress_controller: {controller} cannot be had here ({missing[controller]}); choose another"
        )
    wrong += accounts(given)
    instances, replicas = given.get("postgres_instances"), given.get("postgres_synchronous_replicas")
    if isinstance(instances, int):
        if isinstance(replicas, int) and not 0 <= replicas < instances:
            wrong.append(f"postgres_synchronous_replicas: {replicas}; allowed are 0 to {instances - 1}")
        if not 1 <= instances <= 9:
            wrong.append(f"postgres_instances: {instances}; allowed are 1 to 9")
        elif given.get("postgres_spread") == "required" and instances > workers:
            wrong.append(
                f"postgres_instances: {instances} need as many workers, there are {workers}; "
                "add workers or set postgres_spread: preferred"
            )
    wrong += application(given)
    return wrong


def application(given: Variables) -> list[str]:
    """Return what is wrong with how the application is scaled."""
    wrong = []
    replicas = given.get("quote_app_replicas")
    if isinstance(replicas, int) and replicas < 1:
        wrong.append(f"quote_app_replicas: {replicas}; allowed is 1 or more")
    most = given.get("quote_app_replicas_max")
    if isinstance(replicas, int) and isinstance(most, int) and most < replicas:
        wrong.append(f"quote_app_replicas_max: {most}; allowed is {replicas} (no autoscaler) or more")
    target = given.get("quote_app_cpu_target")
    if isinstance(target, int) and not 1 <= target <= 100:
        wrong.append(f"quote_app_cpu_target: {target}; allowed are 1 to 100 percent")
    return wrong


def issuers(given: Variables) -> list[str]:
    """Return what is wrong with how certificates are asked for."""
    wrong = []
    issuer, missing = given.get("certificate_issuer"), unavailable(given)
    if issuer and "cert-manager" in missing:
        wrong.append(
            f"certificate_issuer: {issuer} needs cert-manager, which cannot be had here "
            f"({missing['cert-manager']}); leave it empty"
        )
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
    servers = given.get("cert_manager_nameservers")
    for server in servers if isinstance(servers, list) else []:
        if not re.fullmatch(r"\S+:\d+", str(server)):
            wrong.append(f"cert_manager_nameservers: {server!r} is not HOST:PORT, such as 9.9.9.9:53")
    return wrong


def vault(given: Variables, hosts: list[str]) -> list[str]:
    """Return what is wrong with how Vault is to be opened and reached."""
    wrong = []
    if given.get("secrets_backend") == "vault" and not hosts:
        wrong.append("secrets_backend: vault needs a host in the group vault; add one, or choose another")
    shares, threshold = given.get("vault_server_key_shares"), given.get("vault_server_key_threshold")
    if isinstance(shares, int) and isinstance(threshold, int):
        # Vault itself refuses several keys of which each is enough.
        least = 1 if shares == 1 else 2
        if not 1 <= shares <= 255:
            wrong.append(f"vault_server_key_shares: {shares}; allowed are 1 to 255")
        elif not least <= threshold <= shares:
            wrong.append(f"vault_server_key_threshold: {threshold}; allowed are {least} to {shares}")
    if given.get("vault_server_seal") == "awskms":
        wrong += [
            f"{name}: empty; vault_server_seal awskms needs it"
            for name in ("vault_server_awskms_key", "vault_server_awskms_region")
            if not given.get(name)
        ]
    return wrong


def logs(given: Variables) -> list[str]:
    """Return what is wrong with how logs are collected and kept."""
    if not given.get("logging_enabled", True):
        return []
    wrong = []
    missing, store = unavailable(given), given.get("logging_store")
    needs = {"logging_collector": {"fluentd": ["logging-fluentd"]}}
    needs["logging_store"] = {"eck": ["logging-elasticsearch", "logging-kibana"]}
    for name, components in needs.items():
        for component in components.get(str(given.get(name)), []):
            if component in missing:
                wrong.append(
                    f"{name}: {given[name]} needs {component}, which cannot be had here "
                    f"({missing[component]}); choose another, or set logging_enabled: false"
                )
    if store == "external":
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
    for name, least in (
        ("logging_retention_days", 0),
        ("logging_archive_days", 0),
        ("logging_queue_mib", 64),
        ("logging_line_kib", 16),
    ):
        value = given.get(name)
        if isinstance(value, int) and value < least:
            wrong.append(f"{name}: {value}; allowed is {least} or more")
    return wrong


def receivers(given: Variables) -> list[str]:
    """Return what is wrong with who is told of alerts; secrets are not repeated."""
    wrong, ports = [], {}
    chosen = given.get("monitoring_receivers")
    chosen = chosen if isinstance(chosen, list) else []
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
    for receiver, name in (("slack", "monitoring_slack_url"), ("pagerduty", "monitoring_pagerduty_url")):
        match = re.match(r"^(https?)://[^/:\s]+(?::(\d+))?", str(given.get(name) or ""))
        if receiver in chosen and match:
            ports[name] = int(match[2] or {"http": 80, "https": 443}[match[1]])
    if "email" in chosen and re.fullmatch(r"\S+:\d+", server):
        ports["monitoring_email_server"] = int(server.rpartition(":")[2])
    allowed = given.get("monitoring_alertmanager_egress_ports")
    for name, port in ports.items():
        if isinstance(allowed, list) and port not in allowed:
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
    wrong = []
    backend, missing = given.get("secrets_backend"), unavailable(given)
    if not backend:
        return wrong
    if given.get("secrets_delivery_method") == "csi":
        if backend != "vault":
            wrong.append(
                f"secrets_delivery_method: csi knows Vault only, secrets_backend is {backend}; "
                "allowed is external-secrets"
            )
        if "secrets-delivery-csi" in missing:
            wrong.append(
                f"secrets_delivery_method: csi cannot be had here ({missing['secrets-delivery-csi']}); "
                "allowed is external-secrets"
            )
    elif "secrets-delivery" in missing:
        wrong.append(
            f"secrets_backend: {backend} needs External Secrets Operator, which cannot be had here "
            f"({missing['secrets-delivery']}); leave it empty"
        )
    refresh, lease = given.get("secrets_delivery_refresh_hours"), given.get("secrets_delivery_lease_hours")
    if isinstance(refresh, int) and refresh < 1:
        wrong.append(f"secrets_delivery_refresh_hours: {refresh}; allowed is 1 or more")
    if backend != "vault":
        return wrong
    if isinstance(refresh, int) and isinstance(lease, int) and not 2 * refresh <= lease <= 768:
        wrong.append(
            f"secrets_delivery_lease_hours: {lease}; allowed are {2 * refresh} (twice "
            "secrets_delivery_refresh_hours) to 768"
        )
    port = given.get("postgres_vault_port")
    if isinstance(port, int) and not 1024 < port < 65536:
        wrong.append(f"postgres_vault_port: {port}; allowed is a NodePort, such as 30432")
    if port != given.get("secrets_delivery_database_port"):
        wrong.append(
            f"secrets_delivery_database_port: {given.get('secrets_delivery_database_port')} is not "
            f"postgres_vault_port, {port}; they are the same"
        )
    for address in given.get("postgres_vault_addresses") or []:
        if not is_network(str(address)):
            wrong.append(
                f"postgres_vault_addresses: {address} is a name; allowed are IP addresses and networks, "
                "by which a NetworkPolicy knows who comes in"
            )
    return wrong


def is_network(text: str) -> bool:
    """Tell whether a text is an IP address or a network."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def accounts(given: Variables) -> list[str]:
    """Return which accounts of the object store lack something."""
    known_accounts = given.get("object_store_accounts") or {}
    archive = given.get("logging_store") == "eck" and given.get("logging_archive_days") != 0
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


def overridden(inventory: Path, project: Path) -> list[str]:
    """Return settings of an inventory's group_vars/all that the project's own silently win over."""
    ours: set[str] = set()
    for file in sorted((project / "group_vars" / "all").glob("*.yml")):
        ours |= set(yaml.safe_load(file.read_text()) or {})
    wrong = []
    folder = inventory / "group_vars" / "all"
    files = [inventory / "group_vars" / "all.yml", *(sorted(folder.glob("*.yml")) if folder.is_dir() else [])]
    for file in files:
        if file.is_file():
            for name in sorted(ours & set(yaml.safe_load(file.read_text()) or {})):
                where = file.relative_to(inventory)
                wrong.append(f"{name}: {where} has no effect on it; move it to group_vars/platform/")
    return wrong


class ActionModule(ActionBase):
    """Runs on the controller, contacts no host."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: Variables | None = None) -> Variables:
        """Judge and, if anything is wrong, fail with all of it."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        hostvars, groups = variables["hostvars"], variables["groups"]
        roles = Path(variables["role_path"]).parent
        specs = load_specs(roles)
        unused = {"ingress-nginx": "traefik", "traefik": "ingress_nginx"}.get(
            str(variables.get("ingress_controller"))
        )
        hosts = list(dict.fromkeys(groups.get("control_plane", []) + groups.get("workers", [])))
        machines = [*hosts, *groups.get("object_store", []), *groups.get("vault", [])]
        addresses = {host: hostvars[host].get("ansible_host") for host in machines}
        workers = len(groups.get("workers", []))

        wrong: list[str] = []
        inventory = variables.get("inventory_dir")
        if inventory:
            wrong += overridden(Path(inventory), roles.parent)
        schedulable = bool(hosts) and bool(hostvars[hosts[0]].get("control_plane_schedulable", False))
        wrong += shape(groups, addresses, schedulable)
        known = {name for options in specs.values() for name in options}
        defaults = self._defaults(
            roles,
            (
                "postgres",
                "quote_app",
                "cert_manager",
                "vault_server",
                "secrets_delivery",
                "monitoring",
                "logging",
            ),
        )
        for host in hosts:
            raw = hostvars.raw_get(host)
            wrong += misspelt(set(raw), specs)
            context = raw | {"hostvars": hostvars, "groups": groups, "inventory_hostname": host}
            given = self._values(context, known & set(raw))
            for role, options in specs.items():
                if role not in {unused, "component", "node_files"}:
                    wrong += types(role, options, given)
            wrong += versions(given)
            wrong += choices(
                defaults | given, groups.get("control_plane", []), addresses, workers + (schedulable and 1)
            )
            wrong += issuers(defaults | given)
            wrong += receivers(defaults | given)
            wrong += vault(defaults | given, groups.get("vault", []))
            wrong += delivery(defaults | given)
            wrong += logs(defaults | given)
            wrong += metrics(defaults | given)
            wrong += networks(given, addresses)
        wrong = list(dict.fromkeys(wrong))
        if wrong:
            result |= {
                "failed": True,
                "msg": "\n".join([f"{len(wrong)} mistakes; nothing was touched.", *wrong]),
            }
        return result

    @staticmethod
    def _defaults(roles: Path, names: tuple[str, ...]) -> Variables:
        found: Variables = {}
        for name in names:
            file = roles / name / "defaults" / "main.yml"
            if file.is_file():
                found |= yaml.safe_load(file.read_text())
        return found

    def _values(self, context: Variables, names: set[str]) -> Variables:
        """Return the values that can be known now; a template that needs a node's facts cannot."""
        found: Variables = {}
        templar = self._templar.copy_with_new_env(available_variables=context)
        for name in sorted(names):
            try:
                found[name] = templar.template(context[name])
            except AnsibleError as error:
                if "ansible_facts" not in str(error) + str(context[name]):
                    found[name] = f"cannot be resolved: {error}"
        return found
