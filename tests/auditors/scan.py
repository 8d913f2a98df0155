"""Run checkov's checks over a folder, in checkov's own environment: audit.py calls it.

    scan.py FOLDER FRAMEWORK...     prints as JSON what passed, what failed, and what it cannot read, of each

Its command would import the checks of all clouds and ask for updates; this takes a tenth of the time.
"""

import importlib
import json
import os
import sys
from typing import Any

from checkov.runner_filter import RunnerFilter


def main() -> None:
    """Scan and print."""
    folder, *frameworks = sys.argv[1:]
    found = {}
    for name in frameworks:
        runner = importlib.import_module(f"checkov.{name}.runner").Runner()
        chosen = RunnerFilter(framework=[name], enable_secret_scan_all_files=True)
        reports = runner.run(root_folder=folder, runner_filter=chosen)
        reports = reports if isinstance(reports, list) else [reports]
        found[name] = {
            "passed": sum(len(report.passed_checks) for report in reports),
            # What a comment in a file excuses is not accepted here.
            "failed": [
                [one.check_id, place(one, folder, name), one.check_name]
                for report in reports
                for one in (*report.failed_checks, *report.skipped_checks)
            ],
            "unread": [path for report in reports for path in report.parsing_errors],
        }
    print(json.dumps(found))


def place(record: Any, folder: str, framework: str) -> str:
    """Return the file; of a secret with the start of its digest, by which it is told from others."""
    path = os.path.relpath(record.file_abs_path, folder)
    return f"{path}#{record.resource[:8]}" if framework == "secrets" else path


if __name__ == "__main__":
    main()
