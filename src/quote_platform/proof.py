"""What is proven: the claims of the README, the tests that prove each, and when these last ran.

Claims are in tests/claims.yml, results in docs/proof.json; the README's table is made of both.
"""

import json
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console

from quote_platform import paths

app = typer.Typer(no_args_is_help=True)
START, END = "<!-- claims: `quote-platform proof readme` -->", "<!-- end of claims -->"
OLDER = ", older than its code"

Result = Literal["passed", "failed", "not run"]


class Claim(BaseModel):
    """What is said to be so, by which tests, and of which code.

    A test is a file or a node id of pytest, where one without parameters stands for all of them, or a step of
    tests/run.py; `molecule/*` is every scenario.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str
    command: str
    tests: list[str]
    paths: list[str]


class Record(BaseModel):
    """What the last run of a claim's tests came to."""

    claim: str
    command: str
    commit: str | None = None
    date: str | None = None
    result: Result = "not run"
    seconds: int | None = None


@dataclass(frozen=True)
class Case:
    """One test of a JUnit report."""

    file: str
    name: str
    result: Result
    seconds: float


class Run:
    """The reports of a run of tests/run.py."""

    def __init__(self, reports: Path) -> None:
        found = json.loads((reports / "steps.json").read_text())
        self.commit, self.date = str(found["commit"]), str(found["date"])
        self.steps = {
            f"{row['layer']}/{row['step']}": cases(reports / row["layer"] / f"{row['step']}.xml")
            for row in found["steps"]
        }

    def find(self, test: str) -> list[Case]:
        """Return the cases of a test."""
        path, _, name = test.partition("::")
        if not path.endswith(".py"):
            return self.steps.get(path, [])
        own = f"e2e/{Path(path).stem.removeprefix('test_')}"  # a step of its own lab
        step = {"tests/unit": "unit/python", "tests/e2e": own if own in self.steps else "e2e/lab"}
        folder = str(Path(path).parent)
        return [
            case
            for case in self.steps.get(step.get(folder, folder), [])
            if case.file == Path(path).stem and name in {"", case.name, case.name.partition("[")[0]}
        ]

    def judge(self, claim: Claim) -> tuple[Result, float]:
        """Return what the tests of a claim came to, and their seconds: it passed if all of them did."""
        parts = [self.find(test) for test in expanded(claim.tests)]
        found = {case for part in parts for case in part}
        results = {case.result for case in found}
        if "failed" in results:
            return "failed", sum(case.seconds for case in found)
        if "not run" in results or not all(parts):
            return "not run", 0
        return "passed", sum(case.seconds for case in found)


def cases(report: Path) -> list[Case]:
    """Return the tests of a JUnit report; none where a step was not started."""
    if not report.is_file():
        return []
    found = []
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 (our own file)
        parts = {part.tag for part in case}
        result: Result = "not run" if "skipped" in parts else "passed"
        if parts & {"failure", "error"}:
            result = "failed"
        file = case.get("classname", "").rpartition(".")[2]
        found.append(Case(file, case.get("name", ""), result, float(case.get("time", 0))))
    return found


def expanded(tests: list[str]) -> list[str]:
    """Return tests with the names of all scenarios in place of `molecule/*`."""
    scenarios = sorted(path.parent.name for path in paths.repository().glob("molecule/*/molecule.yml"))
    return [
        one
        for test in tests
        for one in ([f"molecule/{name}" for name in scenarios] if test == "molecule/*" else [test])
    ]


def claims() -> list[Claim]:
    """Return all claims."""
    read = yaml.safe_load((paths.repository() / "tests" / "claims.yml").read_text())
    return TypeAdapter(list[Claim]).validate_python(read)


def recorded() -> list[Record]:
    """Return what is recorded of each claim; one whose words have changed has to be proven anew."""
    file = paths.repository() / "docs" / "proof.json"
    known = TypeAdapter(list[Record]).validate_json(file.read_text()) if file.is_file() else []
    of = {record.claim: record for record in known}
    return [
        of.get(one.claim, Record(claim=one.claim, command=one.command)).model_copy(
            update={"command": one.command}
        )
        for one in claims()
    ]


def older(record: Record, code: list[str]) -> bool:
    """Tell whether code has changed since the commit of a record; after an unknown commit, it may have."""
    if not record.commit:
        return False
    command = ["git", "diff", "--quiet", record.commit, "--", *code]
    return subprocess.run(command, cwd=paths.repository(), capture_output=True, check=False).returncode != 0


def table(records: list[Record]) -> str:
    """Return the README's table."""
    lines = ["| claim | command | proven |", "|---|---|---|"]
    for claim, record in zip(claims(), records, strict=True):
        when = f"{'**failed** ' if record.result == 'failed' else ''}{record.date or 'no record yet'}"
        when += OLDER if older(record, claim.paths) else ""
        command = ", ".join(f"`{part}`" for part in claim.command.split(", "))
        lines.append(f"| {claim.claim} | {command} | {when} |")
    return "\n".join(lines)


def in_readme(text: str, records: list[Record]) -> str:
    """Return the text of the README with its table made anew."""
    head, _, rest = text.partition(START)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"README.md has no lines {START} and {END}: put them around its table of claims")
    return f"{head}{START}\n{table(records)}\n{END}{tail}"


@app.command()
def readme() -> None:
    """Make the README's table anew, as after a change of claims or of code."""
    file = paths.repository() / "README.md"
    file.write_text(in_readme(file.read_text(), recorded()))


@app.command()
def record(
    gate: Annotated[bool, typer.Option(help="Fail unless this run has proven every claim.")] = False,
) -> None:
    """Record the last run of tests/run.py in docs/proof.json and README.md.

    A claim of which the run had not all tests keeps the record that it has.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        run = Run(paths.repository() / "reports")
    except FileNotFoundError:
        console.print("reports/steps.json: there is no run to record. Run `make proof`, or tests/run.py")
        raise typer.Exit(1) from None
    if run.commit.endswith("-dirty"):
        console.print(
            f"reports/: the run was of files that differ from commit {run.commit.removesuffix('-dirty')}. "
            "Commit them, then run it again"
        )
        raise typer.Exit(1)
    known, results = recorded(), Counter[Result]()
    for number, claim in enumerate(claims()):
        result, seconds = run.judge(claim)
        results[result] += 1
        if result != "not run":
            known[number] = Record(
                claim=claim.claim,
                command=claim.command,
                commit=run.commit,
                date=run.date,
                result=result,
                seconds=round(seconds),
            )
        if result == "failed" or (gate and result == "not run"):
            console.print(f"{result}: {claim.claim}")
    file = paths.repository() / "docs" / "proof.json"
    file.write_text(json.dumps([one.model_dump() for one in known], indent=2, ensure_ascii=False) + "\n")
    readme()
    counts = ", ".join(f"{results[result]} {result}" for result in ("passed", "failed", "not run"))
    console.print(f"claims: {counts}, at commit {run.commit[:12]}; recorded in docs/proof.json and README.md")
    if gate and results["passed"] < results.total():
        raise typer.Exit(1)
