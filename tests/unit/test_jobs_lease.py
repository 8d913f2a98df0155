"""The Lease in the cluster, against a small server that keeps the API's rules of versions and conflicts."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_double import ApiHandler

from quote_platform.jobs import lease
from quote_platform.jobs.definition import plan
from quote_platform.jobs.lease import Keeper, Lease
from quote_platform.jobs.lock import Held
from quote_platform.jobs.record import Store

ROOT = Path(__file__).resolve().parents[2]
PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


class Server(ThreadingHTTPServer):
    """Holds at most one Lease."""

    lease: dict[str, Any] | None = None
    version = 0
    writes = 0
    broken = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.guard = threading.Lock()

    def put(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.lease = lease
        return lease

    def set(self, **spec: Any) -> None:
        """Change the Lease as another controller does."""
        with self.guard:
            assert self.lease
            self.put(self.lease | {"spec": self.lease["spec"] | spec})


class Handler(ApiHandler):
    server: Server

    def handle_one(self) -> None:
        body = self.given()
        with self.server.guard:
            held = self.server.lease
            if self.server.broken:
                self.answer(503, {})
            elif self.command == "POST":
                assert self.path == PATH
                self.answer(409, {}) if held else self.answer(201, self.server.put(body))
            else:
                assert self.path == f"{PATH}/quote-platform-job"
                if held is None:
                    self.answer(404, {})
                elif self.command == "GET":
                    self.answer(200, held)
                elif body["metadata"].get("resourceVersion") != held["metadata"]["resourceVersion"]:
                    self.answer(409, {})
                else:
                    self.answer(200, self.server.put(body))

    do_GET = do_POST = do_PUT = handle_one


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(lease, "WATCH", 0.5)
    monkeypatch.setattr(lease, "RENEW", 0.05)
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


class Controller:
    """A controller with a state of its own, and a kubeconfig."""

    def __init__(self, folder: Path, server: Server) -> None:
        folder.mkdir()
        self.folder, self.store = folder, Store(folder / "jobs")
        cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "one", "cluster": cluster}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "current-context": "one",
            "users": [{"name": "one", "user": {"token": "none"}}],
        }
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(content))

    def lease(self) -> Lease:
        wanted, variables = plan("converge", ROOT, ROOT / "inventories" / "production", [])
        record = self.store.create(wanted, variables).model_copy(update={"scratch": str(self.folder)})
        return Lease(self.kubeconfig, self.store, record)


@pytest.fixture
def pair(tmp_path: Path, server: Server) -> tuple[Controller, Controller]:
    return Controller(tmp_path / "a", server), Controller(tmp_path / "b", server)


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_another_controller_is_refused_by_owner_job_and_start(pair: tuple[Controller, Controller]) -> None:
    first, second = (one.lease() for one in pair)
    first.take()
    with pytest.raises(Held) as refusal:
        second.take()
    owner, job, start = (first.annotations[f"quote-platform/{name}"] for name in ("owner", "job", "start"))
    assert str(refusal.value).startswith(f"job {job} of {owner}, since {start}, holds it (Lease kube-system/")
    first.release()
    second.take()
    assert not first.held
    assert second.held


def test_a_lease_of_the_dead_is_taken_over_and_counted(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    first, second = (one.lease() for one in pair)
    first.take()
    server.set(renewTime=at(-61))
    began = time.monotonic()
    second.take()
    assert time.monotonic() - began >= 0.5  # it was watched
    assert server.lease
    assert server.lease["spec"]["holderIdentity"] == second.holder
    assert server.lease["spec"]["leaseTransitions"] == 1
    with pytest.raises(Held):
        first.renew()


def test_a_holder_whose_clock_is_behind_is_not_taken_for_dead(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    first, second = (one.lease() for one in pair)
    first.take()
    server.set(renewTime=at(-3600))
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.05):
            server.set(renewTime=at(-3590))

    signs = threading.Thread(target=live)
    signs.start()
    with pytest.raises(Held):
        second.take()
    over.set()
    signs.join()


def test_a_dead_job_of_the_same_controller_holds_nothing(pair: tuple[Controller, Controller]) -> None:
    dead, next_one = pair[0].lease(), pair[0].lease()
    dead.take()
    next_one.take()  # at once: the lock on the controller says that the other is dead
    assert next_one.held


def test_of_two_controllers_at_the_same_moment_exactly_one_has_it(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    for _ in range(20):
        leases = [one.lease() for one in pair]
        barrier = threading.Barrier(2)
        outcome: list[bool] = []

        def contend(
            lease: Lease, barrier: threading.Barrier = barrier, outcome: list[bool] = outcome
        ) -> None:
            barrier.wait()
            try:
                lease.take()
                outcome.append(True)
            except Held:
                outcome.append(False)

        threads = [threading.Thread(target=contend, args=[lease]) for lease in leases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome) == [False, True]
        for one in leases:
            one.release()


def keeping(controller: Controller) -> tuple[Keeper, list[str]]:
    """Return who keeps a lease that was taken, and what is said when it is lost."""
    lease = controller.lease()
    lease.take()
    lost: list[str] = []
    keeper = Keeper(lease, lost.append)
    keeper.start()
    return keeper, lost


def test_it_is_renewed_while_the_job_runs_and_an_api_that_restarts_is_waited_for(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    keeper, lost = keeping(pair[0])
    deadline = time.monotonic() + 10
    for state in (False, True, False):
        server.broken = state
        before = server.writes
        while not state and server.writes < before + 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2 * state)
    server.lease = None  # somebody has deleted it
    while server.lease is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    keeper.stop()
    assert lost == []
    assert server.lease["spec"]["holderIdentity"] == ""


def test_a_job_whose_lease_another_has_taken_is_told(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    keeper, lost = keeping(pair[0])
    server.set(holderIdentity="other/job", renewTime=at(0))
    keeper.join(10)
    assert len(lost) == 1
    keeper.stop()
    assert server.lease
    assert server.lease["spec"]["holderIdentity"] == "other/job"  # not freed by us


def test_a_cluster_that_is_being_built_is_held_as_soon_as_it_answers(
    pair: tuple[Controller, Controller], server: Server
) -> None:
    kept = pair[0].kubeconfig.rename(pair[0].folder / "later")
    lease = pair[0].lease()
    keeper = Keeper(lease, lambda _: None)
    keeper.start()
    time.sleep(0.2)
    assert server.writes == 0
    kept.rename(pair[0].kubeconfig)
    deadline = time.monotonic() + 10
    while not lease.held:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    keeper.stop()


def test_an_api_that_does_not_answer_is_said(pair: tuple[Controller, Controller], server: Server) -> None:
    lease = pair[0].lease()
    server.broken = True
    with pytest.raises(OSError, match="the API server answers 503"):
        lease.take()
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="the API server does not answer"):
        pair[0].lease().take()
