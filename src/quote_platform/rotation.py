"""Rotate accounts of the database while they are used, and wait until the application uses the new ones."""

import base64
import hashlib
import json
import secrets
import string
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from kubernetes import client

from quote_platform.digests import verifier
from quote_platform.verify.target import Failed, Target, wait

app = typer.Typer(no_args_is_help=True)
PODS = "app.kubernetes.io/name=quote-app"
MOUNT = "/run/secrets/database"
# Every change of a pod makes its kubelet look at its Secrets, which it does by itself each minute.
MARK = "quote-platform/secrets-changed"
LOOK_AGAIN = 10.0  # seconds
GROUP = ("external-secrets.io", "v1")


class Stuck(Exception):
    """A rotation does not come to its end; the text says what is as it was."""


@dataclass
class Rotated:
    """What became of an account."""

    before: str
    user: str
    pods: int
    seconds: float
    # Connections of users that an earlier rotation has made.
    older: int = 0


class Rotation:
    """One Secret with an account, the application that mounts it, and the database that knows the account."""

    def __init__(self, target: Target, secret: str, seconds: float = 120) -> None:
        self.target, self.secret, self.seconds = target, secret, seconds
        self.objects = client.CustomObjectsApi(target.api)

    # --- what there is ------------------------------------------------------------------------------

    def account(self) -> dict[str, str]:
        """Return the Secret's content."""
        data = self.target.core.read_namespaced_secret(self.secret, self.target.namespace).data or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def pods(self) -> dict[str, str]:
        """Return the application's pods that run and stay, with their addresses."""
        found = self.target.core.list_namespaced_pod(self.target.namespace, label_selector=PODS).items
        return {
            pod.metadata.name: pod.status.pod_ip
            for pod in found
            if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp
        }

    def sql(self, statement: str) -> str:
        """Ask the primary, as a superuser."""
        space = self.target.namespace
        primary = self.objects.get_namespaced_custom_object(
            "postgresql.cnpg.io", "v1", space, "clusters", self.target.postgres
        )["status"]["currentPrimary"]
        command = ["psql", "--no-psqlrc", "-Atqc", statement]
        return self.target.execute(primary, *command, namespace=space, container="postgres").strip()

    def sessions(self) -> dict[str, set[str]]:
        """Return the users of the application's connections, by the address they come from."""
        found: dict[str, set[str]] = {}
        for line in self.sql(
            "select host(client_addr), usename from pg_stat_activity where application_name = 'quote-app'"
        ).splitlines():
            address, _, user = line.partition("|")
            found.setdefault(address, set()).add(user)
        return found

    # --- what is done -------------------------------------------------------------------------------

    def wait(self, done: Callable[[], bool], text: Callable[[], str]) -> None:
        """Wait until something holds, or say what is as it was."""
        try:
            wait(done, self.seconds, text)
        except Failed as error:
            raise Stuck(str(error)) from error

    def ask_operator(self) -> None:
        """Have External Secrets fetch another account now."""
        before, now = self.account(), datetime.now(UTC).isoformat()
        where = (*GROUP, self.target.namespace, "externalsecrets", self.secret)
        patch = {"metadata": {"annotations": {"force-sync": now}}}
        self.objects.patch_namespaced_custom_object(*where, patch)

        def why() -> str:
            status = self.objects.get_namespaced_custom_object(*where).get("status", {})
            said = "; ".join(one.get("message", "") for one in status.get("conditions", []))
            return f"no other account is delivered ({said}); the one that is there is used as before"

        self.wait(lambda: self.account() != before, why)

    def change_password(self, user: str, mounted: bool) -> None:
        """Give an account of the cluster's own a new password, in whatever form its Secret has it."""
        before = self.account()
        letters = string.ascii_letters + string.digits
        password = "".join(secrets.choice(letters) for _ in range(40))
        data = {
            key: base64.b64encode(value.replace(before["password"], password).encode()).decode()
            for key, value in before.items()
        }
        known = f"select md5(rolpassword) from pg_authid where rolname = '{user}'"  # noqa: S608 (our own)
        hashed = self.sql(known)
        self.target.core.patch_namespaced_secret(self.secret, self.target.namespace, {"data": data})
        self.deliver(mounted)
        self.wait(
            lambda: self.sql(known) != hashed,
            lambda: f"PostgreSQL does not take the new password of {user}; see the log of its operator",
        )

    def issuer(self, name: str, owner: str, password: str, dry_run: bool) -> bool:
        """Have an account that makes others and hands the owner's role on; tell whether it differed."""
        wanted = verifier(password)
        known = (
            f"select count(*) from pg_authid one join pg_auth_members held on held.member = one.oid "  # noqa: S608
            f"where rolname = '{name}' and rolpassword = '{wanted}' and rolcanlogin and rolcreaterole "
            f"and not rolsuper and roleid = '{owner}'::regrole and admin_option"
        )
        if self.sql(known) == "1":
            return False
        if not dry_run:
            said = self.sql(
                f"do $$ begin if to_regrole('{name}') is null then create role {name}; end if; end $$; "
                f"alter role {name} login createrole nosuperuser password '{wanted}'; "
                # Only who holds a role with this right may give it to the users that it makes.
                f"grant {owner} to {name} with admin true, inherit false, set false"
            )
            self.wait(
                lambda: self.sql(known) == "1", lambda: f"PostgreSQL does not take the account {name}: {said}"
            )
        return True

    def look(self, pods: Iterable[str]) -> float:
        """Have the kubelets of pods look at what these have mounted; return when."""
        patch = {"metadata": {"annotations": {MARK: datetime.now(UTC).isoformat()}}}
        for pod in pods:
            self.target.core.patch_namespaced_pod(pod, self.target.namespace, patch)
        return time.monotonic()

    def deliver(self, mounted: bool) -> None:
        """Have every pod's kubelet look at the Secret now; wait until the files hold what it holds."""
        looked = self.look(self.pods())
        command = ("sh", "-c", f"cat {MOUNT}/username {MOUNT}/password | sha256sum")
        missing: set[str] = set()

        def everywhere() -> bool:
            nonlocal looked
            missing.clear()
            account = self.account()  # the operator may have replaced it once more
            wanted = hashlib.sha256((account["username"] + account["password"]).encode()).hexdigest()
            for pod in self.pods():
                said = self.target.execute(
                    pod, *command, namespace=self.target.namespace, container="quote-app"
                )
                if not said.startswith(wanted):
                    missing.add(pod)
            # A kubelet that was just away from the API server has looked at the Secret as it was.
            if missing and time.monotonic() - looked > LOOK_AGAIN:
                looked = self.look(missing)
            return not missing

        if mounted:
            self.wait(everywhere, lambda: f"{', '.join(sorted(missing))} still has the old account")

    def used(self, user: str) -> None:
        """Wait until every pod has connected as the user that is delivered."""
        missing: dict[str, set[str]] = {}

        def everywhere() -> bool:
            nonlocal user
            sessions, pods = self.sessions(), self.pods()
            before, user = user, self.account()["username"]
            users = {pod: sessions.get(address, set()) for pod, address in pods.items()}
            missing.clear()
            missing.update((pod, has) for pod, has in users.items() if user not in has)
            # The operator may replace it once more, also when the pods have it.
            if user != before:
                self.deliver(mounted=True)
            return bool(pods) and not missing

        def who() -> str:
            late = [f"{pod} ({', '.join(sorted(has)) or 'no connection'})" for pod, has in missing.items()]
            return f"{', '.join(sorted(late))} does not connect as the new user {user}"

        self.wait(everywhere, who)

    def older(self, seconds: float) -> int:
        """Give connections of earlier users the time to end; return how many there are."""
        deadline = time.monotonic() + seconds
        while True:
            user = self.account()["username"]
            left = sum(len(users - {user}) for users in self.sessions().values())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(1)

    def rotate(self, drain: float = 0) -> Rotated:
        """Have another user made, and wait until every pod uses it."""
        started, before = time.monotonic(), self.account()["username"]
        self.ask_operator()
        user = self.account()["username"]
        self.deliver(mounted=True)
        self.used(user)
        older = self.older(drain)
        return self.result(started, before, self.account()["username"], older)

    def end_forgotten(self) -> list[str]:
        """End users before the delivered one that are left after Vault has ended all it knows; return them.

        It does not know those that were made after the snapshot from which it was restored.
        """
        prefix, made, _ = self.account()["username"].rsplit("-", 2)
        found = self.sql(
            f"select rolname from pg_roles where rolname ~ '^{prefix}-[0-9]+-[^-]+$' "  # noqa: S608 (Vault's name)
            f"and split_part(substr(rolname, {len(prefix) + 2}), '-', 1)::bigint < {int(made)} "
            "and not exists (select from pg_stat_activity where usename = rolname)"
        ).split()
        for name in found:
            self.sql(f'drop role "{name}"')
        return found

    def rotate_password(self, mounted: bool) -> Rotated:
        """Give the user of the Secret another password; wait until the pods have it, where they mount it."""
        started, user = time.monotonic(), self.account()["username"]
        self.change_password(user, mounted)
        return self.result(started, user, user, 0)

    def result(self, started: float, before: str, user: str, older: int) -> Rotated:
        """Return what became of it."""
        return Rotated(before, user, len(self.pods()), round(time.monotonic() - started, 1), older)


