"""Every command of the protocol as a function that makes a `Call`: what both clients share.

The functions bear the names of the commands; where a command answers in two forms, there is one function for each form.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Type, TypeVar, Union

from .decode import decode, decoder
from .definition import Definition
from .errors import ProtocolError, refusal
from .records import (
    AuditEntry,
    Ended,
    Event,
    Executed,
    HostProcess,
    HostProcessInfo,
    Info,
    LogLines,
    NamedProcess,
    Noted,
    PastRun,
    Pong,
    RefusedOne,
    Reloaded,
    Replay,
    Signalled,
    StateChanged,
    StatusOfAll,
    View,
    ViewWithStatus,
)
from .wire import Call

T = TypeVar("T")
Items = Union[str, Sequence[str]]


def said(**arguments: Any) -> Dict[str, Any]:
    """The arguments that were said: those that are not None."""
    return {key: value for key, value in arguments.items() if value is not None}


def one(cls: Type[T]) -> Callable[[Any], T]:
    """Reads one of a kind."""
    return decoder(cls)


def several(cls: Type[T]) -> Callable[[Any], List[T]]:
    """Reads a list of a kind."""
    return decoder(List[cls])  # type: ignore[valid-type]


def each(cls: Type[T]) -> Callable[[Any], List[Union[T, RefusedOne]]]:
    """Reads the answer to a command about several sub-processes, in which one may have been refused."""
    single = decoder(cls)

    def read(value: Any) -> List[Union[T, RefusedOne]]:
        if type(value) is not list:
            raise ProtocolError("the reply holds no list where one is due")
        return [
            RefusedOne(str(entry.get("name")), refusal(entry["error"])) if isinstance(entry, dict) and "error" in entry else single(entry)
            for entry in value
        ]

    return read


def event(value: Any) -> Event:
    """An event: a map with a key `event` is a `Noted`."""
    return decode(Noted, value) if isinstance(value, dict) and "event" in value else decode(StateChanged, value)


def _replay(value: Any) -> Replay:
    if not isinstance(value, dict) or not isinstance(value.get("events"), list):
        raise ProtocolError("the reply holds no events")
    integer, text, truth = decoder(int), decoder(str), decoder(bool)
    return Replay(
        events=[event(entry) for entry in value["events"]],
        next=integer(value.get("next")),
        complete=truth(value.get("complete")),
        daemon=text(value.get("daemon")),
    )


def _nothing(value: Any) -> None:
    if not isinstance(value, dict):
        raise ProtocolError("the reply holds no map where one is due")


def _list_of(items: Items) -> Items:
    # Any iterable of texts will do, as with egse.process; MessagePack knows lists.
    return items if isinstance(items, str) else list(items)


_PING: Call[Pong] = Call("ping", {}, one(Pong))


def ping() -> Call[Pong]:
    return _PING


def info() -> Call[Info]:
    return Call("info", {}, one(Info))


def _definition(name: str, definition: Mapping[str, Any], replace: bool) -> Dict[str, Any]:
    for key in ("name", "replace"):
        if key in definition:
            raise ValueError(f"{key!r} is an argument of its own, not a key of the definition")
    return {**definition, "name": name, **({"replace": True} if replace else {})}


def register(name: str, definition: Definition, replace: bool) -> Call[View]:
    if "instances" in definition:
        raise ValueError("a definition with instances is registered by register_instances")
    return Call("register", _definition(name, definition, replace), one(View), works=True)


def register_instances(name: str, definition: Definition, instances: int, replace: bool) -> Call[List[View]]:
    arguments = {**_definition(name, definition, replace), "instances": instances}
    return Call("register", arguments, several(View), works=True)


def unregister(name: str) -> Call[str]:
    def free(value: Any) -> str:
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return str(value["name"])
        raise ProtocolError("the reply holds no name")

    return Call("unregister", {"name": name}, free, works=True)


def execute(
    name: str, args: Optional[Sequence[str]], env: Optional[Mapping[str, str]], wait: bool, timeout: Optional[float]
) -> Call[Executed]:
    arguments = said(
        name=name,
        args=None if args is None else list(args),
        env=None if env is None else dict(env),
        wait=True if wait else None,
        timeout=timeout,
    )
    return Call("execute", arguments, one(Executed), works=True, seconds=timeout or 0.0)


def quit(name: str, timeout: Optional[float]) -> Call[Ended]:
    return Call("quit", said(name=name, timeout=timeout), one(Ended), works=True, seconds=timeout or 0.0)


def quit_several(group: Optional[str], timeout: Optional[float]) -> Call[List[Union[Ended, RefusedOne]]]:
    return Call("quit", {**whom(group), **said(timeout=timeout)}, each(Ended), works=True, seconds=timeout or 0.0)


def whom(group: Optional[str]) -> Dict[str, Any]:
    """A group, or all."""
    return {"all": True} if group is None else {"group": group}


def reap(name: str, timeout: Optional[float], children_only: bool) -> Call[Ended]:
    arguments = said(name=name, timeout=timeout, children_only=True if children_only else None)
    return Call("reap", arguments, one(Ended), works=True, seconds=timeout or 0.0)


def restart(
    name: str, args: Optional[Sequence[str]], env: Optional[Mapping[str, str]], timeout: Optional[float]
) -> Call[Executed]:
    arguments = said(name=name, timeout=timeout, args=None if args is None else list(args), env=None if env is None else dict(env))
    return Call("restart", arguments, one(Executed), works=True, seconds=timeout or 0.0)


def restart_several(group: Optional[str], timeout: Optional[float]) -> Call[List[Union[Executed, RefusedOne]]]:
    return Call("restart", {**whom(group), **said(timeout=timeout)}, each(Executed), works=True, seconds=timeout or 0.0)


def signal(name: str, signal: Union[str, int], tree: bool) -> Call[Signalled]:
    # A member of signal.Signals is an int to MessagePack only when it is one exactly.
    number = signal if isinstance(signal, str) else int(signal)
    return Call("signal", said(name=name, signal=number, tree=True if tree else None), one(Signalled), works=True)


def list_(group: Optional[str], state: Optional[str]) -> Call[List[View]]:
    return Call("list", said(group=group, state=state), several(View))


def status(name: str) -> Call[ViewWithStatus]:
    return Call("status", {"name": name}, one(ViewWithStatus))


def status_of_all() -> Call[StatusOfAll]:
    return Call("status", {}, one(StatusOfAll))


def zombies() -> Call[List[NamedProcess]]:
    return Call("zombies", {}, several(NamedProcess))


def matching(items: Items, contains: bool, case_sensitive: bool) -> Dict[str, Any]:
    """How a command line is to match; what is the default is not said."""
    arguments: Dict[str, Any] = {"items": _list_of(items)}
    if not contains:
        arguments["contains"] = False
    if case_sensitive:
        arguments["case_sensitive"] = True
    return arguments


def processes(items: Items, contains: bool, case_sensitive: bool) -> Call[List[HostProcess]]:
    return Call("processes", matching(items, contains, case_sensitive), several(HostProcess))


def process_info(items: Items, contains: bool, case_sensitive: bool) -> Call[List[HostProcessInfo]]:
    return Call("process_info", matching(items, contains, case_sensitive), several(HostProcessInfo))


def is_process_running(items: Items, contains: bool, case_sensitive: bool) -> Call[int]:
    return Call("is_process_running", matching(items, contains, case_sensitive), one(int))


def pids_running(items: Items, contains: bool, case_sensitive: bool) -> Call[List[int]]:
    return Call("is_process_running", {**matching(items, contains, case_sensitive), "as_list": True}, several(int))


def is_running(name: str) -> Call[bool]:
    return Call("is_running", {"name": name}, one(bool))


def exists(name: str) -> Call[bool]:
    return Call("exists", {"name": name}, one(bool))


def returncode(name: str) -> Call[Optional[int]]:
    return Call("returncode", {"name": name}, decoder(Optional[int]))


def children(name: str) -> Call[List[NamedProcess]]:
    return Call("children", {"name": name}, several(NamedProcess))


def events(since: Optional[int], daemon: Optional[str], limit: Optional[int]) -> Call[Replay]:
    return Call("events", said(since=since, daemon=daemon, limit=limit), _replay)


def history(name: Optional[str], limit: Optional[int]) -> Call[List[PastRun]]:
    return Call("history", said(name=name, limit=limit), several(PastRun))


def audit(name: Optional[str], limit: Optional[int]) -> Call[List[AuditEntry]]:
    # The daemon gives itself 10 seconds for this question.
    return Call("audit", said(name=name, limit=limit), several(AuditEntry), works=True)


def logs(
    name: str, stream: Optional[str], lines: Optional[int], offset: Optional[int], max_bytes: Optional[int]
) -> Call[LogLines]:
    return Call("logs", said(name=name, stream=stream, lines=lines, offset=offset, max_bytes=max_bytes), one(LogLines))


def reload(dry_run: bool) -> Call[Reloaded]:
    return Call("reload", {"dry_run": True} if dry_run else {}, one(Reloaded), works=True)


def upgrade() -> Call[None]:
    return Call("upgrade", {}, _nothing, works=True)


def shutdown(children: Optional[str]) -> Call[None]:
    return Call("shutdown", said(children=children), _nothing, works=True)
