"""From the choices of the roles aws_* to the things that are declared, and what is wrong with the choices."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from quote_platform.aws.account import Account
from quote_platform.aws.kinds.budgets import ALARMS
from quote_platform.aws.kinds.machines import TRUST
from quote_platform.aws.kinds.network import ANY
from quote_platform.aws.resource import Found, Key, Ref, Resource

# ELB allows 32 characters, of which the longest of our names takes 14; buckets carry the account's 12 digits.
CLUSTER = re.compile(r"[a-z]([-a-z0-9]{0,15}[a-z0-9])?")
BUCKET = re.compile(r"(?!xn--|sthree-|amzn-s3-demo-)(?!.*(-s3alias|--ol-s3)$)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
REPOSITORY = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*")
SSH_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/=]+( .*)?")
# docs/ports.md has what each is.
NODE_FLOWS = ("tcp 10250", "tcp 179", "4")
DOMAIN = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
MAIL = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
DATABASES = ("cloudnative-pg", "rds")
METRICS = ("tcp 20241", "tcp 9100")


class Part(BaseModel):
    """Choices of one role; unknown ones are a mistake of ours."""

    model_config = ConfigDict(extra="forbid")


class Network(Part):
    """Choices of aws_network."""

    cidr: str
    zones: list[str]
    nat: str
    endpoints: list[str]
    admin_cidrs: list[str]
    user_cidrs: list[str]


class Machines(Part):
    """Choices of aws_machines."""

    control_planes: int
    workers: int
    vaults: int
    bastion: bool
    types: dict[str, str]
    disks: dict[str, int]
    image: str
    ssh_keys: list[str]
    protected: bool


class Balancers(Part):
    """Choices of aws_load_balancers."""

    api_scheme: str


class Buckets(Part):
    """Choices of aws_buckets."""

    purposes: list[str]
    names: dict[str, str]
    noncurrent_days: int
    upload_days: int


class Keys(Part):
    """Choices of aws_keys."""

    vault: bool


class Registry(Part):
    """Choices of aws_registry."""

    repositories: list[str]
    keep: int


class Database(Part):
    """Choices of aws_database."""

    choice: str
    version: str
    type: str
    disk: int
    multi_az: bool
    backup_days: int
    protected: bool


class Dns(Part):
    """Choices of aws_dns."""

    domain: str
    create_zone: bool
    hosts: list[str]
    api_host: str
    health_path: str


class Design(Part):
    """Everything that is chosen for one cluster in one account."""

    cluster: str
    account_id: str
    region: str
    pod_cidr: str
    service_cidr: str
    network: Network
    machines: Machines
    balancers: Balancers
    buckets: Buckets
    keys: Keys
    registry: Registry
    database: Database
    dns: Dns
    budget: float
    budget_mails: list[str]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self.network.zones = self.network.zones or [f"{self.region}{letter}" for letter in "abc"]
        usual = {one: f"{self.cluster}-{self.account_id}-{one}" for one in self.buckets.purposes}
        self.buckets.names = usual | self.buckets.names
        return self

    @property
    def resources(self) -> list[Resource]:
        """Return what is declared."""
        return [
            *_network(self),
            *_groups(self),
            *_machines(self),
            *_balancers(self),
            *_buckets(self),
            *_repositories(self),
            *_database(self),
            *_names(self),
            *_budget(self),
        ]

    @property
    def members(self) -> dict[str, list[str]]:
        """Return the names of machines by group."""
        of = self.machines
        return {
            "control_plane": [f"master-{n + 1}" for n in range(of.control_planes)],
            "workers": [f"worker-{n + 1}" for n in range(of.workers)],
            "vault": [f"vault-{n + 1}" for n in range(of.vaults)],
            "bastion": ["bastion"] if of.bastion else [],
        }

    @property
    def public(self) -> bool:
        """Tell whether nodes have public addresses, since nothing else leads them out."""
        return self.network.nat == "none"


def judge(of: Design) -> list[str]:
    """Return every mistake that can be seen without asking AWS."""
    wrong = []
    if not re.fullmatch(r"\d{12}", of.account_id):
        wrong.append(
            f"aws_account_id: {of.account_id!r} is not an account; allowed are its 12 digits, as text"
        )
    if not REGION.fullmatch(of.region):
        wrong.append(f"aws_account_region: {of.region!r} is not a region; allowed is for example eu-west-1")
    if not CLUSTER.fullmatch(of.cluster):
        wrong.append(
            f"cluster_name: {of.cluster!r} cannot name load balancers and buckets; allowed are up to 17 "
            "of a-z, "
            "0-9 and -, a letter first"
        )
    wrong += _wrong_network(of) + _wrong_machines(of)
    for purpose, bucket in of.buckets.names.items():
        if purpose not in of.buckets.purposes:
            wrong.append(
                f"aws_buckets_names.{purpose}: is none of aws_buckets_purposes; allowed are "
                f"{', '.join(of.buckets.purposes)}"
            )
        if not BUCKET.fullmatch(bucket):
            wrong.append(
                f"aws_buckets_names.{purpose}: {bucket!r} is not the name of a bucket; allowed are 3 to "
                "63 of "
                "a-z, 0-9 and -"
            )
    for name, value in (("noncurrent", of.buckets.noncurrent_days), ("upload", of.buckets.upload_days)):
        if value < 1:
            wrong.append(f"aws_buckets_{name}_days: {value}; allowed is 1 or more")
    if of.keys.vault and not of.machines.vaults:
        wrong.append(
            "aws_keys_vault: true, and there is no machine that it opens; allowed is false, or "
            "aws_machines_vaults 1 or 3"
        )
    return wrong + _wrong_registry(of) + _wrong_database(of) + _wrong_names(of) + _wrong_budget(of)


def _wrong_registry(of: Design) -> list[str]:
    names = of.registry.repositories
    wrong = [
        f"aws_registry_repositories: {name!r} is not the name of a repository; allowed are up to 200 of a-z, "
        "0-9, ., _, - and /"
        for name in names
        if not REPOSITORY.fullmatch(name) or len(name) > 200
    ]
    wrong += [
        f"aws_registry_repositories: {name} is there twice"
        for name in sorted({*names})
        if names.count(name) > 1
    ]
    if of.registry.keep < 1:
        wrong.append(f"aws_registry_keep: {of.registry.keep}; allowed is 1 or more")
    return wrong


def _wrong_database(of: Design) -> list[str]:
    chosen, wrong = of.database, []
    if chosen.choice not in DATABASES:
        return [f"aws_database_choice: {chosen.choice!r}; allowed are {', '.join(DATABASES)}"]
    if chosen.choice != "rds":
        return []
    if len(of.network.zones) < 2:
        wrong.append("aws_network_zones: one; RDS wants two or more")
    if not re.fullmatch(r"\d+", chosen.version):
        wrong.append(
            f"aws_database_version: {chosen.version!r} is not a major version of PostgreSQL; allowed is for "
            'example "17"'
        )
    if not re.fullmatch(r"db\.[a-z0-9-]+\.[a-z0-9-]+", chosen.type):
        wrong.append(f"aws_database_type: {chosen.type!r} is not a type; allowed is for example db.t3.medium")
    for name, value, least, most in (
        ("disk", chosen.disk, 20, 65536),
        ("backup_days", chosen.backup_days, 1, 35),
    ):
        if not least <= value <= most:
            wrong.append(f"aws_database_{name}: {value}; allowed are {least} to {most}")
    return wrong


def _wrong_names(of: Design) -> list[str]:
    chosen, wrong = of.dns, []
    if not chosen.domain:
        return []
    if not DOMAIN.fullmatch(chosen.domain):
        return [f"aws_dns_domain: {chosen.domain!r} is not a domain; allowed is for example example.com"]
    if not chosen.hosts:
        wrong.append("aws_dns_hosts: empty; allowed are names in aws_dns_domain")
    names = [*(("hosts", one) for one in chosen.hosts)]
    names += [("api_host", chosen.api_host)] if chosen.api_host else []
    for variable, name in names:
        if not DOMAIN.fullmatch(name) or not f".{name}".endswith(f".{chosen.domain}"):
            wrong.append(
                f"aws_dns_{variable}: {name!r} is not in aws_dns_domain {chosen.domain}; allowed is for "
                f"example app.{chosen.domain}"
            )
    every = [name for _, name in names]
    wrong += [f"aws_dns_hosts: {name} is there twice" for name in sorted({*every}) if every.count(name) > 1]
    if chosen.health_path and not re.fullmatch(r"/[!-~]{0,254}", chosen.health_path):
        wrong.append(f"aws_dns_health_path: {chosen.health_path!r} is not a path; allowed is for example /")
    return wrong


def _wrong_budget(of: Design) -> list[str]:
    mails = of.budget_mails
    wrong = [
        f"aws_account_budget_mails: {one!r} is not an address; allowed is for example ops@example.com"
        for one in mails
        if not MAIL.fullmatch(one)
    ]
    if len(mails) > 10 or len({*mails}) != len(mails):
        wrong.append(f"aws_account_budget_mails: {len(mails)}; allowed are up to 10, each once")
    if mails and of.budget <= 0:
        wrong.append(
            "aws_account_budget_mails: there is no budget to tell of; allowed is an aws_account_budget "
            "above 0, or none"
        )
    return wrong


def _wrong_network(of: Design) -> list[str]:
    net, wrong = of.network, []
    try:
        cidr = ipaddress.IPv4Network(net.cidr)
    except ValueError:
        return [f"aws_network_cidr: {net.cidr!r} is not a network; allowed is for example 10.0.0.0/16"]
    if not 16 <= cidr.prefixlen <= 24:
        size = "too small" if cidr.prefixlen > 24 else "larger than AWS allows"
        wrong.append(f"aws_network_cidr: {cidr} is {size}; allowed are /16 to /24")
    if not cidr.is_private:
        wrong.append(
            f"aws_network_cidr: {cidr} is not private; allowed are parts of 10/8, 172.16/12, 192.168/16"
        )
    for name, text in (("cluster_pod_cidr", of.pod_cidr), ("cluster_service_cidr", of.service_cidr)):
        try:
            if cidr.overlaps(ipaddress.IPv4Network(text)):
                wrong.append(f"aws_network_cidr: {cidr} overlaps {name} {text}; they must not overlap")
        except ValueError:
            wrong.append(f"{name}: {text!r} is not a network; allowed is for example 10.244.0.0/16")
    if not 1 <= len(net.zones) <= 3 or len(set(net.zones)) != len(net.zones):
        wrong.append(f"aws_network_zones: {', '.join(net.zones) or 'none'}; allowed are 1 to 3, each once")
    wrong += [
        f"aws_network_zones: {zone} is not a zone of {of.region}; allowed is for example {of.region}a"
        for zone in net.zones
        if not re.fullmatch(rf"{re.escape(of.region)}[a-z]", zone)
    ]
    if not net.admin_cidrs:
        wrong.append(
            "aws_network_admin_cidrs: empty, so nobody reaches SSH and the API server; allowed are your "
            "networks, "
            "such as 198.18.0.7/32"
        )
    for name, cidrs in (("admin", net.admin_cidrs), ("user", net.user_cidrs)):
        for text in cidrs:
            try:
                ipaddress.IPv4Network(text)
            except ValueError:
                wrong.append(
                    f"aws_network_{name}_cidrs: {text!r} is not a network; allowed is for example 10.0.0.0/8"
                )
    if "0.0.0.0/0" in net.admin_cidrs:
        wrong.append(
            "aws_network_admin_cidrs: 0.0.0.0/0 opens SSH to the world; allowed are your own networks"
        )
    return wrong


def _wrong_machines(of: Design) -> list[str]:
    machines, wrong = of.machines, []
    if machines.control_planes not in (1, 3):
        wrong.append(f"aws_machines_control_planes: {machines.control_planes}; allowed are 1 or 3")
    if machines.vaults not in (0, 1, 3):
        wrong.append(f"aws_machines_vaults: {machines.vaults}; allowed are 0, 1 or 3")
    if machines.workers < 1:
        wrong.append(f"aws_machines_workers: {machines.workers}; allowed is 1 or more")
    if not machines.ssh_keys:
        wrong.append("aws_machines_ssh_keys: empty, so nobody can log in; allowed are public keys")
    wrong += [
        f"aws_machines_ssh_keys: {key[:40]!r} is not a public key of SSH; allowed is a line of a .pub file"
        for key in machines.ssh_keys
        if not SSH_KEY.fullmatch(key.strip())
    ]
    for group in ("control_plane", "workers", "vault", "bastion"):
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", machines.types.get(group, "")):
            wrong.append(
                f"aws_machines_types.{group}: {machines.types.get(group)!r} is not a type; allowed is "
                "for example t3.medium"
            )
        if machines.disks.get(group, 0) < 8:
            wrong.append(f"aws_machines_disks.{group}: {machines.disks.get(group)}; allowed are 8 GB or more")
    return wrong


def _network(of: Design) -> list[Resource]:
    vpc, net = Ref("vpc", "main"), of.network
    cidr = ipaddress.IPv4Network(net.cidr)
    quarters = list(cidr.subnets(prefixlen_diff=2))
    blocks = {
        "public": list(quarters[0].subnets(prefixlen_diff=2)),  # balancers, gateways, the bastion
        "private": quarters[1:],
    }
    found = [
        Resource("vpc", "main", {"cidr": net.cidr, "dns_hostnames": True}),
        Resource("internet-gateway", "main", {"vpc": vpc}),
    ]
    letters = [zone[-1] for zone in net.zones]
    for kind, networks in blocks.items():
        found += [
            Resource("subnet", f"{kind}-{zone[-1]}", {"vpc": vpc, "cidr": str(block), "zone": zone})
            for zone, block in zip(net.zones, networks, strict=False)
        ]
    everywhere = "0.0.0.0/0 via {}"
    out = Ref("internet-gateway", "main", form=everywhere)
    subnets = {kind: [Ref("subnet", f"{kind}-{letter}") for letter in letters] for kind in blocks}
    found.append(
        Resource("route-table", "public", {"vpc": vpc, "routes": [out], "subnets": subnets["public"]})
    )
    gates = {"none": [], "one": letters[:1], "per-zone": letters}[net.nat]
    for letter in gates:
        found += [
            Resource("address", f"nat-{letter}", {}),
            Resource(
                "nat-gateway",
                letter,
                {
                    "subnet": Ref("subnet", f"public-{letter}"),
                    "address": Ref("address", f"nat-{letter}"),
                    "state": "available",
                },
                after=(("internet-gateway", "main"),),
            ),
        ]
    tables = (
        {f"private-{letter}": [letter] for letter in letters}
        if net.nat == "per-zone"
        else {"private": letters}
    )
    for name, inside in tables.items():
        routes = [Ref("nat-gateway", inside[0] if net.nat == "per-zone" else letters[0], form=everywhere)]
        found.append(
            Resource(
                "route-table",
                name,
                {
                    "vpc": vpc,
                    "routes": routes if gates else [],
                    "subnets": [Ref("subnet", f"private-{letter}") for letter in inside],
                },
            )
        )
    for service in net.endpoints:
        gateway = service == "s3"
        found.append(
            Resource(
                "endpoint",
                service.replace(".", "-"),
                {
                    "vpc": vpc,
                    "service": f"com.amazonaws.{of.region}.{service}",
                    "routes": [Ref("route-table", name) for name in ("public", *tables)] if gateway else [],
                    "subnets": [] if gateway else subnets["private"],
                    "groups": [] if gateway else [Ref("security-group", "endpoints")],
                },
            )
        )
    return found


def flows(of: Design) -> dict[str, list[str | Ref]]:
    """Return who may connect to what, by security group: docs/ports.md, and nothing else."""

    def group(name: str, what: str) -> Ref:
        return Ref("security-group", name, form=f"{what} from {{}}")

    net = of.network
    nodes, balanced = ("control-plane", "workers"), "tcp 6443"
    login: list[str | Ref] = (
        [group("bastion", "tcp 22")]
        if of.machines.bastion
        else [f"tcp 22 from {one}" for one in net.admin_cidrs]
    )
    # A packet of a pod has the pod's address, which is in no group.
    between: list[str | Ref] = [f"all from {of.pod_cidr}"]
    between += [group(name, what) for name in nodes for what in NODE_FLOWS]
    between += [group("workers", what) for what in METRICS]
    masters = [
        *login,
        *between,
        *(group(name, balanced) for name in ("api", *nodes)),
        group("control-plane", "tcp 2379-2380"),
        *(group("workers", f"tcp {port}") for port in (2382, 10257, 10259)),
    ]
    workers = [*login, *between, group("ingress", "tcp 80"), group("ingress", "tcp 443")]
    clients: list[str | Ref] = [f"{balanced} from {one}" for one in net.admin_cidrs]
    if of.balancers.api_scheme == "internal":
        clients += [group(name, balanced) for name in (*nodes, *(["bastion"] if of.machines.bastion else []))]
        clients += [group("vault", balanced)] if of.machines.vaults else []
    elif of.public:
        names = [name for part, names in of.members.items() if part != "bastion" for name in names]
        clients += [Ref("machine", name, "public", f"{balanced} from {{}}/32") for name in names]
    else:
        letters = [zone[-1] for zone in net.zones][: 1 if net.nat == "one" else None]
        clients += [
            Ref("address", f"nat-{letter}", "address", f"{balanced} from {{}}/32") for letter in letters
        ]
    found: dict[str, list[str | Ref]] = {
        "control-plane": masters,
        "workers": workers,
        "api": clients,
        "ingress": [f"tcp {port} from {one}" for port in (80, 443) for one in net.user_cidrs],
    }
    if of.machines.bastion:
        found["bastion"] = [f"tcp 22 from {one}" for one in net.admin_cidrs]
    if of.machines.vaults:
        masters.append(group("vault", balanced))
        workers.append(group("vault", "tcp 30432"))
        own = [
            group(name, "tcp 8200")
            for name in (*nodes, "vault", *(["bastion"] if of.machines.bastion else []))
        ]
        found["vault"] = [*login, *own, group("vault", "tcp 8201"), group("workers", "tcp 9100")]
    if of.database.choice == "rds":
        found["database"] = [group(name, "tcp 5432") for name in nodes]
    if set(net.endpoints) - {"s3"}:
        found["endpoints"] = [group(name, "tcp 443") for name in nodes]
    return found


PURPOSES = {
    "control-plane": "Control planes",
    "workers": "Workers",
    "vault": "Vault",
    "bastion": "Way in over SSH",
    "api": "Load balancer of the API server",
    "ingress": "Load balancer of the ingress",
    "database": "Database",
    "endpoints": "Services of AWS inside the network",
}


def _groups(of: Design) -> list[Resource]:
    found = []
    for name, rules in flows(of).items():
        described = {"vpc": Ref("vpc", "main"), "description": PURPOSES[name]}
        found.append(Resource("security-group", name, described))
        wanted = {"group": Ref("security-group", name), "ingress": rules, "egress": [ANY]}
        found.append(Resource("rules", name, wanted))
    return found


def _machines(of: Design) -> list[Resource]:
    chosen, zones = of.machines, of.network.zones
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": pull,
                "Resource": f"arn:aws:ecr:{of.region}:{of.account_id}:repository/{of.cluster}/*",
            },
        ],
    }
    found = [
        Resource("role", "nodes", {"trust": TRUST, "policy": policy}),
        Resource("profile", "nodes", {"role": Ref("role", "nodes")}),
    ]
    opens = of.keys.vault
    if opens:
        vault = Ref("key", "vault")
        seal = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"],
                    "Resource": vault,
                }
            ],
        }
        found += [
            Resource(
                "key",
                "vault",
                {
                    "description": f"Opens Vault of {of.cluster}",
                    "state": "Enabled",
                    "aliases": [f"alias/{of.cluster}-vault"],
                    "rotated": True,
                },
            ),
            Resource("role", "vault", {"trust": TRUST, "policy": seal}),
            Resource("profile", "vault", {"role": Ref("role", "vault")}),
        ]
    keys = "".join(f"  - {key.strip()}\n" for key in chosen.ssh_keys)
    data = f"#cloud-config\nssh_authorized_keys:\n{keys}"
    for group, names in of.members.items():
        node = group in ("control_plane", "workers")
        public = group == "bastion" or of.public
        rights = "nodes" if node else "vault" if group == "vault" and opens else ""
        for index, name in enumerate(names):
            zone = zones[index % len(zones)]
            wanted = {
                "type": chosen.types[group],
                "zone": zone,
                "subnet": Ref("subnet", f"{'public' if public else 'private'}-{zone[-1]}"),
                "groups": [Ref("security-group", group.replace("_", "-"))],
                "group": group,
                # Pods' packets carry pods' addresses.
                "checks_addresses": not node,
                "metadata": "required",
                "state": "running",
                "image": chosen.image,
                "profile": Ref("profile", rights) if rights else "",
                "public": public,
                "disk": chosen.disks[group],
                "protected": chosen.protected,
                "user_data": data,
            }
            found.append(Resource("machine", name, wanted))
    return found


def _balancers(of: Design) -> list[Resource]:
    members, internal = of.members, of.balancers.api_scheme == "internal"
    letters = [zone[-1] for zone in of.network.zones]
    vpc = Ref("vpc", "main")

    def group(name: str, port: int, by: str, health: str, targets: list[Ref]) -> Resource:
        wanted = {"vpc": vpc, "port": port, "by": by, "health": health, "targets": targets}
        return Resource("target-group", name, wanted)

    def balancer(name: str, inside: bool, ports: dict[int, str]) -> Resource:
        where = "private" if inside else "public"
        wanted = {
            "scheme": "internal" if inside else "internet-facing",
            "subnets": [Ref("subnet", f"{where}-{letter}") for letter in letters],
            "groups": [Ref("security-group", name)],
            "state": "active",
            "listeners": [Ref("target-group", to, form=f"{port} to {{}}") for port, to in ports.items()],
        }
        return Resource("load-balancer", name, wanted, after=(("internet-gateway", "main"),))

    masters = [Ref("machine", name, "private") for name in members["control_plane"]]
    workers = [Ref("machine", name) for name in members["workers"]]
    return [
        # By address: a control plane that asks for the API may be led to itself, which AWS drops where the
        # client's address is kept, as it is with machines as targets.
        group("api", 6443, "ip", "HTTPS /readyz", masters),
        group("ingress-http", 80, "instance", "TCP", workers),
        group("ingress-https", 443, "instance", "TCP", workers),
        balancer("api", internal, {6443: "api"}),
        balancer("ingress", False, {80: "ingress-http", 443: "ingress-https"}),
    ]


def _buckets(of: Design) -> list[Resource]:
    lifecycle = [
        {
            "ID": "quote-platform-old-versions",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": of.buckets.noncurrent_days},
        },
        {
            "ID": "quote-platform-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": of.buckets.upload_days},
        },
    ]
    found = []
    for purpose, bucket in of.buckets.names.items():
        arn = f"arn:aws:s3:::{bucket}"
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "OverTLSOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
        wanted = {
            "bucket": bucket,
            "tagged": True,
            "private": True,
            "versioned": True,
            "policy": policy,
            "lifecycle": lifecycle,
        }
        found.append(Resource("bucket", purpose, wanted))
    return found


def _repositories(of: Design) -> list[Resource]:
    newest = {
        "rulePriority": 1,
        "description": "The newest",
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": of.registry.keep},
        "action": {"type": "expire"},
    }
    wanted = {"immutable": True, "scanned": True, "lifecycle": {"rules": [newest]}}
    return [Resource("repository", name, dict(wanted)) for name in of.registry.repositories]


def _database(of: Design) -> list[Resource]:
    chosen = of.database
    if chosen.choice != "rds":
        return []
    wanted = {
        "major": chosen.version,
        "type": chosen.type,
        "disk": chosen.disk,
        "multi_az": chosen.multi_az,
        "backup_days": chosen.backup_days,
        "protected": chosen.protected,
        "encrypted": True,
        "public": False,
        "subnets": Ref("database-subnets", "main"),
        "groups": [Ref("security-group", "database")],
        "parameters": Ref("database-parameters", "main"),
        "password_of_aws": True,
        "state": "available",
    }
    subnets = [Ref("subnet", f"private-{zone[-1]}") for zone in of.network.zones]
    settings = {"family": f"postgres{chosen.version}", "parameters": {"rds.force_ssl": "1"}}
    return [
        Resource("database-subnets", "main", {"subnets": subnets}),
        Resource("database-parameters", "main", settings),
        Resource("database", "main", wanted),
    ]


def _names(of: Design) -> list[Resource]:
    chosen = of.dns
    if not chosen.domain:
        return []
    found = []
    if chosen.create_zone:
        found.append(Resource("zone", chosen.domain, {"domain": chosen.domain, "tagged": True}))
    after = tuple(one.key for one in found)
    hosts = dict.fromkeys(chosen.hosts, "ingress") | ({chosen.api_host: "api"} if chosen.api_host else {})
    for host, balancer in hosts.items():
        wanted = {
            "zone": chosen.domain,
            "target": Ref("load-balancer", balancer, "address"),
            "target_zone": Ref("load-balancer", balancer, "zone"),
        }
        found.append(Resource("record", host, wanted, after))
    if chosen.health_path:
        asked = {"host": chosen.hosts[0], "port": 443, "path": chosen.health_path, "tagged": True}
        found.append(Resource("health-check", "ingress", asked, (("record", chosen.hosts[0]),)))
    return found


def _budget(of: Design) -> list[Resource]:
    if not of.budget_mails:
        return []
    alarms = [f"{told} {at} to {mail}" for told, at in ALARMS.items() for mail in of.budget_mails]
    return [Resource("budget", "month", {"limit": f"{of.budget:g}", "alarms": alarms})]


def outputs(of: Design, account: Account, known: dict[Key, Found]) -> dict[str, Any]:
    """Return what the platform needs of what was made; empty texts for what is not there yet."""

    def attribute(kind: str, name: str, which: str) -> str:
        found = known.get((kind, name))
        return found.attribute(which) if found else ""

    api = attribute("load-balancer", "api", "address")
    return {
        "account": of.account_id,
        "region": account.region,
        "cluster": of.cluster,
        "api_endpoint": f"{(of.dns.domain and of.dns.api_host) or api}:6443" if api else "",
        "ingress": attribute("load-balancer", "ingress", "address"),
        "bastion": attribute("machine", "bastion", "public"),
        "buckets": {purpose: attribute("bucket", purpose, "id") for purpose in of.buckets.names},
        "database": {
            "host": attribute("database", "main", "address"),
            "port": attribute("database", "main", "port"),
            "secret": attribute("database", "main", "secret"),
            # Where its name leads to, also after it has moved to another zone.
            "networks": [
                one.wanted["cidr"]
                for one in of.resources
                if one.kind == "subnet" and one.name.startswith("private-") and of.database.choice == "rds"
            ],
        },
        "zone": attribute("record", of.dns.hosts[0], "zone") if of.dns.domain else "",
        "name_servers": attribute("zone", of.dns.domain, "servers").split(),
        "vault_key": attribute("key", "vault", "id"),
        "repositories": {name: attribute("repository", name, "address") for name in of.registry.repositories},
        "addresses": {
            name: attribute("machine", name, "private")
            for group, names in of.members.items()
            if group != "bastion"
            for name in names
        },
    }
