"""Names of Route 53: the zone of a domain, what leads to the balancers, and whether it answers."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ClientError

from quote_platform.aws.account import Account, Answer, Refused, code
from quote_platform.aws.kinds.network import gone
from quote_platform.aws.resource import Found, Kind, Resource, Values

# Beside each name that is made stands a text by which it is known as the cluster's; record sets have no tags.
MARK = "_quote-platform"


def mark(cluster: str, host: str, domain: str) -> str:
    """Return the name of the text that marks a name as a cluster's."""
    return f"{host.removesuffix(domain)}{MARK}-{cluster}.{domain}"


def zones(account: Account) -> dict[str, list[Answer]]:
    """Return the public zones of the account by their domains."""

    def ask() -> dict[str, list[Answer]]:
        found: dict[str, list[Answer]] = {}
        for one in account.pages("route53", "list_hosted_zones", "HostedZones"):
            if not one["Config"]["PrivateZone"]:
                found.setdefault(one["Name"].rstrip("."), []).append(one)
        return found

    return account.remembered("zones", ask)


def _short(one: Answer) -> str:
    return str(one["Id"]).rpartition("/")[2]


def _reference(account: Account) -> str:
    """Return how a reference begins by which what a call has made is known; AWS wants a new one each time."""
    return f"quote-platform/{account.cluster}/"


def _tagged(account: Account, kind: str, found: Found) -> bool:
    asked = account.api("route53").list_tags_for_resource(ResourceType=kind, ResourceId=found.id)
    known = asked["ResourceTagSet"]["Tags"]
    return all(one in known for one in account.tags(found.name))


def _tag(account: Account, kind: str, found: Found) -> None:
    account.api("route53").change_tags_for_resource(
        ResourceType=kind, ResourceId=found.id, AddTags=account.tags(found.name)
    )


class Zone(Kind):
    """A public zone that was made for the cluster."""

    name, stage, optional = "zone", 2, True

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        head = _reference(account)
        return [
            Found(domain, _short(one), {"domain": domain})
            for domain, listed in zones(account).items()
            for one in listed
            if one["CallerReference"].startswith(head)
        ]

    def read(self, account: Account, found: Found) -> None:
        """Ask for its tags and its name servers."""
        found.state["tagged"] = _tagged(account, "hostedzone", found)
        asked = account.api("route53").get_hosted_zone(Id=found.id)
        found.attributes["servers"] = " ".join(asked["DelegationSet"]["NameServers"])

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which domains have a zone already."""
        there = zones(account)
        return [
            f"aws_dns_create_zone: the account has a zone of {one.name} ({_short(there[one.name][0])}) that "
            "was not made for this cluster; allowed is false, which uses it"
            for one in missing
            if one.name in there
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, with name servers that its registrar has to be told."""
        try:
            made = account.create(
                "route53",
                "create_hosted_zone",
                Name=name,
                CallerReference=f"{_reference(account)}{time.time_ns()}",
            )
        finally:
            account.forget()
        servers = {"servers": " ".join(made["DelegationSet"]["NameServers"])}
        return Found(name, _short(made["HostedZone"]), {"domain": name, "tagged": False}, servers)

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Tag it."""
        _tag(account, "hostedzone", found)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it; with records that are not ours in it, AWS refuses it."""
        try:
            account.api("route53").delete_hosted_zone(Id=found.id)
        except ClientError as error:
            if code(error) == "HostedZoneNotEmpty":
                raise Refused(
                    f"zone {found.name} has records that were not made by the playbooks; delete them, or "
                    "the zone itself"
                ) from error
            if code(error) != "NoSuchHostedZone":
                raise


