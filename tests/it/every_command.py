"""Every command of the protocol from Python, with nothing but pyzmq and msgpack: argv[1] is the endpoint.

Prints one line for each command that was tried and exits with 0; any answer that is not as documented is an AssertionError.
"""

import os
import subprocess
import sys
import time

import msgpack
import zmq

tried = set()
socket = zmq.Context.instance().socket(zmq.REQ)
socket.setsockopt(zmq.LINGER, 0)
socket.setsockopt(zmq.RCVTIMEO, 30_000)
socket.connect(sys.argv[1])


def request(command, **arguments):
    """Sends a request and returns the whole reply."""
    tried.add(command)
    number = len(tried)
    socket.send(msgpack.packb({"command": command, "request_id": number, **arguments}))
    reply = msgpack.unpackb(socket.recv())
    assert reply["request_id"] == number, reply
    return reply


def ask(command, **arguments):
    """The result of a command that must succeed."""
    reply = request(command, **arguments)
    assert reply["success"] is True and "error" not in reply, reply
    return reply["result"]


def refused(command, code, **arguments):
    """The error of a command that must be refused with this code."""
    reply = request(command, **arguments)
    assert reply["success"] is False and "result" not in reply, reply
    assert reply["error"]["code"] == code and reply["error"]["message"], reply
    return reply["error"]


