"""Start and stop labs."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from quote_platform import paths
from quote_platform.lab import access, acme, drivers, fence, host, hostile, inventory, logs, podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab, Node, Unkind


def find(name: str) -> Lab:
    """Return a lab that was started."""
    file = paths.lab(name) / "lab.json"
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in (paths.state() / "labs").glob("*/lab.json")))
        raise LabError(
            f"there is no lab {name}; there are: {known or 'none'} (start it: quote-platform lab up)"
        )
    return _read(file)


def _read(file: Path) -> Lab:
    try:
        return Lab.model_validate_json(file.read_text())
    except ValidationError as error:
        name = file.parent.name
        raise LabError(
            f"lab {name} was made by another version of this: `quote-platform lab down --name {name}`"
        ) from error


def up(lab: Lab, say: Callable[[str], None]) -> Path:
    """Start what is missing; return the folder of the inventory."""
    with _alone(lab.name):
        inventory.refuse_foreign(lab.name)
        for runner in drivers.of_lab(lab):
            runner.refuse(lab)
        return _up(lab, say)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Change a lab alone: after others, and after what a killed run has left working."""
    with host.lock(f"lab-{name}"):
        with host.lock(f"podman-{name}"):
            pass
        podman.hold(host.lock_file(f"podman-{name}"))
        yield


def _up(lab: Lab, say: Callable[[str], None]) -> Path:
    home = paths.lab(lab.name)
    before = home / "lab.json"
    if before.is_file():
        old = _read(before)
        if old.subnet != lab.subnet:
            raise LabError(f"lab {lab.name} runs in {old.subnet}: take it down first, or choose another name")
        if old.driver != lab.driver or old.system != lab.system:
            raise LabError(
                f"lab {lab.name} is of {old.driver} with {old.system}: take it down first, or choose "
                "another name"
            )
        if dropped := old.components - lab.components:
            raise LabError(
                f"lab {lab.name} has {', '.join(sorted(dropped))}, and a component is added to a lab but not "
                f"taken from it: name it too, or first run `quote-platform lab down --name {lab.name}`"
            )
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    before.write_text(lab.model_dump_json(indent=2))
    with host.lock("host"):
        host.prepare()
    with ThreadPoolExecutor() as pool:
        fence.down(lab.name)
        say("images of the nodes")
        list(pool.map(lambda runner: runner.prepare(lab), drivers.of_lab(lab)))
        _network(lab)
        access.prepare(lab)
        (home / "acme").mkdir(mode=0o700, exist_ok=True)  # mounted, also where it is filled later
        (home / "outside").mkdir(exist_ok=True)
        hostile.prepare(lab, home)
        if acme.wanted(lab):
            acme.prepare(lab, home)
        if lab.logs:
            logs.prepare(lab, home)
            logs.start(lab, home)
        kind = drivers.ALL[lab.driver].kind()
        say(f"starting {len(lab.nodes)} nodes ({kind}) and the mirror's host")
        every = access.machines(lab)
        list(pool.map(lambda node: drivers.of(node).start(lab, node), every))
        list(pool.map(lambda node: drivers.of(node).wait(lab, node), every))
        foreign = [node for node in every if node.role != "mirror"]
        list(pool.map(lambda node: hostile.machine(lab, home, node), foreign))
    if acme.wanted(lab):  # on a host that was started without, they have not started
        podman.execute(lab.mirror.name, ["systemctl", "start", *acme.PROGRAMS])
    wanted = {node.name for node in [*lab.nodes, *lab.services]}
    for runner in drivers.ALL.values():
        for gone in set(runner.states(lab.name)) - wanted:
            runner.remove(lab.name, gone)
    if Unkind.BASTION in lab.unkind:
        fence.up(lab)
    more = acme.settings(lab, home) if acme.wanted(lab) else {}
    more |= logs.settings(lab, home) if lab.logs else {}
    return inventory.write(lab, home, more | hostile.settings(lab, home))


def connected(lab: Lab) -> bool:
    """Tell whether the network of a lab is there."""
    return bool(podman.rows("network", "ls", "--filter", f"name=^{lab.network}$"))


def _network(lab: Lab) -> None:
    if connected(lab):
        return
    label = ["--label", f"{podman.LABEL}={lab.name}"]
    if Unkind.NETWORKS in lab.unkind:  # without a way out, and without names
        podman.run("network", "create", "--internal", "--subnet", lab.inner, *label, f"{lab.network}-inner")
    arguments = ["--subnet", lab.subnet, "--gateway", lab.address(1), *label]
    podman.run("network", "create", *arguments, lab.network)


def node_of(lab: Lab, name: str) -> Node:
    """Return a node by its name, with or without the lab's."""
    every = {node.name: node for node in [*lab.nodes, *lab.services]}
    found = every.get(name) or every.get(f"{lab.name}-{name}")
    if found is None:
        raise LabError(f"lab {lab.name} has no node {name}; it has: {', '.join(every)}")
    return found


def switch_off(lab: Lab, *nodes: Node) -> None:
    """Switch nodes off as a power cut does, all of them at once."""
    found = drivers.states(lab.name)
    running = [node for node in nodes if found.get(node.name) == "running"]
    for runner in drivers.of_lab(lab):
        if names := [node.name for node in running if drivers.of(node) is runner]:
            runner.kill(lab.name, names)


def switch_on(lab: Lab, node: Node) -> None:
    """Switch a node on again; its disk is as it was."""
    if node.name not in drivers.states(lab.name):
        raise LabError(f"node {node.name} is not there: `quote-platform lab up --name {lab.name}` makes it")
    if node.role == "logs":
        logs.start(lab, paths.lab(lab.name))
        return
    drivers.of(node).start(lab, node)
    drivers.of(node).wait(lab, node)


def destroy(lab: Lab, node: Node) -> None:
    """Destroy a node with its disks, as when a machine is lost."""
    if node.name in drivers.states(lab.name):
        drivers.of(node).remove(lab.name, node.name)


def down(name: str) -> None:
    """Remove a lab, also half a one: containers, disks, network, keys, inventory, its cluster's secrets."""
    with _alone(name):
        there = drivers.states(name)
        # A name that a person's inventory has, or that no lab ever had: its secrets are not ours to delete.
        ours = inventory.ours(name) and (
            bool(there) or paths.lab(name).exists() or (inventory.folder(name) / "hosts.yml").exists()
        )
        with ThreadPoolExecutor() as pool:
            # Virtual machines first: podman leaves a bridge to which something is connected, and its rules.
            for runner in reversed(drivers.ALL.values()):
                list(pool.map(partial(runner.remove, name), runner.states(name)))
        fence.down(name)
        hostile.release(paths.lab(name))
        for network in podman.rows("network", "ls", "--filter", f"label={podman.LABEL}={name}"):
            podman.remove_network(network)
        if ours:
            inventory.remove(name)
            shutil.rmtree(paths.repository() / "secrets" / name, ignore_errors=True)
            paths.vault_password(name).unlink(missing_ok=True)
        shutil.rmtree(paths.lab(name), ignore_errors=True)
    with host.lock("host"):
        if not podman.containers() and not any((paths.state() / "labs").glob("*")):
            host.restore()
