"""Which events are new: the bookkeeping of "To miss nothing" in proto/PROTOCOL.md. Pure; the clients bring it what came in."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Union

import msgpack

from . import calls
from .errors import ProtocolError
from .records import Event, Missed, Replay

Told = Union[Event, Missed]


class Place:
    """The place in the sequence of events up to which all is told."""

    def __init__(self, since: int = 1, daemon: Optional[str] = None) -> None:
        self.next = since
        self.daemon = daemon
        self._begun = daemon is not None or since > 1

    def replay(self, replay: Replay) -> List[Told]:
        """What an answer to `events` from `next` on has that is new."""
        told: List[Told] = []
        if self._begun and not replay.complete:
            told.append(Missed(since=self.next, former=self.daemon, daemon=replay.daemon))
        told.extend(replay.events)
        self.next, self.daemon, self._begun = replay.next, replay.daemon, True
        return told

    def published(self, event: Event) -> Optional[Event]:
        """The event, where it is the one to come; None where it is known, or `must_ask` says that others come before it."""
        if event.daemon == self.daemon and event.seq == self.next:
            self.next += 1
            return event
        return None

    def must_ask(self, event: Event) -> bool:
        """The event tells that something was missed."""
        return event.daemon != self.daemon or event.seq >= self.next


def published(frames: Sequence[bytes]) -> Optional[Event]:
    """The event of a published message, or None where it is none that can be read: the next replay has it."""
    if len(frames) != 2:
        return None
    try:
        message: Any = msgpack.unpackb(frames[1], raw=False, strict_map_key=False)
        return calls.event(message)
    except (ProtocolError, ValueError, msgpack.UnpackException, RecursionError):
        return None
