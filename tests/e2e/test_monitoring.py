"""Metrics: what they cost, and that they go on when Prometheus is killed."""

import time
from itertools import pairwise

import pytest

from .conftest import Eventually, Lab, ask

MEMORY = 2.5 * 1024**3
SECONDS_WITHOUT_FIGURES = 60


def test_measuring_takes_little(lab: Lab) -> None:
    namespaces = "monitoring|monitoring-nodes"
    used = ask(
        lab, f'sum by (pod) (container_memory_working_set_bytes{{namespace=~"{namespaces}",container!=""}})'
    )
    assert len(used) >= 10
    total = sum(float(one["value"][1]) for one in used)
    print(f"\nmemory of the monitoring part: {total / 1024**2:.0f} MiB in {len(used)} pods", flush=True)
    assert total < MEMORY


@pytest.mark.proof
def test_prometheus_is_killed(lab: Lab, eventually: Eventually) -> None:
    """No target is without figures for a minute, and the rules are what they were."""
    rules = {(one["metric"]["rule_group"]) for one in ask(lab, "prometheus_rule_group_rules")}
    assert rules
    killed = time.time()
    lab.kubectl("delete pod -n monitoring prometheus-main-0 --grace-period=0 --force --wait=false")

    def again() -> bool:
        # Of what has not gone meanwhile: nobody marks that as gone while Prometheus is away.
        found = ask(lab, 'min(timestamp(up{job=~"apiserver|etcd|kubelet|node-exporter|kube-router"}))')
        return bool(found) and float(found[0]["value"][1]) > killed + 30

    eventually(again, 120, "no figures of every target")
    gaps = {
        str(one["metric"]): max(after[0] - before[0] for before, after in pairwise(one["values"]))
        for one in ask(lab, 'up{job!="quote-app"}[4m]')
        if one["metric"].get("pod") != "prometheus-main-0" and len(one["values"]) > 3
    }
    assert len(gaps) > 20
    longest = max(gaps.values())
    lab.steps.append(("without figures while Prometheus was killed", longest))
    assert longest < SECONDS_WITHOUT_FIGURES, gaps
    after = {(one["metric"]["rule_group"]) for one in ask(lab, "prometheus_rule_group_rules")}
    assert after == rules
