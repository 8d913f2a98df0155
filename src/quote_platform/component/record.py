"""What was applied of each component, by which goes away what it no longer names.

It is recorded in the cluster: a ConfigMap for each component lists its objects, as Flux keeps an inventory.
A run that changes nothing reads that and compares names; by the labels of `kubectl apply --prune --applyset`
it would have to list each kind of object in each namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from quote_platform.component.objects import FIELD_MANAGER, FIRST, LAST, STARTER, Document, title
from quote_platform.component.server import Server

NAMESPACE = "kube-system"
LABEL = "quote-platform/record"
# Never deleted: what lies in them, or is of their kind, would go too.
NEVER = ("Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim")
# By API group and kind, whose data goes with the object. While there is one that is no longer named, nothing
# of its component is deleted: it may need the rest.
HOLDS_DATA = (
    ("postgresql.cnpg.io", "Cluster"),
    ("postgresql.cnpg.io", "Database"),
    ("elasticsearch.k8s.elastic.co", "Elasticsearch"),
)


@dataclass(frozen=True, order=True)
class Entry:
    """One object by its name; the namespace is empty for one that has none."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Return what a line of a record says."""
        api_version, kind, where = line.split(" ")
        namespace, _, name = where.rpartition("/")
        return cls(api_version, kind, namespace, name)

    @classmethod
    def of_document(cls, document: Document) -> Entry:
        """Return the entry of an object that was found."""
        metadata = document["metadata"]
        return cls(document["apiVersion"], document["kind"], metadata.get("namespace", ""), metadata["name"])

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind} {self.namespace}{'/' if self.namespace else ''}{self.name}"

    @property
    def group(self) -> str:
        """Return the API group, which is empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def of(self) -> tuple[str, str]:
        """Return what it is an object of: version of the API, and kind."""
        return self.api_version, self.kind

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Return what stays the same in another version of the API."""
        return self.group, self.kind, self.namespace, self.name

    @property
    def document(self) -> Document:
        """Return the object, as far as it is known."""
        metadata = {"name": self.name} | ({"namespace": self.namespace} if self.namespace else {})
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}


@dataclass
class Record:
    """The record of one component; `found` is None where there is none yet."""

    component: str
    found: Document | None

    @property
    def name(self) -> str:
        """Return the name of the ConfigMap."""
        return f"component-{self.component}"

    @property
    def applied(self) -> set[Entry]:
        """Return what was applied."""
        return self._entries("objects")

    @property
    def planned(self) -> set[Entry]:
        """Return what a run that ended early may have applied."""
        return self._entries("planned")

    def _entries(self, key: str) -> set[Entry]:
        lines = ((self.found or {}).get("data") or {}).get(key) or ""
        return {Entry.parse(line) for line in lines.splitlines()}

    def listing(self, applied: Iterable[Entry], planned: Iterable[Entry] = ()) -> Document:
        """Return the ConfigMap that lists these."""
        kinds = {"objects": applied} | ({"planned": planned} if planned else {})
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER, LABEL: "component"},
            },
            "data": {key: "".join(f"{entry}\n" for entry in sorted(some)) for key, some in kinds.items()},
        }


@dataclass
class Pruned:
    """What became of objects that are no longer named."""

    deleted: list[Document] = field(default_factory=list)
    # Those that are still there, and stay recorded: to be deleted once nothing is in the way.
    waiting: set[Entry] = field(default_factory=set)
    # What a person has to know, or to do.
    warnings: list[str] = field(default_factory=list)


def read(server: Server, component: str) -> Record:
    """Return the record of a component."""
    record = Record(component, None)
    record.found = server.find(record.listing([]))
    return record


def read_all(server: Server) -> list[Record]:
    """Return the records of all components."""
    found = server.labelled("v1", "ConfigMap", NAMESPACE, f"{LABEL}=component")
    return [Record(item["metadata"]["name"].removeprefix("component-"), item) for item in found]


