"""What the two clients share about sockets: how one is made, how long one waits, and what is said when nobody answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

import zmq

from .endpoint import why_unreachable
from .errors import NoAnswer, Timeout, Unreachable
from .wire import Call, Request

Key = Union[str, bytes]

PROBE = 0.25
"""Seconds that one look whether anybody listens may take; on a Unix socket it takes none."""


@dataclass(frozen=True)
class Limits:
    """How long is waited, in seconds."""

    answer: float = 5.0
    """A question is answered within this time."""
    work: float = 60.0
    """So is a command that does something, with the `timeout` of its own added."""
    connect: float = 1.0
    """A daemon that is not there, such as one that is just being restarted, comes back within this time."""
    again: float = 1.0
    """What was not answered within this time is asked again: the daemon may have been restarted meanwhile. The next waits are twice as long each."""
    exactly: Optional[float] = None
    """In the place of `answer` and `work`, whatever is asked."""

    def of(self, call: Call[Any]) -> float:
        """The time that this call may take."""
        if self.exactly is not None:
            return self.exactly
        return self.work + call.seconds if call.works else self.answer

    @staticmethod
    def longer(wait: float) -> float:
        """How long the next try waits for its answer."""
        return min(wait * 2, 16.0)


@dataclass(frozen=True)
class Curve:
    """Keys for CURVE (RFC 26): Z85, 40 characters each. Without a pair of its own the client makes one."""

    server: Key
    public: Key
    secret: Key

    @staticmethod
    def of(server_key: Optional[Key], public_key: Optional[Key], secret_key: Optional[Key]) -> Optional[Curve]:
        """The keys that were said.

        Raises:
            ValueError: some are missing, or one is no key.
        """
        if server_key is None:
            if public_key is not None or secret_key is not None:
                raise ValueError("public_key and secret_key say who the client is; server_key is missing, the daemon's public key")
            return None
        if (public_key is None) != (secret_key is None):
            raise ValueError("public_key and secret_key go together")
        if public_key is None or secret_key is None:
            public_key, secret_key = zmq.curve_keypair()
        for what, key in (("server_key", server_key), ("public_key", public_key), ("secret_key", secret_key)):
            if len(key) != 40:
                raise ValueError(f"{what} is not 40 characters of Z85")
        return Curve(server_key, public_key, secret_key)


def connect(socket: Any, endpoint: str, curve: Optional[Curve]) -> None:
    """Connects a new socket, of whatever kind and loop, and closes it where that fails.

    Raises:
        ValueError: libzmq takes the endpoint for none.
    """
    try:
        socket.setsockopt(zmq.LINGER, 0)
        # A message is taken only once the greeting with the daemon is over: one that was not taken was not sent.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)  # milliseconds
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        # A server that listens and does not greet is given up and tried anew; it may be another by then.
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        if ":" in endpoint and "[" in endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        if curve is not None:
            for option, key in ((zmq.CURVE_SERVERKEY, curve.server), (zmq.CURVE_PUBLICKEY, curve.public), (zmq.CURVE_SECRETKEY, curve.secret)):
                socket.setsockopt(option, key.encode("ascii") if isinstance(key, str) else key)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise ValueError(f"cannot connect to {endpoint!r}: {error}") from error
    except BaseException:
        socket.close(0)
        raise


def nobody_listens(endpoint: str, request: Request[Any], asked: bool) -> Optional[NoAnswer]:
    """The exception where the operating system says that nobody listens there, else None."""
    error = why_unreachable(endpoint, PROBE)
    if error is None:
        return None
    reason = error.strerror or str(error)
    if asked:
        text = f"the daemon at {endpoint} went away before it answered {request.call.command}, and none came in its place: {reason}"
    else:
        text = f"no daemon at {endpoint}: {reason}; is procmand running?"
    unreachable = Unreachable(text, request)
    unreachable.__cause__ = error
    return unreachable


def no_greeting(endpoint: str, request: Request[Any], seconds: float, curve: Optional[Curve]) -> Timeout:
    """Somebody listens, and never greeted."""
    keys = " with these keys" if curve is not None else ""
    return Timeout(f"what listens at {endpoint} did not take {request.call.command}{keys} within {seconds:g} seconds", request)


def no_reply(endpoint: str, request: Request[Any], seconds: float) -> Timeout:
    """The daemon has the request, and did not answer."""
    return Timeout(f"the daemon at {endpoint} did not answer {request.call.command} within {seconds:g} seconds", request)
