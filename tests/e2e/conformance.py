"""Kubernetes' own conformance tests: how they are run, and what their outcome is held to."""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source

RECIPE = "conformance"
# Where the mirror has their images; upstream's registries of tests have others of these names.
REGISTRY = "registry.k8s.io/conformance"
REGISTRIES = {"promoterE2eRegistry": REGISTRY, "gcEtcdRegistry": REGISTRY}
EXCUSED = Path(__file__).with_suffix(".yml")
# More than there are processors: most of them wait.
PROCESSES = 8

Outcome = Literal["passed", "failed", "not run"]


class Excused(BaseModel):
    """Tests that do not pass here, and why: left out, or run to see that they still fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=20)
    run: bool
    tests: list[str] = Field(min_length=1)


def excused() -> list[Excused]:
    """Return the list of those."""
    return TypeAdapter(list[Excused]).validate_python(yaml.safe_load(EXCUSED.read_text()))


def source() -> Source:
    """Return what has compiled the tests."""
    return Source(cat.load(), print)


def names() -> list[str]:
    """Return the names of all conformance tests of this version."""
    listed = source().module(RECIPE) / "test/conformance/testdata/conformance.yaml"
    return [entry["codename"] for entry in yaml.safe_load(listed.read_text())]


def images() -> set[str]:
    """Return the images that the tests of this version know, by name and tag."""
    text = (source().module(RECIPE) / "test/utils/image/manifest.go").read_text()
    return {f"{name}:{tag}" for name, tag in re.findall(r'Config\{list\.\w+, "([^"]+)", "([^"]+)"\}', text)}


def pattern(tests: Iterable[str]) -> str:
    """Return a regular expression of Go for these tests."""
    return "|".join(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", test) for test in tests)


def run(kubeconfig: Path, folder: Path, focus: str, minutes: int) -> dict[str, Outcome]:
    """Run those that nobody has excused from running; return the outcome of every one."""
    programs, kubectl = source().binaries(RECIPE), source().binaries("kubernetes") / "kubectl"
    folder.mkdir(parents=True, exist_ok=True)
    registries, report = folder / "registries.yml", folder / "junit_01.xml"
    registries.write_text(yaml.safe_dump(REGISTRIES))
    report.unlink(missing_ok=True)
    left_out = [name for one in excused() if not one.run for name in one.tests]
    command: list[str | Path] = [
        *(programs / "ginkgo", "run", f"--procs={PROCESSES}", f"--timeout={minutes}m", "--no-color"),
        *("--silence-skips", f"--focus={focus}", *([f"--skip={pattern(left_out)}"] if left_out else [])),
        *(programs / "e2e.test", "--", f"--kubeconfig={kubeconfig}", f"--kubectl-path={kubectl}"),
        *("--provider=skeleton", f"--report-dir={folder}", "--disable-log-dump"),
    ]
    with (folder / "conformance.log").open("wb") as log:
        subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"KUBE_TEST_REPO_LIST": str(registries)},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=60 * (minutes + 5),
            check=False,  # the report tells
        )
    assert report.is_file(), (folder / "conformance.log").read_text(errors="replace")[-4000:]
    return outcomes(report, names())


def outcomes(report: Path, tests: list[str]) -> dict[str, Outcome]:
    """Return what each of these tests came to, as a JUnit report says."""
    found: dict[str, Outcome] = dict.fromkeys(tests, "not run")
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 (our own file)
        name, parts = case.get("name", "").removeprefix("[It] "), {part.tag for part in case}
        if name in found and "skipped" not in parts:
            found[name] = "failed" if parts & {"failure", "error"} else "passed"
    return found


def judge(found: dict[str, Outcome], listed: list[Excused]) -> list[str]:
    """Return what is not as it is said to be."""
    expected: dict[str, Outcome] = dict.fromkeys(found, "passed")
    wrong = []
    for one in listed:
        for test in one.tests:
            if test not in found:
                wrong.append(f"{EXCUSED.name} names {test}, which there is not")
            elif expected[test] != "passed":
                wrong.append(f"{EXCUSED.name} names {test} twice")
            else:
                expected[test] = "failed" if one.run else "not run"
    return wrong + [
        f"{test}: {found[test]}, and not {wanted}"
        for test, wanted in expected.items()
        if found[test] != wanted
    ]
