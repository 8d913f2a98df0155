"""Compare what is declared with what is there; make the difference, independent things side by side."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from quote_platform.aws import quotas
from quote_platform.aws.account import Account, Doubtful, Refused, code
from quote_platform.aws.kinds import KINDS
from quote_platform.aws.resource import Found, Key, Resource, Values, ordered, resolve, same

THREADS = 8


@dataclass
class Step:
    """What is done with one thing: nothing, if no field differs and it is there."""

    resource: Resource
    found: Found | None
    wanted: Values
    fields: list[str] = field(default_factory=list)
    began: float = 0
    ended: float = 0

    @property
    def verb(self) -> str:
        """Return `create`, `change` or nothing."""
        return "create" if self.found is None else "change" if self.fields else ""


@dataclass
class Plan:
    """All steps in their order, and what is there that nobody declares."""

    steps: list[Step]
    known: dict[Key, Found]
    left: list[Key]
    warnings: list[str] = field(default_factory=list)

    @property
    def changes(self) -> list[Step]:
        """Return what is not as it shall be."""
        return [step for step in self.steps if step.verb]


def list_all(account: Account, kinds: Collection[str] = tuple(KINDS)) -> dict[Key, Found]:
    """Return everything of the cluster, by one listing of each kind."""
    known: dict[Key, Found] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for kind, listed in zip(kinds, pool.map(lambda one: KINDS[one].listed(account), kinds), strict=True):
            for found in listed:
                if (kind, found.name) in known:
                    raise Refused(
                        f"{kind} {found.name}: there are two, {known[kind, found.name].id} and {found.id}; "
                        "delete the one that is not used"
                    )
                known[kind, found.name] = found
    return known


def plan(account: Account, resources: list[Resource]) -> Plan:
    """Return what is to be done; refuse what cannot be, with everything that is wrong."""
    declared = ordered(resources)
    chosen = {one.kind for one in declared}
    known = list_all(account, [name for name, kind in KINDS.items() if name in chosen or not kind.optional])
    there = [one for one in declared if one.key in known]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda one: KINDS[one.kind].read(account, known[one.key]), there))
    steps = [compare(one, known) for one in declared]
    wrong = [line for step in steps for line in _fixed(step, known)]
    for kind, how in KINDS.items():
        missing = [step.resource for step in steps if step.resource.kind == kind and step.verb == "create"]
        if missing:
            wrong += how.judge(account, missing)
    warnings: list[str] = []
    if not wrong:
        wrong, warnings = quotas.judge(account, [step.resource for step in steps if step.verb == "create"])
    if wrong:
        raise Refused("\n".join(wrong))
    left = sorted(known.keys() - {one.key for one in declared})
    return Plan(steps, known, left, warnings)


def compare(resource: Resource, known: dict[Key, Found]) -> Step:
    """Return which fields of a thing differ."""
    wanted, found = resolve(resource.wanted, known), known.get(resource.key)
    if found is None:
        return Step(resource, None, wanted)
    fields = [name for name in found.state if name in wanted and not same(found.state[name], wanted[name])]
    return Step(resource, found, wanted, fields)


def _fixed(step: Step, known: dict[Key, Found]) -> list[str]:
    if step.found is None:
        return []
    return [
        f"{' '.join(step.resource.key)}: {name} is {shown(step.found.state[name], known)} and cannot become "
        f"{shown(step.wanted[name], known)}; keep it, or delete the {step.resource.kind} yourself, "
        "and the next run makes it anew"
        for name in step.fields
        if name in KINDS[step.resource.kind].fixed
    ]


def shown(value: Any, known: dict[Key, Found]) -> Any:
    """Return a value with names in place of ids."""
    names = {
        found.id: f"{kind} {name}"
        for (kind, name), found in known.items()
        if kind not in {"rules", "bucket", "record"}
    }

    def named(part: Any) -> Any:
        if isinstance(part, str):
            for one in part.split():
                if one in names:
                    part = part.replace(one, names[one])
            return part.replace("<", "").replace(">", "")
        if isinstance(part, dict):
            return {key: named(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [named(inner) for inner in part]
        return part

    return named(value)


class Run:
    """Carries a plan out; what is done is in it, also when it ends by an error."""

    # Of a call that was carried out before, by an attempt whose answer was lost.
    DONE = ("Duplicate", "AlreadyExists", "AlreadyAssociated", "NotFound", "InUse", "LimitExceeded")

    def __init__(self, account: Account, planned: Plan) -> None:
        self.account, self.plan = account, planned
        self.known = dict(planned.known)
        self.made: dict[Key, Found] = {}

    def run(self) -> None:
        """Do every step as soon as what it needs is there; after an error, end what is under way."""
        waiting = {step.resource.key: step for step in self.plan.changes}
        running: dict[Future[None], Key] = {}
        errors: list[str] = []
        with ThreadPoolExecutor(THREADS) as pool:
            while running or (waiting and not errors):
                undone = waiting.keys() | set(running.values())
                for key, step in list(waiting.items()):
                    if not errors and not step.resource.needs() & undone:
                        running[pool.submit(self._do, step)] = key
                        del waiting[key]
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    key = running.pop(future)
                    try:
                        future.result()
                    except (Refused, Doubtful, ClientError, BotoCoreError) as error:
                        text = str(error)
                        errors.append(text if key[1] in text else f"{' '.join(key)}: {text}")
        if errors:
            raise Refused("\n".join(errors))

    def _do(self, step: Step) -> None:
        kind, key = KINDS[step.resource.kind], step.resource.key
        step.began = time.monotonic()
        wanted = resolve(step.resource.wanted, self.known)
        found = self.known.get(key) or self._create(step.resource, wanted)
        for attempt in range(3):
            fields = [
                name for name in found.state if name in wanted and not same(found.state[name], wanted[name])
            ]
            if not fields:
                break
            try:
                kind.update(self.account, found, wanted, fields)
                break
            except ClientError as error:
                if attempt == 2 or not any(part in code(error) for part in self.DONE):
                    raise
                # An attempt may have done it, or half of it, and its answer was lost.
                found = self._again(step.resource) or found
        # One of a run that was killed may still be on its way.
        if step.found is None or "state" in step.fields:
            kind.ready(self.account, found)
        self.made[key] = self.known[key] = found
        step.ended = time.monotonic()

    def _create(self, resource: Resource, wanted: Values) -> Found:
        kind = KINDS[resource.kind]
        reason = ""
        for attempt in self.account.tries(f"making {' '.join(resource.key)}"):
            try:
                return kind.create(self.account, resource.name, wanted)
            except Doubtful as error:
                reason = str(error)
            self.account.sleep(min(self.account.pause, 0.2 * 2**attempt))  # until it is seen in a listing
            if found := self._again(resource):
                return found
        raise Refused(reason)

    def _again(self, resource: Resource) -> Found | None:
        """Return a thing as it is now."""
        kind = KINDS[resource.kind]
        if kind.name == "rules":
            self.account.forget()
        found = next((one for one in kind.listed(self.account) if one.name == resource.name), None)
        if found:
            kind.read(self.account, found)
        return found

    def chain(self) -> list[Step]:
        """Return the steps that followed one another for longest: what the whole took, and why."""
        done = {step.resource.key: step for step in self.plan.steps if step.ended}
        links: list[Step] = []
        last = max(done.values(), key=lambda step: step.ended, default=None)
        while last:
            links.insert(0, last)
            needed = [done[key] for key in last.resource.needs() if key in done]
            last = max(needed, key=lambda step: step.ended, default=None)
        return links
