"""What is declared, what is found, and what a kind of things has to be able to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quote_platform.aws.account import Account, Refused

Values = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Ref:
    """An attribute of another thing, known once that is made; `form` is the text it stands in."""

    kind: str
    name: str
    attribute: str = "id"
    form: str = "{}"

    @property
    def key(self) -> Key:
        """Return which thing is meant."""
        return self.kind, self.name


@dataclass(frozen=True)
class Resource:
    """A thing that shall be there. Its name is unique within its kind; values may have a Ref anywhere."""

    kind: str
    name: str
    wanted: Values
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """Return what names it."""
        return self.kind, self.name

    def needs(self) -> set[Key]:
        """Return what has to be there before."""
        return {ref.key for ref in refs(self.wanted)} | set(self.after)


@dataclass
class Found:
    """A thing that is there: its id, its fields as they are declared, and what others may refer to."""

    name: str
    id: str
    state: Values
    attributes: dict[str, str] = field(default_factory=dict)
    # What the kind itself needs to change or delete it.
    raw: Values = field(default_factory=dict)

    def attribute(self, name: str) -> str:
        """Return what a Ref asks for."""
        return self.id if name == "id" else self.attributes[name]


class Kind:
    """How things of one kind are listed, made, changed and deleted."""

    name: ClassVar[str]
    # Fields that AWS does not let be changed.
    fixed: ClassVar[frozenset[str]] = frozenset()
    # Listed only where it is declared, and before all is deleted: most have none, and each listing is a call.
    optional: ClassVar[bool] = False
    # Things of a lower stage are deleted before this one.
    stage: ClassVar[int]

    def listed(self, account: Account) -> list[Found]:
        """Return all of the cluster, by one listing."""
        raise NotImplementedError

    def read(self, account: Account, found: Found) -> None:
        """Ask for those fields that the listing has not."""

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return why things of this kind cannot be made."""
        return []

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make one; fields that its state has otherwise than wanted are given to `update` then."""
        raise NotImplementedError

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Change fields of one."""

    def ready(self, account: Account, found: Found) -> None:
        """Wait until others can use it."""

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, and wait until it is gone."""
        raise NotImplementedError

    def over(self, account: Account, arn: str) -> bool:
        """Tell whether what AWS still shows with our tag is only a memory."""
        return False

    def size(self, wanted: Values) -> int:
        """Return how many objects of AWS it is, as Terraform's provider counts them."""
        return 1


def refs(value: Any) -> Iterator[Ref]:
    """Yield every Ref in a value."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from refs(inner)


def resolve(value: Any, known: dict[Key, Found]) -> Any:
    """Return a value with ids in place of each Ref; of what is not there yet, <kind name>."""
    if isinstance(value, Ref):
        found = known.get(value.key)
        return value.form.format(
            found.attribute(value.attribute) if found else f"<{value.kind} {value.name}>"
        )
    if isinstance(value, dict):
        return {key: resolve(inner, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(inner, known) for inner in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of a field are the same; lists are in no order."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(_text, one)) == sorted(map(_text, other))
    return bool(one == other)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def ordered(resources: list[Resource]) -> list[Resource]:
    """Return things so that each comes after what it needs."""
    waiting = {resource.key: resource for resource in resources}
    if len(waiting) != len(resources):
        raise Refused("two things of a kind have one name")
    done: list[Resource] = []
    while waiting:
        free = [one for one in waiting.values() if not one.needs() & waiting.keys()]
        if not free:
            raise Refused(f"each waits for another: {', '.join(' '.join(key) for key in waiting)}")
        done += free
        for one in free:
            del waiting[one.key]
    known = {one.key for one in done}
    for one in done:
        if lost := one.needs() - known:
            raise Refused(f"{' '.join(one.key)} refers to {' '.join(min(lost))}, which nobody declares")
    return done
