"""The types of results, as proto/PROTOCOL.md, "Types", has them: one dataclass each.

Times are Unix seconds, durations seconds, sizes bytes. None is what the daemon, or the kernel, does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Union

from .errors import Refused


@dataclass(frozen=True)
class Pong:
    """The daemon is there."""

    pong: bool
    time: float


@dataclass(frozen=True)
class Capabilities:
    """What the daemon can do on this host."""

    cgroup: bool
    pidfd_exit_info: bool
    curve: bool
    subreaper: bool


@dataclass(frozen=True)
class Info:
    """What daemon it is."""

    version: str
    protocol: int
    pid: int
    uuid: str
    uptime: float
    started_at: float
    hostname: str
    endpoints: List[str]
    metrics_endpoint: Optional[str]
    capabilities: Capabilities
    counts: Dict[str, int]
    events_endpoints: Optional[List[str]] = None
    cgse_endpoints: Optional[List[str]] = None


@dataclass(frozen=True)
class CgseEntry:
    """How a sub-process is listed in the registry of CGSE: `passing`, `critical`, `missing` or `unknown`."""

    type: str
    id: Optional[str]
    health: str
    since: Optional[float]
    problem: Optional[str]


@dataclass(frozen=True)
class View:
    """A registered sub-process, and how it stands."""

    name: str
    group: Optional[str]
    state: str
    wanted: str
    pid: Optional[int]
    uuid: Optional[str]
    started_at: Optional[float]
    uptime: Optional[float]
    ready: bool
    health: Optional[str]
    returncode: Optional[int]
    signal: Optional[int]
    cause: Optional[str]
    restarts: int
    next_start_at: Optional[float]
    cmd: List[str]
    args: List[str]
    shell: bool
    cwd: Optional[str]
    stdout: str
    stderr: str
    message: Optional[str] = None
    log_problem: Optional[str] = None
    cgse: Optional[CgseEntry] = None


@dataclass(frozen=True)
class Memory:
    """Memory of a process, in bytes."""

    rss: int
    uss: Optional[int]
    vms: int
    swap: int


@dataclass(frozen=True)
class Cpu:
    """Processor time of a process: percent of one processor, seconds; `count` is the host's physical cores."""

    percent: float
    user: float
    system: float
    count: Optional[int]


@dataclass(frozen=True)
class Io:
    """Bytes read from and written to storage."""

    read_bytes: Optional[int]
    write_bytes: Optional[int]


@dataclass(frozen=True)
class ContextSwitches:
    """How often it waited for something, and was made to give way."""

    voluntary: int
    involuntary: int


@dataclass(frozen=True)
class Tree:
    """The process and all its descendants, together."""

    processes: int
    rss: int
    cpu_percent: float
    memory: Optional[int] = None
    memory_peak: Optional[int] = None


@dataclass(frozen=True)
class ProcessStatus:
    """The living status of a process. (`cgse_procman.process.ProcessStatus` is another thing: that of `egse.process`.)"""

    pid: int
    uuid: str
    create_time: float
    uptime: float
    memory: Memory
    cpu: Cpu
    threads: int
    fds: Optional[int]
    io: Io
    context_switches: ContextSwitches
    tree: Tree


@dataclass(frozen=True)
class ViewWithStatus(View):
    """A view with the living status; None when it does not run, or was started just now and could not be looked at within 250 ms."""

    status: Optional[ProcessStatus] = None


@dataclass(frozen=True)
class StatusOfAll:
    """The status of the daemon and of all its sub-processes."""

    daemon: ProcessStatus
    processes: List[ViewWithStatus]
    store_problem: Optional[str] = None
    registry_problem: Optional[str] = None


@dataclass(frozen=True)
class Executed:
    """It was started."""

    name: str
    pid: int
    uuid: str
    state: str


@dataclass(frozen=True)
class Ended:
    """It was ended: `survivors` processes of its tree outlived SIGKILL."""

    name: str
    survivors: int
    returncode: Optional[int]
    signal: Optional[int]
    terminated: List[int]
    killed: List[int]


@dataclass(frozen=True)
class RefusedOne:
    """One of several was refused; the others were not."""

    name: str
    error: Refused


@dataclass(frozen=True)
class Signalled:
    """The processes that the signal was sent to."""

    name: str
    signalled: List[int]


@dataclass(frozen=True)
class LogLines:
    """Lines of an output, oldest first; `offset` is where the next answer is to go on."""

    lines: List[str]
    offset: int
    truncated: bool


@dataclass(frozen=True)
class StateChanged:
    """It went from one state to another."""

    seq: int
    time: float
    name: str
    from_: str = field(metadata={"wire": "from"})
    to: str
    pid: Optional[int]
    returncode: Optional[int]
    signal: Optional[int]
    cause: Optional[str]
    daemon: str


@dataclass(frozen=True)
class Noted:
    """Something else happened; `name` is None where it is about no sub-process."""

    seq: int
    time: float
    event: str
    name: Optional[str]
    message: str
    details: Dict[str, Any]
    daemon: str


Event = Union[StateChanged, Noted]


@dataclass(frozen=True)
class Missed:
    """What happened before the next event is not all known: another run of the daemon has begun, or too much happened meanwhile.

    `since` is the first that is not known, in the run `former` of the daemon; what follows is of the run `daemon`.
    """

    since: int
    former: Optional[str]
    daemon: str


@dataclass(frozen=True)
class Replay:
    """Events in their order, without a gap; `complete` where nothing is missing before them."""

    events: List[Event]
    next: int
    complete: bool
    daemon: str


@dataclass(frozen=True)
class PastRun:
    """A run that has ended."""

    name: str
    uuid: str
    pid: Optional[int]
    args: List[str]
    started_at: float
    ended_at: float
    returncode: Optional[int]
    signal: Optional[int]
    cause: str
    duration: float
    core_dump: bool
    started_by: str
    ended_by: str
    message: Optional[str]


@dataclass(frozen=True)
class AuditEntry:
    """Who had what changed, and what came of it."""

    time: float
    principal: str
    endpoint: str
    peer: Optional[str]
    command: str
    target: Optional[str]
    request_id: Optional[str]
    outcome: str
    message: Optional[str]


@dataclass(frozen=True)
class Reloaded:
    """What a reload came to, or with `dry_run` would come to: names."""

    added: List[str]
    changed: List[str]
    removed: List[str]
    unchanged: List[str]
    restarted: List[str]
    ignored: List[str]


@dataclass(frozen=True)
class HostProcess:
    """A process of the host, with psutil's word for its status and its command line joined with spaces."""

    pid: int
    status: str
    cmdline: str


@dataclass(frozen=True)
class HostProcessInfo:
    """A process of the host, with its command line and when the kernel made it."""

    pid: int
    cmdline: List[str]
    create_time: float


@dataclass(frozen=True)
class NamedProcess:
    """A process with the kernel's name for it, at most 15 bytes; a zombie has no command line."""

    pid: int
    name: str
    cmdline: List[str]
