"""The names that SubProcess registers under, and what becomes of those that nobody wants any more.

A name is made of the given one, with what a name of procman cannot hold replaced, of the PID of the program that made it, and of a random part:
`MyApp.4711-9f3c2a`. So two programs, and two objects, may use the same name. By the PID it is known whose it was: a script that ends leaves its
sub-processes running, and when they have ended, too, whoever uses SubProcess next has them forgotten.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import threading
from typing import Dict, Optional, Set

from ..client import ProcessManager
from ..endpoint import is_local
from ..errors import ProcmanError

GROUP = "subprocess"
"""The group of all that SubProcess registers."""

AT_EXIT = 1.0
"""Seconds that a program which ends spends on telling the daemon at most, for each question."""

_FINAL = frozenset(("stopped", "exited", "fatal", "lost"))
_OURS = re.compile(r".*\.(?P<pid>[1-9][0-9]*)-[0-9a-f]{8}\Z")

_lock = threading.Lock()
_registered: Dict[str, ProcessManager] = {}
_pid = os.getpid()
_swept: Set[str] = set()


def derived(name: object) -> str:
    """A name of procman that is like no other, for whatever name was given."""
    clean = re.sub(r"[^A-Za-z0-9._@:-]+", "_", str(name))[:40] or "process"
    return f"{clean}.{os.getpid()}-{secrets.token_hex(4)}"


def owner(name: str) -> Optional[int]:
    """The PID of the program that derived the name, or None where it is no such name."""
    match = _OURS.match(name)
    return None if match is None else int(match["pid"])


def registered(name: str, manager: ProcessManager) -> None:
    """This program has registered the name. At its end it forgets what has ended by then."""
    with _lock:
        _of_this_process()
        _registered[name] = manager


def forgotten(name: str) -> None:
    """The name is unregistered."""
    with _lock:
        _registered.pop(name, None)


def sweep(manager: ProcessManager) -> None:
    """Once for each daemon: unregisters what has ended and whose program has ended, too.

    Such a name may be another one's who lives in another PID namespace: that one finds how its run ended in the history.
    """
    with _lock:
        _of_this_process()
        if manager.endpoint in _swept or not is_local(manager.endpoint):
            return
        _swept.add(manager.endpoint)
    for view in manager.list(group=GROUP):
        pid = owner(view.name)
        if view.state in _FINAL and pid is not None and not os.path.exists(f"/proc/{pid}"):
            try:
                manager.unregister(view.name)
            except ProcmanError:
                pass  # another one was faster


def _of_this_process() -> None:
    """A forked process has registered nothing yet."""
    global _pid
    if _pid != os.getpid():
        _pid = os.getpid()
        _registered.clear()
        _swept.clear()


def _at_exit() -> None:
    """What has ended is forgotten; what runs runs on, as it did under egse.process."""
    with _lock:
        _of_this_process()
        left = dict(_registered)
        _registered.clear()
    for manager in set(left.values()):
        hasty = manager.within(AT_EXIT)
        try:
            for view in hasty.list(group=GROUP):
                # One whose process has ended, and the daemon is still ending what it left, has ended, too.
                ended = view.state in _FINAL or (view.state == "stopping" and view.pid is None)
                if left.get(view.name) is manager and ended:
                    hasty.unregister(view.name)
        except ProcmanError:
            pass  # nobody is there to tell it to: the next one sweeps


atexit.register(_at_exit)