class Record(Kind):
    """A name that leads to a balancer, at whatever addresses that has, and the text that marks it as ours."""

    name, fixed, stage, optional = "record", frozenset({"zone"}), 1, True

    def listed(self, account: Account) -> list[Found]:
        """List them, by their marks in each public zone."""
        return [
            Found(host, host, {"zone": domain}, {"zone": _short(one)})
            for domain, listed in zones(account).items()
            for one in listed
            for host in self._marked(account, _short(one), domain)
        ]

    def _marked(self, account: Account, zone: str, domain: str) -> list[str]:
        """Return which names of a zone are ours: their marks stand one beside another in its order."""
        first = mark(account.cluster, domain, domain)
        hosts: list[str] = []
        given: Answer = {"HostedZoneId": zone, "StartRecordName": first, "StartRecordType": "TXT"}
        for page in account.api("route53").get_paginator("list_resource_record_sets").paginate(**given):
            for one in page["ResourceRecordSets"]:
                name = one["Name"].rstrip(".")
                if name != first and not name.endswith(f".{first}"):
                    return hosts
                if one["Type"] == "TXT":
                    hosts.append(name.removesuffix(first) + domain)
        return hosts

    @staticmethod
    def _ask(account: Account, zone: str, host: str) -> Answer | None:
        """Return what a name leads to by an address."""
        asked = account.api("route53").list_resource_record_sets(
            HostedZoneId=zone, StartRecordName=host, StartRecordType="A", MaxItems="1"
        )["ResourceRecordSets"]
        return next((one for one in asked if one["Name"].rstrip(".") == host and one["Type"] == "A"), None)

    def read(self, account: Account, found: Found) -> None:
        """Ask where it leads."""
        found.raw["record"] = now = self._ask(account, found.attributes["zone"], found.name)
        alias = (now or {}).get("AliasTarget", {})
        found.state["target"] = alias.get("DNSName", "").rstrip(".").removeprefix("dualstack.")
        found.state["target_zone"] = alias.get("HostedZoneId", "")

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which names cannot be made: of no zone here, or somebody else's."""
        wrong = []
        domain, made = missing[0].wanted["zone"], bool(missing[0].after)
        there = zones(account).get(domain, [])
        if not there and not made:
            others = ", ".join(sorted(zones(account))) or "none"
            return [
                f"aws_dns_domain: {domain}: its zone is not in the account {account.id}; allowed are those "
                f"that are ({others}), or aws_dns_create_zone true"
            ]
        if len(there) > 1:
            ids = ", ".join(_short(one) for one in there)
            return [
                f"aws_dns_domain: {domain}: the account has several zones of it ({ids}); delete all but one"
            ]
        for one in missing if there else []:
            if self._ask(account, _short(there[0]), one.name):
                wrong.append(
                    f"aws_dns_hosts: {one.name} is in the zone already, and was not made for this cluster; "
                    "delete it there, or choose another name"
                )
        return wrong

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make the name and its mark, both or none."""
        zone = _short(zones(account)[wanted["zone"]][0])
        found = Found(name, name, dict(wanted), {"zone": zone})
        self._change(account, found, "UPSERT", self._record(name, wanted))
        return found

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Lead it to where it shall."""
        self._change(account, found, "UPSERT", self._record(found.name, wanted))

    @staticmethod
    def _record(name: str, wanted: Values) -> Answer:
        target = {
            "DNSName": wanted["target"],
            "HostedZoneId": wanted["target_zone"],
            "EvaluateTargetHealth": False,
        }
        return {"Name": name, "Type": "A", "AliasTarget": target}

    def _change(self, account: Account, found: Found, action: str, record: Answer | None) -> None:
        text = {
            "Name": mark(account.cluster, found.name, found.state["zone"]),
            "Type": "TXT",
            "TTL": 300,
            "ResourceRecords": [{"Value": f'"{found.name} of {account.cluster}"'}],
        }
        changes = [{"Action": action, "ResourceRecordSet": one} for one in (record, text) if one]
        account.api("route53").change_resource_record_sets(
            HostedZoneId=found.attributes["zone"], ChangeBatch={"Changes": changes}
        )

    def delete(self, account: Account, found: Found) -> None:
        """Delete both, as they are."""
        self.read(account, found)
        try:
            self._change(account, found, "DELETE", found.raw["record"])
        except ClientError as error:
            if code(error) not in {"InvalidChangeBatch", "NoSuchHostedZone"}:
                raise
            self.read(account, found)
            if found.raw["record"] or found.name in self._marked(
                account, found.attributes["zone"], found.state["zone"]
            ):
                raise Refused(f"record {found.name} cannot be deleted: {error}") from error

    def size(self, wanted: Values) -> int:
        """A name and its mark."""
        return 2


class HealthCheck(Kind):
    """Whether a name answers over HTTPS, asked by AWS from outside: a measure of CloudWatch."""

    name, stage, optional = "health-check", 1, True

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        head = _reference(account)
        return [
            self._found(one)
            for one in account.pages("route53", "list_health_checks", "HealthChecks")
            if one["CallerReference"].startswith(head)
        ]

    @staticmethod
    def _found(one: Answer) -> Found:
        config = one["HealthCheckConfig"]
        state = {
            "host": config.get("FullyQualifiedDomainName", ""),
            "port": config.get("Port"),
            "path": config.get("ResourcePath", ""),
        }
        return Found(one["CallerReference"].split("/")[2], one["Id"], state)

    def read(self, account: Account, found: Found) -> None:
        """Ask for its tags."""
        found.state["tagged"] = _tagged(account, "healthcheck", found)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        made = account.create(
            "route53",
            "create_health_check",
            CallerReference=f"{_reference(account)}{name}/{time.time_ns()}",
            HealthCheckConfig={
                "Type": "HTTPS",
                "EnableSNI": True,
                "RequestInterval": 30,
                "FailureThreshold": 3,
                **self._config(wanted),
            },
        )["HealthCheck"]
        return Found(name, made["Id"], wanted | {"tagged": False})

    @staticmethod
    def _config(wanted: Values) -> dict[str, Any]:
        return {
            "FullyQualifiedDomainName": wanted["host"],
            "Port": wanted["port"],
            "ResourcePath": wanted["path"],
        }

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Ask for something else; tag it."""
        if set(fields) - {"tagged"}:
            account.api("route53").update_health_check(HealthCheckId=found.id, **self._config(wanted))
        if "tagged" in fields:
            _tag(account, "healthcheck", found)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it."""
        try:
            account.api("route53").delete_health_check(HealthCheckId=found.id)
        except ClientError as error:
            if code(error) != "NoSuchHealthCheck" and not gone(error):
                raise
