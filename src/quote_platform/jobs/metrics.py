"""Metrics of named jobs, for Prometheus: in a ConfigMap of their cluster, and in a folder of the controller.

Both hold one text per job, in the format that node_exporter's textfile collector reads. A run replaces what
it knows and keeps the rest, so that the text is right whichever controllers the runs were on.
"""

import atexit
import contextlib
import functools
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from kubernetes import client
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from urllib3.exceptions import HTTPError

from quote_platform import bastion, lease
from quote_platform.jobs import cluster, definition, environment
from quote_platform.jobs import record as records
from quote_platform.jobs.definition import Plan
from quote_platform.jobs.record import STATUS, Record, Store
from quote_platform.kubeconfig import Unusable, connect, trouble

CONFIG_MAP = "quote-platform-jobs"
PREFIX = "quote_platform_job_"
# A check that found drift has done what it is for.
SUCCEEDED = {"done", "drift"}
FAILED = {"failed", "interrupted", "out of time"}
STATES = sorted(set(STATUS) - {"refused"})
HELP = {
    "expected_since_timestamp_seconds": "When it last succeeded, or before that, when it was first seen.",
    "expected_interval_seconds": "Longest time between two runs by its schedule or expected_every.",
    "last_success_timestamp_seconds": "End of the last run that was done or found drift.",
    "last_failure_timestamp_seconds": "End of the last run that failed, was interrupted or ran out of time.",
    "last_end_timestamp_seconds": "End of the last run.",
    "last_duration_seconds": "Duration of the last run.",
    "last_changed": "Results of tasks in the last run that changed something, or would in check mode.",
    "last_failed": "Results of tasks in the last run that failed or found their host unreachable.",
    "drift_found": "Differences that the last completed run in check mode found.",
}

Figures = dict[str, float]  # by the keys of HELP, and by state


def named(plan: Plan) -> bool:
    """Return whether a job has a name, rather than the path of a playbook."""
    return definition.NAME.fullmatch(plan.name) is not None


def update(before: Figures, interval: int, now: float, record: Record | None = None) -> Figures:
    """Return the figures after a run, or without one, when a job is expected from now on."""
    found = {name: value for name, value in before.items() if name != "expected_interval_seconds"}
    if interval:
        found["expected_interval_seconds"] = interval
    found.setdefault("expected_since_timestamp_seconds", now)
    if record is None or record.state == "refused":  # nothing ran
        return found
    ended = record.ended.timestamp() if record.ended else now
    found |= {state: float(record.state == state) for state in STATES}
    found["last_end_timestamp_seconds"] = ended
    found["last_duration_seconds"] = record.seconds
    found["last_changed"], found["last_failed"] = record.summary.changes, record.summary.failures
    if record.state in FAILED:
        found["last_failure_timestamp_seconds"] = ended
    if record.state in SUCCEEDED:
        found["last_success_timestamp_seconds"] = found["expected_since_timestamp_seconds"] = ended
        if record.plan.check:
            found["drift_found"] = record.summary.changes if record.state == "drift" else 0
    return found


def write(figures: Figures, name: str, of: str) -> str:
    """Return figures of a job of a cluster as text."""
    registry = CollectorRegistry()
    for key, text in HELP.items():
        if key in figures:
            gauge = Gauge(f"{PREFIX}{key}", text, ["cluster", "name"], registry=registry)
            gauge.labels(of, name).set(figures[key])
    if figures.keys() & set(STATES):
        states = Gauge(
            f"{PREFIX}state",
            "1 for how the last run ended, 0 for the others.",
            ["cluster", "name", "state"],
            registry=registry,
        )
        for state in STATES:
            states.labels(of, name, state).set(figures.get(state, 0))
    return generate_latest(registry).decode()


def read(text: str) -> Figures:
    """Return the figures of a text that `write` has made; what cannot be read is none."""
    found: Figures = {}
    with contextlib.suppress(ValueError):
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                found[one.labels.get("state", one.name.removeprefix(PREFIX))] = one.value
    return found


# --- where they are written --------------------------------------------------------------------------


class Folder:
    """A folder that a textfile collector of this controller reads."""

    def __init__(self, folder: Path, of: str) -> None:
        self.folder = folder
        self.of = re.sub(r"[^A-Za-z0-9._-]", "_", of)

    def file(self, name: str) -> Path:
        """Return the file of a job."""
        return self.folder / f"quote-platform-{self.of}-{name}.prom"

    def read(self, name: str) -> str:
        """Return what was written of a job."""
        try:
            return self.file(name).read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def write(self, name: str, text: str) -> None:
        """Write the file of a job, whole or not at all."""
        records.write(self.file(name), text, 0o644)  # the collector has a user of its own


