"""The messages of proto/golden/v1, byte by byte: what the daemon sends is read, and what it takes is what the client sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import msgpack
import pytest

from cgse_procman import Refused, calls, errors, follow, wire
from cgse_procman.records import Noted, RefusedOne, StateChanged

GOLDEN = Path(__file__).resolve().parents[2] / "proto" / "golden" / "v1"


def golden(kind: str) -> List[Any]:
    found = [{**json.loads(path.read_text()), "file": path.stem} for path in sorted(GOLDEN.glob("*.json"))]
    return [pytest.param(one, id=one["file"]) for one in found if one["kind"] == kind]


if not GOLDEN.exists():
    pytest.skip("this is not the repository", allow_module_level=True)

PARSERS: Dict[str, Any] = {
    "Pong": calls.ping(),
    "Info": calls.info(),
    "View": calls.register("x", {}, False),
    "[View]": calls.list_(None, None),
    "ViewWithStatus": calls.status("x"),
    "StatusOfAll": calls.status_of_all(),
    "Unregistered": calls.unregister("x"),
    "Executed": calls.execute("x", None, None, False, None),
    "[Executed]": calls.restart_several(None, None),
    "Ended": calls.quit("x", None),
    "[Ended]": calls.quit_several(None, None),
    "Signalled": calls.signal("x", 1, False),
    "[HostProcess]": calls.processes("x", True, False),
    "[HostProcessInfo]": calls.process_info("x", True, False),
    "[NamedProcess]": calls.zombies(),
    "int": calls.is_process_running("x", True, False),
    "[int]": calls.pids_running("x", True, False),
    "bool": calls.exists("x"),
    "int or null": calls.returncode("x"),
    "Replay": calls.events(None, None, None),
    "[PastRun]": calls.history(None, None),
    "[AuditEntry]": calls.audit(None, None),
    "LogLines": calls.logs("x", None, None, None, None),
    "Reloaded": calls.reload(False),
    "Nothing": calls.upgrade(),
}
"""The call whose result is of this type."""


def same(record: Any, message: Any) -> None:
    """Whatever the message holds is in the record, and nothing else but defaults."""
    if isinstance(message, dict) and isinstance(record, RefusedOne):
        assert record.name == message["name"] and record.error.code == message["error"]["code"]
    elif isinstance(message, dict) and hasattr(record, "__dict__"):
        for key, value in message.items():
            same(getattr(record, "from_" if key == "from" else key), value)
    elif isinstance(message, list):
        assert len(record) == len(message)
        for one, other in zip(record, message):
            same(one, other)
    else:
        assert record == message


@pytest.mark.parametrize("one", golden("reply"))
def test_replies(one: Any) -> None:
    frame = bytes.fromhex(one["hex"])
    message = wire.unpacked(frame)
    kind = one["type"]
    call = PARSERS["Nothing" if kind not in PARSERS else kind]
    request: Any = wire.Request(call, "c", message.get("request_id", "absent"), b"")
    if message["success"]:
        assert kind in PARSERS, kind
        if "request_id" not in message:
            message["request_id"] = "absent"
            frame = msgpack.packb(message)
        answer = wire.result(request, frame)
        if kind not in ("Nothing", "Unregistered"):
            same(answer, message["result"])
    else:
        with pytest.raises(Refused) as refused:
            wire.result(request, frame)
        error = message["error"]
        assert type(refused.value) is errors.BY_CODE[error["code"]] and str(refused.value) == error["message"]
        assert refused.value.details == error.get("details", {})


@pytest.mark.parametrize("one", golden("event"))
def test_events(one: Any) -> None:
    event = follow.published([b"topic", bytes.fromhex(one["hex"])])
    assert type(event) is {"StateChanged": StateChanged, "Noted": Noted}[one["type"]]
    same(event, one["message"])


@pytest.mark.parametrize("one", golden("request"))
def test_requests(one: Any) -> None:
    message = dict(one["message"])
    assert msgpack.unpackb(bytes.fromhex(one["hex"])) == message
    command = message.pop("command")
    assert hasattr(calls, command) or hasattr(calls, command + "_")
    for key in ("request_id", "client", "version"):
        message.pop(key, None)
    # The same arguments by the client; where the golden message says a default, the client says nothing.
    made: Any = None
    if command == "execute":
        made = calls.execute(message["name"], message.get("args"), message.get("env"), message.get("wait", False), message.get("timeout"))
    elif command == "register" and "instances" not in message:
        made = calls.register(message.pop("name"), {key: value for key, value in message.items() if key != "replace"}, message.get("replace", False))  # type: ignore[misc]
        message["name"] = made.arguments["name"]
    elif command in ("quit", "restart") and "name" not in message:
        several = calls.quit_several if command == "quit" else calls.restart_several
        made = several(message.get("group"), message.get("timeout"))
    elif command == "quit":
        made = calls.quit(message["name"], message.get("timeout"))
    elif command == "reap":
        made = calls.reap(message["name"], message.get("timeout"), message.get("children_only", False))
    elif command == "signal":
        made = calls.signal(message["name"], message["signal"], message.get("tree", False))
    elif command == "logs":
        made = calls.logs(message["name"], *(message.get(key) for key in ("stream", "lines", "offset", "max_bytes")))
    elif command == "events":
        made = calls.events(message.get("since"), message.get("daemon"), message.get("limit"))
    elif command in ("processes", "process_info"):
        made = getattr(calls, command)(message["items"], message.get("contains", True), message.get("case_sensitive", False))
    elif command in ("history", "audit"):
        made = getattr(calls, command)(message.get("name"), message.get("limit"))
    if made is not None:
        defaults = {"contains": True, "case_sensitive": False, "tree": False, "children_only": False, "wait": False, "replace": False}
        assert made.command == command
        assert made.arguments == {key: value for key, value in message.items() if defaults.get(key, ...) != value}
