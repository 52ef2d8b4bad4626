"""Speed of the client, as ratios within one run.

    PROCMAND=…/release/procmand python bench/round_trip.py [--processes 500] [--json]

1. `ProcessManager.ping` beside a bare pyzmq REQ that sends the same bytes to an echo in another process: at most 1.3 times as long.
2. `cgse_procman.process.list_processes` and `get_process_info` beside those of `egse.process` with so many `sleep` processes on the host: at least 5
   times faster, whether all of them match, one, none, or every process of the host (`""`). `is_process_running` is shown beside them, without a limit.
   Left out where CGSE is not installed.

Both by turns, so that what else the machine does strikes both; the figure is the median. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple

import zmq

from cgse_procman import ProcessManager, calls, process

MOST = 1.3
LEAST = 5.0

ECHO = """
import sys, zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind(sys.argv[1])
while True:
    socket.send(socket.recv())
"""


def timed(what: Callable[[], Any]) -> float:
    """Seconds. A try during which a process ended is made again and not counted: `egse.process.list_processes` raises then."""
    while True:
        begun = time.perf_counter()
        try:
            what()
        except Exception as error:
            if type(error).__name__ not in ("NoSuchProcess", "ZombieProcess"):  # psutil's, which is CGSE's
                raise
            continue
        return time.perf_counter() - begun


def by_turns(one: Callable[[], Any], other: Callable[[], Any], rounds: int, each: int) -> Tuple[float, float]:
    """The medians, in seconds: `rounds` times, `each` of one and then `each` of the other."""
    ones: List[float] = []
    others: List[float] = []
    for _ in range(rounds):
        ones += [timed(one) for _ in range(each)]
        others += [timed(other) for _ in range(each)]
    return statistics.median(ones), statistics.median(others)


def round_trips(manager: ProcessManager, directory: Path) -> Dict[str, float]:
    endpoint = f"ipc://{directory}/echo.sock"
    echo = subprocess.Popen([sys.executable, "-c", ECHO, endpoint], stdin=subprocess.DEVNULL)
    try:
        bare = zmq.Context.instance().socket(zmq.REQ)
        bare.setsockopt(zmq.LINGER, 0)
        bare.connect(endpoint)
        frame = manager._names.request(calls.ping()).frame

        def ask() -> None:
            bare.send(frame)
            bare.recv()

        for _ in range(200):
            ask()
            manager.ping()
        ours, theirs = by_turns(manager.ping, ask, rounds=40, each=100)
        bare.close()
    finally:
        echo.kill()
        echo.wait()
    return {"ping": ours, "echo": theirs, "ratio": ours / theirs}


FINDERS = ("list_processes", "get_process_info", "is_process_running")
WITHOUT_LIMIT = ("is_process_running",)


def check_same(name: str, ours: Any, theirs: Any, sleeping: Set[int]) -> None:
    """Both found the same of our own `sleep` processes; what else the host starts and ends meanwhile is nobody's fault."""

    def pids(answer: Any) -> Set[int]:
        entries = answer if isinstance(answer, list) else [answer]
        return {entry["pid"] if isinstance(entry, dict) else entry for entry in entries} & sleeping

    if pids(ours) != pids(theirs):
        raise SystemExit(f"round_trip.py: {name} found otherwise than egse.process: {pids(ours) ^ pids(theirs)}")


def finders(processes: int) -> Dict[str, Dict[str, float]]:
    try:
        import egse.process as reference
    except ImportError:
        return {}
    lasting = f"10{os.getpid()}.5"  # nobody else sleeps so long
    single = f"20{os.getpid()}.5"
    sleeping = [subprocess.Popen(["sleep", lasting], stdin=subprocess.DEVNULL) for _ in range(processes - 1)]
    sleeping.append(subprocess.Popen(["sleep", single], stdin=subprocess.DEVNULL))
    of_us = {one.pid for one in sleeping}
    cases = (("all that sleep", ["sleep", lasting]), ("one", ["sleep", single]), ("none", ["no-such-process"]), ('"", the whole host,', [""]))
    try:
        found = {}
        for name in FINDERS:
            for what, items in cases:
                ours, theirs = partial(getattr(process, name), items), partial(getattr(reference, name), items)
                timed(lambda: check_same(name, ours(), theirs(), of_us))
                mine, other = by_turns(ours, theirs, rounds=9, each=5)
                found[f"{name}, {what} match"] = {"procman": mine, "egse": other, "factor": other / mine, "limit": 0.0 if name in WITHOUT_LIMIT else LEAST}
        return found
    finally:
        for one in sleeping:
            one.kill()
        for one in sleeping:
            one.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the client, as ratios within one run.")
    parser.add_argument("--processes", type=int, default=500, help="so many sleep processes (500)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    said = parser.parse_args()
    program = os.environ.get("PROCMAND", str(Path(__file__).resolve().parents[2] / "target" / "release" / "procmand"))
    with tempfile.TemporaryDirectory(prefix="pmpy", dir="/tmp") as name:
        directory = Path(name)
        endpoint = f"ipc://{directory}/c.sock"
        (directory / "c.toml").write_text(
            f'[daemon]\nstate_dir = "{directory}/state"\nruntime_dir = "{directory}/run"\n[control]\nendpoints = ["{endpoint}"]\n[metrics]\nlisten = ""\n'
        )
        with open(directory / "log", "wb") as log:
            daemon = subprocess.Popen([program, "--config", str(directory / "c.toml")], stdin=subprocess.DEVNULL, stderr=log)
        try:
            manager = ProcessManager(endpoint, connect_timeout=30)
            process.use(manager)
            trips, found = round_trips(manager, directory), finders(said.processes)
        finally:
            daemon.terminate()
            daemon.wait()
    missed = trips["ratio"] > MOST or any(figures["factor"] < figures["limit"] for figures in found.values())
    if said.json:
        print(json.dumps({"round_trip": trips, "finders": found, "processes": said.processes, "missed": missed}, indent=2))
        return int(missed)
    print(f"ping {trips['ping'] * 1e6:.0f} µs, bare echo {trips['echo'] * 1e6:.0f} µs: {trips['ratio']:.2f} times (at most {MOST})")
    for what, figures in found.items():
        print(
            f"{what} of {said.processes}: {figures['procman'] * 1e3:.2f} ms, egse.process {figures['egse'] * 1e3:.2f} ms: "
            f"{figures['factor']:.1f} times faster" + (f" (at least {figures['limit']:g})" if figures["limit"] else "")
        )
    if not found:
        print("CGSE is not installed here: its functions were not measured")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
