"""Where the daemon is, and whether anybody listens there."""

from __future__ import annotations

import os
import re
import socket
from typing import Mapping, Optional

SYSTEM_SOCKET = "/run/procman/control.sock"
"""The socket of a daemon that root runs."""

_TCP = re.compile(r"tcp://(?P<host>\[[^\[\]\s]+\]|[^:\[\]/;\s]+):(?P<port>[0-9]{1,5})\Z")


def default_endpoint(environment: Optional[Mapping[str, str]] = None, root: Optional[bool] = None) -> str:
    """The endpoint where nobody says one, the same as procmanctl's.

    `$PROCMAN_ENDPOINT`, else for root `ipc:///run/procman/control.sock`, else `procman/control.sock` below `$XDG_RUNTIME_DIR`.

    Raises:
        ValueError: none of them says it.
    """
    environment = os.environ if environment is None else environment
    said = environment.get("PROCMAN_ENDPOINT")
    if said:
        return said
    if os.geteuid() == 0 if root is None else root:
        return f"ipc://{SYSTEM_SOCKET}"
    directory = environment.get("XDG_RUNTIME_DIR")
    if directory:
        return f"ipc://{directory}/procman/control.sock"
    raise ValueError("cannot tell where the daemon is, XDG_RUNTIME_DIR is not set: name an endpoint or set PROCMAN_ENDPOINT")


def checked(endpoint: str) -> str:
    """The endpoint, if it is one.

    Raises:
        ValueError: it is neither `ipc:///path` nor `tcp://host:port`.
    """
    path = endpoint[len("ipc://") :] if endpoint.startswith("ipc://") else ""
    # A leading `@` would be an abstract socket, which has no permissions and so guards nothing.
    if path and not path.startswith("@") and "\0" not in path:
        return endpoint
    match = _TCP.match(endpoint)
    if match and 0 < int(match["port"]) < 65536:
        return endpoint
    raise ValueError(f"{endpoint[:120]!r} is not an endpoint: say ipc:///path/of/the/socket or tcp://host:port")


def is_local(endpoint: str) -> bool:
    """The daemon is on this host for certain: PIDs and paths mean the same to both."""
    return endpoint.startswith("ipc://")


def why_unreachable(endpoint: str, seconds: float) -> Optional[OSError]:
    """Connects once and closes again: the operating system's refusal, or None where somebody listens."""
    try:
        if endpoint.startswith("ipc://"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(max(seconds, 0.05))
                probe.connect(endpoint[len("ipc://") :])
        else:
            host, _, port = endpoint[len("tcp://") :].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), max(seconds, 0.05)).close()
    except BlockingIOError:
        return None  # its queue of connections is full: it listens, and does not accept
    except socket.timeout:
        return None if endpoint.startswith("ipc://") else OSError("no connection in time")
    except OSError as error:
        return error
    return None


def beside(control: str, published: str) -> str:
    """An endpoint that the daemon publishes, as a client reaches it that comes by `control`.

    One that is bound to every address is reached by the host that the client knows already.
    """
    match, known = _TCP.match(published), _TCP.match(control)
    if match and known and match["host"] in ("0.0.0.0", "[::]", "*"):
        return f"tcp://{known['host']}:{match['port']}"
    return published
