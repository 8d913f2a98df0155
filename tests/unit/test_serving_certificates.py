"""Which serving certificates are approved: those with a known node's own names, and no others."""

import ast
import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from quote_platform import serving_certificates
from quote_platform.certificates import alternatives
from quote_platform.serving_certificates import objection

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"master-1": ["192.0.2.11"], "worker-1": ["192.0.2.21", "2001:db8::21"], "worker-2": ["192.0.2.22"]}
KEY = ec.generate_private_key(ec.SECP256R1())
# As a kubelet writes it, with PrintableString in the subject: for worker-1 and 192.0.2.21.
KUBELETS = """\
-----BEGIN CERTIFICATE REQUEST-----
MIIBHDCBxAIBADA2MRUwEwYDVQQKEwxzeXN0ZW06bm9kZXMxHTAbBgNVBAMTFHN5
c3RlbTpub2RlOndvcmtlci0xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEnlUL
p6n2RJ+86zCFuDQsuOGvA+Pzps4LidZpTiKlCRo+4XLeFdl486EqirThS8yV+wd5
bOZhkr5gjZZonVnnZaAsMCoGCSqGSIb3DQEJDjEdMBswGQYDVR0RBBIwEIIId29y
a2VyLTGHBMAAAhUwCgYIKoZIzj0EAwIDRwAwRAIgeEThQyrzI0C+Vjpw5NBdlib5
xZSQEOOUP1V/+bFufiECIGb5z8IzR9cfONTd3qHCPlSfo1KFCZDXkgZnwHL+vNzD
-----END CERTIFICATE REQUEST-----
"""


def names(*entries: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(alternatives(list(entries)))


OWN = names("worker-1", "192.0.2.21")


def subject(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


ORGANIZATION = (NameOID.ORGANIZATION_NAME, "system:nodes")
SUBJECT = subject(ORGANIZATION, (NameOID.COMMON_NAME, "system:node:worker-1"))


def pem(
    *extensions: x509.ExtensionType,
    of: x509.Name = SUBJECT,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(of)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def asked(request: bytes, **different: Any) -> dict[str, Any]:
    """Return a request as the API server hands it out."""
    return {
        "username": "system:node:worker-1",
        "groups": ["system:nodes", "system:authenticated"],
        "signerName": "kubernetes.io/kubelet-serving",
        "usages": ["digital signature", "server auth"],
        "request": base64.b64encode(request).decode(),
    } | different


@pytest.mark.parametrize(
    "request_",
    [
        KUBELETS.encode(),
        pem(OWN),
        pem(names("worker-1", "192.0.2.21", "2001:db8::21")),
        pem(names("worker-1", "2001:db8:0::21")),
    ],
)
def test_a_node_gets_its_own_names(request_: bytes) -> None:
    assert objection(asked(request_), KNOWN) == ""
    usages = ["key encipherment", "digital signature", "server auth"]
    assert objection(asked(request_, usages=usages), KNOWN) == ""


@pytest.mark.parametrize(
    "more",
    [
        # A tool that prints names one beside the other shows the first line only.
        "worker-1\nx",
        "worker-1, DNS:kubernetes.default.svc",
        "kubernetes.default.svc",
        "worker-1\x00.example.com",
        "WORKER-1",
        "worker-1.",
        "worker-2",
        "192.0.2.22",
        "192.0.2.11",
        "10.96.0.1",
        "::ffff:192.0.2.21",
    ],
)
def test_a_name_that_is_not_the_nodes_is_refused(more: str) -> None:
    assert "is not known for worker-1" in objection(asked(pem(names("worker-1", "192.0.2.21", more))), KNOWN)


def test_names_after_one_with_a_line_break_are_judged() -> None:
    told = names("worker-1", "worker-1\nx", "kubernetes.default.svc", "192.0.2.21")
    assert "is not known for worker-1" in objection(asked(pem(told)), KNOWN)


@pytest.mark.parametrize(
    "entry",
    [
        x509.RFC822Name("worker-1"),
        x509.UniformResourceIdentifier("worker-1"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.DirectoryName(SUBJECT),
    ],
)
def test_other_kinds_of_names_are_refused(entry: x509.GeneralName) -> None:
    extension = x509.SubjectAlternativeName([*OWN, entry])
    assert "is not known for worker-1" in objection(asked(pem(extension)), KNOWN)


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]),
    ],
)
def test_other_extensions_are_refused(extension: x509.ExtensionType) -> None:
    assert objection(asked(pem(OWN, extension)), KNOWN).startswith("extension ")


def test_a_request_without_names_is_refused() -> None:
    assert objection(asked(pem()), KNOWN) == "no names asked for"


