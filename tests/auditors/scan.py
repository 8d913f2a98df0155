"""Run checkov's checks over a folder, in checkov's own environment: audit.py calls it.

    scan.py FOLDER FRAMEWORK...     prints as JSON what passed, what failed, and what it cannot read, of each

Its command would import the checks of all clouds and ask for updates; this takes a tenth of the time.
"""

import importlib
import json
import os
import sys

from checkov.runner_filter import RunnerFilter


def main() -> None:
    """Scan and print."""
    folder, *frameworks = sys.argv[1:]
    found = {}
    for name in frameworks:
        runner = importlib.import_module(f"checkov.{name}.runner").Runner()
        reports = runner.run(root_folder=folder, runner_filter=RunnerFilter(framework=[name]))
        reports = reports if isinstance(reports, list) else [reports]
        found[name] = {
            "passed": sum(len(report.passed_checks) for report in reports),
            "failed": [
                [one.check_id, os.path.relpath(one.file_abs_path, folder), one.check_name]
                for report in reports
                for one in report.failed_checks
            ],
            "unread": [path for report in reports for path in report.parsing_errors],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
