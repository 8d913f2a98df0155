"""An ACME server and a name server on the mirror's host, in the place of Let's Encrypt and of public DNS."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
from tenacity import RetryError, retry, retry_if_exception_type, stop_after_delay, wait_fixed

from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab
from quote_platform.mirror import catalogue, publish
from quote_platform.mirror.availability import unavailable

# What the units of the mirror's host run, and which variables of versions.yml name the image.
PROGRAMS = {
    "pebble": "{acme_image}",
    "coredns": "{control_plane_coredns_image_repository}/coredns:{control_plane_coredns_image_tag}",
}
SECONDS_TO_ANSWER = 30


def wanted(lab: Lab) -> bool:
    """Tell whether a lab has them: not without cert-manager, which would ask."""
    return lab.acme and "cert-manager" not in {one.name for one in unavailable()}


def prepare(lab: Lab, home: Path) -> None:
    """Fill the folder that the mirror's host sees: programs, the server's key, the address of the ingress."""
    folder = home / "acme"
    versions = catalogue.versions()
    for name, image in PROGRAMS.items():
        if not (folder / name).is_file():
            publish.take_program(image.format_map(versions), folder / name)
    if not (folder / "tls.crt").is_file():
        certificate = ["-x509", "-days", "3650", "-subj", f"/CN=ACME server of the lab {lab.name}"]
        for extension in (
            f"subjectAltName=IP:{lab.mirror.address}",
            "keyUsage=critical,digitalSignature,keyCertSign",
        ):
            certificate += ["-addext", extension]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt.part")]
        subprocess.run(["openssl", "req", *certificate, *key, *files], check=True, capture_output=True)
        (folder / "tls.key").chmod(0o600)
        (folder / "tls.crt.part").replace(folder / "tls.crt")
    (folder / "names.env").write_text(f"INGRESS={lab.ingress}\n")


def settings(lab: Lab, home: Path) -> dict[str, Any]:
    """Return the variables of the inventory, once the servers answer."""
    folder, address = home / "acme", f"https://{lab.mirror.address}"
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))

    @retry(
        stop=stop_after_delay(SECONDS_TO_ANSWER),
        wait=wait_fixed(0.3),
        retry=retry_if_exception_type(httpx.HTTPError),
    )
    def ask(url: str) -> str:
        return httpx.get(url, verify=context, timeout=5).raise_for_status().text

    try:
        ask(f"{address}/dir")
        root = ask(f"{address}:15000/roots/0")
    except RetryError as error:
        raise LabError(
            f"no ACME server answers on {lab.mirror.name}: see `podman exec {lab.mirror.name} journalctl "
            f"--unit pebble`; a lab of an older version: `quote-platform lab down --name {lab.name}`, then up"
        ) from error
    # It signs by a new root after each start, and what the old ones have signed is still served.
    roots = folder / "roots.pem"
    known = roots.read_text() if roots.is_file() else ""
    if root not in known:
        roots.write_text(known + root)
    return {
        "certificate_issuer": "letsencrypt-staging",
        "certificate_authority": roots.read_text(),
        "cert_manager_acme_staging": f"{address}/dir",
        "cert_manager_acme_production": f"{address}/dir",
        "cert_manager_acme_ca": (folder / "tls.crt").read_text(),
        "cert_manager_nameservers": [f"{lab.mirror.address}:53"],
    }
