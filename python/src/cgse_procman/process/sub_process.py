"""`SubProcess`: the sub-process of `egse.process`, under the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from ..client import ProcessManager
from ..definition import Definition
from ..endpoint import is_local
from ..errors import NotFound, Refused, SpawnFailed
from ..records import Executed, Missed, NamedProcess, ViewWithStatus
from . import daemon, names
from .outputs import destination, drop, inherited
from .surroundings import environment, umask, user

STOP_TIMEOUT = 5.0
"""Seconds that `quit` waits between SIGTERM and SIGKILL, as in egse.process."""

LOOK = 5.0
"""Seconds of silence after which `wait` asks by itself: one that somebody else has unregistered has no event."""


@dataclass(frozen=True)
class Child:
    """A descendant of a sub-process, with what most ask of psutil's `Process`."""

    pid: int
    _found: NamedProcess

    def name(self) -> str:
        """The kernel's name for it, at most 15 bytes."""
        return self._found.name

    def cmdline(self) -> List[str]:
        """Its command line."""
        return self._found.cmdline


class SubProcess:
    """A sub-process that the daemon starts and looks after.

        proc = SubProcess("MyApp", [sys.executable, "-m", "egse.<module>"])
        proc.execute()

    It has this program's environment, working directory, umask and user (where the daemon may take that one), standard input from `/dev/null`, and a
    session of its own. It runs on when this program ends, whatever becomes of the daemon. While it runs, and until somebody has asked how it ended, it is
    registered as `procman_name`, in the group `subprocess`; `procmanctl` shows it and commands it like any other.
    """

    def __init__(
        self,
        name: str,
        cmd: List[Any],
        args: Optional[List[Any]] = None,
        shell: bool = False,
        stdout: Any = subprocess.DEVNULL,
        stderr: Any = subprocess.DEVNULL,
    ) -> None:
        """Nothing is started, and no daemon asked, before `execute`.

        Args:
            name: what it is called; any text.
            cmd: the program and its leading arguments.
            args: further arguments.
            shell: join all with spaces and hand them to `/bin/sh -c`.
            stdout: where its output goes; see `outputs.destination` for what can be said.
            stderr: the same for standard error.
        """
        self._name = name
        self._cmd = [str(x) for x in cmd]
        self._args = [str(x) for x in args] if args else []
        self._shell = shell
        self._stdout = stdout
        self._stderr = stderr
        self._exc_info: Dict[str, Any] = {}
        self._manager: Optional[ProcessManager] = None
        self._registered: Optional[str] = None
        self._pid: Optional[int] = None
        self._uuid: Optional[str] = None
        self._returncode: Optional[int] = None
        self._pipes: List[Optional[str]] = [None, None]

    # What it is

    @property
    def name(self) -> str:
        """The name that was given."""
        return self._name

    @property
    def procman_name(self) -> Optional[str]:
        """The name that it is registered under at present, or None."""
        return self._registered

    @property
    def pid(self) -> Optional[int]:
        """The process of the last run; None before the first."""
        return self._pid

    @property
    def uuid(self) -> Optional[str]:
        """The UUID of the last run, which the process finds in `PROCMAN_UUID`."""
        return self._uuid

    @property
    def exc_info(self) -> Dict[str, Any]:
        """What the last `execute` failed with: `exc_type`, `exc_value`, `exc_traceback`, `command`; empty where it did not."""
        return self._exc_info

    def cmdline(self) -> str:
        """The command line of the process, joined with spaces; that of the definition where there is none to be seen."""
        if self._pid is not None and self._manager is not None and is_local(self._manager.endpoint) and self.is_running():
            try:
                with open(f"/proc/{self._pid}/cmdline", "rb") as file:
                    found = os.fsdecode(file.read()).rstrip("\0").split("\0")
                if found != [""]:
                    return " ".join(found)
            except OSError:
                pass
        return self._command()

    def _command(self) -> str:
        return " ".join([*self._cmd, *self._args])

    # Starting

    def execute(self) -> bool:
        """Starts it, if it does not run.

        Returns:
            True if the process could be started, False on error: `exc_info` then says why. Never raises.
        """
        self._exc_info = {}
        try:
            self._start()
        except Exception:
            self._remember()
            return False
        return True

    def _remember(self) -> None:
        exc_type, exc_value, exc_traceback = sys.exc_info()
        self._exc_info = {"exc_type": exc_type, "exc_value": exc_value, "exc_traceback": exc_traceback, "command": self._command()}

    def _start(self) -> None:
        self.returncode()  # forgets one that has ended
        if self._registered is not None and self._manager is not None:
            # It runs, and the daemon says so; or nobody knows what became of its start.
            self._begun(self._manager.execute(self._registered))
            return
        manager = daemon.manager() if self._manager is None else self._manager
        names.sweep(manager)
        name = names.derived(self._name)
        definition, pipes = self._definition(manager)
        # Told first: where no answer comes it may be registered, and is forgotten at the end of this program.
        names.registered(name, manager)
        try:
            manager.register(name, definition)
        except BaseException:
            drop(pipes)
            raise
        self._manager, self._registered = manager, name
        try:
            try:
                started = manager.execute(name)
            except NotFound:
                # Somebody in another PID namespace took it for left over.
                manager.register(name, definition)
                started = manager.execute(name)
        except Refused as error:
            # There is no process. (Where no answer came there may be one.)
            self._forget()
            drop(pipes)
            if not isinstance(error, SpawnFailed) or error.errno is None:
                raise
            # What Popen raises: FileNotFoundError, PermissionError …
            raise OSError(error.errno, os.strerror(error.errno), error.command) from error
        drop(self._pipes)
        self._pipes = pipes
        if any(pipes):
            weakref.finalize(self, drop, pipes)
        self._begun(started)

    def _begun(self, started: Executed) -> None:
        self._pid, self._uuid, self._returncode = started.pid, started.uuid, None

    def _definition(self, manager: ProcessManager) -> Tuple[Definition, List[Optional[str]]]:
        pipes: List[Optional[str]] = [None, None]
        outputs = []
        for index, output in enumerate((self._stdout, self._stderr)):
            if output is None:
                outputs.append(inherited(index + 1))
                continue
            try:
                where, pipes[index] = destination(output)
            except BaseException:
                drop(pipes)
                raise
            outputs.append(where)
        definition: Definition = {
            "group": names.GROUP,
            "cmd": self._cmd,
            "args": self._args,
            "shell": self._shell,
            "env": environment(),
            "clear_env": True,
            "cwd": os.getcwd(),
            "stdout": outputs[0],
            "stderr": outputs[1],
            "stop_timeout": STOP_TIMEOUT,
        }
        mask, runs_as = umask(), user(manager)
        if mask is not None:
            definition["umask"] = mask
        if runs_as is not None:
            definition["user"] = runs_as
        return definition, pipes

    # Looking

    def _view(self) -> Optional[ViewWithStatus]:
        """How it stands; None where it is not registered (any more)."""
        if self._registered is None or self._manager is None:
            return None
        try:
            view = self._manager.status(self._registered)
        except NotFound:
            self._gone()
            return None
        if view.pid is not None:
            # Another run, where somebody restarted it.
            self._pid, self._uuid = view.pid, view.uuid
        return view

    def _gone(self) -> None:
        """Somebody else unregistered it: the history knows how the run ended."""
        name, self._registered = self._registered, None
        if name is None or self._manager is None:
            return
        names.forgotten(name)
        try:
            ended = [run for run in self._manager.history(name) if run.uuid == self._uuid]
        except NotFound:
            ended = []
        if ended:
            self._returncode = ended[0].returncode

    def is_running(self) -> bool:
        """Check if this process is still running: it exists, and is no zombie."""
        if self._registered is None or self._manager is None:
            return False
        try:
            return self._manager.is_running(self._registered)
        except NotFound:
            self._gone()
            return False

    def exists(self) -> bool:
        """True if there is a process. A zombie is one, but the daemon leaves none."""
        if self._registered is None or self._manager is None:
            return False
        try:
            return self._manager.exists(self._registered)
        except NotFound:
            self._gone()
            return False

    def is_dead_or_zombie(self) -> bool:
        """There is a process, and it is dead."""
        return self.exists() and not self.is_running()

    def children(self, recursive: bool = True) -> List[Child]:
        """Its descendants, also those that made themselves independent; without `recursive` those whose parent it is now."""
        if self._registered is None or self._manager is None:
            return []
        try:
            found = self._manager.children(self._registered)
        except NotFound:
            self._gone()
            return []
        return [Child(child.pid, child) for child in found if recursive or _parent(child.pid) == self._pid]

    def is_child(self, pid: int) -> bool:
        """This PID is that of a descendant."""
        return any(pid == child.pid for child in self.children())

    def returncode(self) -> Optional[int]:
        """The exit code, or -N where signal N ended it; None while it runs, before the first run, and where nobody could see how it ended."""
        view = self._view()
        if view is not None and view.uuid is not None:
            self._returncode = view.returncode
            if view.state in ("stopped", "exited", "fatal", "lost"):
                self._forget()
        return self._returncode

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Waits until it has ended, and answers `returncode`.

        Raises:
            TimeoutError: it has not, after so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode() is None and self._registered is not None and self._manager is not None:
            name = self._registered
            left = LOOK if deadline is None else min(deadline - time.monotonic(), LOOK)
            if left <= 0:
                raise TimeoutError(f"{self._name} has not ended within {timeout:g} seconds")
            for event in self._manager.events(since=1, quiet=left):
                if isinstance(event, Missed) or event.name == name:
                    self.returncode()
                if self._registered is None or (deadline is not None and time.monotonic() >= deadline):
                    break
        return self._returncode

    def communicate(self) -> Tuple[Optional[str], Optional[str]]:
        """Waits until it has ended, and answers what it wrote to the outputs that are `PIPE`."""
        self.wait()
        texts: List[Optional[str]] = []
        for path in self._pipes:
            if path is None:
                texts.append(None)
                continue
            with open(path, "rb") as file:
                text = file.read()
            texts.append(text.decode("utf-8", "replace") if text else None)
        drop(self._pipes)
        self._pipes = [None, None]
        return texts[0], texts[1]

    # Ending

    def quit(self) -> int:
        """Ends it and all that it has started: SIGTERM, 5 seconds, SIGKILL.

        Returns:
            0 if the process and its sub-processes are all terminated, else how many survived SIGKILL.
        """
        if self._registered is None or self._manager is None:
            return 0
        try:
            ended = self._manager.quit(self._registered)
        except NotFound:
            self._gone()
            return 0
        return self._ended(ended.survivors, ended.returncode)

    def reap_children(self, timeout: float = 3) -> int:
        """The same, with so many seconds between SIGTERM and SIGKILL.

        Returns:
            0 if the process and its sub-processes are all terminated, else how many survived SIGKILL.
        """
        if self._registered is None or self._manager is None:
            return 0
        try:
            ended = self._manager.reap(self._registered, timeout=timeout)
        except NotFound:
            self._gone()
            return 0
        return self._ended(ended.survivors, ended.returncode)

    def _ended(self, survivors: int, returncode: Optional[int]) -> int:
        self._exc_info = {}
        self._returncode = returncode
        if survivors == 0:
            self._forget()
        return survivors

    def _forget(self) -> None:
        """Unregisters it: how it ended is known here."""
        name = self._registered
        if name is None or self._manager is None:
            return
        try:
            self._manager.unregister(name)
        except NotFound:
            pass
        self._registered = None
        names.forgotten(name)


def _parent(pid: int) -> Optional[int]:
    """The PID of its parent (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
