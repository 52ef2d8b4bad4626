"""The daemon that the drop-in speaks to: the one at the default endpoint, unless `use` said another."""

from __future__ import annotations

import threading
from typing import Optional

from ..client import ProcessManager

_lock = threading.Lock()
_manager: Optional[ProcessManager] = None


def manager() -> ProcessManager:
    """The manager of this program, made when it is first needed.

    Raises:
        ValueError: nobody says where the daemon is (see `cgse_procman.default_endpoint`).
    """
    global _manager
    with _lock:
        if _manager is None:
            _manager = ProcessManager()
        return _manager


def use(other: Optional[ProcessManager]) -> None:
    """Has the drop-in use this manager from now on; None: the default one, made anew. A SubProcess that was executed keeps its own."""
    global _manager
    with _lock:
        _manager = other