@contextmanager
def explained() -> Iterator[None]:
    """Print why something did not come to its end, and exit."""
    try:
        yield
    except (Stuck, Failed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def run(work: Callable[[], Rotated]) -> None:
    """Do it; print the result, or why there is none."""
    with explained():
        typer.echo(json.dumps(asdict(work())))


def rotation(kubeconfig: Path, namespace: str, secret: str, seconds: float) -> Rotation:
    """Return the rotation of a Secret of the platform that a kubeconfig leads to."""
    where = {"application": namespace}
    target = Target(str(kubeconfig), version="", host="", addresses=[], image="", namespaces=where)
    return Rotation(target, secret, seconds=seconds)


Kubeconfig = Annotated[Path, typer.Option(help="How to reach the API server.", exists=True)]
Namespace = Annotated[str, typer.Option(help="Namespace of the application and its database.")]
Seconds = Annotated[float, typer.Option(help="Seconds to wait for each step.")]


@app.command()
def user(
    kubeconfig: Kubeconfig,
    namespace: Namespace,
    secret: Annotated[str, typer.Option(help="Secret, and ExternalSecret, of the account.")],
    drain: Annotated[float, typer.Option(help="Seconds for connections of earlier users to end.")] = 60,
    seconds: Seconds = 120,
) -> None:
    """Have another user made, delivered and used."""
    run(lambda: rotation(kubeconfig, namespace, secret, seconds).rotate(drain))


@app.command()
def forgotten(
    kubeconfig: Kubeconfig,
    namespace: Namespace,
    secret: Annotated[str, typer.Option(help="Secret of the account.")],
    seconds: Seconds = 120,
) -> None:
    """End and name the earlier users that are left after Vault has ended all it knows."""
    with explained():
        for name in rotation(kubeconfig, namespace, secret, seconds).end_forgotten():
            typer.echo(name)


@app.command()
def password(
    kubeconfig: Kubeconfig,
    namespace: Namespace,
    secret: Annotated[str, typer.Option(help="Secret of the account.")],
    mounted: Annotated[bool, typer.Option(help="Whether the application mounts it.")] = False,
    seconds: Seconds = 120,
) -> None:
    """Give an account of the database's cluster another password."""
    run(lambda: rotation(kubeconfig, namespace, secret, seconds).rotate_password(mounted))


@app.command()
def issuer(  # noqa: PLR0917 (options, not positions)
    kubeconfig: Kubeconfig,
    namespace: Namespace,
    name: Annotated[str, typer.Option(help="Its name.")],
    owner: Annotated[str, typer.Option(help="Role that it hands on.")],
    password_file: Annotated[Path, typer.Option(help="File with its password.", exists=True)],
    check: Annotated[bool, typer.Option(help="Only say whether it differs.")] = False,
    seconds: Seconds = 120,
) -> None:
    """Have the account by which others are made."""
    with explained():
        changed = rotation(kubeconfig, namespace, "", seconds).issuer(
            name, owner, password_file.read_text().strip(), check
        )
    typer.echo("changed" if changed else "same")
