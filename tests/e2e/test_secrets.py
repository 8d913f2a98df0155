"""Secrets from Vault: accounts that change while they are used, and a Vault that is away."""

import hashlib
import hmac
from base64 import b64decode, b64encode

import httpx
import pytest

from quote_platform.rotation import Rotation, Stuck, rotation

from .conftest import NAME, ROOT, Eventually, Lab, load, sql
from .test_platform import succeeded

PLAYBOOK = "playbooks/rotate-secrets.yml"
VAULT = "https://10.89.43.121:8200"
SECRETS = ROOT / "secrets" / NAME
AUDIENCE = "https://kubernetes.default.svc.cluster.local"


@pytest.fixture
def accounts(lab: Lab) -> Rotation:
    """Return the rotation of the application's account."""
    return rotation(SECRETS / "kubeconfig", "quote-lab", "quote-app-database", 60)


def takes(verifier: str, password: str) -> bool:
    """Tell whether PostgreSQL, which keeps this of a password, takes another one."""
    _, salted, keys = verifier.split("$")
    rounds, salt = salted.split(":")
    key = hmac.digest(
        hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(rounds)),
        b"Client Key",
        "sha256",
    )
    return b64encode(hashlib.sha256(key).digest()).decode() == keys.split(":")[0]


def users(lab: Lab) -> set[str]:
    """Return the users that Vault has made and not ended."""
    return set(sql(lab, "select rolname from pg_roles where rolname like 'quote-app-%'").split())


def test_a_dry_run_says_what_would_be_rotated(lab: Lab, accounts: Rotation) -> None:
    before = accounts.account()
    run = lab.play("dry run of a rotation", PLAYBOOK, "--check")
    succeeded(run)
    for words in (
        "vault, with which Vault creates users: a new password",
        "quote-app in quote-lab: another user of quotes",
        "quotes, the owner of the database: a new password",
    ):
        assert words in " ".join(run.output.split()), words
    assert accounts.account() == before


def test_the_application_may_read_its_own_account_and_nothing_else(lab: Lab) -> None:
    with httpx.Client(
        base_url=f"{VAULT}/v1/", verify=str(SECRETS / "certificates" / "authority.crt")
    ) as http:

        def login(account: str) -> httpx.Response:
            jwt = lab.kubectl(f"create token -n quote-lab {account} --audience {AUDIENCE}").strip()
            return http.post("auth/kubernetes/login", json={"role": "quote-app", "jwt": jwt})

        assert login("default").status_code == 403
        granted = login("quote-app").json()["auth"]
        http.headers["X-Vault-Token"] = granted["client_token"]
        assert granted["token_policies"] == ["quote-app"]
        for path in ("database/config/quotes", "database/roles/quote-app", "kv/data/other", "sys/mounts"):
            assert http.get(path).status_code == 403, path
        lease = http.get("database/creds/quote-app").json()
        assert lease["data"]["username"] in users(lab)


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.proof)])
def test_accounts_are_rotated_and_no_request_fails(lab: Lab, accounts: Rotation, rounds: int) -> None:
    seen, took = [accounts.account()["username"]], []
    vault, owner = SECRETS / "postgres-vault-password", Rotation(accounts.target, "postgres-app")
    old = {"vault": vault.read_text(), "quotes": owner.account()["password"]}
    # Vault does not know this one, as after a restore.
    sql(lab, 'create role \\"quote-app-1000000000-forgot\\" login in role quotes')
    with load(lab, "rotated") as answers:
        for _ in range(rounds - 1):
            result = accounts.rotate()
            # The database says so: every pod is connected as the new user.
            connected = accounts.sessions()
            assert all(result.user in connected[address] for address in accounts.pods().values())
            seen.append(result.user)
            took.append(result.seconds)
        # The last one by the playbook, along with the passwords of the owner and of Vault's account.
        succeeded(lab.play("rotation of all secrets", PLAYBOOK))
        seen.append(accounts.account()["username"])
    answers.none_failed()
    lab.steps.append((f"{len(took)} rotations, the slowest in {max(took)} s", sum(took)))
    assert len(set(seen)) == rounds + 1
    # The playbook has ended what was before, and the old passwords are not taken any more.
    assert users(lab) & {*seen, "quote-app-1000000000-forgot"} == {seen[-1]}
    new = {"vault": vault.read_text(), "quotes": owner.account()["password"]}
    for user, password in new.items():
        verifier = sql(lab, f"select rolpassword from pg_authid where rolname = '{user}'")  # noqa: S608
        assert takes(verifier, password), user
        assert not takes(verifier, old[user]), user
    # What users have made belongs to none of them.
    assert sql(lab, "select distinct tableowner from pg_tables where schemaname = 'public'") == "quotes"


@pytest.mark.proof
def test_a_sealed_vault_harms_nobody(lab: Lab, accounts: Rotation, eventually: Eventually) -> None:
    def ready() -> str:
        path = "{.status.conditions[?(@.type=='Ready')].status}"
        return lab.kubectl(f'get externalsecret -n quote-lab quote-app-database -o "jsonpath={path}"').strip()

    before = accounts.account()
    with load(lab, "rotated") as answers:
        lab.ssh("vault-1", "systemctl restart vault")  # it comes back sealed
        accounts.seconds = 5
        with pytest.raises(Stuck, match="the one that is there is used as before"):
            accounts.rotate()
        assert ready() == "False"
        states = lab.verify("vault", "delivered secret")
        assert "is sealed" in states["vault"]["detail"]
        assert states["delivered secret"]["status"] == "failed"
        # Even pods that start now have what they need.
        lab.kubectl("rollout restart -n quote-lab deployment/quote-app")
        lab.kubectl("rollout status -n quote-lab deployment/quote-app --timeout=120s")
        assert accounts.account() == before
        succeeded(lab.play("Vault unsealed", "playbooks/vault.yml"))
        accounts.seconds = 60
        assert accounts.rotate().user != before["username"]
    answers.none_failed()
    eventually(lambda: ready() == "True", 30, "the account is not delivered")
