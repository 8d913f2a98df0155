"""A certificate chains to the platform's authority, is for its names, and is renewed before it ends."""

from typing import Any

from testinfra.host import Host

from scenario import Inventory

TLS = "/etc/molecule/tls"


def serial(host: Host) -> str:
    return str(host.check_output(f"openssl x509 -noout -serial -in {TLS}.crt"))


def test_it_chains_to_the_authority_and_is_for_its_names(host: Host, variables: dict[str, Any]) -> None:
    assert host.run(f"openssl verify -CAfile {TLS}.ca.crt {TLS}.crt").rc == 0
    named = host.check_output(f"openssl x509 -noout -ext subjectAltName -in {TLS}.crt")
    assert "DNS:molecule.example.com" in named
    assert f"IP Address:{variables['ansible_host']}" in named


def test_the_key_belongs_to_it_and_is_closed(host: Host) -> None:
    public = host.check_output(f"openssl pkey -pubout -in {TLS}.key")
    assert public == host.check_output(f"openssl x509 -noout -pubkey -in {TLS}.crt")
    assert host.file(f"{TLS}.key").mode == 0o640


def test_one_that_ends_soon_is_renewed_by_the_same_authority(host: Host, inventory: Inventory) -> None:
    before, authority = serial(host), host.file(f"{TLS}.ca.crt").content_string
    _, output = inventory.converge("--diff", "--extra-vars=node_certificate_renew_days=398")
    assert "ends on" in output
    assert "PRIVATE KEY" not in output
    assert serial(host) != before
    assert host.file(f"{TLS}.ca.crt").content_string == authority
    assert host.run(f"openssl verify -CAfile {TLS}.ca.crt {TLS}.crt").rc == 0
