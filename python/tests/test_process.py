"""The drop-in for egse.process, against the real daemon; and against the real egse.process, where CGSE is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from conftest import DEADLINE, Daemon, wait_for

from cgse_procman import AlreadyRunning, NoAnswer, ProcessManager, SpawnFailed, process
from cgse_procman.process import ProcessStatus, SubProcess, get_process_info, is_process_running, list_processes, list_zombies, names

try:
    import egse.process as reference
except ImportError:
    reference = None  # type: ignore[assignment,unused-ignore]

with_cgse = pytest.mark.skipif(reference is None, reason="CGSE is not installed")


@pytest.fixture(autouse=True)
def _drop_in(daemon: Daemon, manager: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A SubProcess has the environment of this program: what is left of one is found by this.
    monkeypatch.setenv("PMPY_MARKER", daemon.marker)
    process.use(manager)
    yield
    process.use(None)


def registered(manager: ProcessManager) -> List[str]:
    return [view.name for view in manager.list(group=names.GROUP)]


def test_from_its_start_to_its_end(manager: ProcessManager) -> None:
    proc = SubProcess("My App/1", ["sleep"], ["1000"])
    assert proc.name == "My App/1" and proc.pid is None and proc.exc_info == {} and proc.procman_name is None
    assert not proc.is_running() and not proc.exists() and proc.returncode() is None and proc.quit() == 0 and proc.children() == []
    assert proc.execute() is True and proc.exc_info == {}
    assert proc.is_running() and proc.exists() and not proc.is_dead_or_zombie() and proc.returncode() is None
    assert proc.cmdline() == "sleep 1000" and proc.pid and Path(f"/proc/{proc.pid}").exists()
    assert registered(manager) == [proc.procman_name] and str(proc.procman_name).startswith(f"My_App_1.{os.getpid()}-")
    assert manager.status(str(proc.procman_name)).uuid == proc.uuid
    pid = proc.pid
    assert proc.quit() == 0
    assert not proc.is_running() and not proc.exists() and proc.returncode() == -15 and proc.pid == pid
    assert registered(manager) == [], "it is forgotten"
    assert proc.execute() and proc.pid != pid and proc.returncode() is None, "and may be started again"
    assert proc.reap_children(timeout=1) == 0 and proc.returncode() == -15


@pytest.mark.parametrize("code", [0, 3])
def test_return_codes(code: int, manager: ProcessManager) -> None:
    proc = SubProcess("code", ["/bin/sh", "-c", f"exit {code}"])
    assert proc.execute() and proc.wait(DEADLINE) == code and proc.returncode() == code
    assert registered(manager) == []


def test_a_signal_is_a_negative_code() -> None:
    proc = SubProcess("signalled", ["sleep", "1000"])
    assert proc.execute() and proc.pid
    os.kill(proc.pid, signal.SIGKILL)
    wait_for(lambda: proc.returncode() == -9)
    assert proc.quit() == 0 and proc.returncode() == -9, "what was true stays true"


def test_one_that_ignores_sigterm_takes_its_children_along(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = daemon.directory / "ready"
    proc = SubProcess("stubborn", [f"trap '' TERM; sh -c 'trap \"\" TERM; touch {ready}; while :; do sleep 1; done' & wait; while :; do sleep 1; done"], shell=True)
    assert proc.execute()
    wait_for(ready.exists)
    pids = [child.pid for child in proc.children()]
    assert pids and proc.is_child(pids[0]) and not proc.is_child(1)
    assert [child.name() for child in proc.children(recursive=False)] and proc.children()[0].cmdline()
    assert proc.reap_children(timeout=0.2) == 0 and proc.returncode() == -9
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_cannot_be_started(manager: ProcessManager, tmp_path: Path) -> None:
    proc = SubProcess("no", ["/no/such/program"], ["x"])
    assert proc.execute() is False
    assert proc.exc_info["exc_type"] is FileNotFoundError and isinstance(proc.exc_info["exc_value"].__cause__, SpawnFailed)
    assert proc.exc_info["exc_traceback"] is not None and proc.exc_info["command"] == "/no/such/program x"
    plain = tmp_path / "plain"
    plain.write_text("text")
    proc = SubProcess("no", [plain])
    assert proc.execute() is False and proc.exc_info["exc_type"] is PermissionError
    assert SubProcess("no", []).execute() is False
    assert registered(manager) == [] and proc.returncode() is None


def test_twice_is_refused_and_loses_nothing() -> None:
    proc = SubProcess("twice", ["sleep", "1000"])
    assert proc.execute()
    pid = proc.pid
    assert proc.execute() is False and proc.exc_info["exc_type"] is AlreadyRunning
    assert proc.pid == pid and proc.is_running() and proc.quit() == 0


def test_the_same_name_twice(manager: ProcessManager) -> None:
    one, other = SubProcess("same", ["sleep", "1000"]), SubProcess("same", ["sleep", "1001"])
    assert one.execute() and other.execute() and one.pid != other.pid
    assert one.quit() == 0 and other.is_running() and other.quit() == 0


@pytest.mark.parametrize("name", ["", "ä ö", "a" * 200, "../x", None, 7])
def test_any_name_will_do(name: Any) -> None:
    proc = SubProcess(name, ["sleep", "1000"])
    assert proc.execute(), proc.exc_info
    assert proc.name == name and proc.quit() == 0


def test_what_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PMPY_EXTRA", "grüße")
    monkeypatch.setenv("PMPY_ODD", "\udcff")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        proc = SubProcess(
            "given", ["sh", "-c", "echo $PMPY_EXTRA; pwd; umask; id -u; readlink /proc/self/fd/0; echo \"$1\"", "sh"], [7], stdout=subprocess.PIPE
        )
        assert proc.execute(), proc.exc_info
    finally:
        os.umask(before)
    out, err = proc.communicate()
    assert (out, err) == (f"grüße\n{tmp_path}\n0027\n{os.geteuid()}\n/dev/null\n7\n", None) and proc.returncode() == 0


def test_outputs(tmp_path: Path) -> None:
    script = ["echo out; echo err >&2; printf end"]
    both = SubProcess("both", script, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert both.execute() and both.communicate() == ("out\nend", "err\n")
    one = SubProcess("one", script, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert one.execute() and one.communicate() == ("out\nerr\nend", None)
    with open(tmp_path / "file", "w") as file:
        into = SubProcess("file", script, shell=True, stdout=file, stderr=file.fileno())
        assert into.execute() and into.communicate() == (None, None)
    assert (tmp_path / "file").read_text() == "out\nerr\nend"
    read, write = os.pipe()
    pipe = SubProcess("pipe", script, shell=True, stdout=write)
    assert pipe.execute() is False and "no path" in str(pipe.exc_info["exc_value"])
    os.close(read)
    os.close(write)
    null = SubProcess("null", script, shell=True)
    assert null.execute() and null.communicate() == (None, None)
    own = SubProcess("own", ["true"], stdout=None)
    assert own.execute() and own.wait(DEADLINE) == 0


def test_no_file_of_a_pipe_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gc
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read = SubProcess("read", ["echo", "x"], stdout=subprocess.PIPE)
    assert read.execute() and list(tmp_path.iterdir()) and read.communicate()[0] == "x\n"
    assert not SubProcess("no", ["/no/such"], stdout=subprocess.PIPE, stderr=subprocess.PIPE).execute()
    assert not SubProcess("no", ["true"], stdout=subprocess.PIPE, stderr=object()).execute()
    assert not SubProcess("no", ["\udcff"], stdout=subprocess.PIPE).execute()
    dropped = SubProcess("dropped", ["true"], stdout=subprocess.PIPE)
    assert dropped.execute()
    del dropped
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_shell_joins_with_spaces() -> None:
    proc = SubProcess("shell", ["echo", "$((1 + 1))"], ["; exit 4"], shell=True, stdout=subprocess.PIPE)
    assert proc.execute() and proc.communicate()[0] == "2\n" and proc.returncode() == 4


def test_somebody_else_commands_it(manager: ProcessManager) -> None:
    proc = SubProcess("shared", ["sleep", "1000"])
    assert proc.execute() and proc.procman_name
    pid = proc.pid
    manager.restart(proc.procman_name)
    assert proc.is_running() and proc.returncode() is None and proc.pid != pid, "it is still the same sub-process"
    manager.unregister(proc.procman_name)
    assert not proc.is_running() and not proc.exists() and proc.returncode() == -15 and proc.quit() == 0
    assert proc.execute() and proc.procman_name
    manager.quit(proc.procman_name)
    assert not proc.is_running() and proc.returncode() == -15 and registered(manager) == []


def test_over_a_restart_of_the_daemon(daemon: Daemon, manager: ProcessManager) -> None:
    proc = SubProcess("lives", ["sleep", "1000"])
    assert proc.execute()
    pid = proc.pid
    daemon.kill()
    daemon.start()
    assert proc.is_running() and proc.pid == pid and proc.quit() == 0


def test_without_a_daemon(daemon: Daemon) -> None:
    process.use(ProcessManager(daemon.endpoint, connect_timeout=0.05))
    daemon.stop()
    proc = SubProcess("nobody", ["sleep", "1000"])
    assert proc.execute() is False and issubclass(proc.exc_info["exc_type"], NoAnswer)
    assert not proc.is_running() and proc.returncode() is None and proc.quit() == 0
    for ask in (lambda: list_processes("x"), lambda: get_process_info("x"), lambda: is_process_running("x"), list_zombies):
        with pytest.raises(NoAnswer):
            ask()
    daemon.start()


def script(daemon: Daemon, text: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PROCMAN_ENDPOINT": daemon.endpoint}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(text)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_the_children_of_a_script_that_ends(daemon: Daemon, manager: ProcessManager) -> None:
    done = script(daemon, """
        from cgse_procman.process import SubProcess
        over = SubProcess("over", ["true"])
        lives = SubProcess("lives", ["sleep", "1000"])
        assert over.execute() and lives.execute()
        while over.is_running(): pass  # nobody asks how it ended
        print(lives.pid, lives.procman_name)
    """)
    assert done.returncode == 0, done.stderr
    pid, name = done.stdout.split()
    assert registered(manager) == [name], "what has ended is forgotten, what runs runs on"
    assert manager.status(name).pid == int(pid)
    manager.quit(name)
    # The next one that uses SubProcess forgets it.
    assert script(daemon, "from cgse_procman.process import SubProcess; assert SubProcess('next', ['true']).execute()").returncode == 0
    assert [left for left in registered(manager) if left == name] == []


def test_finders(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    marker = f"finders-{daemon.marker}"
    procs = [SubProcess("f", [sys.executable, "-c", "import time; time.sleep(1000)"], [marker, str(i)]) for i in range(3)]
    assert all(proc.execute() for proc in procs)
    pids = sorted(proc.pid or 0 for proc in procs)
    wait_for(lambda: [entry["status"] for entry in list_processes(marker)] == ["sleeping"] * 3)
    assert [entry["pid"] for entry in list_processes(marker.upper())] == pids, "in their order, case aside"
    assert list_processes(marker.upper(), case_sensitive=True) == []
    assert [entry["pid"] for entry in get_process_info([marker, "2"], contains=False)] == [procs[2].pid]
    assert is_process_running((marker,)) == pids[0] and is_process_running(marker, as_list=True) == pids
    assert is_process_running(f"{marker} 1") == 0, "an item is looked for in single arguments"
    for nothing in ("", []):
        assert is_process_running(nothing) == 0 and is_process_running(nothing, as_list=True) == []
        assert list_processes(nothing) == [] and get_process_info(nothing) == []
    assert os.getpid() in is_process_running([""], as_list=True), "every process that has arguments"
    capsys.readouterr()
    list_processes([marker, "1"], contains=False, verbose=True)
    assert capsys.readouterr().out.splitlines()[0] == "PID                 Status Commandline"
    list_processes("no-such-" + marker, verbose=True)
    assert capsys.readouterr().out == f"No processes found for no-such-{marker}.\n"
    assert all(proc.quit() == 0 for proc in procs)


def test_zombies() -> None:
    zombie = subprocess.Popen(["true"])
    found = wait_for(lambda: [entry for entry in list_zombies() if entry["pid"] == zombie.pid])
    assert found == [{"pid": zombie.pid, "name": "true", "cmdline": []}] and is_process_running("true", contains=False) != zombie.pid
    zombie.wait()


def test_status() -> None:
    status = ProcessStatus()
    facts = status.as_dict()
    assert list(facts) == ["PID", "Up", "UUID", "RSS", "USS", "CPU User", "CPU System", "CPU count", "CPU%"]
    assert facts["PID"] == os.getpid() and 0 < facts["Up"] < 86400 and 0 < facts["USS"] <= facts["RSS"] and facts["CPU User"] > 0
    assert facts["UUID"].version == 1 and status.update() is status and status.as_dict()["Up"] >= facts["Up"]
    assert str(status).startswith(f"PID: {os.getpid()}, Up: ")
    ProcessStatus(metrics_prefix="twice")
    ProcessStatus(metrics_prefix="twice")


def test_status_under_the_daemon(daemon: Daemon) -> None:
    proc = SubProcess("own", [sys.executable, "-c", "from cgse_procman.process import ProcessStatus; print(ProcessStatus().as_dict()['UUID'])"], stdout=subprocess.PIPE)
    assert proc.execute()
    assert proc.communicate()[0] == f"{proc.uuid}\n", "the daemon and the process call it the same"


def test_the_demonstration(daemon: Daemon, tmp_path: Path) -> None:
    source = (Path(__file__).parent / "demonstration.py").read_text()
    environment = {**os.environ, "PROCMAN_ENDPOINT": daemon.endpoint}

    def run(text: str, marker: str) -> str:
        program = tmp_path / f"{marker}.py"
        program.write_text(text)
        done = subprocess.run([sys.executable, str(program), marker], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ours = run(source, f"demo-{daemon.marker}")
    assert "ended False 0" in ours and "failed False FileNotFoundError /no/such/program" in ours and "code 3" in ours
    if reference is not None:
        theirs = run(source.replace("from cgse_procman.process import", "from egse.process import"), f"reference-{daemon.marker}")
        assert ours == theirs


REFERENCE = {
    "get_process_info": "(items, contains=True, case_sensitive=False)",
    "is_process_running": "(items, contains=True, case_sensitive=False, as_list=False)",
    "list_processes": "(items, contains=True, case_sensitive=False, verbose=False)",
    "list_zombies": "()",
    "ProcessStatus": "(*, metrics_prefix=None)",
    "ProcessStatus.as_dict": "(self)",
    "ProcessStatus.update": "(self)",
    "ProcessStatus.update_metrics": "(self)",
    "SubProcess": "(name, cmd, args=None, shell=False, stdout=-3, stderr=-3)",
    "SubProcess.execute": "(self)",
    "SubProcess.exists": "(self)",
    "SubProcess.is_running": "(self)",
    "SubProcess.quit": "(self)",
    "SubProcess.reap_children": "(self, timeout=3)",
    "SubProcess.returncode": "(self)",
}
"""The signatures of the reference API, as its documentation has them; that of SubProcess as egse.process 0.25.11 has it."""


@pytest.mark.parametrize("name", REFERENCE)
def test_the_signatures_are_those_of_the_reference(name: str) -> None:
    import functools
    import inspect

    signature = inspect.signature(functools.reduce(getattr, name.split("."), process))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == REFERENCE[name]


def test_cgses_own_names() -> None:
    if reference is None:
        with pytest.raises(AttributeError, match="CGSE is not installed"):
            process.get_processes
    else:
        assert process.get_processes is reference.get_processes
    with pytest.raises(AttributeError):
        process.no_such_name


@with_cgse
def test_the_same_as_the_reference(daemon: Daemon) -> None:
    import inspect

    marker = f"compare-{daemon.marker}"
    others = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", marker, f"Number-{i}", "with space", ""]) for i in range(5)]
    zombie = subprocess.Popen(["true"])
    wait_for(lambda: [z for z in reference.list_zombies() if z["pid"] == zombie.pid])
    wait_for(lambda: [p["status"] for p in reference.list_processes(marker)] == ["sleeping"] * 5)
    try:
        asked: Any
        for asked in (marker, [marker], (marker, "NUMBER-3"), [marker, "Number-3"], [marker, "with space"], [f"{marker} Number"], [marker, ""], "", []):
            for contains in (True, False):
                for case_sensitive in (True, False):
                    arguments = (asked, contains, case_sensitive)
                    assert list_processes(*arguments) == reference.list_processes(*arguments), arguments
                    assert is_process_running(*arguments) == reference.is_process_running(*arguments), arguments
                    assert is_process_running(*arguments, as_list=True) == reference.is_process_running(*arguments, as_list=True), arguments
                    ours, theirs = get_process_info(*arguments), reference.get_process_info(*arguments)
                    for one, other in zip(ours, theirs):
                        assert abs(one.pop("create_time") - other.pop("create_time")) < 0.02
                    assert ours == theirs, arguments
        mine = [z for z in list_zombies() if z["pid"] == zombie.pid][0]
        theirs_ = [z for z in reference.list_zombies() if z["pid"] == zombie.pid][0]
        assert (mine["pid"], mine["name"], mine["cmdline"] or None) == (theirs_["pid"], theirs_["name"], theirs_["cmdline"] or None)
        for name in ("list_processes", "get_process_info", "is_process_running", "list_zombies"):
            ours_, theirs__ = inspect.signature(getattr(process, name)), inspect.signature(getattr(reference, name))
            assert [(p.name, p.default, p.kind) for p in ours_.parameters.values()] == [(p.name, p.default, p.kind) for p in theirs__.parameters.values()]
        for cls, other in ((SubProcess, reference.SubProcess), (ProcessStatus, reference.ProcessStatus)):
            for name, member in inspect.getmembers(other, inspect.isfunction):
                if not name.startswith("_") or name in ("__init__", "__str__"):
                    same = getattr(cls, name)
                    assert [(p.name, p.default, p.kind) for p in inspect.signature(member).parameters.values()] == [
                        (p.name, p.default, p.kind) for p in inspect.signature(same).parameters.values()
                    ], (cls, name)
    finally:
        for process_ in others:
            process_.kill()
            process_.wait()
        zombie.wait()


@with_cgse
def test_the_status_is_that_of_the_reference() -> None:
    ours, theirs = ProcessStatus(metrics_prefix="ours"), reference.ProcessStatus(metrics_prefix="theirs")
    one, other = ours.as_dict(), theirs.as_dict()
    assert list(one) == list(other) and one["PID"] == other["PID"] and one["CPU count"] == other["CPU count"]
    assert abs(one["Up"] - other["Up"]) < 1.5 and abs(one["RSS"] - other["RSS"]) < 5e6 and abs(one["USS"] - other["USS"]) < 5e6
    assert sorted(ours.metrics) == sorted(theirs.metrics)
    assert [part.split(":")[0] for part in str(ours).split(", ")] == [part.split(":")[0] for part in str(theirs).split(", ")]
    from egse.bits import humanize_bytes
    from egse.system import humanize_seconds

    from cgse_procman.process.status import _duration, _size

    for number in (0, 1, 55, 1023, 1024, 1_000_000_000, 5 * 1024**4):
        assert _size(number) == humanize_bytes(number)
    for seconds in (0.0, 20.0, 61.5, 3600.25, 10 * 86400 + 3 * 3600 + 42.023):
        assert _duration(seconds) == humanize_seconds(seconds)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_user_is_that_of_the_caller(daemon: Daemon) -> None:
    os.chmod(daemon.directory, 0o755)
    os.chmod(daemon.endpoint[len("ipc://") :], 0o666)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.chdir("/")
            proc = SubProcess("whoami", ["id", "-u"], stdout=subprocess.PIPE)
            answer = proc.communicate()[0] if proc.execute() else repr(proc.exc_info)
            os.write(write, str(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told == "65534\n"
