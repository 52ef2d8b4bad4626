"""A client of procmand, the process manager daemon.

    errors      what can go wrong, each with a type of its own
    client      ProcessManager, which blocks; aio has AsyncProcessManager, its twin
    records     the types of results; definition: that of a definition
    process     a drop-in for egse.process, whose processes live under the daemon

Below them: `calls` says each command once, for both clients; `wire` makes and reads its bytes; `pool` and `aio_pool` own the sockets, `links` is what
they share; `follow` keeps the place in the sequence of events. Only `cgse_plugin` knows CGSE.
"""

from .aio import AsyncProcessManager
from .client import ProcessManager
from .definition import Definition
from .endpoint import default_endpoint
from .errors import (
    AlreadyExists,
    AlreadyRunning,
    BadRequest,
    Busy,
    Internal,
    NoAnswer,
    NotFound,
    NotInTime,
    NotRunning,
    PermissionDenied,
    ProcmanError,
    ProtocolError,
    Refused,
    ShuttingDown,
    SpawnFailed,
    Timeout,
    UnknownCommand,
    Unreachable,
    UnsupportedVersion,
)
from .records import Missed, Noted, StateChanged

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "AlreadyRunning",
    "AsyncProcessManager",
    "BadRequest",
    "Busy",
    "Definition",
    "Internal",
    "Missed",
    "NoAnswer",
    "NotFound",
    "NotInTime",
    "NotRunning",
    "Noted",
    "PermissionDenied",
    "ProcessManager",
    "ProcmanError",
    "ProtocolError",
    "Refused",
    "ShuttingDown",
    "SpawnFailed",
    "StateChanged",
    "Timeout",
    "UnknownCommand",
    "Unreachable",
    "UnsupportedVersion",
    "default_endpoint",
]
