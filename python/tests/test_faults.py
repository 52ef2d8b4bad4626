"""The daemon absent, restarting, slow, and something else in its place: a typed exception each, and the next call works."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import msgpack
import pytest
import zmq
from conftest import DEADLINE, Daemon, sleeper, wait_for
from fake import Answer, Fake, good, in_turn

from cgse_procman import (
    AsyncProcessManager,
    BadRequest,
    Busy,
    Internal,
    NoAnswer,
    ProcessManager,
    ProtocolError,
    Refused,
    Timeout,
    Unreachable,
    pool,
)

Make = Callable[[Answer], Fake]


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import shutil
    import tempfile

    directory = tempfile.mkdtemp(prefix="pmpy", dir="/tmp")
    yield f"ipc://{directory}/f.sock"
    shutil.rmtree(directory)


@pytest.fixture
def fake(endpoint: str) -> Iterator[Make]:
    made: List[Fake] = []

    def make(answer: Answer, **keys: Any) -> Fake:
        made.append(Fake(endpoint, answer, **keys))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_nobody_there(endpoint: str) -> None:
    manager = ProcessManager(endpoint, connect_timeout=0.05)
    for _ in range(2):
        with pytest.raises(Unreachable, match="no daemon at ipc://.*No such file or directory; is procmand running") as error:
            manager.ping()
        assert isinstance(error.value, ConnectionError) and isinstance(error.value.__cause__, FileNotFoundError)
    with pytest.raises(Unreachable, match="Connection refused"):
        ProcessManager(f"tcp://127.0.0.1:{closed_port()}", connect_timeout=0.05).ping()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_daemon_that_comes_late_is_found(stopped_daemon: Daemon) -> None:
    manager = ProcessManager(stopped_daemon.endpoint, connect_timeout=0.05)
    with pytest.raises(Unreachable):
        manager.ping()
    stopped_daemon.start()
    patient = ProcessManager(stopped_daemon.endpoint, connect_timeout=DEADLINE, timeout=DEADLINE)
    assert patient.ping().pong and manager.ping().pong


def test_a_frozen_daemon_is_a_time_out_and_then_works(daemon: Daemon, manager: ProcessManager) -> None:
    manager.register("web", sleeper())
    daemon.freeze()
    for _ in range(2):
        # The first over a connection that had been greeted, the second over one that never is.
        with pytest.raises(Timeout) as late:
            manager.within(0.2).execute("web")
        assert isinstance(late.value, TimeoutError) and isinstance(late.value, NoAnswer)
    daemon.thaw()
    assert manager.ping().pong


def test_what_was_not_answered_is_done_once(daemon: Daemon, manager: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.register("web", sleeper())
    daemon.freeze()
    with pytest.raises(Timeout) as late:
        manager.within(0.2).execute("web")
    daemon.thaw()
    executed = manager.ask_again(late.value)
    assert executed == manager.ask_again(late.value) and manager.status("web").pid == executed.pid
    assert [entry.outcome for entry in manager.audit("web") if entry.command == "execute"] == ["ok"]
    # Within one call, too: the request goes out again over a second socket.
    opened: List[pool.Link] = []

    class Counted(pool.Link):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr(pool, "Link", Counted)
    eager = ProcessManager(daemon.endpoint, ask_again=0.02, work_timeout=DEADLINE)
    eager.ping()
    daemon.freeze()
    answers: List[Any] = []
    thread = threading.Thread(target=lambda: answers.append(eager.restart("web", timeout=1)))
    thread.start()
    wait_for(lambda: len(opened) == 2, "the second socket")
    daemon.thaw()
    thread.join()
    assert manager.status("web").pid == answers[0].pid
    assert len([entry for entry in manager.audit("web") if entry.command == "restart"]) == 1


def test_over_a_restart_of_the_daemon(daemon: Daemon, manager: ProcessManager) -> None:
    manager.register("web", sleeper())
    pid = manager.execute("web").pid
    daemon.kill()
    with pytest.raises(Unreachable):
        ProcessManager(daemon.endpoint, connect_timeout=0.05).ping()
    daemon.start()
    # The same manager, on the socket that it had.
    assert manager.status("web").pid == pid
    assert manager.quit("web").returncode in (-15, None)


def test_killed_behind_a_request(daemon: Daemon) -> None:
    manager = ProcessManager(daemon.endpoint, connect_timeout=DEADLINE, ask_again=0.1)
    manager.register("web", {"cmd": ["sh", "-c", f"trap '' TERM; touch {daemon.directory}/up; while :; do sleep 0.1; done"], "stop_timeout": 60})
    manager.execute("web")
    wait_for((daemon.directory / "up").exists)
    outcome: List[Any] = []

    def ask() -> None:
        try:
            outcome.append(manager.quit("web", timeout=60))
        except Refused as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    other = ProcessManager(daemon.endpoint)
    wait_for(lambda: other.list(state="stopping"), "the quit")
    daemon.kill()
    daemon.start()
    thread.join()
    # The next daemon knows that it was begun, and carries it out; how far it had come nobody knows.
    assert isinstance(outcome[0], Internal) and outcome[0].begun_at is not None and abs(outcome[0].begun_at - time.time()) < 300
    assert manager.quit("web", timeout=0.1).survivors == 0


def test_gone_behind_a_request(endpoint: str, fake: Make) -> None:
    server = fake(lambda request: None)
    manager = ProcessManager(endpoint, connect_timeout=0.1, ask_again=0.1)
    errors: List[NoAnswer] = []

    def ask() -> None:
        try:
            manager.ping()
        except NoAnswer as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: server.requests)
    server._context.term()
    os.unlink(endpoint[len("ipc://") :]) if os.path.exists(endpoint[len("ipc://") :]) else None
    thread.join()
    assert isinstance(errors[0], Unreachable) and "went away before it answered ping" in str(errors[0])


def _not_utf8(request: Any) -> List[bytes]:
    return [b"\x81\xa1\xff\x01"]


def _deep(request: Any) -> List[bytes]:
    return [b"\x91" * 100_000 + b"\xc0"]


HOSTILE = {
    "empty": lambda request: [b""],
    "garbage": lambda request: [b"\xc1\xff\x00garbage"],
    "not-utf8": _not_utf8,
    "deep": _deep,
    "huge-length": lambda request: [b"\xdd\xff\xff\xff\xff"],
    "no-map": lambda request: [msgpack.packb([1, 2])],
    "empty-of-two": lambda request: [b"", b"more"],
    "trailing": lambda request: [good(request)[0] + b"\x00"],
    "another-id": lambda request: good(request, request_id="other"),
    "no-id": lambda request: [msgpack.packb({"success": True, "result": {"pong": True, "time": 1.0}})],
    "no-verdict": lambda request: [msgpack.packb({"request_id": request["request_id"]})],
    "success-1": lambda request: good(request, success=1),
    "ill-typed": lambda request: good(request, result={"pong": True, "time": "noon"}),
    "no-key": lambda request: good(request, result={"pong": True}),
    "no-result-map": lambda request: good(request, result=7),
    "bad-error": lambda request: good(request, success=False, error="no"),
    "no-error": lambda request: good(request, success=False),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_reply_is_said_so(answer: Answer, endpoint: str, fake: Make) -> None:
    fake(in_turn(answer, good, answer, good))
    manager = ProcessManager(endpoint)
    with pytest.raises(ProtocolError):
        manager.ping()
    assert manager.ping().pong

    async def awaited() -> None:
        async with AsyncProcessManager(endpoint) as twin:
            with pytest.raises(ProtocolError):
                await twin.ping()
            assert (await twin.ping()).pong

    asyncio.run(awaited())


def test_frames_too_many_do_not_stick_to_the_socket(endpoint: str, fake: Make) -> None:
    fake(lambda request: good(request) * 3)
    manager = ProcessManager(endpoint)
    assert all(manager.ping().pong for _ in range(3))


def test_a_late_answer_is_not_taken_for_the_next(endpoint: str, fake: Make) -> None:
    late = threading.Event()

    def slow(request: Any) -> List[bytes]:
        late.wait(DEADLINE)
        return good(request, result={"pong": False, "time": 0.0})

    server = fake(in_turn(slow, good))
    manager = ProcessManager(endpoint, ask_again=DEADLINE)
    with pytest.raises(Timeout):
        manager.within(0.1).ping()
    late.set()
    assert manager.ping().pong is True and len(server.requests) == 2


def test_the_same_is_asked_again(endpoint: str, fake: Make) -> None:
    server = fake(in_turn(lambda request: None, lambda request: None, good))
    assert ProcessManager(endpoint, ask_again=0.05, client="gui").ping().pong
    assert len(server.requests) == 3 and server.requests[0] == server.requests[1] == server.requests[2]
    assert server.requests[0]["client"] == "gui"


def test_errors_of_later_daemons(endpoint: str, fake: Make) -> None:
    fake(in_turn(
        lambda request: good(request, success=False, error={"code": "tired", "message": "go away", "more": 1}),
        lambda request: good(request, success=False, error={"code": "busy", "message": "so much to do"}),
        lambda request: [msgpack.packb({"success": False, "error": {"code": "bad_request", "message": "too large"}})],
    ))
    manager = ProcessManager(endpoint)
    with pytest.raises(Refused) as error:
        manager.ping()
    assert type(error.value) is Refused and error.value.code == "tired" and error.value.details == {}
    with pytest.raises(Busy, match="so much"):
        manager.ping()
    with pytest.raises(BadRequest, match="too large"):  # a request that could not be read has no id
        manager.ping()


def test_something_that_is_no_zeromq(endpoint: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(endpoint[len("ipc://") :])
        server.listen(64)
        with pytest.raises(Timeout, match="did not take ping within 0.3 seconds"):
            ProcessManager(endpoint, connect_timeout=0.05).within(0.3).ping()


def test_too_large_a_request_is_refused(manager: ProcessManager) -> None:
    with pytest.raises(BadRequest):
        manager.register("big", sleeper(env={"A": "x" * 2_000_000}))
    assert manager.ping().pong


def test_what_cannot_be_sent_is_told_before(manager: ProcessManager) -> None:
    with pytest.raises(ValueError):
        manager.register("odd", {"cmd": ["\udcff"]})
    with pytest.raises(TypeError):
        manager.request("ping", odd=object())
    assert manager.ping().pong


@pytest.mark.parametrize("wrong", ["", "ipc://", "ipc://@abstract", "tcp://host", "tcp://host:0", "tcp://host:70000", "inproc://x", "http://a:1"])
def test_what_is_no_endpoint(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint"):
        ProcessManager(wrong)


def test_the_default_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from cgse_procman import default_endpoint

    assert default_endpoint({"PROCMAN_ENDPOINT": "tcp://a:1"}, root=True) == "tcp://a:1"
    assert default_endpoint({"PROCMAN_ENDPOINT": ""}, root=True) == "ipc:///run/procman/control.sock"
    assert default_endpoint({"XDG_RUNTIME_DIR": "/r"}, root=False) == "ipc:///r/procman/control.sock"
    with pytest.raises(ValueError, match="PROCMAN_ENDPOINT"):
        default_endpoint({}, root=False)
    monkeypatch.setenv("PROCMAN_ENDPOINT", "ipc:///x")
    assert ProcessManager().endpoint == "ipc:///x"


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_curve(endpoint: str, fake: Any) -> None:
    public, secret = zmq.curve_keypair()
    fake(good, secret=secret)
    own_public, own_secret = zmq.curve_keypair()
    assert ProcessManager(endpoint, server_key=public).ping().pong
    assert ProcessManager(endpoint, server_key=public.decode(), public_key=own_public, secret_key=own_secret.decode()).ping().pong
    with pytest.raises(Timeout, match="with these keys"):
        ProcessManager(endpoint, server_key=own_public, connect_timeout=0.1).within(0.3).ping()
    with pytest.raises(Timeout):
        ProcessManager(endpoint, connect_timeout=0.1).within(0.3).ping()
    with pytest.raises(ValueError, match="server_key"):
        ProcessManager(endpoint, public_key=own_public, secret_key=own_secret)
    with pytest.raises(ValueError, match="Z85"):
        ProcessManager(endpoint, server_key="short")


def test_threads_and_forks_share_a_manager(manager: ProcessManager) -> None:
    threads = [threading.Thread(target=lambda: [manager.ping() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parent = manager.client
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            manager.ping()
            os.write(write, manager.client.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        name = pipe.read()
    os.waitpid(child, 0)
    assert name and name != parent, "another process is another client"
    assert manager.ping().pong and manager.client == parent


def test_nothing_is_left_open(daemon: Daemon) -> None:
    with ProcessManager(daemon.endpoint, connect_timeout=DEADLINE) as manager:
        manager.ping()
        manager.close()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            with ProcessManager(daemon.endpoint) as other:
                other.ping()
        wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 2, "closed sockets")
