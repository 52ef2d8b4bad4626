"""Every command of the protocol, against the real daemon."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Daemon, procmand, sleeper, wait_for

from cgse_procman import (
    AlreadyExists,
    AlreadyRunning,
    BadRequest,
    NotFound,
    NotInTime,
    NotRunning,
    ProcessManager,
    Refused,
    ShuttingDown,
    SpawnFailed,
    UnknownCommand,
    UnsupportedVersion,
    calls,
)
from cgse_procman.records import Ended, RefusedOne


def test_there_is_a_method_for_every_command() -> None:
    protocol = Path(__file__).resolve().parents[2] / "proto" / "PROTOCOL.md"
    if not protocol.exists():
        pytest.skip("this is not the repository")
    table = protocol.read_text().partition("<!-- table: commands -->")[2].partition("\n\n")[0]
    commands = set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE))
    assert len(commands) >= 26
    for command in commands:
        assert hasattr(calls, command) or hasattr(calls, command + "_"), command
        assert hasattr(ProcessManager, "replay" if command == "events" else command), command


def test_every_command(daemon: Daemon, manager: ProcessManager) -> None:
    assert manager.ping().pong and abs(manager.ping().time - time.time()) < 60
    info = manager.info()
    assert info.protocol == 1 and daemon.endpoint in info.endpoints and info.capabilities.subreaper
    assert daemon.process is not None and info.pid == daemon.process.pid and set(info.counts) >= {"running", "stopped"}

    marker = f"every-{daemon.marker}"
    script = f"sleep 1000 & echo {marker} >/dev/null; wait"
    view = manager.register("py", {"group": "lab", "cmd": ["/bin/sh", "-c", script], "env": {"SECRET": "x"}, "stop_timeout": 2})
    assert (view.name, view.group, view.state, view.wanted, view.pid, view.returncode) == ("py", "lab", "stopped", "down", None, None)
    assert manager.register("py", {"group": "lab", "cmd": ["/bin/sh", "-c", script], "env": {"SECRET": "x"}, "stop_timeout": 2}) == view
    with pytest.raises(AlreadyExists):
        manager.register("py", {"cmd": ["true"]})
    with pytest.raises(BadRequest, match="comand"):
        manager.register("x", {"comand": ["true"]})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(NotFound):
        manager.execute("nobody")

    assert manager.returncode("py") is None and not manager.exists("py") and not manager.is_running("py")
    started = manager.execute("py", args=["extra"], env={"RUN": "1"})
    assert started.name == "py" and started.state == "running" and Path(f"/proc/{started.pid}").exists()
    with pytest.raises(AlreadyRunning) as already:
        manager.execute("py")
    assert already.value.pid == started.pid and str(already.value) == already.value.message
    assert manager.exists("py") and manager.is_running("py") and manager.returncode("py") is None
    child = wait_for(lambda: [c for c in manager.children("py") if c.name == "sleep"], "the child")[0]
    assert child.cmdline == ["sleep", "1000"]

    assert [v.pid for v in manager.list(group="lab")] == [started.pid] and manager.list(state="fatal") == []
    status = wait_for(lambda: next((s for s in [manager.status("py").status] if s and s.tree.processes == 2), None))
    assert status.pid == started.pid and status.uuid == started.uuid and status.memory.rss > 0 and status.cpu.user >= 0
    everything = manager.status()
    assert everything.daemon.pid == info.pid and [v.name for v in everything.processes] == ["py"] and everything.store_problem is None

    found = wait_for(lambda: [p for p in manager.processes([marker.upper(), "/bin/SH"]) if p.status == "sleeping"])
    assert found[0].pid == started.pid and marker in found[0].cmdline
    assert manager.processes(marker.upper(), case_sensitive=True) == [] and manager.processes(marker, contains=False) == []
    [facts] = manager.process_info(marker)
    assert facts.pid == started.pid and facts.cmdline[0] == "/bin/sh" and abs(facts.create_time - time.time()) < 60
    assert manager.is_process_running(marker) == started.pid and manager.pids_running((marker,)) == [started.pid]
    assert manager.is_process_running([]) == 0 and manager.pids_running("") == []

    zombie = subprocess.Popen(["/bin/true"])  # not waited for yet
    wait_for(lambda: [z for z in manager.zombies() if z.pid == zombie.pid and z.name == "true"], "the zombie")
    zombie.wait()

    assert manager.signal("py", signal.SIGCONT).signalled == [started.pid]
    assert set(manager.signal("py", "CONT", tree=True).signalled) == {started.pid, child.pid}
    with pytest.raises(BadRequest):
        manager.signal("py", "NOPE")

    again = manager.restart("py", args=["other"], timeout=1)
    assert again.pid != started.pid
    child = wait_for(lambda: [c for c in manager.children("py") if c.name == "sleep"], "the child")[0]
    reaped = manager.reap("py", children_only=True)
    assert reaped.survivors == 0 and child.pid in reaped.terminated
    wait_for(lambda: manager.list(state="exited"), "its end")

    manager.execute("py")
    ended = manager.quit("py", timeout=5)
    assert (ended.survivors, ended.returncode, ended.signal) == (0, -15, 15) and manager.returncode("py") == -15
    with pytest.raises(NotRunning):
        manager.signal("py", "HUP")
    assert [run.name for run in manager.history("py", limit=2)] == ["py", "py"] and manager.history()[0].ended_by == "quit"
    assert [e.name for e in manager.quit_all() if isinstance(e, Ended)] == ["py"] and len(manager.quit_group("lab")) == 1
    assert len(manager.restart_group("lab", timeout=1)) == 1 and len(manager.restart_all(timeout=1)) == 1
    with pytest.raises(NotFound):
        manager.quit_group("nobody")
    assert manager.reap("py", timeout=1).survivors == 0

    manager.register("broken", {"cmd": ["/no/such/program"]})
    with pytest.raises(SpawnFailed) as failed:
        manager.execute("broken")
    assert (failed.value.errno_name, failed.value.errno, failed.value.command) == ("ENOENT", 2, "/no/such/program")
    entries = manager.restart_all()
    refused = [e for e in entries if isinstance(e, RefusedOne)]
    assert [(r.name, type(r.error)) for r in refused] == [("broken", SpawnFailed)]
    assert manager.unregister("broken") == "broken"
    with pytest.raises(NotFound):
        manager.unregister("broken")

    manager.register("late", sleeper(ready={"file": str(daemon.directory / "never")}))
    with pytest.raises(NotInTime):
        manager.execute("late", wait=True, timeout=0.05)
    manager.unregister("late")

    views = manager.register_instances("many", sleeper(args=["%i"]), 2)
    assert [v.name for v in views] == ["many@1", "many@2"]
    with pytest.raises(ValueError):
        manager.register("many", sleeper(instances=2))
    for view in views:
        manager.unregister(view.name)

    with pytest.raises(UnknownCommand) as unknown:
        manager.request("exceute", name="py")
    assert unknown.value.nearest == "execute"
    with pytest.raises(UnsupportedVersion):
        manager.request("ping", version=99)
    assert manager.request("ping")["pong"] is True

    replay = manager.replay()
    assert replay.complete and [e.seq for e in replay.events] == list(range(1, replay.next)) and replay.daemon == info.uuid
    assert manager.replay(replay.next, replay.daemon, limit=5).events == []

    manager.register("loud", {"cmd": ["sh", "-c", "echo hello; exec sleep 100"], "stdout": "log"})
    manager.execute("loud")
    lines = wait_for(lambda: [answer for answer in [manager.logs("loud", lines=3)] if answer.lines])[0]
    assert (lines.lines, lines.offset, lines.truncated) == (["hello"], 6, False)
    manager.unregister("loud")

    plan = manager.reload(dry_run=True)
    assert plan == manager.reload() and plan.added == []
    trail = manager.audit(limit=3)
    assert [entry.command for entry in trail] == ["reload", "unregister", "execute"] and manager.audit("py")

    with pytest.raises(BadRequest):
        manager.shutdown("sell")
    pid = manager.status("py").pid  # restart_all has started it
    assert pid
    manager.upgrade()
    wait_for(lambda: manager.info().uuid != info.uuid, "the other program")
    assert manager.info().pid == info.pid and manager.status("py").pid == pid

    manager.shutdown("quit")
    assert daemon.wait_exit() == 0


def test_a_wrong_configuration_is_told_in_full(daemon: Daemon, manager: ProcessManager) -> None:
    with open(daemon.directory / "procmand.toml", "a") as file:
        file.write('[[process]]\nname = "a"\ncomand = []\n')
    with pytest.raises(BadRequest) as wrong:
        manager.reload()
    assert wrong.value.mistakes and "procmand.toml" in wrong.value.mistakes[0]


def test_a_leaving_daemon_says_so(daemon: Daemon, manager: ProcessManager) -> None:
    # It ignores SIGTERM, so the daemon waits for its stop_timeout.
    manager.register("slow", {"cmd": ["sh", "-c", f"trap '' TERM; touch {daemon.directory}/up; while :; do sleep 0.1; done"], "stop_timeout": 2})
    manager.execute("slow")
    wait_for((daemon.directory / "up").exists)
    manager.shutdown()
    with pytest.raises(ShuttingDown):
        manager.execute("slow")
    assert daemon.wait_exit() == 0


def test_errors_survive_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(SpawnFailed("spawn_failed", "no", {"errno": 2})))
    assert isinstance(error, Refused) and error.errno == 2 and str(error) == "no" and error.code == "spawn_failed"


def test_the_program_is_there() -> None:
    assert os.access(procmand(), os.X_OK), f"{procmand()} is missing: build it, or name it in PROCMAND"
