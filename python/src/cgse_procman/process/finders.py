"""Finding processes of the host by their command line. The daemon looks: it keeps what it has read of `/proc`."""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Literal, Sequence, Union, overload

from .. import calls
from ..errors import ProtocolError
from ..wire import Call
from .daemon import manager

logger = logging.getLogger("cgse_procman.process")

Items = Union[str, Sequence[str]]


def _as_they_are(value: Any) -> List[Dict[str, Any]]:
    if not isinstance(value, list):
        raise ProtocolError("the reply holds no list where one is due")
    return value


def _found(command: str, items: Items, contains: bool, case_sensitive: bool) -> List[Dict[str, Any]]:
    if not items:
        logger.warning("Expected at least one item in 'items', none were given. Empty list returned.")
        return []
    # The dictionaries of the wire are those of egse.process.
    return manager()._ask(Call(command, calls.matching(items, contains, case_sensitive), _as_they_are))


def list_processes(items: Items, contains: bool = True, case_sensitive: bool = False, verbose: bool = False) -> List[Dict[str, Any]]:
    """Returns and optionally prints the processes that match the given criteria in items.

    Args:
        items: a string or a list of strings that should match command line parts
        contains: if True, the match is done with 'in' otherwise '==' [default: True]
        case_sensitive: if True, the match shall be case-sensitive [default: False]
        verbose: if True, the processes will be printed to the console

    Returns:
        A list of dictionaries for the matching processes, in the order of their PIDs. The dict contains the 'pid', 'status' and 'cmdline' of a process.
    """
    result = _found("processes", items, contains, case_sensitive)
    if verbose:
        if result:
            print(f"{'PID':5s} {'Status':>20s} {'Commandline'}")
            print("\n".join([f"{entry['pid']:5d} {entry['status']:>20s} {entry['cmdline']}" for entry in result]))
        else:
            print(f"No processes found for {items}.")
    return result


def get_process_info(items: Items, contains: bool = True, case_sensitive: bool = False) -> List[Dict[str, Any]]:
    """The processes for which all 'items' match the command line.

    Args:
        items: a string or a list of strings that should match command line items
        contains: if True, the match is done with 'in' otherwise '=='
        case_sensitive: if True, the match shall be case-sensitive

    Returns:
        A list of process info entries (PID, cmdline, create_time), in the order of their PIDs. An empty list where none matches.
    """
    return _found("process_info", items, contains, case_sensitive)


@overload
def is_process_running(items: Items, contains: bool = True, case_sensitive: bool = False, as_list: Literal[False] = False) -> int: ...


@overload
def is_process_running(items: Items, contains: bool = True, case_sensitive: bool = False, *, as_list: Literal[True]) -> List[int]: ...


@overload
def is_process_running(items: Items, contains: bool = True, case_sensitive: bool = False, as_list: bool = False) -> Union[int, List[int]]: ...


def is_process_running(items: Items, contains: bool = True, case_sensitive: bool = False, as_list: bool = False) -> Union[int, List[int]]:
    """Check if there is any running process that contains the given items in its commandline.

    Args:
        items: a string or a list of strings that should match command line parts
        contains: if True, the match is done with 'in' otherwise '==' [default: True]
        case_sensitive: if True, the match shall be case-sensitive [default: False]
        as_list: return the PID of all matching processes as a list [default: False]

    Returns:
        The PID(s) if there exists a running process with the given items, 0 or [] otherwise.
    """
    if not items:
        logger.warning("Expected at least one item in 'items', none were given. False returned.")
        return [] if as_list else 0
    if as_list:
        return manager().pids_running(items, contains=contains, case_sensitive=case_sensitive)
    return manager().is_process_running(items, contains=contains, case_sensitive=case_sensitive)


def list_zombies() -> List[Dict[str, Any]]:
    """Returns a list of zombie processes.

    A zombie has ended, and its parent has not asked how. It cannot be killed, holds no port, and goes when its parent asks or ends.

    Returns:
        A list of dictionaries with information on the zombie processes. The dict contains the 'pid', 'name', and 'cmdline' of the zombie process.
    """
    return manager()._ask(Call("zombies", {}, _as_they_are))
