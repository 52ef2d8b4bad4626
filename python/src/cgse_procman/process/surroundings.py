"""What a sub-process gets of the program that starts it, as a child of that program would."""

from __future__ import annotations

import os
import pwd
from typing import Dict, Optional

from ..client import ProcessManager
from ..endpoint import is_local


def environment() -> Dict[str, str]:
    """This program's environment, but for what the daemon said of this program, and what is no Unicode and so cannot be sent."""
    found = {}
    for key, value in os.environ.items():
        try:
            (key + value).encode("utf-8")
        except UnicodeEncodeError:
            continue
        if key not in ("PROCMAN_UUID", "PROCMAN_RUN"):
            found[key] = value
    return found


def umask() -> Optional[str]:
    """This program's umask, in octal digits; it could not be read otherwise without being set (proc_pid_status(5), Linux 4.7)."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("Umask:"):
                    return line.split()[1]
    except OSError:
        pass
    return None


def user(manager: ProcessManager) -> Optional[str]:
    """Whom the process runs as: this program's user, where the daemon is another's and may take it; None for the daemon's own."""
    if not is_local(manager.endpoint) or os.geteuid() == 0:
        return None
    try:
        of_daemon = os.stat(manager.endpoint[len("ipc://") :]).st_uid
        return None if of_daemon != 0 else pwd.getpwuid(os.geteuid()).pw_name
    except (OSError, KeyError):
        return None
