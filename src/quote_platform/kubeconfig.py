"""How a cluster's API server is reached, and what is said where that is not possible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only wants to know what can be wrong need not load it
    from kubernetes.client import ApiClient


class Unusable(Exception):
    """A kubeconfig leads to no API server that answers; the text says why and what to do."""


def connect(kubeconfig: Path | str, keys: str = "", retries: bool = True) -> ApiClient:
    """Return a client of a cluster's API, or raise Unusable.

    Its keys are in files of the folder `keys`, which the caller removes; without one, until the process ends.
    """
    import yaml  # noqa: PLC0415
    from kubernetes import client, config  # noqa: PLC0415

    loaded = client.Configuration()
    try:
        config.load_kube_config(str(kubeconfig), client_configuration=loaded, temp_file_path=keys or None)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        raise Unusable(f"{kubeconfig} cannot be used: {error}") from error
    if not retries:
        loaded.retries = False
    return client.ApiClient(loaded)


def trouble(error: Exception) -> str:
    """Return what an API server has answered, or that it has not."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    if isinstance(error, ApiException):
        try:
            why = json.loads(error.body).get("message", "")
        except (ValueError, TypeError, AttributeError):  # what stands before it has answered
            why = str(error.body or "").strip()
        return f"the API server answers {error.status} {error.reason}" + (f": {why}" if why else "")
    return f"the API server does not answer: {getattr(error, 'reason', '') or error}"


@contextmanager
def answered() -> Iterator[None]:
    """Turn what an API server answers by an error, or not at all, into Unusable."""
    from kubernetes.client import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except (ApiException, HTTPError) as error:
        raise Unusable(f"{trouble(error)}. Check it, then run again") from error
