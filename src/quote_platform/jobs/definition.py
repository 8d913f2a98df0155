"""What a job is: the jobs that come with the project, those of a `jobs.yml`, and what is wrong with them."""

import difflib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from quote_platform import secrets

FILE = "jobs.yml"
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
DURATION = re.compile(r"([1-9]\d{0,5})([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
VARIABLE = re.compile(r"[A-Za-z_]\w*")
# A time as `systemd-analyze calendar` writes it.
ELAPSE = re.compile(r"(?:Next elapse|Iter\. #\d+|Iteration #\d+): \w+ (\d+-\d+-\d+ \d+:\d+:\d+) UTC")
# These change nothing, unless they are allowed what users may notice.
READING = (
    "playbooks/render.yml",
    "playbooks/search-logs.yml",
    "playbooks/validate.yml",
    "playbooks/verify.yml",
)
INTRUSIVE = "verify_intrusive"


class WrongInput(Exception):
    """What was asked for cannot be; the text names every mistake and what is allowed."""


def duration(value: Any) -> Any:
    """Return the seconds of a duration such as 90m, or raise ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit; allowed is a number with s, m, h or d, such as 90m")
    if not isinstance(value, str):
        raise ValueError(f"is {_called(value)}; allowed is a number with s, m, h or d, such as 90m")
    found = DURATION.fullmatch(value)
    if not found:
        raise ValueError(f"{value!r} is no duration; allowed is a number with s, m, h or d, such as 90m")
    return int(found[1]) * SECONDS[found[2]]


def _time_zone(value: str) -> str:
    known = zoneinfo.available_timezones()
    if value and value not in known:
        raise ValueError(f"{value!r} is no time zone{near(value, known) or '; such as Europe/Berlin'}")
    return value


def _calendar(value: str) -> str:
    if not value.strip() or "\n" in value:
        raise ValueError("allowed is one calendar expression of systemd, such as Mon *-*-* 03:00:00")
    return value.strip()


Duration = Annotated[int, BeforeValidator(duration)]


class Strict(BaseModel):
    """Takes neither unknown names nor values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Schedule(Strict):
    """When a job is run by a timer of systemd."""

    calendar: Annotated[str, AfterValidator(_calendar)]
    # Empty: that of the controller.
    time_zone: Annotated[str, AfterValidator(_time_zone)] = ""
    # At most so many seconds later, each time others, so that not all clusters begin at once.
    random_delay: Duration = 0
    # Run what was missed while the controller was off, when it is on again.
    persistent: bool = True

    @property
    def expression(self) -> str:
        """What systemd calls OnCalendar."""
        return f"{self.calendar} {self.time_zone}".strip()

    def interval(self) -> int:
        """Return the longest time between two of the next 1000 runs, in seconds; 0 if systemd cannot say."""
        program = shutil.which("systemd-analyze")
        if not program:
            return 0
        done = subprocess.run(
            [program, "calendar", "--iterations=1000", "--", self.expression],
            env={"TZ": "UTC", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        times = [
            datetime.strptime(one, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            for one in ELAPSE.findall(done.stdout)
        ]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return int(max(gaps).total_seconds()) + self.random_delay if gaps else 0


class Job(Strict):
    """One job of a cluster."""

    playbook: str
    # --check --diff: changes nothing; what it would change is drift.
    check: bool = False
    variables: dict[str, Any] = {}
    # Relative to the inventory's folder; may be encrypted by ansible-vault.
    variables_files: list[str] = []
    vault_password_file: str = ""
    # Seconds after which the job is stopped.
    timeout: Duration = 12 * 3600
    schedule: Schedule | None = None
    # Seconds within which it should succeed again, where another scheduler runs it; else by its schedule.
    expected_every: Duration = 0
    # Recorded by ARA as well, if that is installed.
    ara: bool = False

    def interval(self) -> int:
        """Return the longest time between two runs in seconds, or 0 if nothing says."""
        return self.expected_every or (self.schedule.interval() if self.schedule else 0)


class Jobs(Strict):
    """A whole `jobs.yml`, over what comes with the project."""

    # Free space on the disk of the records, in MiB, without which no job starts.
    minimum_free_mib: Annotated[int, Field(ge=1)] = 512
    # Records of each job that stay.
    keep: Annotated[int, Field(ge=1)] = 50
    # Folder of this controller that a textfile collector reads; empty: metrics go to the cluster only.
    metrics_directory: str = ""
    jobs: dict[str, Job]


BUILT_IN: dict[str, dict[str, Any]] = {
    "drift": {"playbook": "site.yml", "check": True, "timeout": "2h"},
    "converge": {"playbook": "site.yml", "timeout": "6h"},
    "verify": {"playbook": "playbooks/verify.yml", "timeout": "1h"},
    "backup": {"playbook": "playbooks/backup.yml"},
    "renew-certificates": {
        "playbook": "playbooks/renew-certificates.yml",
        "variables": {"renew": "ingress,nodes,control_plane"},
        "timeout": "2h",
    },
    "rotate-secrets": {"playbook": "playbooks/rotate-secrets.yml", "timeout": "2h"},
    "upgrade": {"playbook": "playbooks/upgrade.yml"},
    "update-hosts": {"playbook": "playbooks/update-hosts.yml"},
    "restore-drill": {"playbook": "playbooks/restore-drill.yml", "timeout": "4h"},
}


class Plan(BaseModel):
    """A job with all that was said about it: what is run, and what a second run repeats."""

    name: str
    project: str
    inventory: str
    playbook: str
    check: bool
    timeout: int
    variables_files: list[str]
    vault_password_file: str
    # Values stand in a file of their own.
    variables: list[str]
    keep: int
    minimum_free_mib: int
    # Whether the cluster may be changed, so that no other such job runs beside it.
    changes: bool
    # Where its metrics are written on this controller, if they are.
    metrics_directory: str = ""
    # Seconds within which it should succeed again, or 0.
    interval: int = 0
    # Recorded by ARA as well.
    ara: bool = False

    @property
    def shown(self) -> str:
        """The inventory as it is written on the command line: short, and right in the checkout."""
        path = Path(self.inventory)
        return str(path.relative_to(self.project)) if path.is_relative_to(self.project) else str(path)

    def command(self, job: str) -> str:
        """Return the command line that runs a job on the same inventory."""
        return shlex.join(["quote-platform", "job", "run", job, "-i", self.shown])


def near(name: str, known: Iterable[str]) -> str:
    """Return the question after a name that may be misspelt, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def folder(inventory: Path) -> Path:
    """Return the folder beside whose files `jobs.yml` lies."""
    return inventory if inventory.is_dir() else inventory.parent


def playbooks(project: Path) -> list[str]:
    """Return the playbooks that can be run, relative to the checkout."""
    return ["site.yml", *sorted(f"playbooks/{one.name}" for one in (project / "playbooks").glob("*.yml"))]


# --- reading -----------------------------------------------------------------------------------------


# What PyYAML says, as a person says it.
RIDDLES = {
    "but found another document": "a second document begins here; allowed is one",
    "found unhashable key": "a name is a list or a mapping; allowed is text",
    "found unconstructable recursive node": "what is repeated here by * contains this place",
}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML takes the last in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    # What another mapping is merged in by, <<, is no key, and what stands beside it goes first.
    nodes = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    keys = [loader.construct_object(key, deep=True) for key in nodes]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            line = nodes[index].start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"line {line}: {key} stands here a second time"
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load(project: Path, inventory: Path) -> Jobs:
    """Return the jobs of an inventory; raise WrongInput with every mistake of its `jobs.yml`."""
    file = folder(inventory) / FILE
    given = read(file, sorted(Jobs.model_fields)) if file.exists() or file.is_symlink() else {}
    own = given.get("jobs") or {}
    jobs = dict(BUILT_IN)
    if isinstance(own, dict):
        for name, job in own.items():
            # What it says of a job that comes with the project stands over that.
            jobs[name] = BUILT_IN.get(name, {}) | job if isinstance(job, dict) else job
    try:
        found = Jobs.model_validate(given | {"jobs": jobs if isinstance(own, dict) else own})
    except ValidationError as error:
        raise refusal(file, [sentence(one, MODELS) for one in error.errors()]) from error
    wrong = []
    if (place := found.metrics_directory) and not (
        Path(place).is_absolute() and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK)
    ):
        wrong.append(
            f"metrics_directory: {place}; allowed is the absolute path of a folder in which you may write"
        )
    for name in own:
        one = found.jobs[name]
        if not NAME.fullmatch(name):
            wrong.append(
                f"jobs.{name}: no name of a job; allowed are a-z, 0-9 and -, at most 40, a letter first"
            )
        wrong += [f"jobs.{name}.{text}" for text in _judge(project, one, folder(inventory))]
    if wrong:
        raise refusal(file, wrong)
    return found


def refusal(file: Path, wrong: list[str]) -> WrongInput:
    """Return the exception that names every mistake of a file."""
    count = f"{len(wrong)} mistake{'s' * (len(wrong) > 1)}"
    return WrongInput("\n".join([f"{file}: {count}; nothing was started.", *wrong]))


def read(file: Path, known: list[str]) -> dict[Any, Any]:
    """Return the mapping in a file of YAML, in which these names may stand; raise WrongInput."""
    try:
        given = yaml.load(file.read_text(), _Loader) or {}  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        text = str(getattr(error, "problem", "") or error).replace("\n", " ")
        if "!vault" in text:
            text = "!vault: put encrypted values into a file, and name that in variables_files"
        elif mark := getattr(error, "problem_mark", None):
            text = f"line {mark.line + 1}: {RIDDLES.get(text, text)}"
            if tag := re.search(
                r"could not determine a constructor for the tag '(?:tag:yaml.org,2002:)?(.*)'", text
            ):
                text = f"line {mark.line + 1}: {tag[1]}: no such type; allowed are plain values"
        raise refusal(file, [text]) from error
    except UnicodeDecodeError as error:
        raise refusal(
            file, [f"is no text in UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}"]
        ) from error
    except OSError as error:
        raise refusal(file, [f"cannot be read: {error.strerror}"]) from error
    if not isinstance(given, dict):
        raise refusal(file, [f"is {_called(given)}; allowed is a mapping with {', '.join(known)}"])
    return given


TYPES: dict[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
}


def _called(value: Any) -> str:
    """Return what a value is."""
    if value is None:
        return "empty"
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    )
    return next((called for kind, called in kinds if isinstance(value, kind)), type(value).__name__)


def sentence(error: ErrorDetails, models: dict[int, type[BaseModel]]) -> str:
    """Return what pydantic found as a line with the place, what is wrong, what is allowed.

    `models` says what stands at which depth of the file.
    """
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    kind, value = error["type"], error["input"]
    if kind in TYPES:
        if error["loc"][-1] == "[key]":
            shown, more = "this name ", ", so put it in quotes"
        else:
            plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
            shown, more = f"{value!r} " if plain else "", ""
        return f"{where}: {shown}is {_called(value)}; allowed is {TYPES[kind]}{more}"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if kind == "missing":
        return f"{where}: required and not set"
    if kind == "extra_forbidden":
        known = sorted(models[len(error["loc"])].model_fields)
        name = str(error["loc"][-1])
        return f"{where}: unknown{near(name, known) or '; allowed are ' + ', '.join(known)}"
    if kind == "greater_than_equal":
        return f"{where}: {value}; allowed is {error['ctx']['ge']} or more"
    return f"{where}: {error['msg']}"


# What stands at which depth of a jobs.yml.
MODELS: dict[int, type[BaseModel]] = {1: Jobs, 3: Job, 4: Schedule}


def _judge(project: Path, job: Job, base: Path) -> list[str]:
    """Return what is wrong with a job beside its types."""
    known = playbooks(project)
    wrong = []
    if job.playbook not in known:
        wrong.append(f"playbook: {job.playbook} is no playbook of the project{near(job.playbook, known)}")
    if job.ara and importlib.util.find_spec("ara") is None:
        wrong.append("ara: ARA is not installed: uv sync --locked --no-dev --group ara")
    wrong += [f"variables.{text}" for text in judge_variables(project, job.variables)]
    for kind, paths in (
        ("variables_files", job.variables_files),
        ("vault_password_file", [job.vault_password_file] if job.vault_password_file else []),
    ):
        wrong += [f"{kind}: {base / path} is no file" for path in paths if not (base / path).is_file()]
    return wrong


def judge_variables(project: Path, variables: dict[str, Any]) -> list[str]:
    """Return what is wrong with variables that are given by value."""
    wrong = []
    for name, value in variables.items():
        if not VARIABLE.fullmatch(name):
            wrong.append(f"{name}: no name of a variable; allowed are letters, digits and _")
        elif secrets.named(name, project) or any(secrets.within(value)):
            wrong.append(
                f"{name}: a secret; records of jobs hold none: write it to a file, encrypted by "
                "ansible-vault, and name that in variables_files, or by -e @FILE"
            )
        else:
            wrong += [f"{name}{text}" for text in _unwritable(value)]
    return wrong


def _unwritable(value: Any) -> list[str]:
    """Return what of a variable cannot be given to Ansible as it is, each with its place."""
    if isinstance(value, dict):
        return [f".{name}{text}" for name, one in value.items() for text in _unwritable(one)]
    if isinstance(value, list):
        return [f".{index}{text}" for index, one in enumerate(value) for text in _unwritable(one)]
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return [f": {value} is a {type(value).__name__}; write it in quotes"]
    return []


# --- what is asked for on the command line -----------------------------------------------------------


def parse_extra(given: list[str], project: Path) -> tuple[dict[str, Any], list[str]]:
    """Return variables and files of variables from -e; raise WrongInput."""
    variables: dict[str, Any] = {}
    files = []
    for one in given:
        if one.startswith("@"):
            path = Path(one[1:]).expanduser().resolve()
            if not path.is_file():
                raise WrongInput(f"-e {one}: {path} is no file")
            files.append(str(path))
            continue
        name, equals, value = one.partition("=")
        if not equals or not VARIABLE.fullmatch(name):
            # The value may be a secret, so it is not repeated.
            raise WrongInput("-e: allowed are NAME=VALUE, one for each -e, and @FILE")
        variables[name] = value
    if wrong := judge_variables(project, variables):
        raise WrongInput("\n".join(f"-e {text}" for text in wrong))
    return variables, files


def plan(  # noqa: PLR0917
    asked: str,
    project: Path,
    inventory: Path,
    extra: list[str],
    check: bool = False,
    timeout: str = "",
    vault_password_file: Path | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan of a job, and its variables by value; raise WrongInput.

    `asked` is the name of a job, or the path of a playbook relative to the checkout.
    """
    if not inventory.exists():
        others = [f"{one.parent.name}/{one.name}" for one in (project / "inventories").glob("*/")]
        raise WrongInput(f"-i {inventory}: no such inventory{near(str(inventory), others)}")
    if inventory.resolve() == project.resolve():
        raise WrongInput(f"-i {inventory}: the checkout itself; allowed is a folder such as inventories/NAME")
    jobs = load(project, inventory)
    known = playbooks(project)
    if asked in jobs.jobs:
        job = jobs.jobs[asked]
    elif asked in known:
        job = Job(playbook=asked)
    elif asked.endswith((".yml", ".yaml")):
        raise WrongInput(f"{asked}: no playbook of the project{near(asked, known)}")
    else:
        raise WrongInput(
            f"{asked or repr(asked)}: no such job{near(asked, jobs.jobs) or '.'} "
            f"Known are {', '.join(sorted(jobs.jobs))}; "
            "a playbook is named by its path, such as playbooks/verify.yml"
        )
    if job.playbook not in known:  # one that comes with the project, in another version of it
        raise WrongInput(f"{asked}: {job.playbook} is no playbook of the project")
    variables, files = parse_extra(extra, project)
    try:
        seconds = duration(timeout) if timeout else job.timeout
    except ValueError as error:
        raise WrongInput(f"--timeout: {error}") from error
    password = vault_password_file
    if password and not password.is_file():
        raise WrongInput(f"--vault-password-file: {password} is no file")
    if not password and job.vault_password_file:
        password = folder(inventory) / job.vault_password_file
    variables = job.variables | variables
    reads = job.playbook in READING and str(variables.get(INTRUSIVE, "")).lower() not in {"true", "yes", "1"}
    return (
        Plan(
            name=asked,
            project=str(project),
            inventory=str(inventory.resolve()),
            playbook=job.playbook,
            check=check or job.check,
            timeout=seconds,
            variables_files=[
                *(str((folder(inventory) / one).resolve()) for one in job.variables_files),
                *files,
            ],
            vault_password_file=str(password.resolve()) if password else "",
            variables=sorted(variables),
            keep=jobs.keep,
            minimum_free_mib=jobs.minimum_free_mib,
            changes=not (check or job.check or reads),
            metrics_directory=jobs.metrics_directory,
            interval=job.interval(),
            ara=job.ara,
        ),
        variables,
    )
