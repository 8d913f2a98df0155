#!/usr/bin/env python3
"""Have actionlint judge GitHub's workflows, and with shellcheck the scripts in them.

Go compiles it, once, as go.mod says. Ends in 0 only if it finds what is planted, and nothing in any workflow.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from quote_platform.mirror import catalogue
from quote_platform.mirror.source import Source

HERE = Path(__file__).resolve().parent
WORKFLOWS = sorted((HERE.parents[1] / ".github" / "workflows").glob("*.yml"))
# A step that is none, an expression of nothing, and a script with a word that is split.
PLANTED = """on: push
jobs:
  a:
    runs-on: ubuntu-24.04
    steps:
      - run: echo ${{ steps.none.outputs.value }}
      - run: echo $HOME/$1
      - uses: actions/checkout
"""
FOUND = ("[expression]", "[shellcheck]", "[action]")


def main() -> int:
    """Judge what is planted, then the workflows."""
    source = Source(catalogue.load(), print)
    command = [
        source.go(),
        "tool",
        "actionlint",
        "-no-color",
        "-oneline",
        "-shellcheck=shellcheck",
        "-pyflakes=",
    ]

    def judge(*files: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *files],
            cwd=HERE,
            env=os.environ | source.go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    with tempfile.TemporaryDirectory(prefix="quote-audit-") as folder:
        planted = Path(folder) / "planted.yml"
        planted.write_text(PLANTED)
        done = judge(planted)
    if overlooked := [kind for kind in FOUND if kind not in done.stdout]:
        sys.exit(
            f"actionlint has overlooked what was planted: {', '.join(overlooked)}\n{done.stdout}{done.stderr}"
        )
    if not WORKFLOWS:
        sys.exit("there are no workflows")
    done = judge(*WORKFLOWS)
    print(f"{done.stdout}{done.stderr}{len(WORKFLOWS)} workflows")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
