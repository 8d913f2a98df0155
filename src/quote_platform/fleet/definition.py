"""What a `fleet.yml` says: clusters, their groups, the node that reaches each; and what is wrong with it."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from quote_platform.jobs.definition import NAME, Strict, WrongInput, near, read, refusal, sentence

LOCAL = "local"
ALL = "all"
# The group whose clusters go first.
CANARY = "canary"
NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Cluster(Strict):
    """One cluster."""

    # Relative to the checkout of the node.
    inventory: str
    groups: list[str] = Field(default_factory=list)
    # Where its jobs run: on this controller, or on one of the execution nodes.
    node: str = LOCAL


class Receptor(Strict):
    """The mesh that reaches execution nodes, as the controller's receptor is configured."""

    # What execution nodes call themselves in it.
    nodes: list[str]
    # Its control service on this controller.
    socket: str = "/run/receptor/receptor.sock"
    # Name of its `tls-client`.
    tls_client: str = "mesh"
    # Name of the `work-command` of execution nodes.
    work_type: str = "quote-platform"


class Fleet(Strict):
    """A whole `fleet.yml`."""

    clusters: dict[str, Cluster]
    receptor: Receptor | None = None

    def groups(self) -> set[str]:
        """Return all groups."""
        return {group for one in self.clusters.values() for group in one.groups}

    def on(self, asked: list[str]) -> list[str]:
        """Return the clusters that groups and names mean, in the order of the file; raise WrongInput."""
        known = {ALL, *self.groups(), *self.clusters}
        if wrong := [one for one in asked if one not in known]:
            raise WrongInput(
                "\n".join(
                    f"--on {one}: no such group or cluster{near(one, known) or '.'} "
                    f"Known are {', '.join(sorted(known))}"
                    for one in wrong
                )
            )
        return [
            name
            for name, one in self.clusters.items()
            if any(word in {ALL, name, *one.groups} for word in asked)
        ]

    def waves(self, names: list[str], at_once: int) -> list[list[str]]:
        """Return in which order clusters are worked on: canaries before the others, so many at once."""
        canaries = [name for name in names if CANARY in self.clusters[name].groups]
        others = [name for name in names if name not in canaries]
        return [
            part[first : first + at_once]
            for part in (canaries, others)
            for first in range(0, len(part), at_once)
        ]


# What stands at which depth.
MODELS: dict[int, type[BaseModel]] = {1: Fleet, 2: Receptor, 3: Cluster}


def load(project: Path, file: Path) -> Fleet:
    """Return the fleet of a file; raise WrongInput with every mistake of it."""
    try:
        fleet = Fleet.model_validate(read(file, sorted(Fleet.model_fields)))
    except ValidationError as error:
        raise refusal(file, [sentence(one, MODELS) for one in error.errors()]) from error
    if wrong := list(_judge(project, fleet)):
        raise refusal(file, wrong)
    return fleet


def _judge(project: Path, fleet: Fleet) -> Iterator[str]:
    """Yield what is wrong beside types."""
    if not fleet.clusters:
        yield "clusters: is empty; allowed is at least one"
    nodes = [LOCAL]
    if fleet.receptor:
        nodes += fleet.receptor.nodes
        yield from (f"receptor.{text}" for text in _judge_receptor(fleet.receptor))
    seen: dict[tuple[str, str], str] = {}
    for name, one in fleet.clusters.items():
        where = f"clusters.{name}"
        if not NAME.fullmatch(name) or name == ALL:
            yield f"{where}: no name of a cluster; {_names()}"
        for group in one.groups:
            if not NAME.fullmatch(group) or group == ALL:
                yield f"{where}.groups: {group or repr(group)} is no name of a group; {_names()}"
            elif group in fleet.clusters:
                yield f"{where}.groups: {group} is the name of a cluster"
            elif one.groups.count(group) > 1:
                yield f"{where}.groups: {group} stands there more than once"
                break
        yield from (f"{where}.{text}" for text in _judge_place(project, one, nodes))
        first = seen.setdefault((one.node, str(Path(one.inventory))), name)
        if first != name:
            yield f"{where}.inventory: {one.inventory} is that of {first} already"


def _names() -> str:
    return f"allowed are a-z, 0-9 and -, at most 40, a letter first, and not {ALL}"


def _judge_receptor(mesh: Receptor) -> Iterator[str]:
    for node in mesh.nodes:
        if not NODE.fullmatch(node) or node == LOCAL:
            yield (
                f"nodes: {node or repr(node)} is no name of a node; allowed are letters, digits, ., _ and -, "
                f"at most 63, and not {LOCAL}"
            )
    # What receptorctl takes for a socket and not for an address.
    if not Path(mesh.socket).is_absolute() or ":" in mesh.socket:
        yield f"socket: {mesh.socket}; allowed is the absolute path of a socket, without :"
    for name in ("tls_client", "work_type"):
        if not getattr(mesh, name):
            yield f"{name}: is empty; work is sent by TLS, to a command of the node's"


def _judge_place(project: Path, one: Cluster, nodes: list[str]) -> Iterator[str]:
    if one.node not in nodes:
        yield f"node: {one.node} is unknown{near(one.node, nodes) or '; allowed are ' + ', '.join(nodes)}"
    elif one.node != LOCAL:
        # Its folder is on the node, which judges the rest.
        if not one.inventory or Path(one.inventory).is_absolute() or ".." in Path(one.inventory).parts:
            yield (
                f"inventory: {one.inventory or repr(one.inventory)}; allowed is a path in the checkout of "
                f"{one.node}, such as inventories/NAME"
            )
    elif not one.inventory or not (project / one.inventory).exists():
        others = [f"{folder.parent.name}/{folder.name}" for folder in (project / "inventories").glob("*/")]
        yield f"inventory: {project / one.inventory}: no such inventory{near(one.inventory, others)}"
    elif (project / one.inventory).resolve() == project.resolve():
        yield "inventory: the checkout itself; allowed is a folder such as inventories/NAME"
