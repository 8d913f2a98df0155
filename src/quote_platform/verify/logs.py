"""A line that a pod prints now is found by a search."""

import json
import time
import uuid

from kubernetes import client
from kubernetes.client import ApiException

from quote_platform.verify.backups import REPAIR
from quote_platform.verify.target import Failed, Target

SECONDS = 30


def logs(target: Target) -> str:
    """A line that a pod prints is found by a search, with the names of the pod and of its namespace."""
    namespace = target.namespaces["logging"]
    try:
        setup = client.BatchV1Api(target.api).read_namespaced_cron_job("setup", namespace)
    except ApiException as error:
        if error.status == 404:
            raise target.absent("logging", REPAIR) from error
        raise
    word = uuid.uuid4().hex
    speech = ["sh", "-c", f"echo line {word}; sleep 120"]
    target.create_pod("speaker", [], container={"command": speech})
    target.wait_ready(["speaker"])
    # A pod like the one that sets the store up, as the account that may only read.
    template = setup.spec.job_template.spec.template
    searcher = template.spec.containers[0]
    searcher.args = ["search", f'"{word}" AND data_stream.dataset:app', "1", str(SECONDS)]
    for variable in searcher.env:
        if variable.value_from and variable.value_from.secret_key_ref:
            variable.value_from.secret_key_ref.name = "reader"
    started = time.monotonic()
    found = target.run_once(namespace, template).strip()
    if not found:
        hint = f"kubectl --namespace {namespace} logs daemonset/collector (docs/logging.md)"
        raise Failed(f"a line is not found {SECONDS} s after it was printed", hint)
    origin = json.loads(found.splitlines()[0]).get("kubernetes", {})
    if (origin.get("namespace"), origin.get("pod", {}).get("name")) != (target.scratch, "speaker"):
        raise Failed(f"a line is found, and does not say whose it is: {origin}")
    return f"found within {time.monotonic() - started:.0f} s"
