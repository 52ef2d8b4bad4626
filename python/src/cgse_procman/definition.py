"""The keys of a definition (proto/PROTOCOL.md, "Definition"), for type checkers. A later daemon's key is a plain key, too."""

from __future__ import annotations

from typing import Dict, List, TypedDict, Union


Size = Union[int, str]


class Log(TypedDict, total=False):
    """How an output that goes to `"log"` is rotated."""

    max_size: Size
    keep: int
    compress: bool
    max_age: float


class Backoff(TypedDict, total=False):
    """How long the restart policy waits, in seconds."""

    initial: float
    factor: float
    max: float
    jitter: float
    reset_after: float


class StartLimit(TypedDict, total=False):
    """`count` starts within `interval` seconds at most."""

    count: int
    interval: float


class Check(TypedDict, total=False):
    """`ready`, `health` and `stop_request`: exactly one source, and how it is asked."""

    notify: bool
    zmq: str
    tcp: str
    unix: str
    http: str
    exec: List[str]
    file: str
    cgse: str
    delay: float
    socket: str
    frames: List[str]
    expect: str
    timeout: float
    interval: float
    try_timeout: float
    failures: int


class Definition(TypedDict, total=False):
    """What a sub-process is. `cmd` must be said."""

    group: str
    cmd: List[str]
    args: List[str]
    shell: bool
    env: Dict[str, str]
    clear_env: bool
    env_file: str
    cwd: str
    user: str
    user_group: str
    supplementary_groups: List[str]
    umask: str
    nice: int
    oom_score_adj: int
    no_new_privs: bool
    limits: Dict[str, Size]
    after: List[str]
    requires: List[str]
    stdout: str
    stderr: str
    log: Log
    autostart: bool
    schedule: str
    overlap: str
    restart: str
    success_codes: List[int]
    backoff: Backoff
    start_limit: StartLimit
    start_seconds: float
    ready: Check
    health: Check
    stop_request: Check
    stop_signal: Union[str, int]
    stop_timeout: float
