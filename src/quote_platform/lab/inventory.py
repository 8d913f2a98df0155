"""The inventory of a lab: plain files, so that Ansible sees nothing special."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from quote_platform import components, paths
from quote_platform.images import Reference
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab, System, Unkind
from quote_platform.mirror import catalogue, publish
from quote_platform.mirror.availability import unavailable
from quote_platform.mirror.storage import root

HEADER = "# Written by `quote-platform lab up`; changes are lost at the next one.\n"


def folder(lab: str) -> Path:
    """Return the inventory's folder."""
    return paths.repository() / "inventories" / lab


def ours(lab: str) -> bool:
    """Tell whether the inventory is free to use: not there, or written by a lab."""
    files = [path for path in folder(lab).rglob("*") if path.is_file() and not path.is_symlink()]
    return lab == "lab" or all(path.read_bytes().startswith(HEADER.encode()) for path in files)


def refuse_foreign(lab: str) -> None:
    """Refuse the name of an inventory that a person wrote."""
    if not ours(lab):
        raise LabError(f"inventories/{lab} was not written by a lab: choose another name with --name")


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + yaml.safe_dump(data, sort_keys=False, width=110))
    path.chmod(0o600)  # passwords of an unkind place are in it


def built() -> dict[str, str]:
    """Return the images that are pinned by a digest and that the mirror has built, by the digest that it has.

    What it fetched has its publisher's.
    """
    found = {}
    for name, image in catalogue.versions().items():
        if not name.endswith("_image") or not (pinned := Reference.parse(image).digest):
            continue
        own = publish.digest_in(root() / "registry", image)
        if own and own != pinned:
            found[name] = image.replace(pinned, own)
    return found


def write(lab: Lab, state: Path, more: dict[str, Any] | None = None) -> Path:
    """Write hosts, base URLs, what the mirror lacks or nobody wants, and more settings; return the folder."""
    target = folder(lab.name)
    platform = target / "group_vars" / "platform"

    def group(role: str) -> dict[str, Any]:
        own = (
            {"master": "control_plane_node_ip", "worker": "worker_node_ip"}.get(role)
            if Unkind.NETWORKS in lab.unkind
            else None
        )
        return {
            "hosts": {
                node.name: {"ansible_host": node.address} | ({own: lab.inner_address(node)} if own else {})
                for node in lab.nodes
                if node.role == role
            }
        }

    connection: dict[str, Any] = {
        "ansible_user": lab.user,
        "ansible_ssh_private_key_file": str(state / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={state / 'known_hosts'} "
        "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
    }
    by: dict[str, Any] = {}
    if Unkind.BASTION in lab.unkind:
        by = {
            "cluster_bastion": f"{lab.user}@{lab.bastion.address}",
            "cluster_bastion_arguments": f"-i {connection['ansible_ssh_private_key_file']} "
            + connection["ansible_ssh_common_args"],
        }
        connection["ansible_ssh_common_args"] += " {{ cluster_bastion_jump }}"
        connection["ansible_ssh_retries"] = 3
    kube_nodes = {"children": {"control_plane": group("master"), "workers": group("worker")}}
    groups = {"kube_nodes": kube_nodes, "object_store": group("store"), "vault": group("vault")}
    _dump(
        target / "hosts.yml",
        {"all": {"children": {"platform": {"children": groups, "vars": connection}}}},
    )

    lacking = [{"name": entry.name, "reason": entry.reason} for entry in unavailable()]
    base = f"http://{lab.mirror.address}"
    settings: dict[str, Any] = {
        "cluster_name": lab.name,
        # These have no repository upstream.
        "versitygw_repository": f"{base}/apt/versitygw/",
        "node_exporter_repository": f"{base}/apt/node-exporter/",
        "components_unavailable": lacking,
    } | built()
    if Unkind.PROXY not in lab.unkind:
        settings |= {
            "kubernetes_packages_repository": f"{base}/apt/kubernetes/",
            "image_registry_base_url": f"{base}:5000",
            "manifest_base_url": f"{base}/manifests",
        }
        if lab.system is System.DEBIAN:  # the mirror has no other suite of these: Ubuntu asks upstream
            settings |= {
                "container_runtime_repository": f"{base}/apt/docker/linux/debian",
                "vault_server_repository": f"{base}/apt/hashicorp",
            }
    if any(entry["name"] == "ingress-nginx" for entry in lacking):
        settings["ingress_controller"] = "traefik"
    if any(entry["name"] == "logging-elasticsearch" for entry in lacking):
        settings["logging_enabled"] = False  # unless there is another store
    if lab.virtual_ip:
        settings |= {"api_endpoint": "virtual-ip", "cluster_endpoint": lab.endpoint}
    # The others go by the machines that there are.
    settings |= {
        switch: False
        for part, switch in components.switches(paths.repository()).items()
        if switch.endswith("_enabled") and part not in lab.components
    }
    if not lab.shares_kernel:
        settings["verify_intrusive"] = True  # nobody uses a lab
    _dump(platform / "mirror.yml", settings | by | (more or {}))

    shared = platform / "lab.yml"
    if lab.shares_kernel and lab.name != "lab" and not shared.is_symlink():
        shared.symlink_to(Path("../../../lab/group_vars/platform/lab.yml"))
    return target


def remove(lab: str) -> None:
    """Delete what `write` made."""
    if lab == "lab":
        (folder(lab) / "hosts.yml").unlink(missing_ok=True)
        (folder(lab) / "group_vars" / "platform" / "mirror.yml").unlink(missing_ok=True)
    elif folder(lab).is_dir():
        shutil.rmtree(folder(lab))
