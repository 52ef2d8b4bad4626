"""A drop-in for CGSE's `egse.process`: the same names, signatures and results, and the processes live under procmand.

    from cgse_procman.process import SubProcess, list_processes

`sub_process` has SubProcess, `finders` the functions, `status` ProcessStatus; `names`, `outputs` and `surroundings` are SubProcess's own; `daemon` says which daemon
they speak to. What they do otherwise than `egse.process` is in the README of the package.

Of a daemon that does not answer, `SubProcess.execute` answers False, as it does of all that goes wrong; everything else raises `ProcmanError`.
"""

from __future__ import annotations

from typing import Any

from .daemon import manager, use
from .finders import get_process_info, is_process_running, list_processes, list_zombies
from .status import ProcessStatus
from .sub_process import Child, SubProcess

__all__ = [
    "Child",
    "ProcessStatus",
    "SubProcess",
    "get_process_info",
    "is_process_running",
    "list_processes",
    "list_zombies",
    "manager",
    "use",
]

_CGSES_OWN = ("ProcessInfo", "get_processes", "kill_process", "ps_egrep")
"""What egse.process has beside the API that its documentation carries over: CGSE's own is given, where CGSE is installed."""


def __getattr__(name: str) -> Any:
    if name in _CGSES_OWN:
        try:
            import egse.process
        except ImportError as error:
            raise AttributeError(f"{name} is egse.process's own, and CGSE is not installed") from error
        return getattr(egse.process, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
