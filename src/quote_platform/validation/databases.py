"""A PostgreSQL outside of the cluster: how it is reached and known, and who has its account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from quote_platform.validation.hosts import DNS_NAME, is_address

Variables = Mapping[str, Any]

OF_ACCOUNT = (
    "database_password",
    "database_administrator",
    "database_administrator_password",
    "database_administrator_secret",
)
# What has no meaning but with database: external.
OF_EXTERNAL = ("database_host", "database_authority", "database_networks", *OF_ACCOUNT)
ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:\S+")


def judge(given: Variables) -> list[str]:
    """Return what contradicts the choice of a database, or is missing for it."""
    chosen, rds = given.get("database"), given.get("aws_database_choice") == "rds"
    if chosen == "external":
        return [*_server(given, rds), *_authority(given), *_account(given)]
    wrong = [
        f"{name}: set, and database is cloudnative-pg, which makes its own; allowed is empty, or "
        "database: external"
        for name in OF_EXTERNAL
        if given.get(name)
    ]
    if rds:
        wrong.append(
            "aws_database_choice: rds, and database is cloudnative-pg, so that nobody would use it; allowed "
            "is cloudnative-pg, or database: external"
        )
    return wrong


def _server(given: Variables, rds: bool) -> list[str]:
    """Return why it is not reached."""
    wrong, host = [], str(given.get("database_host") or "")
    if not host:
        first = "; run playbooks/aws.yml first, whose outputs have it" if rds else ""
        wrong.append(
            "database_host: empty; database: external needs the server's name, as its certificate has it"
            + first
        )
    elif is_address(host):
        wrong.append(
            f"database_host: {host} is an address, and the certificate of the server is compared with a "
            "name; allowed is a name such as db.example.com"
        )
    elif not DNS_NAME.fullmatch(host):
        wrong.append(
            f"database_host: {host!r} is not a host name; allowed is a name such as db.example.com, with the "
            "port in database_port"
        )
    if not given.get("database_networks"):
        wrong.append(
            "database_networks: empty, so that no pod would be let out to the database; allowed are the IPv4 "
            "networks that database_host leads to, such as 10.0.3.0/24"
        )
    return wrong


def _authority(given: Variables) -> list[str]:
    """Return why nobody could tell whether it is that server."""
    text = str(given.get("database_authority") or "")
    if not text:
        return [
            "database_authority: empty; allowed are the authorities, as PEM, that have signed the "
            "certificate of database_host"
        ]
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return ["database_authority: not certificates; allowed is PEM text"]
    last = max(one.not_valid_after_utc for one in found)
    if last < datetime.now(UTC):
        return [f"database_authority: ended on {last:%Y-%m-%d}; allowed is one that is valid"]
    return []


def _account(given: Variables) -> list[str]:
    """Return why the application would have no account there, or two; passwords are not repeated."""
    backend = given.get("secrets_backend")
    name, password, secret = (
        given.get(f"database_administrator{part}") for part in ("", "_password", "_secret")
    )
    if backend == "vault":
        return [
            "secrets_backend: vault makes accounts in the PostgreSQL of the cluster, and database is "
            "external; allowed are aws-secrets-manager, or empty with database_password"
        ]
    if backend:
        return [
            f"{one}: set, and secrets_backend {backend} delivers the account, which you make; allowed is "
            "empty"
            for one in OF_ACCOUNT
            if given.get(one)
        ]
    wrong = []
    if secret and not ARN.fullmatch(str(secret)):
        wrong.append(
            f"database_administrator_secret: {secret!r} is not a secret of AWS Secrets Manager; allowed is "
            "its ARN, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME"
        )
    if secret and (name or password):
        wrong.append(
            "database_administrator_secret: set beside name and password of an administrator; allowed is one "
            "of both"
        )
    elif bool(name) != bool(password):
        lacking = "database_administrator_password" if name else "database_administrator"
        wrong.append(f"{lacking}: empty, and the other one is set; allowed are both, or none")
    if name and name == given.get("application_database_owner"):
        wrong.append(
            f"application_database_owner: {name} is the administrator, whose rights the application must not "
            "have; allowed is another account"
        )
    if not (given.get("database_password") or name or secret):
        wrong.append(
            "database_password: empty; allowed is the password of application_database_owner "
            f"({given.get('application_database_owner')}), or an administrator that makes that account: "
            "database_administrator, database_administrator_secret"
        )
    return wrong
