"""Sockets of the asyncio client: `pool`, awaited. Each belongs to the event loop that it was made in."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from typing import Any, Deque, Optional, TypeVar

import zmq
import zmq.asyncio

from . import wire
from .errors import Refused
from .links import Curve, Limits, connect, no_greeting, no_reply, nobody_listens
from .wire import Request

T = TypeVar("T")


class AsyncLink:
    """A connected REQ socket of the running event loop."""

    def __init__(self, endpoint: str, curve: Optional[Curve]) -> None:
        self.loop = asyncio.get_running_loop()
        self.socket: Any = zmq.asyncio.Context.instance().socket(zmq.REQ)
        connect(self.socket, endpoint, curve)

    async def receive(self, seconds: float) -> Optional[bytes]:
        """The reply, or None where none came within this time."""
        if not await self.socket.poll(max(math.ceil(seconds * 1000), 0), zmq.POLLIN):
            return None
        frames = await self.socket.recv_multipart()
        return bytes(frames[0]) if len(frames) == 1 else b""

    def close(self) -> None:
        if not self.loop.is_closed():
            self.socket.close(0)


class AsyncPool:
    """The idle sockets of a manager."""

    def __init__(self, endpoint: str, curve: Optional[Curve]) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._idle: Deque[AsyncLink] = deque()
        self._pid = os.getpid()

    def _take(self) -> AsyncLink:
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        loop = asyncio.get_running_loop()
        while self._idle:
            link = self._idle.pop()
            if link.loop is loop:
                return link
            link.close()
        return AsyncLink(self._endpoint, self._curve)

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle and self._pid == os.getpid():
            self._idle.pop().close()

    async def ask(self, request: Request[T], limits: Limits) -> T:
        """The answer to the request, sent as often as needed within its time.

        Raises:
            NoAnswer, ProtocolError, Refused: as `errors` says.
        """
        seconds = limits.of(request.call)
        deadline = time.monotonic() + seconds
        wait = min(limits.again, seconds)
        asked = False
        while True:
            link = self._take()
            try:
                await self._send(link, request, seconds, deadline, limits, asked)
                asked = True
                frame = await link.receive(wait)
                if frame is not None:
                    answer = wire.result(request, frame)
            except Refused:
                self._idle.append(link)
                raise
            except BaseException:  # a cancelled call, too
                link.close()
                raise
            if frame is not None:
                self._idle.append(link)
                return answer
            link.close()
            left = deadline - time.monotonic()
            if left <= 0:
                raise nobody_listens(self._endpoint, request, asked) or no_reply(self._endpoint, request, seconds)
            wait = min(limits.longer(wait), left)

    async def _send(self, link: AsyncLink, request: Request[Any], seconds: float, deadline: float, limits: Limits, asked: bool) -> None:
        """Hands the request to a daemon that has greeted."""
        until = min(time.monotonic() + limits.connect, deadline)
        while True:
            left = until - time.monotonic()
            if await link.socket.poll(max(math.ceil(left * 1000), 0), zmq.POLLOUT):
                await link.socket.send(request.frame)
                return
            if time.monotonic() < until:
                continue
            unreachable = nobody_listens(self._endpoint, request, asked)
            if unreachable is not None:
                raise unreachable
            if time.monotonic() >= deadline:
                raise no_greeting(self._endpoint, request, seconds, self._curve)
            until = deadline
