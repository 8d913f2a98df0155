"""A Lease in the cluster, which is written over what was read and over nothing else."""

from typing import Any

from kubernetes import client

NAMESPACE = "kube-system"
TIMEOUT = (5, 10)  # seconds to connect, to answer


def read(api: Any, name: str) -> Any:
    """Return a Lease, or None if there is none."""
    try:
        return api.read_namespaced_lease(name, NAMESPACE, _request_timeout=TIMEOUT)
    except client.ApiException as error:
        if error.status == 404:
            return None
        raise


def write(api: Any, name: str, found: Any, annotations: dict[str, str], spec: Any) -> Any:
    """Write a Lease over what was read; return it, or None if another was faster."""
    meta = client.V1ObjectMeta(
        name=name,
        namespace=NAMESPACE,
        annotations=annotations,
        # With it the API server refuses to write over what we have not seen.
        resource_version=found.metadata.resource_version if found else None,
    )
    body = client.V1Lease(metadata=meta, spec=spec)
    try:
        if found:
            return api.replace_namespaced_lease(name, NAMESPACE, body, _request_timeout=TIMEOUT)
        return api.create_namespaced_lease(NAMESPACE, body, _request_timeout=TIMEOUT)
    except client.ApiException as error:
        if error.status == 409:
            return None
        raise
