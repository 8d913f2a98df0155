"""Dashboards: every query has data on the live Prometheus.

`E2E_PICTURES=1` draws them into docs/images as well, since Grafana has no image in the lab.
"""

import json
import os
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from .conftest import ROOT, Lab, ask, promtool, writer

FOLDER = ROOT / "roles/grafana/files/dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
# Grafana takes at least four intervals of scraping.
INTERVAL = "1m"


def expression(target: dict[str, Any]) -> str:
    return str(target["expr"]).replace("$__rate_interval", INTERVAL)


def empty(lab: Lab, title: str) -> list[str]:
    """Return the queries of a dashboard that have no answer, or none that is a number."""
    found = []
    for panel in DASHBOARDS[title]["panels"]:
        for target in panel["targets"]:
            answers = ask(lab, expression(target))
            if all(one["value"][1] == "NaN" for one in answers):
                found.append(f"{panel['title']}: {expression(target)}")
    return found


@pytest.fixture(scope="module")
def used(lab: Lab) -> None:
    """Let users read and write, long enough for a rate."""
    with lab.requests(lab.workers), writer(lab, "dashboard"):
        time.sleep(75)


@pytest.mark.proof
def test_an_empty_query_is_seen(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = {"title": "Nothing", "targets": [{"expr": "up{job='nobody'}"}, {"expr": "vector(0) / 0"}]}
    monkeypatch.setitem(DASHBOARDS, "wrong", {"panels": [panel]})
    assert len(empty(lab, "wrong")) == 2


@pytest.mark.proof
@pytest.mark.parametrize("title", DASHBOARDS)
def test_every_query_has_data(lab: Lab, used: None, title: str) -> None:
    assert len(DASHBOARDS[title]["panels"]) >= 6
    assert not empty(lab, title)


def history(lab: Lab, query: str, minutes: int) -> list[dict[str, Any]]:
    """Return what a query was over the last minutes."""
    now = int(time.time())
    limits = (f"--start={now - 60 * minutes}", f"--end={now}", f"--step={max(15, minutes // 2)}s")
    return promtool(lab, "range", query, *limits)


def legend_of(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def draw(lab: Lab, title: str) -> None:
    from matplotlib import dates, pyplot, ticker  # noqa: PLC0415 (slow to load, and seldom needed)

    panels = DASHBOARDS[title]["panels"]
    figure, grid = pyplot.subplots((len(panels) + 1) // 2, 2, figsize=(14, 2.6 * len(panels) / 2))
    for panel, axes in zip(panels, grid.flat, strict=False):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            for one in history(lab, expression(target), 30):
                legend = legend_of(target["legendFormat"], one["metric"])
                moments = [datetime.fromtimestamp(moment, UTC) for moment, _ in one["values"]]
                axes.plot(moments, [float(value) for _, value in one["values"]], label=legend, linewidth=1)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(
            ticker.PercentFormatter(1)
            if unit == "percentunit"
            else ticker.EngFormatter(unit={"bytes": "B"}.get(unit, ""))
        )
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="upper left", ncols=2, frameon=False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.tight_layout()
    (ROOT / "docs/images").mkdir(exist_ok=True)
    figure.savefig(ROOT / f"docs/images/dashboard-{title}.png", dpi=90)


if os.environ.get("E2E_PICTURES") == "1":
    test_pictures = pytest.mark.parametrize("title", DASHBOARDS)(draw)
