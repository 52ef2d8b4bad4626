"""Events: none is missed, over a broken connection or a restart of the daemon."""

from __future__ import annotations

import threading
from typing import Any, List

import pytest
from conftest import DEADLINE, Daemon, sleeper, wait_for

from cgse_procman import Missed, Noted, NoAnswer, ProcessManager, StateChanged
from cgse_procman.endpoint import beside
from cgse_procman.follow import Place, published
from cgse_procman.records import Replay


class Follower:
    """Collects events in a thread until one is the last."""

    def __init__(self, manager: ProcessManager, last: str, **arguments: Any) -> None:
        self.seen: List[Any] = []
        self._last = last
        self._events = manager.events(**arguments)
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        for event in self._events:
            self.seen.append(event)
            if isinstance(event, StateChanged) and event.name == self._last and event.to == "running":
                return

    def of(self, name: str) -> List[str]:
        return [event.to for event in list(self.seen) if isinstance(event, StateChanged) and event.name == name]

    def join(self) -> None:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), self.seen


@pytest.fixture(params=["published", "asked"])
def either(request: pytest.FixtureRequest) -> Any:
    """A daemon that publishes events, and one that does not."""
    daemon = Daemon(events=request.param == "published")
    daemon.start()
    yield daemon
    daemon.end()


def test_over_a_kill_and_a_restart(either: Daemon) -> None:
    manager = ProcessManager(either.endpoint, connect_timeout=DEADLINE, timeout=DEADLINE, ask_again=0.1)
    for name in ("a", "b", "last"):
        manager.register(name, sleeper())
    follower = Follower(manager, "last", since=1, idle=0.1)
    manager.execute("a")
    wait_for(lambda: follower.of("a") == ["starting", "running"], "the events of the first daemon")
    first = manager.info().uuid
    either.kill()
    either.start()
    manager.execute("b")
    manager.quit("b")
    manager.execute("last")
    follower.join()
    assert follower.of("b") == ["starting", "running", "stopping", "stopped"] and follower.of("a")[-1] == "running"
    runs = [event.daemon for event in follower.seen]
    second = manager.info().uuid
    assert set(runs) == {first, second} and runs == sorted(runs, key=[first, second].index)
    [missed] = [event for event in follower.seen if isinstance(event, Missed)]
    assert missed.former == first and missed.daemon == second
    for run in (first, second):
        numbers = [event.seq for event in follower.seen if not isinstance(event, Missed) and event.daemon == run]
        assert numbers == list(range(1, len(numbers) + 1)), "each once, without a gap"
    assert [event.event for event in follower.seen if isinstance(event, Noted) and event.event == "recovered"]


def test_over_an_upgrade(either: Daemon) -> None:
    manager = ProcessManager(either.endpoint, connect_timeout=DEADLINE, timeout=DEADLINE, ask_again=0.1)
    manager.register("last", sleeper())
    first = manager.info().uuid
    follower = Follower(manager, "last", idle=0.1)
    manager.upgrade()
    wait_for(lambda: manager.info().uuid != first, "the other program")
    manager.execute("last")
    follower.join()


def test_a_subscriber_that_stands_still_misses_nothing(daemon: Daemon, manager: ProcessManager) -> None:
    manager.register("web", {"cmd": ["true"]})
    events = manager.events(since=1, idle=0.1)
    manager.execute("web", wait=True)
    seen = [next(events).seq]  # it listens from here on, and does not read
    for _ in range(30):
        wait_for(lambda: manager.list(state="exited"))
        manager.execute("web", wait=True)
    manager.register("end", sleeper())
    manager.execute("end")
    for event in events:
        seen.append(event.seq if not isinstance(event, Missed) else -1)
        if isinstance(event, StateChanged) and event.name == "end" and event.to == "running":
            break
    assert seen == list(range(1, len(seen) + 1)) and len(seen) > 90


def test_from_now_on(manager: ProcessManager) -> None:
    manager.register("old", sleeper())
    manager.execute("old")
    assert list(manager.events(quiet=0.1, idle=0.05)) == []
    manager.register("last", sleeper())
    follower = Follower(manager, "last", idle=0.05)
    # Whether it listens already cannot be seen from outside: start and stop until it has.
    while follower.thread.is_alive():
        manager.execute("last")
        manager.quit("last")
    assert follower.of("old") == []


def test_patience_ends(daemon: Daemon) -> None:
    manager = ProcessManager(daemon.endpoint, connect_timeout=DEADLINE)
    manager.ping()
    hasty = ProcessManager(daemon.endpoint, connect_timeout=0.05)
    events = hasty.events(since=1, idle=0.05, patience=0.1)
    manager.register("web", sleeper())
    manager.execute("web")
    assert isinstance(next(events), StateChanged)
    daemon.stop()
    with pytest.raises(NoAnswer):
        for _ in events:
            pass
    daemon.start()


def test_nobody_there(stopped_daemon: Daemon) -> None:
    with pytest.raises(NoAnswer):
        next(ProcessManager(stopped_daemon.endpoint, connect_timeout=0.05).events())


def _event(seq: int, daemon: str = "a") -> StateChanged:
    return StateChanged(seq, 0.0, "web", "stopped", "starting", None, None, None, None, daemon)


def test_the_place_in_the_sequence() -> None:
    place = Place()
    assert place.replay(Replay([_event(1), _event(2)], 3, True, "a")) == [_event(1), _event(2)]
    assert place.published(_event(2)) is None and not place.must_ask(_event(2)), "known already"
    assert place.published(_event(3)) == _event(3)
    assert place.published(_event(5)) is None and place.must_ask(_event(5)), "there is a 4"
    assert place.replay(Replay([_event(4), _event(5)], 6, True, "a")) == [_event(4), _event(5)]
    assert place.published(_event(6, "b")) is None and place.must_ask(_event(1, "b")), "another run"
    assert place.replay(Replay([_event(1, "b")], 2, False, "b")) == [Missed(6, "a", "b"), _event(1, "b")]


def test_where_a_wildcard_is_reached() -> None:
    assert beside("tcp://lab:4269", "tcp://0.0.0.0:5000") == "tcp://lab:5000"
    assert beside("tcp://lab:4269", "tcp://127.0.0.1:5000") == "tcp://127.0.0.1:5000"


def test_over_tcp() -> None:
    daemon = Daemon(tcp=True)
    try:
        daemon.start()
        local = ProcessManager(daemon.endpoint, connect_timeout=DEADLINE)
        [tcp] = [endpoint for endpoint in local.info().endpoints if endpoint.startswith("tcp://")]
        manager = ProcessManager(tcp)
        manager.register("last", sleeper())
        follower = Follower(manager, "last", since=1, idle=DEADLINE)
        manager.execute("last")
        # What came before the subscription took effect is asked for after `idle`; some more events, then, until one is published.
        while follower.thread.is_alive():
            manager.signal("last", "CONT")
            manager.restart("last")
            follower.thread.join(0.05)
        assert follower.of("last")[:2] == ["starting", "running"]
    finally:
        daemon.end()


@pytest.mark.parametrize("frames", [[], [b"t"], [b"t", b""], [b"t", b"\xc1"], [b"t", b"\x91" * 5000 + b"\xc0"], [b"t", b"\x80"], [b"t", b"\x93\x01\x02\x03"], [b"t", b"\x80", b""]])
def test_what_is_no_event_is_passed_over(frames: List[bytes]) -> None:
    assert published(frames) is None
