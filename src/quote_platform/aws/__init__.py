"""AWS: network, machines, load balancers and buckets of a cluster in one account: made, kept, taken away."""
# Not by the modules of amazon.aws: each task takes 0.7 s to find that nothing is to be done, against a server
# on the same machine (docs/aws.md). Ours takes that for all 44 things of 124 objects.

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from quote_platform.aws import cost, destroy
from quote_platform.aws.account import CLUSTER, Account, Refused
from quote_platform.aws.design import Design, judge, outputs
from quote_platform.aws.kinds import KINDS
from quote_platform.aws.reconcile import Plan, Run, plan, shown
from quote_platform.difference import difference

__all__ = ["APPLY", "DESTROY", "Refused", "apply", "remove"]

Answer = dict[str, Any]

# What the task apply_aws is given; plugins/modules has what each means.
APPLY: dict[str, Any] = {
    "account_id": {"type": "str", "required": True},
    "region": {"type": "str", "required": True},
    "cluster": {"type": "str", "required": True},
    "pod_cidr": {"type": "str", "required": True},
    "service_cidr": {"type": "str", "required": True},
    "network": {"type": "dict", "required": True},
    "machines": {"type": "dict", "required": True},
    "balancers": {"type": "dict", "required": True},
    "buckets": {"type": "dict", "required": True},
    "keys": {"type": "dict", "required": True},
    "registry": {"type": "dict", "required": True},
    "database": {"type": "dict", "required": True},
    "dns": {"type": "dict", "required": True},
    "budget": {"type": "float", "default": 0},
    "budget_mails": {"type": "list", "elements": "str", "default": []},
    "assumed": {"type": "dict", "default": {}},
    "inventory": {"type": "path", "default": ""},
    "timeout": {"type": "int", "default": 900},
}
# And the task destroy_aws.
DESTROY: dict[str, Any] = {
    "account_id": {"type": "str", "required": True},
    "region": {"type": "str", "required": True},
    "cluster": {"type": "str", "required": True},
    "confirm": {"type": "str", "default": ""},
    "buckets": {"type": "bool", "default": False},
    "key_days": {"type": "int", "default": 30},
    "timeout": {"type": "int", "default": 900},
}
DESIGN = (
    "account_id",
    "region",
    "cluster",
    "pod_cidr",
    "service_cidr",
    "network",
    "machines",
    "balancers",
    "buckets",
    "keys",
    "registry",
    "database",
    "dns",
    "budget",
    "budget_mails",
)
# Seconds between two questions that are asked until something is so.
PAUSE: float = 5


