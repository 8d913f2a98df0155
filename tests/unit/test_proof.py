"""A claim is proven by all of its tests, at a commit; the README says no more than that."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quote_platform import proof
from quote_platform.cli import app
from run import lint

ROOT = Path(__file__).resolve().parents[2]
NO_COLOURS = {"NO_COLOR": "1", "COLUMNS": "200"}
CLAIMS = """
- {claim: Rows come back, command: make proof, tests: ["tests/e2e/test_a.py::test_rows[20]", molecule/velero],
   paths: [code]}
- {claim: It converges, command: "make e2e, verify", tests: ["tests/e2e/test_a.py::test_it"], paths: [other]}
"""
README = f"# Ours\n\n{proof.START}\nold\n{proof.END}\n\nThe rest.\n"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Checkout:
    """A repository with two claims, and the reports of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("roles", "docs", "tests", "molecule/velero", "reports"):
            (folder / name).mkdir(parents=True)
        for name, text in {
            "site.yml": "",
            "molecule/velero/molecule.yml": "",
            "tests/claims.yml": CLAIMS,
            "README.md": README,
            "code": "1",
            "other": "1",
            ".gitignore": "/reports/\n",
        }.items():
            (folder / name).write_text(text)
        git(folder, "init", "--quiet")
        self.commit()

    def commit(self) -> None:
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message=a")

    def report(self, commit: str = "", **tests: str) -> None:
        """Write the reports of a run: steps, each with its test cases."""
        head = {"commit": commit or git(self.folder, "rev-parse", "HEAD"), "date": "2026-11-29"}
        steps = []
        for name, inside in tests.items():
            layer, step = name.split("_")
            steps.append({"layer": layer, "step": step})
            (self.folder / "reports" / layer).mkdir(exist_ok=True)
            file = self.folder / "reports" / layer / f"{step}.xml"
            file.write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
        (self.folder / "reports" / "steps.json").write_text(json.dumps(head | {"steps": steps}))

    def record(self, *options: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["proof", "record", *options], env=NO_COLOURS)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    @property
    def results(self) -> list[tuple[str, int | None]]:
        found = json.loads((self.folder / "docs" / "proof.json").read_text())
        return [(one["result"], one["seconds"]) for one in found]

    @property
    def column(self) -> list[str]:
        text = (self.folder / "README.md").read_text()
        assert text.endswith("\n\nThe rest.\n")
        return [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("|")][2:]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.chdir(tmp_path)
    return Checkout(tmp_path)


def case(name: str, inside: str = "") -> str:
    return f'<testcase classname="tests.e2e.test_a" name="{name}" time="2">{inside}</testcase>'


ROWS, ROWS_OF_CI, IT = case("test_rows[20]"), case("test_rows[3]"), case("test_it")
SCENARIO = '<testcase classname="velero.test_velero" name="test_it" time="3"/>'


def test_a_claim_is_proven_by_all_of_its_tests(checkout: Checkout) -> None:
    checkout.report(e2e_lab=ROWS + IT, molecule_velero=SCENARIO)
    status, said = checkout.record("--gate")
    assert status == 0, said
    assert checkout.results == [("passed", 5), ("passed", 2)]
    assert checkout.column == ["2026-11-29", "2026-11-29"]
    assert "claims: 2 passed, 0 failed, 0 not run" in said


@pytest.mark.parametrize(
    ("lab", "velero", "result"),
    [
        (IT + case("test_rows[20]", '<failure message="why"/>'), SCENARIO, "failed"),
        (IT + case("test_rows[20]", '<error message="why"/>'), SCENARIO, "failed"),
        (IT + case("test_rows[20]", '<skipped message="why"/>'), SCENARIO, "not run"),
        (IT + ROWS_OF_CI, SCENARIO, "not run"),
        (IT, SCENARIO, "not run"),
        (IT + ROWS, "", "not run"),
        (IT + ROWS, '<testcase name="velero"><failure/></testcase>', "failed"),
        (IT + ROWS, SCENARIO + '<testcase name="b"><skipped/></testcase>', "not run"),
    ],
)
def test_the_gate_names_each_claim_that_is_not_proven(
    checkout: Checkout, lab: str, velero: str, result: str
) -> None:
    checkout.report(e2e_lab=lab, molecule_velero=velero)
    status, said = checkout.record("--gate")
    assert status == 1
    assert f"{result}: Rows come back\n" in said
    assert [found for found, _ in checkout.results] == [result, "passed"]


