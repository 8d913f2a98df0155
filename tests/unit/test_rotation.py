"""A rotation waits for everybody, says who is late, and ends nothing itself."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any

import pytest
from typer.testing import CliRunner

from quote_platform import digests, rotation
from quote_platform.rotation import Rotation, Stuck

PODS = {"quote-app-1": "10.0.0.1", "quote-app-2": "10.0.0.2"}


class Platform:
    """A Secret, an operator that fills it, pods that mount it, and a database that knows who is connected."""

    def __init__(self) -> None:
        self.api, self.core, self.namespace, self.postgres = None, self, "shop", "orders"
        self.made, self.secret = 0, {"username": "user-0", "password": "password-0"}
        self.mounted = dict.fromkeys(PODS, self.secret)
        self.connected = {address: ["user-0"] for address in PODS.values()}
        self.verifier = "verifier of password-0"
        # What does not work: operator, kubelet of a pod, a pod's connections, database.
        self.broken: set[str] = set()
        self.again = 0
        self.asked: list[str] = []
        self.looks = 1  # after so many a kubelet sees the new Secret
        self.dropped: list[str] = []

    # --- Kubernetes ---------------------------------------------------------------------------------

    def read_namespaced_secret(self, name: str, _: str) -> Any:
        # Some operators fill it twice; the second time comes while somebody looks.
        if self.again and self.made:
            self.again -= 1
            self.fill()
        return Fake(data={k: base64.b64encode(v.encode()).decode() for k, v in self.secret.items()})

    def patch_namespaced_secret(self, name: str, _: str, patch: dict[str, Any]) -> None:
        self.secret = {k: base64.b64decode(v).decode() for k, v in patch["data"].items()}
        if "database" not in self.broken:
            self.verifier = f"verifier of {self.secret['password']}"

    def list_namespaced_pod(self, *_: Any, **__: Any) -> Any:
        leaving = Fake(
            metadata=Fake(name="leaving", deletion_timestamp="now"),
            status=Fake(phase="Running", pod_ip="10.0.0.9"),
        )
        return Fake(
            items=[
                leaving,
                *(
                    Fake(
                        metadata=Fake(name=name, deletion_timestamp=None),
                        status=Fake(phase="Running", pod_ip=ip),
                    )
                    for name, ip in PODS.items()
                ),
            ]
        )

    def patch_namespaced_pod(self, name: str, _: str, patch: dict[str, Any]) -> None:
        assert rotation.MARK in patch["metadata"]["annotations"]
        self.asked.append(name)

    def execute(self, pod: str, *command: str, **_: Any) -> str:
        if pod == "postgres-1":
            return self.answer(command[-1])
        if self.asked.count(pod) >= self.looks and pod not in self.broken:
            self.mounted[pod] = self.secret
            if f"connections of {pod}" not in self.broken:
                self.connected[PODS[pod]] = [self.secret["username"]]
        text = self.mounted[pod]["username"] + self.mounted[pod]["password"]
        return f"{hashlib.sha256(text.encode()).hexdigest()}  -\n"

    def get_namespaced_custom_object(self, group: str, *where: Any) -> Any:
        if group == "postgresql.cnpg.io":
            assert where[1:] == ("shop", "clusters", "orders")
            return {"status": {"currentPrimary": "postgres-1"}}
        return {"status": {"conditions": [{"type": "Ready", "message": "Vault is sealed"}]}}

    def patch_namespaced_custom_object(self, *where: Any) -> None:
        assert where[3:5] == ("externalsecrets", "account")
        if "operator" not in self.broken:
            self.fill()

    def fill(self) -> None:
        self.made += 1
        self.secret = {"username": f"user-{self.made}", "password": f"password-{self.made}"}

    # --- PostgreSQL ---------------------------------------------------------------------------------

    def answer(self, statement: str) -> str:
        if "pg_roles" in statement:
            assert "'^quote-app-[0-9]+-[^-]+$'" in statement
            assert "substr(rolname, 11), '-', 1)::bigint < 1700000000" in statement
            return "quote-app-1600000000-a\nquote-app-1600000001-b"
        if statement.startswith("drop role"):
            self.dropped.append(statement)
            return ""
        if "pg_authid" in statement:
            return hashlib.md5(self.verifier.encode()).hexdigest()  # noqa: S324
        return "\n".join(f"{address}|{user}" for address, users in self.connected.items() for user in users)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    found = Platform()
    monkeypatch.setattr("kubernetes.client.CustomObjectsApi", lambda _: found)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return found


@pytest.fixture
def rotate(platform: Platform) -> Callable[[], rotation.Rotated]:
    return lambda: Rotation(platform, "account", seconds=0.2).rotate(drain=0)  # type: ignore[arg-type]


def test_everybody_uses_the_new_user(platform: Platform, rotate: Callable[[], rotation.Rotated]) -> None:
    done = rotate()
    assert (done.before, done.user, done.pods, done.older) == ("user-0", "user-1", 2, 0)
    assert platform.asked == list(PODS)  # and not the one that is leaving


def test_a_kubelet_that_saw_the_old_secret_looks_again(
    platform: Platform, rotate: Callable[[], rotation.Rotated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "LOOK_AGAIN", 0.01)
    platform.looks = 3
    assert rotate().user == "user-1"


def test_a_user_that_is_replaced_once_more_is_not_waited_for(
    platform: Platform, rotate: Callable[[], rotation.Rotated]
) -> None:
    platform.again = 1
    assert rotate().user == "user-2"


def test_a_user_that_is_replaced_after_its_delivery_is_delivered_as_well(
    platform: Platform, rotate: Callable[[], rotation.Rotated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "LOOK_AGAIN", 60)  # no kubelet looks by itself
    answer = platform.answer

    def replaced(statement: str) -> str:
        if platform.made == 1 and platform.asked:
            platform.fill()
        return answer(statement)

    monkeypatch.setattr(platform, "answer", replaced)
    assert rotate().user == "user-2"
    assert platform.asked == [*PODS, *PODS]


def test_a_slow_delivery_leaves_the_time_to_connect(
    platform: Platform, rotate: Callable[[], rotation.Rotated], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, answer, asked = Rotation.deliver, platform.answer, []

    def slowly(self: Rotation, mounted: bool) -> None:
        deliver(self, mounted)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:  # a fake sleep is none
            pass

    def late(statement: str) -> str:
        if platform.asked:
            asked.append(statement)
        return "" if len(asked) == 1 else answer(statement)

    monkeypatch.setattr(Rotation, "deliver", slowly)
    monkeypatch.setattr(platform, "answer", late)
    assert rotate().user == "user-1"


def test_connections_of_earlier_users_are_counted(
    platform: Platform, rotate: Callable[[], rotation.Rotated]
) -> None:
    platform.connected["10.0.0.9"] = ["user-0"]
    assert rotate().older == 1


def test_earlier_users_that_vault_forgot_are_ended(platform: Platform) -> None:
    platform.secret["username"] = "quote-app-1700000000-current"
    found = Rotation(platform, "account").end_forgotten()  # type: ignore[arg-type]
    assert found == ["quote-app-1600000000-a", "quote-app-1600000001-b"]
    assert platform.dropped == [f'drop role "{name}"' for name in found]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("operator", "no other account is delivered (Vault is sealed); the one that is there is used"),
        ("quote-app-2", "quote-app-2 still has the old account"),
        ("connections of quote-app-1", "quote-app-1 (user-0) does not connect as the new user user-1"),
    ],
)
def test_who_is_late_is_named(
    platform: Platform, rotate: Callable[[], rotation.Rotated], broken: str, told: str
) -> None:
    platform.broken = {broken}
    with pytest.raises(Stuck) as stuck:
        rotate()
    assert told in str(stuck.value)


def test_a_password_changes_wherever_the_secret_has_it(platform: Platform) -> None:
    platform.secret = {
        "username": "quotes",
        "password": "old-password",
        "uri": "postgresql://quotes:old-password@h/q",
    }
    done = Rotation(platform, "owner", seconds=0.2).rotate_password(mounted=True)  # type: ignore[arg-type]
    assert (done.before, done.user) == ("quotes", "quotes")
    password = platform.secret["password"]
    assert len(password) == 40
    assert platform.secret["uri"] == f"postgresql://quotes:{password}@h/q"
    assert platform.mounted["quote-app-1"] == platform.secret


def test_a_database_that_does_not_take_the_password_is_named(platform: Platform) -> None:
    platform.broken = {"database"}
    with pytest.raises(Stuck, match="PostgreSQL does not take the new password of user-0"):
        Rotation(platform, "owner", seconds=0.2).rotate_password(mounted=False)  # type: ignore[arg-type]


def test_the_command_prints_no_password(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rotation, "Target", lambda *_, **__: platform)
    (tmp_path / "kubeconfig").touch()
    arguments = [
        "--kubeconfig",
        str(tmp_path / "kubeconfig"),
        "--namespace",
        "shop",
        "--secret",
        "account",
        "--seconds",
        "1",
    ]
    done = CliRunner().invoke(rotation.app, ["user", *arguments, "--drain", "0"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["user"] == "user-1"
    platform.broken = {"operator"}
    failed = CliRunner().invoke(rotation.app, ["user", *arguments])
    assert failed.exit_code == 1
    assert "no other account" in failed.stderr
    assert "password-" not in done.output + failed.output


def test_the_issuer_is_made_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def sql(statement: str) -> str:
        asked.append(statement)
        return str(int(any("grant quotes to vault" in one for one in asked)))

    work = Rotation(platform, "", seconds=0.2)  # type: ignore[arg-type]
    monkeypatch.setattr(work, "sql", sql)
    assert work.issuer("vault", "quotes", "the-password", dry_run=True)
    assert len(asked) == 1  # it has only looked
    assert work.issuer("vault", "quotes", "the-password", dry_run=False)
    assert not work.issuer("vault", "quotes", "the-password", dry_run=False)
    assert not any("the-password" in one for one in asked)


def test_an_issuer_that_is_refused_is_told_of(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Rotation(platform, "", seconds=0.2)  # type: ignore[arg-type]
    monkeypatch.setattr(work, "sql", lambda statement: "ERROR: no" if "grant" in statement else "0")
    with pytest.raises(Stuck, match="does not take the account vault: ERROR: no"):
        work.issuer("vault", "quotes", "the-password", dry_run=False)


def test_what_is_kept_of_a_password_is_as_postgresql_keeps_it() -> None:
    kept = digests.verifier("the-password")
    assert kept == digests.verifier("the-password") != digests.verifier("another")
    kind, salted, keys = kept.split("$")
    assert kind == "SCRAM-SHA-256"
    rounds, salt = salted.split(":")
    secret = hashlib.pbkdf2_hmac("sha256", b"the-password", base64.b64decode(salt), int(rounds))
    client = hmac.digest(secret, b"Client Key", "sha256")
    assert base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client).digest()
    assert base64.b64decode(keys.split(":")[1]) == hmac.digest(secret, b"Server Key", "sha256")