@contextmanager
def explained(what: str) -> Generator[None]:
    """Turn an error of AWS into a refusal."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise Refused(f"{what}: {error}") from error


def chosen(given: Answer) -> Design:
    """Return what is chosen; its values may be wrong, its form is not."""
    try:
        return Design.model_validate({name: given[name] for name in DESIGN})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise Refused("\n".join(lines)) from error


def designed(given: Answer) -> Design:
    """Return what is chosen; refuse it with everything that is wrong."""
    design = chosen(given)
    wrong = judge(design)
    if given.get("inventory"):
        wrong += _inventory(Path(given["inventory"]), design)
    if given.get("budget") and not wrong:
        wrong += cost.exceeded(cost.bill(design, given["assumed"]), given["budget"])
    if wrong:
        raise Refused(f"{len(wrong)} mistake{'s' * (len(wrong) > 1)}; nothing was made.\n" + "\n".join(wrong))
    return design


def _inventory(folder: Path, design: Design) -> list[str]:
    """Return where the dynamic inventory would look for other machines than those that are made."""
    file = folder / "aws_ec2.yml"
    if not file.is_file():
        return []
    found = yaml.safe_load(file.read_text())
    named = (found.get("filters") or {}).get(f"tag:{CLUSTER}")
    wrong = []
    if found.get("regions") != [design.region]:
        wrong.append(
            f"{file}: regions {found.get('regions')}; allowed is aws_account_region, [{design.region}]"
        )
    if named != design.cluster:
        wrong.append(f"{file}: tag:{CLUSTER} {named}; allowed is cluster_name, {design.cluster}")
    return wrong


def apply(given: Answer, dry_run: bool, pause: float | None = None) -> Answer:
    """Make the account as it is declared; return what the task returns."""
    design = designed(given)
    account = Account(design.region, design.cluster, given["timeout"], PAUSE if pause is None else pause)
    with explained(f"AWS, account {design.account_id} in {design.region}"):
        account.verify(design.account_id)
        planned = plan(account, design.resources)
        run = Run(account, planned)
        if not dry_run:
            run.run()
    return _result(planned, run) | {
        "outputs": outputs(design, account, run.known),
        "calls": dict(sorted(account.calls.items())),
        "objects": sum(KINDS[one.kind].size(one.wanted) for one in design.resources),
        "cost": cost.bill(design, given.get("assumed") or {}).lines(),
    }


def remove(given: Answer, dry_run: bool, pause: float | None = None) -> Answer:
    """Take away what has the cluster's tag; without the confirmation, refuse it with what would go."""
    account = Account(given["region"], given["cluster"], given["timeout"], PAUSE if pause is None else pause)
    account.key_days, account.keeps_backups = given["key_days"], not given["buckets"]
    if not 7 <= account.key_days <= 30:
        raise Refused(f"aws_account_destroy_key_days: {account.key_days}; allowed are 7 to 30")
    with explained(f"AWS, account {given['account_id']} in {given['region']}"):
        account.verify(given["account_id"])
        going = destroy.doomed(account, given["buckets"])
        names = [
            f"{kind} {name} ({found.id})" for (kind, name), found in sorted(going.items()) if kind != "rules"
        ]
        result = {"changed": bool(going), "deleted": names, "calls": {}, "left": []}
        if dry_run:
            return result
        if going and given["confirm"] != given["cluster"]:
            text = "\n".join(f"  {name}" for name in names)
            buckets = (
                ""
                if given["buckets"]
                else " Buckets stay; aws_account_destroy_buckets: true deletes them too."
            )
            raise Refused(
                f"this deletes, in the account {given['account_id']}:\n{text}\nTo confirm, add "
                f"-e aws_account_confirm={given['cluster']}.{buckets}"
            )
        destroy.destroy(account, going)
        if left := destroy.left(account, given["buckets"]):
            raise Refused(f"AWS still has, with the tag of {given['cluster']}: {', '.join(left)}. Run again")
    return result | {"calls": dict(sorted(account.calls.items()))}


def _result(planned: Plan, run: Run) -> Answer:
    changes = planned.changes
    known = planned.known | run.made
    show: Callable[[Any], str] = lambda value: yaml.safe_dump(shown(value, known), sort_keys=True)  # noqa: E731
    lines, diff = [], []
    for step in changes:
        title = " ".join(step.resource.key)
        before: Answer = {}
        after = {key: value for key, value in step.wanted.items() if key != "user_data"}
        if step.found:
            found = planned.known[step.resource.key]
            before = {name: found.state[name] for name in step.fields}
            after = {name: step.wanted[name] for name in step.fields}
        lines.append(f"{step.verb} {title}" + (f": {', '.join(step.fields)}" if step.found else ""))
        diff.append(difference(title, show(before) if before else "", show(after)))
    result: Answer = {
        "changed": bool(changes),
        "changes": lines,
        "diff": diff,
        "chain": [f"{' '.join(step.resource.key)} {step.ended - step.began:.1f} s" for step in run.chain()],
    }
    warnings = list(planned.warnings)
    if planned.left:
        names = ", ".join(" ".join(key) for key in planned.left if key[0] != "rules")
        warnings.append(f"no longer declared, and kept: {names}; docs/aws.md says how they are taken away")
    if warnings:
        result["warnings"] = warnings
    return result
