"""`cgse procman …`: the daemon's commands below CGSE's own, found by the entry point `cgse.command`.

All is passed on to procmanctl; where that is not installed, this package's client answers some. The only module that imports typer, which CGSE brings.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Callable, Dict

import typer

from . import cli

VERBS: Dict[str, str] = {
    "list": "List the registered sub-processes.",
    "status": "Show what sub-processes use, or everything about one.",
    "execute": "Start a sub-process.",
    "quit": "End a sub-process and everything it has started.",
    "reap": "End a process tree the hard way.",
    "restart": "End a sub-process and start it again.",
    "signal": "Send a signal to a sub-process.",
    "register": "Register the sub-processes of a file.",
    "unregister": "Forget a sub-process.",
    "is-running": "Tell whether a sub-process runs.",
    "exists": "Tell whether the process of a sub-process exists.",
    "returncode": "Print how the last run of a sub-process ended.",
    "children": "List the descendants of a sub-process.",
    "logs": "Show what a sub-process has written.",
    "processes": "Find processes of the host by their command line, with their status.",
    "process-info": "Find processes of the host by their command line, with their creation time.",
    "is-process-running": "Tell whether a process of the host runs.",
    "zombies": "List every zombie of the host.",
    "ping": "Ask whether the daemon is there.",
    "info": "Tell what daemon it is and what it can do.",
    "events": "Show what happened, and with -f what happens.",
    "history": "Show how past runs began and ended.",
    "audit": "Show who had what changed, and what came of it.",
    "reload": "Read the configuration again, and do what differs.",
    "upgrade": "Put the daemon's newly installed program in its place.",
    "shutdown": "Have the daemon leave.",
}
"""The verbs of procmanctl, as its help has them."""

procman = typer.Typer(name="procman", help="procmand, the process manager: ask it, and tell it what to do", no_args_is_help=True)


def _passed_on(verb: str) -> Callable[[typer.Context], None]:
    def run(ctx: typer.Context) -> None:
        program = shutil.which("procmanctl")
        if program is not None:
            sys.stdout.flush()
            os.execv(program, ["procmanctl", verb, *ctx.args])
        raise typer.Exit(cli.run(verb, ctx.args))

    run.__doc__ = VERBS[verb]
    return run


for _verb in VERBS:
    # Everything behind the verb is procmanctl's, `--help` too.
    procman.command(_verb, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(_passed_on(_verb))
