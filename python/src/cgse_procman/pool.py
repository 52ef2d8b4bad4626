"""Sockets of the synchronous client: as many as calls are under way at a time, kept for the next call.

A socket is used by one call at a time, so a manager may be used by several threads. One whose call did not end well is closed and never used
again: a REQ socket whose request is open refuses the next.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from typing import Any, Deque, Optional, TypeVar

import zmq

from . import wire
from .errors import Refused
from .links import Curve, Limits, connect, no_greeting, no_reply, nobody_listens
from .wire import Request

T = TypeVar("T")


NOBLOCK = int(zmq.NOBLOCK)


class Link:
    """A connected REQ socket."""

    def __init__(self, endpoint: str, curve: Optional[Curve]) -> None:
        self.socket: Any = zmq.Context.instance().socket(zmq.REQ)
        connect(self.socket, endpoint, curve)
        self.send: Any = self.socket.send
        self._recv: Any = self.socket.recv
        self._patience = -1.0

    def receive(self, seconds: float) -> Optional[bytes]:
        """The first frame of the reply, or None where none came within this time. After one of several frames the next `send` is refused."""
        if seconds != self._patience:
            self.socket.setsockopt(zmq.RCVTIMEO, max(math.ceil(seconds * 1000), 0))
            self._patience = seconds
        try:
            return self._recv()  # type: ignore[no-any-return]
        except zmq.Again:
            return None

    def close(self) -> None:
        self.socket.close(0)


class Pool:
    """The idle sockets of a manager."""

    def __init__(self, endpoint: str, curve: Optional[Curve]) -> None:
        self._endpoint = endpoint
        self._curve = curve
        self._idle: Deque[Link] = deque()
        self._pid = os.getpid()

    def _take(self) -> Link:
        if self._pid != os.getpid():
            # A forked process has the parent's sockets, which it can neither use nor close.
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return Link(self._endpoint, self._curve)

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle and self._pid == os.getpid():
            self._idle.pop().close()

    def ask(self, request: Request[T], limits: Limits) -> T:
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
                try:
                    link.send(request.frame, NOBLOCK)
                except zmq.ZMQError as error:
                    if error.errno == zmq.EFSM:
                        # Of the reply before some is unread: it had more than one frame.
                        link.close()
                        continue
                    if error.errno != zmq.EAGAIN:
                        raise
                    self._send(link, request, seconds, deadline, limits, asked)
                asked = True
                frame = link.receive(wait)
                if frame is not None:
                    answer = wire.result(request, frame)
            except Refused:
                self._idle.append(link)
                raise
            except BaseException:
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

    def _send(self, link: Link, request: Request[Any], seconds: float, deadline: float, limits: Limits, asked: bool) -> None:
        """Waits for a daemon that greets, and hands it the request."""
        until = min(time.monotonic() + limits.connect, deadline)
        while True:
            left = until - time.monotonic()
            if link.socket.poll(max(math.ceil(left * 1000), 0), zmq.POLLOUT):
                link.send(request.frame, NOBLOCK)
                return
            if time.monotonic() < until:
                continue
            unreachable = nobody_listens(self._endpoint, request, asked)
            if unreachable is not None:
                raise unreachable
            if time.monotonic() >= deadline:
                raise no_greeting(self._endpoint, request, seconds, self._curve)
            until = deadline
