"""What a design costs in a month, by list prices, beside the bill of the reference architecture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quote_platform.aws.design import Design

PRICES = Path(__file__).with_name("prices.yml")
# What nobody can know beforehand; a month's. aws_account_assumed has another where it says so.
ASSUMED = {
    "transfer_gb": 100.0,
    "nat_gb": 50.0,
    "zones_gb": 50.0,
    "bucket_gb": 100.0,
    "snapshot_gb": 0.0,
    "registry_gb": 10.0,
}


@dataclass(frozen=True)
class Row:
    """A line of the bill; `price` is of all of it, in US dollars a month."""

    component: str
    type: str
    count: float
    price: float


@dataclass(frozen=True)
class Bill:
    """A month's bill; without rows where the region's prices are not known."""

    region: str
    date: str
    rows: list[Row]
    unknown: list[str]
    reference: dict[str, Any]

    @property
    def total(self) -> float:
        """Return US dollars a month."""
        return round(sum(row.price for row in self.rows), 2)

    def data(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "region": self.region,
            "prices": self.date,
            "currency": "USD",
            "rows": [
                {
                    "component": row.component,
                    "type": row.type,
                    "count": row.count,
                    "price": round(row.price, 2),
                }
                for row in self.rows
            ],
            "unknown": self.unknown,
            "total": self.total,
            "reference": self.reference,
        }

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        lines = [
            f"{row.component}: {row.count:g} x {row.type}: {row.price:.2f} USD a month" for row in self.rows
        ]
        lines += [f"{what}: no price is known" for what in self.unknown]
        return [
            *lines,
            f"total: {self.total:.2f} USD a month by list prices of {self.date}; the reference says "
            f"{self.reference['total']} and leaves out {', '.join(self.reference['left_out'])}",
        ]


def bill(of: Design, assumed: dict[str, Any]) -> Bill:
    """Return what a design costs."""
    known = yaml.safe_load(PRICES.read_text())
    prices, date, reference = known["regions"].get(of.region), str(known["date"]), known["reference"]
    if prices is None:
        return Bill(of.region, date, [], [f"region {of.region}"], reference)
    hours, use = known["hours"], ASSUMED | {name: float(value) for name, value in assumed.items()}
    resources = of.resources
    zones, count = len(of.network.zones), Counter(one.kind for one in resources)
    rows, unknown = [], []
    for group, names in of.members.items():
        kind = of.machines.types[group]
        if names and kind not in prices["machines"]:
            unknown.append(f"machines of type {kind}")
        elif names:
            rows.append(
                Row(f"machines, {group}", kind, len(names), len(names) * prices["machines"][kind] * hours)
            )
    disks = sum(of.machines.disks[group] * len(names) for group, names in of.members.items())
    balancers = count["load-balancer"]
    # In each zone of a balancer that faces the internet; of a NAT gateway; of a machine in a public subnet.
    facing = [one for one in resources if one.wanted.get("scheme") == "internet-facing"]
    public = [one for one in resources if one.kind == "machine" and one.wanted["public"]]
    addresses = zones * len(facing) + count["nat-gateway"] + len(public)
    interfaces = zones * sum(bool(one.wanted["subnets"]) for one in resources if one.kind == "endpoint")
    database, copies = of.database, 2 if of.database.multi_az else 1
    if of.database.choice == "rds":
        if database.type in prices["databases"]:
            price = copies * prices["databases"][database.type] * hours
            rows.append(Row("database, RDS", database.type, copies, price))
        else:
            unknown.append(f"databases of type {database.type}")
        disk = copies * database.disk
        rows.append(Row("database, disks", "GB gp3", disk, disk * prices["database_gb"]))
        rows.append(Row("database, password", "secret", 1, prices["secret"]))
    transfer = max(0.0, use["transfer_gb"] - known["free_transfer_gb"])
    for component, kind, number, each in (
        ("disks", "GB gp3", disks, prices["gp3_gb"]),
        ("load balancers", "NLB", balancers, prices["balancer_hour"] * hours),
        ("load balancers, use", "NLCU", balancers, prices["balancer_unit_hour"] * hours),
        ("NAT gateways", of.network.nat, count["nat-gateway"], prices["nat_hour"] * hours),
        ("NAT gateways, traffic", "GB", use["nat_gb"] if count["nat-gateway"] else 0, prices["nat_gb"]),
        ("public addresses", "IPv4", addresses, prices["address_hour"] * hours),
        ("endpoints", "interface in a zone", interfaces, prices["endpoint_hour"] * hours),
        ("buckets", "GB S3 Standard", use["bucket_gb"], prices["bucket_gb"]),
        ("names, zone", "hosted zone", count["zone"], prices["zone"]),
        ("names, health check", "HTTPS", count["health-check"], prices["health_check"]),
        ("keys", "KMS", count["key"], prices["key"]),
        ("repositories", "GB ECR", use["registry_gb"] if count["repository"] else 0, prices["registry_gb"]),
        ("snapshots", "GB", use["snapshot_gb"], prices["snapshot_gb"]),
        ("transfer to the internet", "GB that are not free", transfer, prices["transfer_gb"]),
        ("transfer between zones", "GB", use["zones_gb"] if zones > 1 else 0, prices["zones_gb"]),
    ):
        if number:
            rows.append(Row(component, kind, number, number * each))
    return Bill(of.region, date, rows, unknown, reference)


def exceeded(of: Bill, budget: float) -> list[str]:
    """Return why a budget does not do."""
    if of.unknown:
        known = ", ".join(yaml.safe_load(PRICES.read_text())["regions"])
        return [
            f"aws_account_budget: cannot be held against {', '.join(of.unknown)}, whose price is not "
            "known; allowed are "
            f"the regions {known} with the types in src/quote_platform/aws/prices.yml, or 0 for no budget"
        ]
    if of.total <= budget:
        return []
    most = max(of.rows, key=lambda row: row.price)
    return [
        f"aws_account_budget: {budget:g} USD a month is less than {of.total:.2f}, of which "
        f"{most.component} are "
        f"{most.price:.2f}; raise it, or choose less: `quote-platform cost` has the whole bill"
    ]
