"""What CGSE finds by entry points. With the real CGSE where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, procmand, sleeper, wait_for

from cgse_procman import ProcessManager, cli

try:
    import cgse_common.cgse
except ImportError:
    cgse_common = None

with_cgse = pytest.mark.skipif(cgse_common is None, reason="CGSE is not installed")


def points(group: str) -> Any:
    found = metadata.distribution("cgse-procman").entry_points
    return {point.name: point for point in found if point.group == group}


def test_entry_points() -> None:
    assert points("cgse.process_management.core_services")["procman"].value == "PROCMAN"
    assert points("cgse.command")["procman"].value.startswith("cgse_procman.cgse_plugin:")


def test_without_procmanctl(manager: ProcessManager, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--endpoint", daemon.endpoint]
    manager.register("web", sleeper(group="lab"))
    assert cli.run("execute", ["web", *where]) == cli.DONE
    capsys.readouterr()
    assert cli.run("list", where) == cli.DONE
    [head, row] = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "GROUP", "STATE", "PID", "COMMAND"] and row.split()[:3] == ["web", "lab", "running"] and row.endswith("sleep 1000")
    wait_for(lambda: manager.status("web").status, "the first look at it")
    assert cli.run("status", ["web", "--json", *where]) == cli.DONE
    assert json.loads(capsys.readouterr().out)["status"]["pid"] == manager.status("web").pid
    for verb in ("ping", "info", "status"):
        assert cli.run(verb, where) == cli.DONE
    assert cli.run("restart", ["web", *where]) == cli.DONE and cli.run("quit", ["web", *where]) == cli.DONE
    capsys.readouterr()
    assert cli.run("execute", ["nobody", *where]) == cli.REFUSED and "nobody" in capsys.readouterr().err
    assert cli.run("execute", where) == cli.USAGE and cli.run("list", ["--what"]) == cli.USAGE and cli.run("ping", ["--endpoint", "x"]) == cli.USAGE
    assert cli.run("audit", where) == cli.USAGE and "procmanctl" in capsys.readouterr().err
    assert cli.run("ping", ["--endpoint", f"ipc://{daemon.directory}/nobody"]) == cli.UNREACHABLE


@with_cgse
def test_the_command_of_cgse(manager: ProcessManager, daemon: Daemon, tmp_path: Path) -> None:
    manager.register("web", sleeper())
    environment = {**os.environ, "PROCMAN_ENDPOINT": daemon.endpoint, "PROJECT": "X", "SITE_ID": "Y", "COLUMNS": "200"}

    def cgse(*arguments: str, path: str = "/usr/bin:/bin") -> "subprocess.CompletedProcess[str]":
        program = "import sys; sys.argv[0] = 'cgse'; import cgse_common.cgse as c; c.app()"
        return subprocess.run(
            [sys.executable, "-c", program, "procman", *arguments],
            env={**environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    listed = cgse("list", "--json")
    assert listed.returncode == 0 and json.loads(listed.stdout)[0]["name"] == "web", listed.stderr
    assert cgse("execute", "nobody").returncode == cli.REFUSED
    assert "returncode" in cgse("--help").stdout
    control = procmand().with_name("procmanctl")
    if control.exists():
        passed = cgse("list", "--json", path=f"{control.parent}:/usr/bin:/bin")
        assert passed.returncode == 0 and json.loads(passed.stdout)["result"][0]["name"] == "web", passed.stdout + passed.stderr


@with_cgse
def test_the_row_of_the_process_manager() -> None:
    from egse.procman import ProcessManagerController

    # Its __init__ asks for the storage manager; the list needs neither.
    rows = ProcessManagerController.get_core_processes(object.__new__(ProcessManagerController))
    assert rows["procman"] == "PROCMAN" and "PM_CS" in rows.values()


def test_the_verbs_are_those_of_procmanctl() -> None:
    pytest.importorskip("typer", reason="CGSE is not installed")
    from cgse_procman.cgse_plugin import VERBS

    control = procmand().with_name("procmanctl")
    if not control.exists():
        pytest.skip("there is no procmanctl")
    told = subprocess.run([str(control), "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    verbs = {line.split()[0] for line in told.partition("Verbs:")[2].partition("Options:")[0].splitlines() if line.startswith("  ") and line[2] != " "}
    assert verbs - {"completions", "man", "help"} == set(VERBS)