def named(server: Server, documents: list[Document], namespace: str) -> list[Entry]:
    """Return the entry of each document; `namespace` is of those that name none."""
    entries = [
        Entry(
            item["apiVersion"],
            item["kind"],
            item["metadata"].get("namespace") or namespace or "default",
            item["metadata"]["name"],
        )
        for item in documents
    ]
    namespaced = _namespaced(server, entries)
    # A kind that is not known yet is looked up again before anything of it is deleted.
    return [replace(one, namespace="") if namespaced[one.of] is False else one for one in entries]


def prune(server: Server, record: Record, wanted: set[Entry]) -> Pruned:
    """Delete what is recorded and no longer wanted, as far as it may be."""
    pruned = Pruned()
    recorded = record.applied | record.planned
    if recorded <= wanted:
        return pruned
    kept = {entry.identity for entry in wanted}
    gone = [entry for entry in _placed(server, recorded) if entry.identity not in kept]
    documents = dict(zip(gone, server.each([entry.document for entry in gone], server.find), strict=True))
    holding = [entry for entry in gone if (entry.group, entry.kind) in HOLDS_DATA and documents[entry]]
    if holding:
        pruned.waiting = set(gone)
        pruned.warnings = [_holds(record, entry) for entry in holding]
        return pruned
    elsewhere = {
        entry.identity
        for other in read_all(server)
        if other.component != record.component
        for entry in other.applied
    }
    stay: dict[str, list[str]] = {}
    for entry, found in documents.items():
        if found is None or entry.identity in elsewhere:
            continue
        if reason := _stays(found):
            stay.setdefault(reason, []).append(title(found))
        else:
            pruned.deleted.append(found)
    pruned.warnings = [
        f"component {record.component}: no longer named, and kept, since {reason}: {', '.join(titles)}"
        for reason, titles in stay.items()
    ]
    if not server.dry_run:
        for stage in stages(pruned.deleted):
            server.delete(stage)
    return pruned


def stages(documents: list[Document]) -> list[list[Document]]:
    """Return documents in the order in which they can be deleted; a stage goes side by side.

    First what would intercept it, then what a controller has to clear away, then the controllers.
    """
    last = [item for item in documents if item["kind"] in LAST]
    first = [item for item in documents if item["kind"] in (*FIRST, "Secret")]
    rest = [item for item in documents if item not in last and item not in first]
    custom = [item for item in rest if _custom(item["apiVersion"].rpartition("/")[0])]
    return [stage for stage in (last, custom, [item for item in rest if item not in custom], first) if stage]


def _custom(group: str) -> bool:
    """Tell whether an API group is none of Kubernetes' own."""
    return "." in group and not group.endswith(".k8s.io")


def _placed(server: Server, entries: Iterable[Entry]) -> list[Entry]:
    """Return entries as the server knows their kinds; what is of a kind that is not served went with it."""
    entries = list(entries)
    namespaced = _namespaced(server, entries)
    known = [one for one in entries if namespaced[one.of] is not None]
    return sorted({one if namespaced[one.of] else replace(one, namespace="") for one in known})


def _namespaced(server: Server, entries: Iterable[Entry]) -> dict[tuple[str, str], bool | None]:
    """Return of each kind whether it is in namespaces, and None of one that is not known."""
    return {of: server.namespaced(*of) for of in {entry.of for entry in entries}}


def _stays(found: Document) -> str:
    """Return why an object is not deleted, or nothing."""
    if found["kind"] in NEVER:
        return "only you can know whether what is in it is needed"
    fields = found["metadata"].get("managedFields") or []
    ours = any(item["manager"] == FIELD_MANAGER and item["operation"] == "Apply" for item in fields)
    if fields and not ours:  # one that has no more than a name has fields of nobody
        return f"{FIELD_MANAGER} has no fields in it any more"
    others = {item["manager"] for item in fields} - {FIELD_MANAGER, STARTER}
    if found["kind"] == "Secret" and others:
        return f"{' and '.join(sorted(others))} has written to it as well"
    return ""


def _holds(record: Record, entry: Entry) -> str:
    where = f"--namespace {entry.namespace} " if entry.namespace else ""
    return (
        f"component {record.component}: {title(entry.document)} is no longer named and holds data: nothing "
        f"of the component is deleted. If the data may go: kubectl {where}delete "
        f"{entry.kind.lower()}.{entry.group} {entry.name}; the next run deletes the rest"
    )
