"""What a manager is made of, whether it blocks or is awaited."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Optional, TypeVar

from .endpoint import beside, checked, default_endpoint
from .links import Curve, Key, Limits
from .records import Info
from .wire import Names

Self = TypeVar("Self", bound="Base")


class Base:
    """The settings of a manager."""

    def __init__(
        self,
        endpoint: Optional[str] = None,
        *,
        timeout: float = Limits.answer,
        work_timeout: float = Limits.work,
        connect_timeout: float = Limits.connect,
        ask_again: float = Limits.again,
        client: Optional[str] = None,
        server_key: Optional[Key] = None,
        public_key: Optional[Key] = None,
        secret_key: Optional[Key] = None,
        events_endpoint: Optional[str] = None,
    ) -> None:
        """A client of the daemon at this endpoint. Nothing is connected before the first call.

        Args:
            endpoint: `ipc:///path` or `tcp://host:port`; else `$PROCMAN_ENDPOINT`, else the default one of procmanctl.
            timeout: seconds within which a question is answered.
            work_timeout: seconds within which a command is answered that does something; its own `timeout` is added.
            connect_timeout: seconds for which a daemon may not be there, because it is being restarted.
            ask_again: seconds after which a request without an answer is sent once more, with the same id, so that it is done once.
            client: what the client calls itself in requests; else a name that nobody else has.
            server_key: the daemon's public CURVE key, in Z85; without it there is no encryption.
            public_key: the client's own public CURVE key; without it a pair is made.
            secret_key: the client's secret CURVE key.
            events_endpoint: where events are published; else what the daemon says.

        Raises:
            ValueError: the endpoint or a key is none, or nobody says where the daemon is.
        """
        self.endpoint = checked(default_endpoint() if endpoint is None else endpoint)
        self._limits = Limits(timeout, work_timeout, connect_timeout, ask_again)
        self._names = Names(client)
        self._curve = Curve.of(server_key, public_key, secret_key)
        self._events_endpoint = None if events_endpoint is None else checked(events_endpoint)
        self._open()

    def _open(self) -> None:
        """Makes what holds the sockets."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint!r})"

    @property
    def client(self) -> str:
        """What the client calls itself in requests."""
        return self._names.client

    def within(self: Self, seconds: float) -> Self:
        """The same manager, whose calls take so many seconds at most: `manager.within(0.5).ping()`."""
        other = copy.copy(self)
        other._limits = replace(self._limits, exactly=seconds)
        return other

    def _where_events_are(self, info: Info) -> Optional[str]:
        """Where to subscribe; None where the daemon publishes nothing that can be reached."""
        if self._events_endpoint is not None:
            return self._events_endpoint
        published = info.events_endpoints or []
        transport = self.endpoint.partition("://")[0]
        for endpoint in published:
            if endpoint.startswith(transport):
                return beside(self.endpoint, endpoint)
        return None
