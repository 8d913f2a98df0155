"""Files have their content and mode, and drift in either is put right without touching the others."""

from testinfra.host import Host

from scenario import Inventory


def test_content_and_modes(host: Host) -> None:
    word, secret = host.file("/etc/molecule/word"), host.file("/etc/molecule/deep/secret")
    assert (word.content_string, word.mode) == ("kept\n", 0o644)
    assert (secret.content_string, secret.mode) == ("hush\n", 0o600)


def test_drift_is_put_right_and_secrets_stay_out_of_the_output(host: Host, inventory: Inventory) -> None:
    before = host.file("/etc/molecule/word").mtime
    host.check_output("chmod 0644 /etc/molecule/deep/secret && echo drift > /etc/molecule/deep/secret")
    _, output = inventory.converge("--diff")
    assert "item=/etc/molecule/deep/secret" in output
    assert "item=/etc/molecule/word" not in output
    assert "hush" not in output
    assert "drift" not in output
    secret = host.file("/etc/molecule/deep/secret")
    assert (secret.content_string, secret.mode) == ("hush\n", 0o600)
    assert host.file("/etc/molecule/word").mtime == before
