"""How old the newest backup of each kind is, asked of the object store."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim
from kubernetes import client
from kubernetes.client import ApiException

from quote_platform.verify.target import Failed, NotRun, Seen, Target

SLACK = timedelta(hours=1)  # what a backup may take, and a busy cluster be late
REPAIR = "ansible-playbook -i INVENTORY playbooks/platform.yml"


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def judge(newest: datetime | None, schedule: str, since: datetime, next_command: str) -> Seen:
    """Refuse when the one that was due after the newest is missing; the schedule counts since it was made."""
    # Of six fields, as one of the operators has them, the first are seconds.
    due = next(CronSim(" ".join(schedule.split()[-5:]), newest or since))
    found = f"the newest is of {newest:%Y-%m-%d %H:%M} UTC" if newest else "there is none"
    if now() > due + SLACK:
        raise Failed(f"{found}, one was due at {due:%Y-%m-%d %H:%M} UTC", next_command, newest)
    if newest is None:
        raise NotRun(f"the first one is due at {due:%Y-%m-%d %H:%M} UTC")
    return Seen(f"{found}, the next is due at {due:%Y-%m-%d %H:%M} UTC", newest)


def base_backup(target: Target) -> Seen:
    """PostgreSQL's newest base backup is as young as its schedule says."""
    target.has_its_database("its owner backs it up")

    def read(group: str, plural: str) -> dict[str, Any]:
        return dict(
            client.CustomObjectsApi(target.api).get_namespaced_custom_object(
                group, "v1", target.namespace, plural, target.postgres
            )
        )

    plugins = read("postgresql.cnpg.io", "clusters")["spec"].get("plugins")
    if not plugins:
        raise target.absent("backups", REPAIR)
    # The plugin looks into the bucket, and says of each archive what is there.
    archives = read("barmancloud.cnpg.io", "objectstores").get("status", {}).get("serverRecoveryWindow", {})
    newest = archives.get(plugins[0]["parameters"]["serverName"], {}).get("lastSuccessfulBackupTime")
    scheduled = read("postgresql.cnpg.io", "scheduledbackups")
    return judge(
        datetime.fromisoformat(newest) if newest else None,
        scheduled["spec"]["schedule"],
        datetime.fromisoformat(scheduled["metadata"]["creationTimestamp"]),
        f"kubectl --namespace {target.namespace} get backups",
    )


def dump(target: Target) -> Seen:
    """PostgreSQL's newest dump is as young as its schedule says."""
    return _stored(target, target.namespace, f"{target.postgres}-dump", "dump")


def snapshot(target: Target) -> Seen:
    """The newest snapshot of etcd is as young as its schedule says."""
    return _stored(target, target.namespaces["snapshots"], "etcd-snapshot", "store")


def namespaces(target: Target) -> Seen:
    """Velero can use its bucket, and its newest whole backup is as young as the daily schedule says."""
    namespace = target.namespaces["velero"]
    velero = ("velero.io", "v1", namespace)
    api = client.CustomObjectsApi(target.api)
    try:
        scheduled = api.get_namespaced_custom_object(*velero, "schedules", "daily-backup")
    except ApiException as error:
        if error.status == 404:
            raise target.absent("velero" if "velero" in target.left_out else "backups", REPAIR) from error
        raise
    status = api.get_namespaced_custom_object(*velero, "backupstoragelocations", "default").get("status", {})
    if status.get("phase") != "Available":
        hint = f"kubectl --namespace {namespace} logs deployment/velero"
        raise Failed(f"its bucket cannot be used: {status.get('message', 'nobody has looked yet')}", hint)
    # Velero has one for each that lies in the bucket.
    found = [
        item.get("status", {}) for item in api.list_namespaced_custom_object(*velero, "backups")["items"]
    ]
    whole = [one["completionTimestamp"] for one in found if one.get("phase") == "Completed"]
    return judge(
        max(map(datetime.fromisoformat, whole), default=None),
        scheduled["spec"]["schedule"],
        datetime.fromisoformat(scheduled["metadata"]["creationTimestamp"]),
        f"kubectl --namespace {namespace} get backups.velero.io",
    )


def _stored(target: Target, namespace: str, name: str, container: str) -> Seen:
    """Judge what a CronJob has stored: a pod like its own lists it."""
    try:
        cron_job = client.BatchV1Api(target.api).read_namespaced_cron_job(name, namespace)
    except ApiException as error:
        if error.status == 404:
            raise target.absent("backups", REPAIR) from error
        raise
    template = cron_job.spec.job_template.spec.template
    containers = [*(template.spec.init_containers or []), *template.spec.containers]
    lister = next(one for one in containers if one.name == container)
    lister.args = ["list", lister.args[-1], "--json"]  # the last one is the folder
    template.spec.init_containers, template.spec.containers = None, [lister]
    rows = json.loads(target.run_once(namespace, template))
    whole = [datetime.fromisoformat(row["time"]) for row in rows if row["whole"]]
    return judge(
        max(whole, default=None),
        cron_job.spec.schedule,
        cron_job.metadata.creation_timestamp,
        f"kubectl --namespace {namespace} get jobs",
    )
