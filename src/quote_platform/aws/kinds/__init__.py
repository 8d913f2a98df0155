"""All kinds of things that are made on AWS, by name."""

from quote_platform.aws.kinds import (
    balancers,
    buckets,
    budgets,
    databases,
    keys,
    machines,
    names,
    network,
    registry,
)
from quote_platform.aws.resource import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        network.Vpc(),
        network.Subnet(),
        network.InternetGateway(),
        network.Address(),
        network.NatGateway(),
        network.RouteTable(),
        network.Endpoint(),
        network.SecurityGroup(),
        network.Rules(),
        keys.Key(),
        machines.Role(),
        machines.Profile(),
        machines.Machine(),
        balancers.TargetGroup(),
        balancers.LoadBalancer(),
        buckets.Bucket(),
        registry.Repository(),
        databases.Subnets(),
        databases.Parameters(),
        databases.Database(),
        databases.Snapshot(),
        names.Zone(),
        names.Record(),
        names.HealthCheck(),
        budgets.Budget(),
    )
}