def wait_for(fact):
    """Waits until a fact holds, and returns it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if value := fact():
            return value
        time.sleep(0.01)
    raise AssertionError("it never came about")


def the_sleep():
    """The child of the shell, once it is what it is to be."""
    return next((child for child in ask("children", name="py") if child["name"] == "sleep"), None)


pong = ask("ping")
assert pong["pong"] is True and abs(pong["time"] - time.time()) < 60

info = ask("info")
assert info["protocol"] == 1 and info["uptime"] >= 0 and sys.argv[1] in info["endpoints"]
assert info["capabilities"]["subreaper"] is True and set(info["counts"]) >= {"running", "stopped", "fatal"}
assert os.path.exists(f"/proc/{info['pid']}")

marker = f"every-command-{os.getpid()}"
script = f"sleep 1000 & echo {marker} >/dev/null; wait"
definition = {"name": "py", "group": "lab", "cmd": ["/bin/sh", "-c", script], "env": {"SECRET": "swordfish"}, "stop_timeout": 2}
view = ask("register", **definition)
assert view["state"] == "stopped" and view["wanted"] == "down" and view["pid"] is None and view["returncode"] is None
assert "swordfish" not in str(view), "a view never shows the environment"
assert ask("register", **definition) == view, "the same definition again is fine"
refused("register", "already_exists", name="py", cmd=["/bin/true"])
assert "`comand`" in refused("register", "bad_request", name="x", comand=["/bin/true"])["message"]
refused("execute", "not_found", name="pyy")

assert ask("returncode", name="py") is None
assert ask("exists", name="py") is False and ask("is_running", name="py") is False
started = ask("execute", name="py", args=["extra"], env={"RUN": "1"})
pid = started["pid"]
assert started["name"] == "py" and started["state"] == "running" and os.path.exists(f"/proc/{pid}")
already = refused("execute", "already_running", name="py")
assert already["details"]["pid"] == pid
assert ask("exists", name="py") is True and ask("is_running", name="py") is True and ask("returncode", name="py") is None

child = wait_for(the_sleep)
assert child["cmdline"] == ["sleep", "1000"], child

[listed] = ask("list", group="lab")
assert listed["pid"] == pid and listed["state"] == "running" and listed["uuid"] == started["uuid"]
assert ask("list", state="fatal") == [] and [v["name"] for v in ask("list")] == sorted(v["name"] for v in ask("list"))
assert [p["pid"] for p in ask("list", items=[marker])] == [pid]

# The tree of a status may be some milliseconds old.
status = wait_for(lambda: next((s for s in [ask("status", name="py")] if s["status"]["tree"]["processes"] == 2), None))
assert status["status"]["pid"] == pid and status["status"]["uuid"] == started["uuid"]
assert status["status"]["memory"]["rss"] > 0
everything = ask("status")
assert everything["daemon"]["pid"] == info["pid"] and [v["name"] for v in everything["processes"]] == ["py"]

process = wait_for(lambda: next((p for p in ask("processes", items=[marker.upper(), "/bin/SH"]) if p["status"] == "sleeping"), None))
assert process["pid"] == pid and marker in process["cmdline"]
assert ask("processes", items=[marker.upper()], case_sensitive=True) == []
assert ask("processes", items=marker, contains=False) == []
[found] = ask("process_info", items=marker)
assert found["pid"] == pid and found["cmdline"][0] == "/bin/sh" and abs(found["create_time"] - time.time()) < 60
assert ask("is_process_running", items=marker) == pid and ask("is_process_running", items=[marker], as_list=True) == [pid]
assert ask("is_process_running", items=[]) == 0 and ask("is_process_running", items="", as_list=True) == []

zombie = subprocess.Popen(["/bin/true"])  # not waited for yet
assert wait_for(lambda: [z for z in ask("zombies") if z["pid"] == zombie.pid])[0]["name"] == "true"
zombie.wait()
assert not [z for z in ask("zombies") if z["pid"] == zombie.pid]

assert ask("signal", name="py", signal="CONT") == {"name": "py", "signalled": [pid]}
assert set(ask("signal", name="py", signal=18, tree=True)["signalled"]) == {pid, child["pid"]}
refused("signal", "bad_request", name="py", signal="NOPE")

again = ask("restart", name="py")
assert again["pid"] != pid and again["uuid"] != started["uuid"]
child = wait_for(the_sleep)
reaped = ask("reap", name="py", children_only=True)
assert reaped["survivors"] == 0 and child["pid"] in reaped["terminated"], reaped
ended = wait_for(lambda: next((v for v in ask("list") if v["state"] == "exited"), None))
assert ended["cause"] == "exit" and ended["returncode"] in (0, 143), ended

ask("execute", name="py")
quit_ = ask("quit", name="py", timeout=5)
assert quit_["survivors"] == 0 and quit_["returncode"] == -15 and quit_["signal"] == 15, quit_
assert ask("returncode", name="py") == -15 and ask("quit", name="py")["survivors"] == 0
refused("signal", "not_running", name="py", signal="HUP")
ask("execute", name="py")
assert ask("reap", name="py")["survivors"] == 0
assert [e["name"] for e in ask("quit", all=True)] == ["py"] and [e["name"] for e in ask("quit", group="lab")] == ["py"]
refused("quit", "not_found", group="nobody")
refused("quit", "bad_request")

broken = {"name": "broken", "cmd": ["/no/such/program"]}
ask("register", **broken)
details = refused("execute", "spawn_failed", name="broken")["details"]
assert details["errno_name"] == "ENOENT" and details["command"] == "/no/such/program", details
assert ask("unregister", name="broken") == {"name": "broken"}
refused("unregister", "not_found", name="broken")

assert refused("exceute", "unknown_command")["details"]["nearest"] == "execute"
tried.discard("exceute")
refused("ping", "unsupported_version", version=99)
refused("ping", "bad_request", surprise=True)

replay = ask("events", since=1)
assert replay["complete"] and [event["seq"] for event in replay["events"]] == list(range(1, replay["next"])), replay
assert replay["daemon"] == ask("info")["uuid"]
assert all(run["name"] == "py" for run in ask("history", name="py", limit=5)) and ask("history")

ask("register", name="loud", cmd=["sh", "-c", "echo hello; exec sleep 100"], stdout="log")
ask("execute", name="loud")
deadline = time.monotonic() + 20
while not (answer := ask("logs", name="loud"))["lines"]:
    assert time.monotonic() < deadline, answer
assert answer == {"lines": ["hello"], "offset": 6, "truncated": False}, answer
ask("unregister", name="loud")
refused("logs", "bad_request", name="py")
refused("logs", "not_found", name="nobody")

plan = ask("reload", dry_run=True)
assert plan == {"added": [], "changed": [], "removed": [], "unchanged": [], "restarted": [], "ignored": []}, plan
assert ask("reload") == plan and ask("returncode", name="py") == -15, "what was registered at run time is left alone"
trail = ask("audit", limit=3)
assert [entry["command"] for entry in trail] == ["reload", "unregister", "execute"], trail
assert trail[0]["outcome"] == "ok" and trail[0]["endpoint"] == sys.argv[1] and trail[0]["peer"], trail
assert trail[1]["target"] == "loud" and all(entry["target"] == "py" for entry in ask("audit", name="py"))
assert "swordfish" not in str(ask("audit", limit=1000)), "nor does the audit trail"

refused("shutdown", "bad_request", children="sell")
assert ask("ping")["pong"] is True, "it stays"

before = ask("info")
assert ask("upgrade") == {}
while True:
    # What the former program does not come to answer any more is lost: the question goes out again on a new socket.
    socket.close()
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 500)
    socket.connect(sys.argv[1])
    try:
        after = ask("info")
    except zmq.Again:
        continue
    if after["uuid"] != before["uuid"]:
        break
socket.setsockopt(zmq.RCVTIMEO, 30_000)
assert after["pid"] == before["pid"], "another program in the same process"
assert ask("returncode", name="py") == -15, "and nothing is forgotten"

assert ask("shutdown") == {}
print("\n".join(sorted(tried)))
