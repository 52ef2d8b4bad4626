"""Requests and replies as bytes. Pure: nothing here knows a socket."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from itertools import count
from typing import Any, Callable, Dict, Generic, Mapping, Optional, TypeVar

import msgpack

from .errors import ProtocolError, refusal

T = TypeVar("T")



@dataclass
class Call(Generic[T]):
    """A command with its arguments, and what becomes of its result."""

    command: str
    arguments: Mapping[str, Any]
    parse: Callable[[Any], T]
    works: bool = False
    """Something is to be done: the answer may take as long as that (seconds, instead of at once)."""
    seconds: float = 0.0
    """What the arguments add to the time that the work may take."""


@dataclass
class Request(Generic[T]):
    """A call under its id: sent again as it is, it is the same request."""

    call: Call[T]
    client: str
    request_id: str
    frame: bytes


class Names:
    """Gives each request an id of its own, under a client name that nobody else has.

    A program that starts anew, and a process that was forked, must use neither old ids nor those of the other: the ids hold a random part, which
    changes with the PID.
    """

    def __init__(self, client: Optional[str] = None) -> None:
        self._said = client
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._run = secrets.token_hex(6)
        self._numbers = count(1)
        self.client = self._said if self._said is not None else f"py-{self._run}"

    def request(self, call: Call[T]) -> Request[T]:
        """The call as a request that is like no other."""
        if self._pid != os.getpid():
            self._renew()
        request_id = f"{self._run}-{next(self._numbers)}"
        message = {"command": call.command, "request_id": request_id, "client": self.client, **call.arguments}
        return Request(call, self.client, request_id, packed(message))


def packed(message: Mapping[str, Any]) -> bytes:
    """The message as the daemon wants it.

    Raises:
        ValueError: it holds a text that is no Unicode, such as a file name that was decoded with `surrogateescape`.
        TypeError: it holds something that MessagePack has no form for.
    """
    return msgpack.packb(message, use_bin_type=True)  # type: ignore[no-any-return,unused-ignore]


def unpacked(frame: bytes) -> Dict[str, Any]:
    """The map in a frame.

    Raises:
        ProtocolError: there is none.
    """
    try:
        message = msgpack.unpackb(frame, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack has many ways to say so, RecursionError and ValueError among them
        raise ProtocolError(f"what answered does not speak the protocol: a frame of {len(frame)} bytes is no MessagePack ({error})") from error
    if type(message) is not dict:
        raise ProtocolError(f"what answered does not speak the protocol: {str(message)[:100]!r} is no map")
    return message


def result(request: Request[T], frame: bytes) -> T:
    """What the reply to this request says.

    Raises:
        Refused: the daemon said no.
        ProtocolError: it is no reply to this request.
    """
    reply = unpacked(frame)
    if reply.get("request_id") != request.request_id:
        # A request that could not be read comes back without its id; one of ours can always be read, but for its size.
        if "request_id" in reply or reply.get("success") is not False:
            raise ProtocolError(f"this is the answer to another request: {str(reply.get('request_id'))[:80]!r} instead of {request.request_id!r}")
    success = reply.get("success")
    if success is True and "result" in reply:
        try:
            return request.call.parse(reply["result"])
        except ProtocolError as error:
            raise ProtocolError(f"{request.call.command}: {error}") from None
    if success is False:
        raise refusal(reply.get("error"))
    raise ProtocolError("the reply says neither that it was done nor that it was refused")
