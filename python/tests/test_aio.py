"""The asyncio twin."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest
from conftest import DEADLINE, Daemon, sleeper

from cgse_procman import AsyncProcessManager, NotFound, ProcessManager, StateChanged, Timeout, Unreachable


def test_the_twins_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(ProcessManager, inspect.isfunction):
        twin = {"__enter__": "__aenter__", "__exit__": "__aexit__"}.get(name, name)
        other = getattr(AsyncProcessManager, twin)
        assert list(inspect.signature(method).parameters) == list(inspect.signature(other).parameters), name
        if not name.startswith("_") and name not in ("close", "within"):
            assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other), name


def test_commands_under_way_at_the_same_time(daemon: Daemon) -> None:
    async def run() -> None:
        async with AsyncProcessManager(daemon.endpoint, connect_timeout=DEADLINE) as manager:
            await asyncio.gather(*(manager.register(f"n{i}", sleeper()) for i in range(20)))
            started = await asyncio.gather(*(manager.execute(f"n{i}") for i in range(20)))
            assert len({one.pid for one in started}) == 20
            with pytest.raises(NotFound):
                await manager.status("nobody")
            # A busy machine may not have looked at it yet.
            deadline = time.monotonic() + DEADLINE
            while (await manager.status("n1")).status is None and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert (await manager.status("n1")).status is not None and len((await manager.status()).processes) == 20
            assert len(await manager.quit_all()) == 20

    asyncio.run(run())


def test_a_manager_outlives_its_loop(daemon: Daemon) -> None:
    manager = AsyncProcessManager(daemon.endpoint, connect_timeout=DEADLINE)

    async def run() -> None:
        assert (await manager.ping()).pong

    for _ in range(3):
        asyncio.run(run())
    asyncio.run(manager.__aexit__(None, None, None))


def test_time_outs_and_cancelling(daemon: Daemon) -> None:
    async def run() -> None:
        async with AsyncProcessManager(daemon.endpoint, connect_timeout=DEADLINE) as manager:
            await manager.register("web", sleeper())
            daemon.freeze()
            with pytest.raises(Timeout) as late:
                await manager.within(0.2).execute("web")
            task = asyncio.ensure_future(manager.ping())
            await asyncio.sleep(0)  # it has begun
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            daemon.thaw()
            executed = await manager.ask_again(late.value)
            assert (await manager.status("web")).pid == executed.pid

    asyncio.run(run())


def test_nobody_there(stopped_daemon: Daemon) -> None:
    async def run() -> None:
        with pytest.raises(Unreachable, match="No such file"):
            await AsyncProcessManager(stopped_daemon.endpoint, connect_timeout=0.05).ping()

    asyncio.run(run())


def test_events(daemon: Daemon) -> None:
    async def run() -> None:
        async with AsyncProcessManager(daemon.endpoint, connect_timeout=DEADLINE) as manager:
            await manager.register("web", sleeper())
            seen = []

            async def follow() -> None:
                async for event in manager.events(since=1, idle=0.2):
                    if isinstance(event, StateChanged) and event.name == "web":
                        seen.append(event.to)
                        if event.to == "stopped":
                            return

            following = asyncio.ensure_future(follow())
            await manager.execute("web")
            await manager.quit("web")
            await asyncio.wait_for(following, DEADLINE)
            assert seen == ["starting", "running", "stopping", "stopped"]
            kept = [event async for event in manager.events(follow=False)]
            assert [event.seq for event in kept if not hasattr(event, "former")] == list(range(1, len(kept) + 1))
            begun = time.monotonic()
            async for event in manager.events(quiet=0.2):
                pass
            assert 0.2 <= time.monotonic() - begun < DEADLINE

    asyncio.run(run())
