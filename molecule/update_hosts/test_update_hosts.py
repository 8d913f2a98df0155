"""Updates are planned, installed on a drained node, and a restart is done where they ask for one."""

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from scenario import Cluster, Inventory, words

# Two archives on the worker: an update of the one asks for a restart.
PACKAGES = r"""
set -eu
for line in "molecule-update stable-security" "molecule-other stable"; do
  set -- $line
  mkdir -p /srv/molecule/$1/build/DEBIAN && cd /srv/molecule/$1
  for version in 1.0 2.0; do
    printf '%s\n' "Package: $1" "Version: $version" "Architecture: all" "Description: test" \
      "Maintainer: Molecule <molecule@example.com>" > build/DEBIAN/control
    echo '#!/bin/sh' > build/DEBIAN/postinst
    if [ "$1-$version" = molecule-update-2.0 ]; then
      echo "touch /run/reboot-required; echo $1 > /run/reboot-required.pkgs" >> build/DEBIAN/postinst
    fi
    chmod 755 build/DEBIAN/postinst
    dpkg-deb --build build "$1_$version.deb" > /dev/null
  done
  dpkg --install "$1_1.0.deb" > /dev/null
  { dpkg-deb --field "$1_2.0.deb"; echo "Filename: ./$1_2.0.deb"; echo "Size: $(stat -c %s "$1_2.0.deb")"
    echo "SHA256: $(sha256sum "$1_2.0.deb" | cut -d ' ' -f 1)"; } > Packages
  printf 'Origin: Molecule\nSuite: %s\nSHA256:\n %s %s Packages\n' "$2" \
    "$(sha256sum Packages | cut -d ' ' -f 1)" "$(stat -c %s Packages)" > Release
  echo "deb [trusted=yes] file:/srv/molecule/$1 ./" > "/etc/apt/sources.list.d/$1.list"
done
"""
GONE = """
dpkg --purge molecule-update molecule-other
rm -rf /srv/molecule /etc/apt/sources.list.d/molecule-*.list
apt-get update --quiet=2
"""


@pytest.fixture
def pending(worker: Host) -> Iterator[None]:
    """Give the worker two packages that have updates."""
    worker.check_output(PACKAGES)
    yield
    worker.check_output(GONE)


def booted(host: Host) -> str:
    """Return since when systemd runs on a machine."""
    return str(host.check_output("systemctl show --value --property UserspaceTimestamp"))


def test_an_update_is_planned_then_installed_and_the_node_restarted(
    inventory: Inventory, cluster: Cluster, worker: Host, worker_name: str, pending: None
) -> None:
    before = booted(worker)
    changes, output = inventory.converge("--check")
    assert sum(changes.values()) == 1, output  # the plan
    assert f"1. {worker_name}, drained: 1 packages: molecule-update 2.0" in " ".join(output.split())
    assert worker.package("molecule-update").version == "1.0"

    changes, output = inventory.converge()
    assert changes[worker_name] > 0
    assert booted(worker) != before
    assert worker.package("molecule-update").version == "2.0"
    assert worker.package("molecule-other").version == "1.0"
    node = cluster.get(f"node {worker_name}")
    assert not node["spec"].get("unschedulable")
    assert "quote-platform/maintenance" not in node["metadata"]["annotations"]
    inventory.unchanged()

    # One that no update asks a restart of is not restarted.
    before = booted(worker)
    inventory.converge("-e", "update_hosts_kind=all")
    assert worker.package("molecule-other").version == "2.0"
    assert booted(worker) == before
    inventory.unchanged("-e", "update_hosts_kind=all")


def test_a_restart_that_is_asked_for_may_wait(inventory: Inventory, worker: Host, worker_name: str) -> None:
    worker.check_output("touch /run/reboot-required")
    try:
        inventory.unchanged("-e", '{"update_hosts_reboot": false}')
        _, output = inventory.converge("--check")
        assert f"1. {worker_name}, drained: restart, which /run/reboot-required asks for" in " ".join(
            output.split()
        )
    finally:
        worker.check_output("rm /run/reboot-required")


def test_a_kind_of_updates_that_is_none_is_refused(inventory: Inventory) -> None:
    done = inventory.play("-e", "update_hosts_kind=some")
    assert done.returncode != 0
    assert "value of update_hosts_kind must be one of: security, all, got: some" in words(done)
