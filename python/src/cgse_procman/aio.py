"""The client for asyncio: `AsyncProcessManager`, in all the twin of `ProcessManager`."""

from __future__ import annotations

from types import TracebackType
from typing import Any, AsyncIterator, List, Mapping, Optional, Sequence, Type, TypeVar, Union, overload

import zmq
import zmq.asyncio

from . import calls
from .base import Base
from .calls import Items
from .definition import Definition
from .errors import Busy, NoAnswer
from .follow import Place, Told, published
from .links import connect
from .aio_pool import AsyncPool
from .records import (
    AuditEntry,
    Ended,
    Executed,
    HostProcess,
    HostProcessInfo,
    Info,
    LogLines,
    NamedProcess,
    PastRun,
    Pong,
    RefusedOne,
    Reloaded,
    Replay,
    Signalled,
    StatusOfAll,
    View,
    ViewWithStatus,
)
from .waits import Patience
from .wire import Call

T = TypeVar("T")


class AsyncProcessManager(Base):
    """The daemon's commands as methods, as proto/PROTOCOL.md has them.

        async with AsyncProcessManager() as manager:
            await manager.register("web", {"cmd": ["python3", "-m", "http.server"]})
            print((await manager.execute("web")).pid)

    Each may raise what `cgse_procman.errors` has; the next call works. Calls may be awaited at the same time, each on a socket of its own. A call that
    is cancelled may have been done. Times are seconds.
    """

    def _open(self) -> None:
        self._pool = AsyncPool(self.endpoint, self._curve)

    async def __aenter__(self) -> AsyncProcessManager:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Closes its sockets. A later call opens new ones."""
        self._pool.close()

    async def _ask(self, call: Call[T]) -> T:
        return await self._pool.ask(self._names.request(call), self._limits)

    async def request(self, command: str, **arguments: Any) -> Any:
        """Any command, also one that only a later daemon has, with the result as the wire has it."""
        return await self._ask(Call(command, arguments, lambda value: value, works=True))

    async def ask_again(self, unanswered: NoAnswer) -> Any:
        """Asks once more what an exception says was not answered, under the same id: the daemon does it once, and tells what came of it.

        Answers what the method would have answered. Holds for 10 minutes, and for a daemon that was restarted meanwhile.
        """
        if unanswered.request is None:
            raise ValueError("the exception does not say what was asked")
        return await self._pool.ask(unanswered.request, self._limits)

    async def ping(self) -> Pong:
        """Is the daemon there?"""
        return await self._ask(calls.ping())

    async def info(self) -> Info:
        """What daemon is it, and what can it do here?"""
        return await self._ask(calls.info())

    async def register(self, name: str, definition: Definition, *, replace: bool = False) -> View:
        """Defines a sub-process; never starts anything. With `replace` another definition takes the place of one under this name.

        Raises:
            AlreadyExists: the name has another definition.
        """
        return await self._ask(calls.register(name, definition, replace))

    async def register_instances(self, name: str, definition: Definition, instances: int, *, replace: bool = False) -> List[View]:
        """Defines so many sub-processes, `NAME@1` to `NAME@N`; `%i` in the definition is the number."""
        return await self._ask(calls.register_instances(name, definition, instances, replace))

    async def unregister(self, name: str) -> str:
        """Forgets it, and quits it first where it runs. Answers the name that is free again."""
        return await self._ask(calls.unregister(name))

    async def execute(
        self, name: str, *, args: Optional[Sequence[str]] = None, env: Optional[Mapping[str, str]] = None, wait: bool = False, timeout: Optional[float] = None
    ) -> Executed:
        """Starts it, and what it requires; `args` and `env` are added for this run only.

        With `wait` the answer comes once it is ready, or has done its work; with `timeout` after so many seconds at most.

        Raises:
            AlreadyRunning, SpawnFailed, NotRunning, NotInTime, Busy: as PROTOCOL.md says.
        """
        return await self._ask(calls.execute(name, args, env, wait, timeout))

    async def quit(self, name: str, *, timeout: Optional[float] = None) -> Ended:
        """Ends it and its whole tree: its stop signal, `timeout` seconds (else its `stop_timeout`), SIGKILL."""
        return await self._ask(calls.quit(name, timeout))

    async def quit_group(self, group: str, *, timeout: Optional[float] = None) -> List[Union[Ended, RefusedOne]]:
        """Ends all of a group, in the reverse of their order."""
        return await self._ask(calls.quit_several(group, timeout))

    async def quit_all(self, *, timeout: Optional[float] = None) -> List[Union[Ended, RefusedOne]]:
        """Ends all, in the reverse of their order."""
        return await self._ask(calls.quit_several(None, timeout))

    async def reap(self, name: str, *, timeout: Optional[float] = None, children_only: bool = False) -> Ended:
        """SIGTERM to the tree, `timeout` seconds (3), SIGKILL to what is left. With `children_only` the process itself is left alone."""
        return await self._ask(calls.reap(name, timeout, children_only))

    async def restart(
        self, name: str, *, args: Optional[Sequence[str]] = None, env: Optional[Mapping[str, str]] = None, timeout: Optional[float] = None
    ) -> Executed:
        """`quit`, then `execute`."""
        return await self._ask(calls.restart(name, args, env, timeout))

    async def restart_group(self, group: str, *, timeout: Optional[float] = None) -> List[Union[Executed, RefusedOne]]:
        """Ends all of a group in order, then starts all of it in order."""
        return await self._ask(calls.restart_several(group, timeout))

    async def restart_all(self, *, timeout: Optional[float] = None) -> List[Union[Executed, RefusedOne]]:
        """Ends all in order, then starts all in order."""
        return await self._ask(calls.restart_several(None, timeout))

    async def signal(self, name: str, signal: Union[str, int], *, tree: bool = False) -> Signalled:
        """Sends a signal (`"HUP"`, `"SIGHUP"`, `signal.SIGHUP`, 1), with `tree` to every descendant too."""
        return await self._ask(calls.signal(name, signal, tree))

    async def list(self, group: Optional[str] = None, state: Optional[str] = None) -> List[View]:
        """The registered sub-processes, in name order; those of a group, or in a state. (With `items` it is `processes`.)"""
        return await self._ask(calls.list_(group, state))

    @overload
    async def status(self, name: None = None) -> StatusOfAll: ...

    @overload
    async def status(self, name: str) -> ViewWithStatus: ...

    async def status(self, name: Optional[str] = None) -> Union[StatusOfAll, ViewWithStatus]:
        """Living status: of the daemon and of all, or of one."""
        if name is None:
            return await self._ask(calls.status_of_all())
        return await self._ask(calls.status(name))

    async def zombies(self) -> List[NamedProcess]:
        """Every zombie on the host."""
        return await self._ask(calls.zombies())

    async def processes(self, items: Items, *, contains: bool = True, case_sensitive: bool = False) -> List[HostProcess]:
        """Host processes in whose command line each item occurs: in an element of it with `contains`, else as one."""
        return await self._ask(calls.processes(items, contains, case_sensitive))

    async def process_info(self, items: Items, *, contains: bool = True, case_sensitive: bool = False) -> List[HostProcessInfo]:
        """The same, with other facts."""
        return await self._ask(calls.process_info(items, contains, case_sensitive))

    async def is_process_running(self, items: Items, *, contains: bool = True, case_sensitive: bool = False) -> int:
        """The lowest PID that matches, or 0."""
        return await self._ask(calls.is_process_running(items, contains, case_sensitive))

    async def pids_running(self, items: Items, *, contains: bool = True, case_sensitive: bool = False) -> List[int]:
        """All PIDs that match, ascending (`is_process_running` with `as_list`)."""
        return await self._ask(calls.pids_running(items, contains, case_sensitive))

    async def is_running(self, name: str) -> bool:
        """Does it run? A zombie does not."""
        return await self._ask(calls.is_running(name))

    async def exists(self, name: str) -> bool:
        """Is there a process? A zombie is one."""
        return await self._ask(calls.exists(name))

    async def returncode(self, name: str) -> Optional[int]:
        """How the last run ended: the exit code, or -N when signal N ended it; None while it runs, before the first, and where nobody can tell."""
        return await self._ask(calls.returncode(name))

    async def children(self, name: str) -> List[NamedProcess]:
        """All its descendants."""
        return await self._ask(calls.children(name))

    async def replay(self, since: Optional[int] = None, daemon: Optional[str] = None, limit: Optional[int] = None) -> Replay:
        """What happened lately (the command `events`), from the number `since` (1) of the run `daemon` on."""
        return await self._ask(calls.events(since, daemon, limit))

    async def history(self, name: Optional[str] = None, limit: Optional[int] = None) -> List[PastRun]:
        """The runs that have ended, newest first, of one or of all; 50 where `limit` is not said."""
        return await self._ask(calls.history(name, limit))

    async def audit(self, name: Optional[str] = None, limit: Optional[int] = None) -> List[AuditEntry]:
        """The commands that were to change something, newest first; 50 where `limit` is not said."""
        return await self._ask(calls.audit(name, limit))

    async def logs(
        self, name: str, *, stream: Optional[str] = None, lines: Optional[int] = None, offset: Optional[int] = None, max_bytes: Optional[int] = None
    ) -> LogLines:
        """What it has written to `"stdout"` or `"stderr"`: the last `lines` (100), or those from `offset` on."""
        return await self._ask(calls.logs(name, stream, lines, offset, max_bytes))

    async def reload(self, *, dry_run: bool = False) -> Reloaded:
        """Has the daemon read its configuration again and do what differs; with `dry_run` only tells what that would be."""
        return await self._ask(calls.reload(dry_run))

    async def upgrade(self) -> None:
        """The daemon goes on with the program that is installed now, in the same process. Answered before it does."""
        await self._ask(calls.upgrade())

    async def shutdown(self, children: Optional[str] = None) -> None:
        """The daemon leaves, after all has been quit (`"quit"`), or leaves all running (`"keep"`). Answered before it does."""
        await self._ask(calls.shutdown(children))

    async def events(
        self,
        *,
        follow: bool = True,
        since: Optional[int] = None,
        daemon: Optional[str] = None,
        idle: float = 1.0,
        quiet: Optional[float] = None,
        patience: Optional[float] = None,
    ) -> AsyncIterator[Told]:
        """What happens, in its order: `StateChanged`, `Noted`, and `Missed` where the events before the next one are not all known.

        None is left out over a broken connection or a restart of the daemon but what `Missed` tells of. The first answer of the daemon is waited
        for here as in any call; once it has answered, it may be away.

        Args:
            follow: go on with what comes; else end with the last event that the daemon keeps.
            since: begin with this number; 1 is all that is kept. Where not said, what comes from now on, and without `follow` all.
            daemon: the run of the daemon (`uuid` of `info`) that `since` counts in.
            idle: seconds of silence after which the daemon is asked whether something was lost.
            quiet: end after so many seconds without an event.
            patience: raise NoAnswer once the daemon has been away for so many seconds; else wait for ever.
        """
        place = Place(1 if since is None else since, daemon)
        if not follow:
            async for item in self._kept(place):
                yield item
            return
        watch = Patience(idle, quiet, patience)
        where = self._where_events_are(await self.info())
        socket = self._subscribed(where)
        try:
            async for item in self._kept(place):
                if since is not None:
                    watch.told()
                    yield item
            listening = place.daemon
            while True:
                wait = watch.wait()
                if wait is None:
                    return
                frames: Optional[List[bytes]] = None
                if await socket.poll(int(wait * 1000) + 1):
                    frames = await socket.recv_multipart(zmq.NOBLOCK)
                event = None if frames is None else published(frames)
                if event is not None:
                    known = place.published(event)
                    if known is not None:
                        watch.told()
                        yield known
                        continue
                    if not place.must_ask(event):
                        continue
                # What the daemon before the present one has published last is still in the queue.
                while await socket.poll(0):
                    event = published(await socket.recv_multipart(zmq.NOBLOCK))
                    known = None if event is None else place.published(event)
                    if known is not None:
                        watch.told()
                        yield known
                try:
                    async for item in self._kept(place):
                        watch.told()
                        yield item
                    if place.daemon != listening:
                        # Another run of the daemon may publish elsewhere.
                        now = self._where_events_are(await self.info())
                        if now != where:
                            socket.close(0)
                            where, socket = now, self._subscribed(now)
                        listening = place.daemon
                    watch.answered()
                except (NoAnswer, Busy):
                    if watch.is_over():
                        raise
        finally:
            socket.close(0)

    async def _kept(self, place: Place) -> AsyncIterator[Told]:
        """All that the daemon keeps from this place on."""
        while True:
            replay = await self.replay(place.next, place.daemon, limit=REPLAY)
            for item in place.replay(replay):
                yield item
            if len(replay.events) < REPLAY:
                return

    def _subscribed(self, where: Optional[str]) -> Any:
        """A socket that hears all topics, or nothing where nothing is published."""
        socket: Any = zmq.asyncio.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, UNREAD)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        if where is not None:
            connect(socket, where, self._curve)
        return socket


REPLAY = 1000
"""So many events are asked for at a time."""

UNREAD = 100_000
"""So many published events wait for a reader at most, some ten megabytes. What is lost then is asked for again, as far as the daemon keeps it."""
