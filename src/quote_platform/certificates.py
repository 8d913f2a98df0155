"""Issue certificates on the controller, by an authority that lies there too, and renew them in time."""
# In one piece, since a key, a request, a certificate and a look at its end are a task each otherwise.

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What the task issue_certificate is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "authority": {"type": "path", "default": ""},
    "common_name": {"type": "str", "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "days": {"type": "int", "default": 397},
    "renew_days": {"type": "int", "default": 60},
    "is_authority": {"type": "bool", "default": False},
    "adopt_certificate": {"type": "str", "default": ""},
    "adopt_key": {"type": "str", "default": "", "no_log": True},
}
AUTHORITY_DAYS = 3650
Key = ec.EllipticCurvePrivateKey
Pair = tuple[x509.Certificate, Key]


def subject(name: str) -> x509.Name:
    """Return a distinguished name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def alternatives(names: list[str]) -> list[x509.GeneralName]:
    """Return names and addresses as a certificate holds them."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step, with its mode from the start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    part.replace(path)


def load(path: Path) -> Pair | None:
    """Return certificate and key, if both are there and belong together."""
    try:
        return parse(path.with_suffix(".crt").read_bytes(), path.with_suffix(".key").read_bytes())
    except FileNotFoundError:
        return None


def parse(certificate: bytes, key: bytes) -> Pair | None:
    """Return what two texts hold, if they belong together."""
    try:
        pair = x509.load_pem_x509_certificate(certificate), serialization.load_pem_private_key(key, None)
    except ValueError:
        return None
    return pair if pair[0].public_key() == pair[1].public_key() else None  # type: ignore[return-value]


def sign(
    name: str, names: list[str], days: int, key: Key, *, issuer: Pair | None, is_ca: bool
) -> x509.Certificate:
    """Return a signed certificate; without an issuer it signs itself."""
    now = datetime.now(UTC)
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (subject(name), key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if is_ca:
        usage = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                "key_agreement", "encipher_only", "decipher_only",
            ),
            False,
        )  # fmt: skip
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    else:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives(names)), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def make(path: Path, name: str, names: list[str], days: int, *, issuer: Pair | None, is_ca: bool) -> Pair:
    """Make a key and its certificate and write both."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = sign(name, names, days, key, issuer=issuer, is_ca=is_ca), key
    save(path, pair)
    return pair


def save(path: Path, pair: Pair) -> None:
    """Write a certificate and its key."""
    encoding = serialization.Encoding.PEM
    # CloudNativePG reads the key of an authority in this form only; everybody else reads it as well.
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private = pair[1].private_bytes(encoding, form, serialization.NoEncryption())
    write(path.with_suffix(".key"), private, 0o600)
    write(path.with_suffix(".crt"), pair[0].public_bytes(encoding), 0o644)


def renewed(pair: Pair, days: int) -> Pair:
    """Return an authority that lasts longer; by its name and key, whoever trusts one trusts the other."""
    certificate, key = pair
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(key, hashes.SHA256()), key


def reason(given: dict[str, Any], authority: x509.Certificate | None) -> str:
    """Return why a certificate must be made, or nothing if the one that is there will do."""
    found = load(Path(given["path"]))
    if found is None:
        return "there is none"
    certificate = found[0]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left < timedelta(days=given["renew_days"]):
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(held) != set(alternatives(given["names"])) or certificate.subject != subject(given["common_name"]):
        return "it is for other names"
    if authority:
        try:
            certificate.verify_directly_issued_by(authority)
        except Exception:  # cryptography names several
            return "another authority issued it"
    return ""


def run_authority(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Make an authority, take one over, or have it last longer."""
    path = Path(given["path"])
    found, why = load(path), ""
    if found is None:
        found = parse(given["adopt_certificate"].encode(), given["adopt_key"].encode())
        why = "there is none" if found is None else "the one that there was is taken over"
    elif found[0].not_valid_after_utc - datetime.now(UTC) < timedelta(days=given["renew_days"]):
        why = f"it ends on {found[0].not_valid_after_utc:%Y-%m-%d}"
    if why and not dry_run:
        if found:
            save(path, renewed(found, given["days"]))
        else:
            make(path, given["common_name"], [], given["days"], issuer=None, is_ca=True)
    return {"changed": bool(why), "reason": why, "diff": difference(path, why)}


def difference(path: Path, why: str) -> dict[str, str]:
    """Return what a task shows of a change."""
    return {"before": "", "after": f"{path}.crt: {why}\n" if why else ""}


def run(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Issue the certificate that a task asks for, if it must be; return what the task returns."""
    if given["is_authority"]:
        return run_authority(given, dry_run)
    path, authority = Path(given["path"]), Path(given["authority"]) if given["authority"] else None
    issuer = load(authority) if authority else None
    why = reason(given, issuer[0] if issuer else None)
    if authority and not issuer:
        why = "there is no authority yet"
    if why and not dry_run:
        if authority and not issuer:
            issuer = make(authority, "Quote Platform authority", [], AUTHORITY_DAYS, issuer=None, is_ca=True)
        make(path, given["common_name"], given["names"], given["days"], issuer=issuer, is_ca=False)
    return {"changed": bool(why), "reason": why, "diff": difference(path, why)}
