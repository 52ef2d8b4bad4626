"""Some of procmanctl's verbs, for a host where procmanctl is not installed. The exit codes are procmanctl's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any, Callable, Dict, List, Sequence

from .client import ProcessManager
from .errors import ProcmanError, Refused, Timeout

DONE, REFUSED, USAGE, UNREACHABLE, TIMEOUT = 0, 1, 2, 3, 4

_VERBS: Dict[str, Callable[[ProcessManager, argparse.Namespace], Any]] = {
    "ping": lambda manager, _: manager.ping(),
    "info": lambda manager, _: manager.info(),
    "list": lambda manager, _: manager.list(),
    "status": lambda manager, said: manager.status(said.name) if said.name else manager.status(),
    "execute": lambda manager, said: manager.execute(_needed(said)),
    "quit": lambda manager, said: manager.quit(_needed(said)),
    "restart": lambda manager, said: manager.restart(_needed(said)),
    "logs": lambda manager, said: manager.logs(_needed(said)),
}


def _needed(said: argparse.Namespace) -> str:
    if not said.name:
        raise SystemExit(USAGE)
    return str(said.name)


def run(verb: str, arguments: Sequence[str]) -> int:
    """Asks the daemon, prints what it answers as a table or as JSON, and answers the exit code."""
    if verb not in _VERBS:
        print(f"cgse procman {verb} needs procmanctl, which is not in PATH; without it there are: {', '.join(sorted(_VERBS))}", file=sys.stderr)
        return USAGE
    parser = argparse.ArgumentParser(prog=f"cgse procman {verb}", description="(procmanctl is not in PATH: this is a part of what it can do.)")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--endpoint", help="where the daemon is; else $PROCMAN_ENDPOINT, else the default one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    try:
        said = parser.parse_args(list(arguments))
        with ProcessManager(said.endpoint) as manager:
            answer = _VERBS[verb](manager, said)
    except SystemExit as leave:
        if leave.code == USAGE:
            parser.print_usage(sys.stderr)
        return leave.code if isinstance(leave.code, int) else USAGE
    except ValueError as error:
        return _said(error, USAGE)
    except Refused as error:
        return _said(error, REFUSED)
    except Timeout as error:
        return _said(error, TIMEOUT)
    except ProcmanError as error:
        return _said(error, UNREACHABLE)
    print(_json(answer) if said.json else _text(verb, answer))
    return DONE


def _said(error: Exception, code: int) -> int:
    print(f"cgse procman: {error}", file=sys.stderr)
    return code


def _plain(answer: Any) -> Any:
    return [_plain(one) for one in answer] if isinstance(answer, list) else dataclasses.asdict(answer)


def _json(answer: Any) -> str:
    return json.dumps(_plain(answer), indent=2)


def _text(verb: str, answer: Any) -> str:
    if verb == "logs":
        return "\n".join(answer.lines)
    if verb == "list":
        rows = [["NAME", "GROUP", "STATE", "PID", "COMMAND"]]
        rows += [[view.name, view.group or "", view.state, str(view.pid or "-"), " ".join([*view.cmd, *view.args])] for view in answer]
        return _table(rows)
    lines = []
    for key, value in _plain(answer).items():
        lines.append(f"{key}: {json.dumps(value) if isinstance(value, (dict, list)) else value}")
    return "\n".join(lines)


def _table(rows: List[List[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