def test_a_run_of_some_tests_leaves_the_other_records(checkout: Checkout) -> None:
    checkout.report(e2e_lab=ROWS + IT, molecule_velero=SCENARIO)
    checkout.record()
    before = checkout.results
    checkout.report(molecule_velero=SCENARIO)
    assert checkout.record()[0] == 0
    assert checkout.results == before
    # The report of the former run is still there, and is none of this one.
    assert (checkout.folder / "reports" / "e2e" / "lab.xml").is_file()
    assert checkout.record("--gate")[0] == 1
    assert checkout.results == before


def test_what_was_never_proven_or_failed_is_shown_so(checkout: Checkout) -> None:
    checkout.report(e2e_lab=case("test_it", "<failure/>"))
    checkout.record()
    assert checkout.column == ["no record yet", "**failed** 2026-11-29"]


def test_a_claim_is_older_than_its_code_only_when_that_changed(checkout: Checkout) -> None:
    checkout.report(e2e_lab=ROWS + IT, molecule_velero=SCENARIO)
    checkout.record()
    checkout.commit()  # of the record itself
    (checkout.folder / "code").write_text("2")
    checkout.commit()
    assert CliRunner().invoke(app, ["proof", "readme"]).exit_code == 0
    assert checkout.column == ["2026-11-29, older than its code", "2026-11-29"]


def test_a_claim_whose_words_changed_is_to_be_proven_anew(checkout: Checkout) -> None:
    checkout.report(e2e_lab=ROWS + IT, molecule_velero=SCENARIO)
    checkout.record()
    (checkout.folder / "tests" / "claims.yml").write_text(CLAIMS.replace("come back", "come back at once"))
    assert CliRunner().invoke(app, ["proof", "readme"]).exit_code == 0
    assert checkout.column == ["no record yet", "2026-11-29"]


def test_files_that_no_commit_has_prove_nothing(checkout: Checkout) -> None:
    checkout.report(commit="0123456789abcdef-dirty", e2e_lab=ROWS + IT, molecule_velero=SCENARIO)
    status, said = checkout.record()
    assert status == 1
    assert "differ from commit 0123456789abcdef. Commit them" in said
    assert not (checkout.folder / "docs" / "proof.json").exists()


def test_a_proof_may_be_a_step_of_its_own(checkout: Checkout) -> None:
    checkout.report(e2e_lab="", e2e_a=ROWS + IT, molecule_velero=SCENARIO)
    assert checkout.record("--gate")[0] == 0
    assert [result for result, _ in checkout.results] == ["passed", "passed"]


def test_without_a_run_there_is_nothing_to_record(checkout: Checkout) -> None:
    status, said = checkout.record()
    assert status == 1
    assert "there is no run to record" in said


def table_of(text: str) -> str:
    return text.partition(proof.START)[2].partition(proof.END)[0].replace(proof.OLDER, "")


def test_the_readme_shows_what_is_recorded() -> None:
    """But for what changes with every commit: which claims are older than their code."""
    text = (ROOT / "README.md").read_text()
    made = proof.in_readme(text, proof.recorded())
    assert table_of(text) == table_of(made), "after a change of claims: quote-platform proof readme"
    assert len(table_of(text).splitlines()) == len(proof.claims()) + 3


def end_to_end(*options: str) -> list[str]:
    """Return the end-to-end tests, with their parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *options, "tests/e2e"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "::" in line]


def steps_of_proofs() -> list[str]:
    """Return the linters that run for a release only."""
    always = {step.name for step in lint(proof=False)}
    return [f"lint/{step.name}" for step in lint(proof=True) if step.name not in always]


def others() -> list[str]:
    """Return all other tests; those of scenarios can be collected within Molecule only."""
    found = [str(file.parent.relative_to(ROOT)) for file in ROOT.glob("molecule/*/molecule.yml")]
    for file in [*ROOT.glob("molecule/*/test_*.py"), *ROOT.glob("tests/unit/test_*.py")]:
        path = file.relative_to(ROOT)
        names = re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
        found += [node for name in names for node in (f"{path}::{name}", f"{path.parent}::{name}")]
    return found


def among(test: str, found: list[str]) -> bool:
    return any(one == test or one.startswith((f"{test}[", f"{test}::")) for one in found)


def test_every_claim_names_tests_and_code_that_are_there() -> None:
    found = [*end_to_end(), *others(), *steps_of_proofs()]
    claims = proof.claims()
    missing = {test for claim in claims for test in proof.expanded(claim.tests) if not among(test, found)}
    missing |= {path for claim in claims for path in claim.paths if not (ROOT / path).exists()}
    assert not missing


def test_a_claim_names_make_proof_where_nothing_else_runs_its_tests() -> None:
    long = [*end_to_end("-m", "proof"), *steps_of_proofs()]
    wrong = [
        claim.claim
        for claim in proof.claims()
        if any(among(test, long) for test in claim.tests) != ("make proof" in claim.command)
    ]
    assert not wrong