@pytest.mark.parametrize(
    "parts",
    [
        [ORGANIZATION, (NameOID.COMMON_NAME, "system:node:worker-2")],
        [ORGANIZATION, (NameOID.COMMON_NAME, "system:node:worker-1,O=system:masters")],
        [ORGANIZATION, (NameOID.COMMON_NAME, "system:node:worker-1\n")],
        [
            ORGANIZATION,
            (NameOID.ORGANIZATION_NAME, "system:masters"),
            (NameOID.COMMON_NAME, "system:node:worker-1"),
        ],
        [ORGANIZATION, (NameOID.COMMON_NAME, "admin"), (NameOID.COMMON_NAME, "system:node:worker-1")],
        [(NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "system:node:worker-1")],
        [(NameOID.COMMON_NAME, "system:node:worker-1")],
    ],
)
def test_another_subject_is_refused(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    assert objection(asked(pem(OWN, of=subject(*parts))), KNOWN).startswith("subject ")


@pytest.mark.parametrize(
    ("different", "told"),
    [
        ({"username": "system:node:worker-2"}, "subject"),
        ({"username": "system:node:worker-9"}, "not in the inventory"),
        ({"username": "system:serviceaccount:default:x"}, "no node"),
        ({"username": "worker-1"}, "no node"),
        ({"groups": ["system:authenticated"]}, "no node"),
        ({"signerName": "kubernetes.io/kube-apiserver-client"}, "signer"),
        ({"usages": ["digital signature", "server auth", "client auth"]}, "usages"),
        ({"usages": ["digital signature"]}, "usages"),
    ],
)
def test_who_asks_and_for_what_is_judged(different: dict[str, Any], told: str) -> None:
    assert told in objection(asked(pem(OWN), **different), KNOWN)


def test_an_address_that_two_nodes_claim_is_given_to_neither() -> None:
    known = KNOWN | {"worker-2": ["192.0.2.21"]}
    assert "not for it alone" in objection(asked(pem(OWN)), known)


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return a value in DER."""
    content = b"".join(parts)
    size = len(content)
    length = [size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, *divmod(size, 0x100)]
    return bytes([tag, *length]) + content


def attribute(oid: str, *extensions: x509.SubjectAlternativeName) -> bytes:
    """Return an attribute that asks for names."""
    listed = []
    for extension in extensions:
        entries = [
            tlv(0x82, entry.value.encode())
            if isinstance(entry, x509.DNSName)
            else tlv(0x87, entry.value.packed)
            for entry in extension
        ]
        listed.append(tlv(0x30, bytes.fromhex("0603551d11"), tlv(0x04, tlv(0x30, *entries))))
    return tlv(0x30, bytes.fromhex(oid), tlv(0x31, tlv(0x30, *listed)))


def crafted(*attributes: bytes) -> bytes:
    """Return a signed request with these attributes, which no library would write."""
    spki = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    info = tlv(0x30, b"\x02\x01\x00", SUBJECT.public_bytes(), spki, tlv(0xA0, *attributes))
    signature = KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    algorithm = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    whole = base64.encodebytes(tlv(0x30, info, algorithm, tlv(0x03, b"\0", signature))).decode()
    text = whole.replace("\n", "")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    start, end = (f"-----{word} CERTIFICATE REQUEST-----" for word in ("BEGIN", "END"))
    return "\n".join([start, *lines, end, ""]).encode()


REQUESTED, OF_MICROSOFT = "06092a864886f70d01090e", "060a2b06010401823702010e"


OTHERS = names("kubernetes.default.svc")


@pytest.mark.parametrize(
    "attributes",
    [
        [attribute(OF_MICROSOFT, OWN), attribute(REQUESTED, OTHERS)],
        [attribute(REQUESTED, OWN), attribute(OF_MICROSOFT, OTHERS)],
        [attribute(REQUESTED, OWN), attribute(REQUESTED, OTHERS)],
        [attribute(REQUESTED, OWN, OTHERS)],
    ],
)
def test_names_do_not_hide_behind_the_first(attributes: list[bytes]) -> None:
    # That the plain one passes shows that the others are refused for what they hide.
    assert objection(asked(crafted(attribute(REQUESTED, OWN))), KNOWN) == ""
    try:
        assert objection(asked(crafted(*attributes)), KNOWN)
    except (ValueError, x509.DuplicateExtension) as error:  # the library itself may refuse to read it
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        pem(OWN) + pem(names("kubernetes.default.svc")),
        pem(OWN).replace(b" CERTIFICATE REQUEST", b" NEW CERTIFICATE REQUEST")
        + pem(names("kubernetes.default.svc")),
        b"a note\n" + pem(OWN),
    ],
)
def test_a_second_request_does_not_hide_behind_the_first(text: bytes) -> None:
    assert objection(asked(text), KNOWN).startswith("holds more")


def test_only_keys_as_kubelets_have_them_are_signed() -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert objection(asked(pem(OWN, key=key)), KNOWN).startswith("holds more")


def test_a_request_is_signed_by_its_key() -> None:
    der = bytearray(x509.load_pem_x509_csr(pem(OWN)).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    assert objection(asked(broken), KNOWN) == "signature does not fit"


def test_every_distribution_can_run_it() -> None:
    text = Path(serving_certificates.__file__).read_text()
    ast.parse(text, feature_version=(3, 10))
