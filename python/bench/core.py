"""CGSE's core, up and down: one service after the other as a script does it, beside procmand with config/cgse-core.toml, in one run.

    PROCMAND=…/release/procmand PYTHON_OF_CGSE bench/core.py [--rounds 3] [--json]

1. The seven services are started one after the other, each once the one before is ready: the registry when it answers, the others when it lists them as
   passing. Then `cgse core stop` is timed, until it returns.
2. procmand is started with the documented configuration, until all seven run; then it is ended by SIGTERM, until it is gone.

Limits: up at most 0.85 of (1), down at most half of `cgse core stop`. The services have CGSE's own ports, so there is one core on a host at a time. It is run by
the Python that has CGSE (`make bench-cgse`). Exits with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, Callable, Dict, List

import zmq

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("PROCMAND", ROOT / "target" / "release" / "procmand"))
CONFIG = ROOT / "config" / "cgse-core.toml"
REGISTRY = "tcp://127.0.0.1:6100"
DEADLINE = 120.0
UP_MOST, DOWN_MOST = 0.85, 0.5


def ask(body: Dict[str, Any]) -> Dict[str, Any]:
    """What the registry answers; nothing where it does not."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(REGISTRY)
    try:
        socket.send_multipart([b"REQ", json.dumps(body).encode()])
        return dict(json.loads(socket.recv_multipart()[1])) if socket.poll(500) else {}
    finally:
        socket.close()


def passing(service_type: str) -> bool:
    services = ask({"action": "list", "service_type": service_type}).get("services", [])
    return any(service["health"] == "passing" for service in services)


def wait_for(what: str, fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not fact():
        if time.monotonic() > deadline:
            raise SystemExit(f"core.py: {what} did not come about within {DEADLINE:g} s")
        time.sleep(0.01)


def site(directory: Path) -> Dict[str, str]:
    """A site of its own, and its environment."""
    for part in ("cwd", "LAB23/log", "LAB23/daily", "LAB23/obs", "LAB23/conf"):
        (directory / part).mkdir(parents=True)
    (directory / "LAB23/conf/SETUP_LAB23_00000_240101_120000.yaml").write_text("Setup:\n    site_id: LAB23\n    history: {}\n")
    ours = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PROJECT": "CGSE",
        "SITE_ID": "LAB23",
        "CGSE_DATA_STORAGE_LOCATION": str(directory / "LAB23"),
        "CGSE_CONF_DATA_LOCATION": str(directory / "LAB23/conf"),
        "CGSE_LOG_FILE_LOCATION": str(directory / "LAB23/log"),
        "CGSE_METRICS_BACKEND": "duckdb",
        "CGSE_DUCKDB_PATH": str(directory / "metrics.duckdb"),
    }
    return {**os.environ, **ours}


def one_after_the_other() -> Dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pmcore", dir="/tmp") as name:
        directory = Path(name)
        environment = site(directory)
        running: List[subprocess.Popen[bytes]] = []
        try:
            begun = time.monotonic()
            for service in tomllib.loads(CONFIG.read_text())["process"]:
                command = [sys.executable, *service["cmd"][1:]]
                with open(directory / f"{service['name']}.log", "wb") as log:
                    running.append(
                        subprocess.Popen(command, cwd=directory / "cwd", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
                    )
                kind = service.get("cgse_service_type")
                wait_for(service["name"], lambda: passing(kind) if kind else bool(ask({"action": "health"}).get("success")))
            up = time.monotonic() - begun
            begun = time.monotonic()
            stop = [str(Path(sys.executable).with_name("cgse")), "core", "stop"]
            subprocess.run(stop, cwd=directory / "cwd", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            down = time.monotonic() - begun
            left = sum(one.poll() is None for one in running)
            return {"up": up, "down": down, "left": left}
        finally:
            for one in running:
                if one.poll() is None:
                    os.killpg(one.pid, signal.SIGKILL)
                one.wait()


def by_procmand() -> Dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pmcore", dir="/tmp") as name:
        directory = Path(name)
        environment = site(directory)
        config = directory / "core.toml"
        # But for the directories, as it is documented.
        config.write_text(CONFIG.read_text().replace('"../target/cgse"', f'"{directory}/cwd"').replace('"../target/cgse/', f'"{directory}/'))
        control = [str(PROGRAM.with_name("procmanctl")), "--endpoint", "tcp://127.0.0.1:6150", "--json"]

        def all_run() -> bool:
            said = subprocess.run([*control, "list"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            return said.returncode == 0 and all(view["state"] == "running" for view in json.loads(said.stdout)["result"])

        begun = time.monotonic()
        with open(directory / "log", "wb") as log:
            daemon = subprocess.Popen([str(PROGRAM), "--config", str(config)], env=environment, stdin=subprocess.DEVNULL, stderr=log)
        try:
            wait_for("the core under procmand", all_run)
            up = time.monotonic() - begun
            begun = time.monotonic()
            daemon.terminate()
            code = daemon.wait(DEADLINE)
            if code != 0:
                raise SystemExit(f"core.py: procmand left with {code}")
            return {"up": up, "down": time.monotonic() - begun}
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                daemon.wait(DEADLINE)


def main() -> int:
    parser = argparse.ArgumentParser(description="CGSE's core, up and down, beside a script.")
    parser.add_argument("--rounds", type=int, default=3, help="of both by turns; the figures are medians (3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    said = parser.parse_args()
    by_procmand()  # so that everything was read from the disk once
    rounds = [(one_after_the_other(), by_procmand()) for _ in range(said.rounds)]
    figures = {key: {"script": statistics.median(one[key] for one, _ in rounds), "procmand": statistics.median(other[key] for _, other in rounds)} for key in ("up", "down")}
    for each in figures.values():
        each["ratio"] = each["procmand"] / each["script"]
    left = [one["left"] for one, _ in rounds]
    missed = figures["up"]["ratio"] > UP_MOST or figures["down"]["ratio"] > DOWN_MOST
    if said.json:
        print(json.dumps({**figures, "left_by_cgse_core_stop": left, "missed": missed}, indent=2))
    else:
        for key, most, what in (("up", UP_MOST, "one after the other"), ("down", DOWN_MOST, "cgse core stop")):
            each = figures[key]
            print(f"{key}: procmand {each['procmand']:.2f} s, {what} {each['script']:.2f} s: {each['ratio']:.2f} times (at most {most})")
        print(f"services left when cgse core stop returned: {left}; behind procmand none")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
