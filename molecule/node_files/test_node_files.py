"""Files have their content and mode, and drift in either is put right without touching the others."""

from testinfra.host import Host

from scenario import Inventory, words


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
    assert "hush" not in host.check_output("journalctl --no-pager"), "Ansible logs arguments there"
    secret = host.file("/etc/molecule/deep/secret")
    assert (secret.content_string, secret.mode) == ("hush\n", 0o600)
    assert host.file("/etc/molecule/word").mtime == before


def test_other_ends_of_lines_are_drift(host: Host, inventory: Inventory) -> None:
    assert host.file("/etc/molecule/ends").content == b"one\r\ntwo\n"
    host.check_output(r"sed --in-place 's/$/\r/' /etc/molecule/word")
    _, output = inventory.converge()
    assert "item=/etc/molecule/word" in output
    assert host.file("/etc/molecule/word").content == b"kept\n"


def test_what_is_fetched_is_fetched_once(host: Host, inventory: Inventory) -> None:
    fetched = host.file("/etc/molecule/fetched")
    assert (fetched.content_string.splitlines()[0], fetched.mode) == (
        "-----BEGIN PGP PUBLIC KEY BLOCK-----",
        0o644,
    )
    host.check_output("echo ours > /etc/molecule/fetched")
    inventory.unchanged()
    host.check_output("rm /etc/molecule/fetched")
    _, output = inventory.converge("--diff")
    assert "item=/etc/molecule/fetched" in output
    assert host.file("/etc/molecule/fetched").size > 100


def test_what_cannot_be_fetched_is_named(host: Host, inventory: Inventory) -> None:
    host.check_output("rm /etc/molecule/fetched")
    done = inventory.play("--extra-vars", "node_exporter_repository=http://127.0.0.1:9/")
    assert done.returncode != 0
    said = words(done)
    assert "/etc/molecule/fetched cannot be written: http://127.0.0.1:9/key.asc" in said
    assert "Could not connect to 127.0.0.1:9" in said
    assert not host.file("/etc/molecule/fetched").exists
    inventory.converge()


def test_what_is_to_be_absent_goes(host: Host, inventory: Inventory) -> None:
    host.check_output("touch /etc/molecule/gone")
    _, output = inventory.converge("--diff")
    assert "item=/etc/molecule/gone" in output
    assert not host.file("/etc/molecule/gone").exists


def test_what_somebody_else_has_written_stays(host: Host, inventory: Inventory) -> None:
    host.check_output("echo by hand > /etc/molecule/foreign")
    inventory.unchanged()
    host.check_output("echo managed by us > /etc/molecule/foreign")
    _, output = inventory.converge("--diff")
    assert "item=/etc/molecule/foreign" in output
    assert not host.file("/etc/molecule/foreign").exists
