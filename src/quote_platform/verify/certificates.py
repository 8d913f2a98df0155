"""The certificates of a platform, as its servers show them, and when they end."""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from quote_platform import bastion
from quote_platform.verify.target import Failed, Seen, Target

PORTS = {"kubelet": 10250, "API server": 6443, "etcd": 2379}
RENEW = "ansible-playbook -i INVENTORY playbooks/renew-certificates.yml"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


class Place(NamedTuple):
    """A server, and what renews its certificate."""

    holder: str
    renew: str  # of playbooks/renew-certificates.yml; empty where it is renewed by itself
    host: str
    port: int
    name: str = ""


def shown(
    host: str, port: int, name: str = "", authority: str = "", maximum: ssl.TLSVersion | None = None
) -> x509.Certificate:
    """Return the certificate that a server shows; with an authority, a wrong one is an error."""
    if authority:
        context = ssl.create_default_context(cadata=None if authority == "public" else authority)
    else:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if maximum:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = maximum
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else our own side would refuse
    with (
        bastion.connect(host, port, 10) as raw,
        context.wrap_socket(raw, server_hostname=name or host) as secured,
    ):
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")


def places(target: Target) -> Iterator[Place]:
    """Yield every server of the platform."""
    for address in target.addresses:
        yield Place(f"ingress at {address}", "ingress", address, 443, target.host)
    for node in target.core.list_node().items:
        own = next(item.address for item in node.status.addresses if item.type == "InternalIP")
        address = target.nodes.get(node.metadata.name, own)
        for what, port in PORTS.items():
            if what == "kubelet":
                yield Place(f"{what} of {node.metadata.name}", "", address, port)
            elif CONTROL_PLANE in node.metadata.labels:
                yield Place(f"{what} of {node.metadata.name}", "control_plane", address, port)
    for server in target.servers:
        host, _, number = server.rpartition(":")
        yield Place(server, "nodes", host, int(number))


def certificates(target: Target) -> Seen:
    """No certificate ends soon: of ingress, nodes, control plane, and of who asks the API server."""

    def end(place: Place) -> datetime | None:
        try:
            return shown(place.host, place.port, place.name).not_valid_after_utc
        except OSError:
            return None  # whether it serves is another check's question; a firewall may be in between

    every = list(places(target))
    with ThreadPoolExecutor() as pool:
        ends = dict(zip(every, pool.map(end, every), strict=True))
    own = x509.load_pem_x509_certificate(Path(target.api.configuration.cert_file).read_bytes())
    ends[Place("kubeconfig", "control_plane", "", 0)] = own.not_valid_after_utc
    seen = {place: moment for place, moment in ends.items() if moment}
    limit = datetime.now(UTC) + timedelta(days=target.certificate_days)
    late = {place: moment for place, moment in seen.items() if moment < limit}
    if late:
        what = ",".join(sorted({place.renew for place in late if place.renew}))
        raise Failed(
            "; ".join(f"{place.holder} ends on {moment:%Y-%m-%d}" for place, moment in late.items()),
            f"{RENEW} -e renew={what}" if what else "kubectl get csr",
            min(late.values()),
        )
    first, moment = min(seen.items(), key=lambda item: item[1])
    hidden = [place.holder for place in every if place not in seen]
    detail = f"{len(seen)}, the first to end is {first.holder} on {moment:%Y-%m-%d}"
    return Seen(detail + (f"; not to be seen from here: {', '.join(hidden)}" if hidden else ""), moment)
