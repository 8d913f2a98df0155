"""Jobs of the Quote Platform in Airflow 3: for the folder of DAGs, on a worker on the controller.

Airflow starts a job, watches it, and cancels it when its task is stopped. Settings, in the environment of the
worker: QUOTE_PLATFORM_CHECKOUT, QUOTE_PLATFORM_INVENTORY.
"""

import json
import os
import subprocess
import time
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

CHECKOUT = os.environ.get("QUOTE_PLATFORM_CHECKOUT", "/srv/quote-platform")
INVENTORY = os.environ.get("QUOTE_PLATFORM_INVENTORY", "inventories/production")


class JobOperator(BaseOperator):  # type: ignore[misc]
    """Runs a job by its name, or a playbook by its path; returns its record, without the results of tasks."""

    template_fields = ("job", "inventory")

    def __init__(
        self,
        *,
        job: str,
        inventory: str = INVENTORY,
        checkout: str = CHECKOUT,
        seconds: float = 10,
        **options: Any,
    ) -> None:
        """Take what to run, and how many seconds to wait between two looks at it."""
        super().__init__(**options)
        self.job, self.inventory, self.checkout, self.seconds = job, inventory, checkout, seconds
        self.running = ""

    def _ask(self, *arguments: str) -> dict[str, Any]:
        # What Airflow's own Python is told is not for the checkout's.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [f"{self.checkout}/.venv/bin/quote-platform", "job", *arguments, "--json"],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            # Wrong input, or a full disk: another attempt would come to the same.
            raise AirflowFailException(done.stderr.strip()) from None

    def execute(self, context: Any) -> dict[str, Any]:
        """Start the job, and wait until it has ended."""
        record = self._ask("start", self.job, "-i", self.inventory)
        self.running = record["id"]
        seen = ""
        while record["exit_status"] is None:
            record = self._ask("show", self.running)
            now = f"{record['summary']['play']}: {record['summary']['task']}"
            if now != seen:
                self.log.info("%s %s", record["state"], now)
                seen = now
            if record["exit_status"] is None:
                time.sleep(self.seconds)
        state, self.running = record["state"], ""
        for one in record["summary"]["changed"] if state == "drift" else record["summary"]["failed"]:
            self.log.warning(
                "%s: %s: %s", one["host"], one["task"], one["message"] or ", ".join(one["objects"])
            )
        if state == "refused":  # by another job, which ends: Airflow tries again
            raise AirflowException(record["message"])
        if state != "done":
            raise AirflowFailException(f"job {record['id']}: {state}: {record['message']}")
        record.pop("results")
        return record

    def on_kill(self) -> None:
        """Cancel the job, and wait until its processes have ended."""
        if self.running:
            self._ask("cancel", self.running)


with DAG(
    "quote_platform_drift",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 6, "retry_delay": timedelta(minutes=10)},
):
    JobOperator(task_id="drift", job="drift")
