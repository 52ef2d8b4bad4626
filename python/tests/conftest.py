"""A real daemon for each test that wants one, on a directory of its own; and proof that nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

import pytest

from cgse_procman import ProcessManager

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds in which whatever is waited for comes about, on a busy machine."""


def procmand() -> Path:
    """The daemon's program."""
    here = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("PROCMAND") or here.parent / "target" / "debug" / "procmand")


def wait_for(fact: Callable[[], T], what: str = "it") -> T:
    """Waits until a fact holds, and answers it."""
    deadline = time.monotonic() + DEADLINE
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came about; the last was {value!r}")
        time.sleep(0.005)


class Daemon:
    """A procmand on a directory below /tmp: a path of a Unix socket holds 107 bytes at most."""

    def __init__(self, events: bool = True, tcp: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pmpy", dir="/tmp"))
        self.endpoint = f"ipc://{self.directory}/c.sock"
        self.marker = self.directory.name
        endpoints = [self.endpoint] + (["tcp://127.0.0.1:*"] if tcp else [])
        published = [f"ipc://{self.directory}/e.sock"] + (["tcp://127.0.0.1:*"] if tcp else []) if events else []
        (self.directory / "procmand.toml").write_text(
            f"""
[daemon]
state_dir = "{self.directory}/state"
runtime_dir = "{self.directory}/run"
[control]
endpoints = {endpoints}
[events]
endpoints = {published}
[metrics]
listen = ""
""".replace("'", '"')
        )
        self.process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Starts the program, and waits for nothing."""
        assert self.process is None
        with open(self.directory / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(procmand()), "--config", str(self.directory / "procmand.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # By this all that it starts is found at the end, whatever became of it.
                env={**os.environ, "PMPY_MARKER": self.marker, "PROCMAN_LOG": "debug"},
            )

    def kill(self) -> None:
        """kill -9: what it had started lives on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM: everything is quit. Answers the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def wait_exit(self) -> int:
        """Waits for a daemon that was asked to leave."""
        assert self.process is not None
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def freeze(self) -> None:
        """SIGSTOP: it is there, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the stop")

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def left(self) -> Dict[int, str]:
        """The processes that bear the mark, by PID."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if f"PMPY_MARKER={self.marker}\0".encode() in (entry / "environ").read_bytes():
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    pass
        return found

    def end(self) -> None:
        """Stops it in any case, and proves that nothing is left."""
        try:
            if self.process is not None:
                self.stop()
            left = self.left()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            assert not left, f"left running: {left}"
        finally:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def stopped_daemon() -> Iterator[Daemon]:
    """A daemon that is not started yet."""
    daemon = Daemon()
    yield daemon
    daemon.end()


@pytest.fixture
def daemon(stopped_daemon: Daemon) -> Daemon:
    """A daemon."""
    stopped_daemon.start()
    return stopped_daemon


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[ProcessManager]:
    """A client of it."""
    with ProcessManager(daemon.endpoint, connect_timeout=DEADLINE) as manager:
        manager.ping()
        yield manager


def sleeper(seconds: int = 1000, **more: Any) -> Any:
    """A definition that does nothing for long."""
    return {"cmd": ["sleep", str(seconds)], **more}