@functools.cache
def _keys() -> str:
    """Return a folder for the keys of kubeconfigs that lasts as long as this process."""
    made = environment.scratch()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


class ConfigMap:
    """A ConfigMap beside Prometheus, which a pod of it serves."""

    def __init__(self, kubeconfig: Path, namespace: str, scratch: str = "") -> None:
        self.kubeconfig, self.namespace, self.scratch = kubeconfig, namespace, scratch

    @functools.cached_property
    def api(self) -> Any:
        """The API of the cluster."""
        folder = self.scratch if Path(self.scratch or "/nonexistent").is_dir() else _keys()
        return client.CoreV1Api(connect(self.kubeconfig, folder, retries=False))

    def read(self, name: str) -> str:
        """Return what was written of a job."""
        try:
            found = self.api.read_namespaced_config_map(
                CONFIG_MAP, self.namespace, _request_timeout=lease.TIMEOUT
            )
        except client.ApiException as error:
            if error.status == 404:
                return ""
            raise
        return str((found.data or {}).get(f"{name}.prom", ""))

    def write(self, name: str, text: str) -> None:
        """Write the text of a job, and no other's; nothing where the cluster has no such namespace."""
        body = {
            "metadata": {
                "name": CONFIG_MAP,
                "labels": {"app.kubernetes.io/managed-by": "quote-platform-job"},
            },
            "data": {f"{name}.prom": text},
        }
        create, patch = self.api.create_namespaced_config_map, self.api.patch_namespaced_config_map
        for _ in range(3):  # another may make or delete it between
            try:
                patch(CONFIG_MAP, self.namespace, body, _request_timeout=lease.TIMEOUT)
                return
            except client.ApiException as error:
                if error.status != 404:
                    raise
            try:
                create(self.namespace, body, _request_timeout=lease.TIMEOUT)
                return
            except client.ApiException as error:
                if error.status == 404:
                    return
                if error.status != 409:
                    raise


def _places(plan: Plan, found: cluster.Cluster, scratch: str = "") -> list[Folder | ConfigMap]:
    places: list[Folder | ConfigMap] = []
    if plan.metrics_directory:
        places.append(Folder(Path(plan.metrics_directory), found.name))
    if found.monitoring and Path(found.kubeconfig or "/nonexistent").is_file():
        places.append(ConfigMap(Path(found.kubeconfig), found.monitoring, scratch))
    return places


def _write(plan: Plan, place: Folder | ConfigMap, of: str, record: Record | None) -> str:
    """Bring one place up to date; return why that is not possible, or nothing."""
    where = str(place.folder) if isinstance(place, Folder) else f"ConfigMap {place.namespace}/{CONFIG_MAP}"
    try:
        before = read(place.read(plan.name))
        figures = update(before, plan.interval, time.time(), record)
        place.write(plan.name, write(figures, plan.name, of))
    except (client.ApiException, HTTPError) as error:
        return f"{where}: {trouble(error)}"
    except (OSError, Unusable) as error:
        return f"{where}: {error}"
    return ""


def of_run(store: Store, record: Record) -> None:
    """Write the metrics of a run that has ended; where that is not possible, its record says why."""
    plan = record.plan
    # Without its inventory it is not known which cluster it was.
    if not named(plan) or not Path(plan.inventory).exists():
        return
    try:
        if record.of is None:
            variables = json.loads((store.folder(record.id) / "variables.json").read_text())
            record.of = cluster.ask(plan, variables, os.environ | environment.project(plan))
            record.cluster = record.of.name
        if record.of.unknown:  # under another name they would never be replaced
            wrong = [f"cluster_name cannot be read: {record.of.unknown}"]
        else:
            places = _places(plan, record.of, record.scratch)
            with bastion.led(record.of.way):
                wrong = [_write(plan, place, record.of.name, record) for place in places]
    except Exception as error:
        # Whatever it is, the record is to be written.
        wrong = [f"{type(error).__name__}: {error}"]
    record.notes += [f"its metrics were not written: {why}" for why in wrong if why]


def expect(project: Path, inventory: Path, names: set[str]) -> list[str]:
    """Write how often jobs are expected, as their schedules have changed; return what was not possible."""
    wrong: set[str] = set()
    found = None
    jobs = definition.load(project, inventory).jobs
    for name in sorted(names & jobs.keys()):
        plan, variables = definition.plan(name, project, inventory, [])
        if found is None:
            found = cluster.ask(plan, variables, os.environ | environment.project(plan))
            if found.unknown:
                return [f"cluster_name cannot be read: {found.unknown}"]
        with bastion.led(found.way):
            wrong |= {_write(plan, place, found.name, None) for place in _places(plan, found)}
    return sorted(wrong - {""})
