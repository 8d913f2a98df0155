"""What a lab is: its name, its network, its nodes."""

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from quote_platform.mirror.catalogue import USUAL, Part


class Unkind(StrEnum):
    """What a lab can have of places that are not ours; docs/testing.md says where each hurts."""

    PROXY = "proxy"
    NETWORKS = "networks"
    ACCOUNT = "account"
    LANGUAGE = "language"
    UMASK = "umask"
    NOEXEC = "noexec"
    CLOCK = "clock"
    BASTION = "bastion"
    RUNTIME = "runtime"
    SWAP = "swap"
    MEMORY = "memory"


class Driver(StrEnum):
    """What runs the nodes of a lab; what stands beside them, as the mirror's host, is a container always."""

    PODMAN = "podman"
    QEMU = "qemu"


class System(StrEnum):
    """What nodes run; containers have Debian only."""

    DEBIAN = "debian-12"
    UBUNTU = "ubuntu-22.04"


Role = Literal["master", "worker", "store", "vault", "mirror", "logs", "bastion"]


class Node(BaseModel):
    """One machine of a lab."""

    model_config = ConfigDict(frozen=True)

    name: str
    role: Role
    address: str
    cpus: float
    memory: str
    driver: Driver = Driver.PODMAN

    @property
    def mebibytes(self) -> int:
        """Return how much memory it has."""
        return int(self.memory[:-1]) * (1024 if self.memory[-1] == "g" else 1)


class Lab(BaseModel):
    """A lab as it was asked for."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,18}[a-z0-9]$")]
    subnet: str = "10.89.42.0/24"
    control_planes: Annotated[int, Field(ge=1, le=9)] = 1
    workers: Annotated[int, Field(ge=0, le=50)] = 3
    stores: Annotated[int, Field(ge=0, le=1)] = 1
    vaults: Annotated[int, Field(ge=0, le=3)] = 1
    control_plane_cpus: Annotated[float, Field(gt=0)] = 2
    control_plane_memory: Annotated[str, Field(pattern=r"^\d+[mg]$")] = "4g"
    worker_cpus: Annotated[float, Field(gt=0)] = 4
    worker_memory: Annotated[str, Field(pattern=r"^\d+[mg]$")] = "8g"
    acme: bool = True
    logs: bool = True
    virtual_ip: bool = False
    unkind: frozenset[Unkind] = frozenset()
    driver: Driver = Driver.PODMAN
    system: System = System.DEBIAN
    components: frozenset[Part] = frozenset(USUAL)

    @field_validator("subnet")
    @classmethod
    def _private(cls, value: str) -> str:
        network = ipaddress.ip_network(value)
        if network.version != 4 or not network.is_private or network.prefixlen > 24:
            raise ValueError("a private IPv4 network of at least 256 addresses, such as 10.89.42.0/24")
        return str(network)

    @model_validator(mode="after")
    def _apart(self) -> "Lab":
        for other in ("10.244.0.0/16", "10.96.0.0/16"):
            if ipaddress.ip_network(self.subnet).overlaps(ipaddress.ip_network(other)):
                raise ValueError(f"subnet {self.subnet} overlaps the pods' or services' network {other}")
        return self

    @model_validator(mode="after")
    def _runs(self) -> "Lab":
        if self.shares_kernel and self.system is not System.DEBIAN:
            raise ValueError(f"{self.system} runs in virtual machines only: add --driver {Driver.QEMU}")
        if not self.shares_kernel and self.unkind:
            named = ", ".join(sorted(self.unkind))
            raise ValueError(f"virtual machines cannot be unkind ({named}): --driver {Driver.PODMAN} can")
        if not self.shares_kernel and self.name == "lab":
            raise ValueError(
                "inventories/lab has the settings of containers: another --name for virtual machines"
            )
        return self

    @model_validator(mode="after")
    def _shared(self) -> "Lab":
        self.virtual_ip = self.virtual_ip or self.control_planes > 1
        return self

    @model_validator(mode="after")
    def _only_chosen(self) -> "Lab":
        self.components |= {Part.CORE}
        self.stores = self.stores if Part.BACKUPS in self.components else 0
        self.vaults = self.vaults if Part.SECRETS in self.components else 0
        # Upstream's own names are served at the port of the ACME server.
        self.acme = self.acme and Part.CERTIFICATES in self.components and Unkind.PROXY not in self.unkind
        self.logs = self.logs and Part.LOGS in self.components
        return self

    def address(self, number: int) -> str:
        """Return an address of the lab's network; .1 is this machine."""
        return str(ipaddress.ip_network(self.subnet)[number])

    @property
    def shares_kernel(self) -> bool:
        """Tell whether its nodes have this machine's kernel, and no other."""
        return self.driver is Driver.PODMAN

    @property
    def user(self) -> str:
        """Return as whom Ansible comes to its machines."""
        return "ops" if Unkind.ACCOUNT in self.unkind else "root"

    @property
    def inner(self) -> str:
        """Return the cluster's own network, beside that by which its machines are reached."""
        one = ipaddress.ip_network(self.subnet)
        return f"{ipaddress.ip_address(int(one.network_address) + 2**16)}/{one.prefixlen}"

    def inner_address(self, node: Node) -> str:
        """Return a node's address there."""
        return str(ipaddress.ip_address(node.address) + 2**16)

    @property
    def network(self) -> str:
        """Return the name of the lab's network."""
        return f"quote-{self.name}"

    @property
    def endpoint(self) -> str:
        """Return where the control planes share an address, if they do."""
        return f"{self.address(10)}:8443"

    @property
    def mirror(self) -> Node:
        """Return the host that serves packages, images and manifests."""
        return Node(name=f"{self.name}-mirror", role="mirror", address=self.address(2), cpus=2, memory="1g")

    @property
    def log_store(self) -> Node:
        """Return the container of the store of logs, which is no machine of the platform."""
        return Node(name=f"{self.name}-logs", role="logs", address=self.address(3), cpus=2, memory="1500m")

    @property
    def bastion(self) -> Node:
        """Return the machine by which the others are reached, if they are."""
        return Node(
            name=f"{self.name}-bastion", role="bastion", address=self.address(4), cpus=1, memory="256m"
        )

    @property
    def services(self) -> list[Node]:
        """Return what stands beside the platform."""
        return [
            self.mirror,
            *([self.log_store] if self.logs else []),
            *([self.bastion] if Unkind.BASTION in self.unkind else []),
        ]

    @property
    def ingress(self) -> str:
        """Return the address of a node that takes pods and, with them, requests of users."""
        role: Role = "worker" if self.workers else "master"
        return next(node.address for node in self.nodes if node.role == role)

    @property
    def nodes(self) -> list[Node]:
        """Return the machines that become the platform."""
        workers = self._machines("worker", self.workers, 20, self.worker_cpus, self.worker_memory)
        if Unkind.MEMORY in self.unkind and workers:
            workers[-1] = workers[-1].model_copy(update={"memory": f"{workers[-1].mebibytes * 6 // 10}m"})
        return [
            *self._machines(
                "master", self.control_planes, 10, self.control_plane_cpus, self.control_plane_memory
            ),
            *workers,
            *self._machines("store", self.stores, 110, 1, "1g"),
            *self._machines("vault", self.vaults, 120, 1, "1g"),
        ]

    def _machines(self, role: Role, count: int, first: int, cpus: float, memory: str) -> list[Node]:
        return [
            Node(
                name=f"{self.name}-{role}-{number}",
                role=role,
                address=self.address(first + number),
                cpus=cpus,
                memory=memory,
                driver=self.driver,
            )
            for number in range(1, count + 1)
        ]
