"""Writes the dashboards beside it: `python roles/grafana/files/dashboards.py`, after a change here."""

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
USERS = 'job="quote-app", route!~"/healthz|/readyz|/metrics"'
# What a node's own network has: neither pods' pairs nor the loopback.
CARDS = 'device!~"lo|veth.*|kube-.*|cni.*|docker.*|br-.*|virbr.*"'


def quantile(part: str) -> str:
    """Return the latency that this part of requests stays under."""
    buckets = f"sum by (le) (rate(http_request_duration_seconds_bucket{{{USERS}}}[$__rate_interval]))"
    return f"histogram_quantile({part}, {buckets})"


Panel = tuple[str, str, dict[str, str]]
# Each panel: title, unit, and its queries by their legend.
DASHBOARDS: dict[str, list[Panel]] = {
    "Application": [
        (
            "Requests by status",
            "reqps",
            {"{{status}}": f"sum by (status) (rate(http_requests_total{{{USERS}}}[$__rate_interval]))"},
        ),
        ("Latency", "s", {"P50": quantile("0.5"), "P95": quantile("0.95"), "P99": quantile("0.99")}),
        (
            "Errors",
            "percentunit",
            {
                "of all requests": f'(sum(rate(http_requests_total{{{USERS}, status=~"5.."}}[$__rate_interval]))'
                f" or vector(0)) / sum(rate(http_requests_total{{{USERS}}}[$__rate_interval]))"
            },
        ),
        (
            "Pods",
            "none",
            {
                "active": "sum(quote_app_healthy)",
                "wanted": 'max(kube_deployment_spec_replicas{deployment="quote-app"})',
            },
        ),
        (
            "CPU of each pod",
            "none",
            {
                "{{pod}}": 'sum by (pod) (rate(container_cpu_usage_seconds_total{pod=~"quote-app-.+",'
                ' container!=""}[$__rate_interval]))'
            },
        ),
        (
            "Memory of each pod",
            "bytes",
            {
                "{{pod}}": 'sum by (pod) (container_memory_working_set_bytes{pod=~"quote-app-.+", container!=""})'
            },
        ),
        (
            "Connections to the database",
            "none",
            {"{{state}}": "sum by (state) (quote_app_database_connections)"},
        ),
        ("Answer over the ingress", "s", {"{{instance}}": 'probe_duration_seconds{job="public-url"}'}),
    ],
    "Infrastructure": [
        (
            "CPU of each node",
            "percentunit",
            {
                "{{node}}": "1 - avg by (node) (sum by (node, cpu)"
                ' (rate(node_cpu_seconds_total{mode=~"idle|iowait"}[$__rate_interval])))'
            },
        ),
        (
            "Memory of each node",
            "percentunit",
            {
                "{{node}}": "1 - max by (node) (node_memory_MemAvailable_bytes)"
                " / max by (node) (node_memory_MemTotal_bytes)"
            },
        ),
        (
            "Disk: read",
            "Bps",
            {"{{node}}": "sum by (node) (rate(node_disk_read_bytes_total[$__rate_interval]))"},
        ),
        (
            "Disk: written",
            "Bps",
            {"{{node}}": "sum by (node) (rate(node_disk_written_bytes_total[$__rate_interval]))"},
        ),
        (
            "Network: received",
            "Bps",
            {
                "{{node}}": f"sum by (node) (rate(node_network_receive_bytes_total{{{CARDS}}}[$__rate_interval]))"
            },
        ),
        (
            "Network: sent",
            "Bps",
            {
                "{{node}}": f"sum by (node) (rate(node_network_transmit_bytes_total{{{CARDS}}}[$__rate_interval]))"
            },
        ),
        (
            "Scheduling of a pod, last hour",
            "s",
            {
                f"P{part}": f"histogram_quantile(0.{part}, sum by (le)"
                " (rate(scheduler_pod_scheduling_sli_duration_seconds_bucket[1h])))"
                for part in ("50", "95")
            },
        ),
        (
            "Room on file systems",
            "percentunit",
            {
                "{{node}} {{mountpoint}}": 'node_filesystem_avail_bytes{fstype=~"ext4|xfs|btrfs|overlay"}'
                " / node_filesystem_size_bytes"
            },
        ),
        (
            "Nodes that are ready",
            "none",
            {"ready": 'sum(kube_node_status_condition{condition="Ready", status="true"})'},
        ),
        (
            "etcd: writing to disk, P99",
            "s",
            {
                "{{node}}": "histogram_quantile(0.99, sum by (node, le)"
                " (rate(etcd_disk_wal_fsync_duration_seconds_bucket[$__rate_interval])))"
            },
        ),
    ],
    "PostgreSQL": [
        ("Primary", "none", {"{{pod}}": "1 - max by (pod) (cnpg_pg_replication_in_recovery)"}),
        ("Behind the primary", "s", {"{{pod}}": "max by (pod) (cnpg_pg_replication_lag)"}),
        (
            "Transactions",
            "ops",
            {
                "{{pod}}": "sum by (pod) (rate(cnpg_pg_stat_database_xact_commit[$__rate_interval]))",
                "{{pod}} undone": "sum by (pod) (rate(cnpg_pg_stat_database_xact_rollback[$__rate_interval]))",
            },
        ),
        ("Connections", "none", {"{{pod}}": "sum by (pod) (cnpg_backends_total)"}),
        ("Size", "bytes", {"{{datname}}": "max by (datname) (cnpg_pg_database_size_bytes)"}),
        (
            "Room on volumes",
            "percentunit",
            {
                "{{persistentvolumeclaim}}": "min by (persistentvolumeclaim)"
                ' (kubelet_volume_stats_available_bytes{persistentvolumeclaim=~"postgres-.+"}'
                " / kubelet_volume_stats_capacity_bytes)"
            },
        ),
        (
            "Log that waits for the archive",
            "none",
            {"{{pod}}": 'max by (pod) (cnpg_collector_pg_wal_archive_status{value="ready"})'},
        ),
        (
            "Log archived",
            "ops",
            {
                "files": "sum(rate(cnpg_pg_stat_archiver_archived_count[$__rate_interval]))",
                "failed": "sum(rate(cnpg_pg_stat_archiver_failed_count[$__rate_interval]))",
            },
        ),
    ],
    "Backups": [
        (
            "Age of the newest base backup",
            "s",
            {
                "{{namespace}}": "time() - max by (namespace) (barman_cloud_cloudnative_pg_io_last_available_backup_timestamp)"
            },
        ),
        (
            "How far back PostgreSQL can be taken",
            "s",
            {
                "{{namespace}}": "time() - max by (namespace) (barman_cloud_cloudnative_pg_io_first_recoverability_point)"
            },
        ),
        (
            "Since a dump or snapshot succeeded, or its CronJob was made",
            "s",
            {
                "{{cronjob}}": "time() - max by (cronjob) ("
                'kube_cronjob_status_last_successful_time{cronjob=~".+-dump|.+-snapshot"} or kube_cronjob_created{cronjob=~".+-dump|.+-snapshot"})'
            },
        ),
        (
            "Since a backup of namespaces succeeded",
            "s",
            {"{{schedule}}": "time() - max by (schedule) (velero_backup_last_successful_timestamp)"},
        ),
        ("Backups of namespaces", "none", {"kept": "max(velero_backup_total)"}),
        (
            "Backups of namespaces that failed, last day",
            "none",
            {"{{schedule}}": "max by (schedule) (increase(velero_backup_failure_total[1d]))"},
        ),
    ],
}


def build(title: str, panels: list[Panel]) -> str:
    """Return a dashboard as JSON."""
    made = (
        dashboard.Dashboard(title)
        .uid(title.lower())
        .tags(["quote-platform"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
    )
    for name, unit, queries in panels:
        panel = (
            timeseries.Panel()
            .title(name)
            .unit(unit)
            .min(0)
            .span(12)
            .height(8)
            .datasource(SOURCE)
            .legend(
                VizLegendOptions()
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
            )
        )
        for number, (legend, query) in enumerate(queries.items()):
            panel.with_target(
                prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query).legend_format(legend)
            )
        made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def main() -> None:
    """Write all of them."""
    for title, panels in DASHBOARDS.items():
        (FOLDER / f"{title.lower()}.json").write_text(build(title, panels))


if __name__ == "__main__":
    main()
