"""Where a sub-process writes to: from what `subprocess.Popen` takes to what a definition says.

The daemon starts the process, so it cannot give it a descriptor of this program: only what has a path can be handed over.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from typing import Any, List, Optional, Tuple


def destination(output: Any) -> Tuple[str, Optional[str]]:
    """What the definition says, and the path of the file that `communicate` reads where the output is `PIPE`.

    | of Popen | of the definition |
    |---|---|
    | `DEVNULL` | `"null"` |
    | `None` | this program's own where that is a file, else `"inherit"`: the daemon's |
    | `STDOUT` | `"stdout"` (for stderr) |
    | `PIPE` | a temporary file, read by `communicate` |
    | a file object or descriptor of a regular file | `"file:PATH"`, appended to |

    Raises:
        ValueError: the output has no path, such as a pipe, a socket or a terminal.
    """
    if output == subprocess.DEVNULL:
        return "null", None
    if output == subprocess.STDOUT:
        return "stdout", None
    if output == subprocess.PIPE:
        descriptor, path = tempfile.mkstemp(prefix="cgse-procman-")
        os.close(descriptor)
        return f"file:{path}", path
    number = output if isinstance(output, int) else output.fileno()
    if stat.S_ISREG(os.fstat(number).st_mode):
        path = os.readlink(f"/proc/self/fd/{number}")
        if os.path.isabs(path) and not path.endswith(" (deleted)"):
            return f"file:{path}", None
    raise ValueError(f"{output!r} has no path that the daemon could open: give a regular file, DEVNULL or PIPE")


def inherited(number: int) -> str:
    """This program's own output, where it is a file with a path; else the daemon's."""
    try:
        return destination(number)[0]
    except (OSError, ValueError):
        return "inherit"


def drop(pipes: List[Optional[str]]) -> None:
    """Removes the files of outputs that are `PIPE`."""
    for path in pipes:
        if path is not None:
            try:
                os.unlink(path)
            except OSError:
                pass
