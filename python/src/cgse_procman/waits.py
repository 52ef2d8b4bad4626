"""How long an iterator of events waits, and for whom."""

from __future__ import annotations

import time
from typing import Optional


class Patience:
    """Keeps the times of an iterator of events. By the monotonic clock, in seconds."""

    def __init__(self, idle: float, quiet: Optional[float], away: Optional[float]) -> None:
        self._idle = idle
        self._quiet = quiet
        self._away = away
        self._last_event = self._last_answer = time.monotonic()

    def told(self) -> None:
        """There was an event."""
        self._last_event = time.monotonic()

    def answered(self) -> None:
        """The daemon is there."""
        self._last_answer = time.monotonic()

    def wait(self) -> Optional[float]:
        """How long to wait for the next event; None when it was quiet for long enough."""
        if self._quiet is None:
            return self._idle
        left = self._last_event + self._quiet - time.monotonic()
        return min(left, self._idle) if left > 0 else None

    def is_over(self) -> bool:
        """The daemon was away for too long."""
        return self._away is not None and time.monotonic() - self._last_answer >= self._away
