"""What the policies of admission would refuse of the platform's own pods: told before the cluster does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quote_platform.images import DEFAULT, registry

Variables = Mapping[str, Any]

# Images of pods in the application's namespace, each with the choice without which it is not there; those of
# IN_CLUSTER also need a database in the cluster.
IMAGES = {
    "quote_app_image": "",
    "postgres_image": "",
    "postgres_operator_image": "",
    "postgres_backup_sidecar_image": "postgres_backup_enabled",
    "postgres_dump_image": "postgres_backup_enabled",
    "cert_manager_acmesolver_image": "certificate_issuer",
    "velero_image": "backups_enabled",
}
IN_CLUSTER = ("postgres_image", "postgres_operator_image", "postgres_backup_sidecar_image")
RESOURCES = {
    "postgres_resources": "",
    "postgres_backup_resources": "postgres_backup_enabled",
    "postgres_restore_resources": "postgres_backup_enabled",
}


def judge(given: Variables) -> list[str]:
    """Return which images and requests of the platform's own pods its policies would refuse."""
    spaces = given.get("admission_namespaces") or []
    if not given.get("admission_enabled") or given.get("application_namespace") not in spaces:
        return []
    outside = given.get("database") == "external"
    images = {
        name: str(given.get(name) or "")
        for name, choice in IMAGES.items()
        if _chosen(given, choice) and not (outside and name in IN_CLUSTER)
    }
    registries = given.get("admission_registries") or []
    wrong = []
    for name, image in images.items():
        if not image:
            continue
        if _denies(given, "registry") and not any(comes_from(image, one) for one in registries):
            folder = full(image).rpartition("/")[0]
            wrong.append(
                f"admission_registries: has none that {name} comes from, so {image} would be refused; "
                f"add {folder}, or set admission_registry_action: Warn"
            )
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if _denies(given, "digest") and "@" not in image:
            wrong.append(
                f"admission_digest_action: Deny refuses {name} ({image}), which has no digest; name it "
                "NAME@sha256:DIGEST, or allowed are Warn, Audit"
            )
        elif _denies(given, "latest") and "@" not in image and tag in {"", "latest"}:
            wrong.append(
                f"{name}: {image} is refused by admission_latest_action: Deny; "
                "allowed is a version or a digest"
            )
    for name in (name for name, choice in RESOURCES.items() if _chosen(given, choice) and not outside):
        resources = given.get(name) or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        lacking = [what for what in ("cpu", "memory") if what not in asked]
        if lacking and _denies(given, "requests"):
            wrong.append(
                f"{name}: has no request of {' and '.join(lacking)}, so its pods would be refused; "
                "allowed is one with both, or admission_requests_action: Warn"
            )
    return wrong


def _chosen(given: Variables, choice: str) -> bool:
    return not choice or bool(given.get(choice))


def _denies(given: Variables, policy: str) -> bool:
    return given.get(f"admission_{policy}_action") == "Deny"


def full(image: str) -> str:
    """Return the name of an image as a node looks for it."""
    if image.startswith(f"{registry(image)}/"):
        return image
    return f"{DEFAULT}/{image}" if "/" in image else f"{DEFAULT}/library/{image}"


def comes_from(image: str, source: str) -> bool:
    """Tell whether an image is of a registry, a part of one, or a repository."""
    name = full(image)
    return name.startswith(f"{source}/") or ("/" in source and name.startswith((f"{source}:", f"{source}@")))
