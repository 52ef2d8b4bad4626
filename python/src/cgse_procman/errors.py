"""What can go wrong, each with a type of its own.

    ProcmanError
    ├── NoAnswer                 nobody answered; ask again with ProcessManager.ask_again
    │   ├── Unreachable          no daemon was reached: nothing was sent
    │   └── Timeout              no answer in time: whether it was done is not known
    ├── ProtocolError            what answered does not speak the protocol
    └── Refused                  the daemon said no, in a sentence of its own
        └── one for each error code of proto/PROTOCOL.md, "Reply"

The next call of the same manager works after each of them, as far as the daemon does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Type

if TYPE_CHECKING:
    from .wire import Request


class ProcmanError(Exception):
    """The base of all that this package raises of its own."""


class NoAnswer(ProcmanError):
    """There is no answer.

    `request` is what was asked, with its `request_id`: asked again in the same words, a command that changes something is not done twice.
    """

    def __init__(self, message: str, request: Optional[Request[Any]] = None) -> None:
        super().__init__(message)
        self.request = request


class Unreachable(NoAnswer, ConnectionError):
    """No daemon takes requests at the endpoint. Nothing was sent, or the daemon went before it was done and none came in its place."""


class Timeout(NoAnswer, TimeoutError):
    """The daemon did not answer in time. What was asked may be done, may still be done, or may not: see `ProcessManager.ask_again`."""


class ProtocolError(ProcmanError):
    """What came back is no reply of a procmand: no MessagePack, no map, the answer to another request, or a result of another form."""


class Refused(ProcmanError):
    """The daemon refused. `str()` is its own sentence, which may change; programs decide by the type, or by `code`.

    Raised as such only for a code that a later daemon has and this package does not know.
    """

    def __init__(self, code: str, message: str, details: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: Dict[str, Any] = dict(details or {})

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.message, self.details)

    def _text(self, key: str) -> Optional[str]:
        value = self.details.get(key)
        return value if isinstance(value, str) else None

    def _number(self, key: str) -> Optional[int]:
        value = self.details.get(key)
        return value if isinstance(value, int) else None


class BadRequest(Refused):
    """An argument is missing, ill-typed, unknown or beyond a limit; or a configuration is wrong."""

    @property
    def mistakes(self) -> List[str]:
        """All that is wrong with the configuration, each with its file and line."""
        found = self.details.get("mistakes")
        return [str(mistake) for mistake in found] if isinstance(found, list) else []


class UnsupportedVersion(Refused):
    """The daemon does not speak the version of the protocol that was asked for."""


class UnknownCommand(Refused):
    """The daemon has no such command: it may be older than this package."""

    @property
    def nearest(self) -> Optional[str]:
        """The nearest command that it has, where one is near."""
        return self._text("nearest")


class NotFound(Refused):
    """No such sub-process, or no such group."""


class AlreadyExists(Refused):
    """The name is taken by another definition."""


class AlreadyRunning(Refused):
    """It runs, or is being started or ended."""

    @property
    def pid(self) -> Optional[int]:
        """The process, where there is one."""
        return self._number("pid")


class NotRunning(Refused):
    """It does not run; or what it requires has ended for good; or it did not get ready."""

    @property
    def name(self) -> Optional[str]:
        """What it requires and does not run."""
        return self._text("name")

    @property
    def cause(self) -> Optional[str]:
        """Why the run ended that did not get ready."""
        return self._text("cause")

    @property
    def returncode(self) -> Optional[int]:
        """How the run ended that did not get ready."""
        return self._number("returncode")


class SpawnFailed(Refused):
    """The operating system refused to start it."""

    @property
    def errno(self) -> Optional[int]:
        """The number of the error, see errno(3)."""
        return self._number("errno")

    @property
    def errno_name(self) -> Optional[str]:
        """Its name, such as `ENOENT`."""
        return self._text("errno_name")

    @property
    def command(self) -> Optional[str]:
        """The program."""
        return self._text("command")


class PermissionDenied(Refused):
    """The caller may not do this."""


class Busy(Refused):
    """A queue is full, descriptors are scarce, or the name is just being unregistered. Nothing was done: try again."""


class NotInTime(Refused):
    """The `timeout` of an `execute` passed before it was started, or with `wait`, ready (code `timeout`). The daemon's work goes on."""


class ShuttingDown(Refused):
    """The daemon is leaving. Nothing was done."""


class Internal(Refused):
    """A fault of the daemon; or what an earlier daemon had begun was asked again, and nobody knows how far that had come."""

    @property
    def begun_at(self) -> Optional[int]:
        """When an earlier daemon began with it, in whole Unix seconds; None where this is a fault of the daemon."""
        return self._number("begun_at")


BY_CODE: Dict[str, Type[Refused]] = {
    "bad_request": BadRequest,
    "unsupported_version": UnsupportedVersion,
    "unknown_command": UnknownCommand,
    "not_found": NotFound,
    "already_exists": AlreadyExists,
    "already_running": AlreadyRunning,
    "not_running": NotRunning,
    "spawn_failed": SpawnFailed,
    "permission_denied": PermissionDenied,
    "busy": Busy,
    "timeout": NotInTime,
    "shutting_down": ShuttingDown,
    "internal": Internal,
}
"""The exception of each error code."""


def refusal(error: object) -> Refused:
    """The exception for the `error` of a reply.

    Raises:
        ProtocolError: it is no error of the protocol.
    """
    if isinstance(error, dict):
        code, message, details = error.get("code"), error.get("message"), error.get("details")
        if isinstance(code, str) and isinstance(message, str) and (details is None or isinstance(details, dict)):
            return BY_CODE.get(code, Refused)(code, message, details)
    raise ProtocolError(f"the reply holds an error of an unknown form: {str(error)[:200]}")
