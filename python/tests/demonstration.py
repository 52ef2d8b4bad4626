"""A script that used `egse.process`: the import is the only line that was changed, and the one that a test changes back."""

import sys
import time

from cgse_procman.process import ProcessStatus, SubProcess, get_process_info, is_process_running, list_processes, list_zombies

marker = sys.argv[1]

proc = SubProcess("MyApp", [sys.executable, "-c", "import time; time.sleep(1000)"], [marker])
assert proc.execute(), proc.exc_info
assert proc.is_running() and proc.exists() and proc.returncode() is None
print("command line", proc.cmdline() == f"{sys.executable} -c import time; time.sleep(1000) {marker}")

# A process that has just been started has no command line for a moment: the kernel gives it one late in execve(2).
deadline = time.monotonic() + 30
while not is_process_running([marker, "time.sleep"]) and time.monotonic() < deadline:
    time.sleep(0.01)
found = [entry for entry in list_processes([marker, "TIME.SLEEP"], verbose=False) if entry["pid"] == proc.pid]
print("listed", len(found), sorted(found[0]))
info = [entry for entry in get_process_info(marker) if entry["pid"] == proc.pid]
print("info", len(info), sorted(info[0]), info[0]["cmdline"][-1] == marker)
print("running", proc.pid in is_process_running([marker], as_list=True), is_process_running(marker + "-no"), is_process_running([]))
print("zombies", all(sorted(zombie) == ["cmdline", "name", "pid"] for zombie in list_zombies()))
print("status", sorted(ProcessStatus(metrics_prefix="demo").as_dict()))

proc.quit()
print("ended", proc.is_running(), is_process_running([marker, "time.sleep"]))

failed = SubProcess("Nothing", ["/no/such/program"])
print("failed", failed.execute(), failed.exc_info["exc_type"].__name__, failed.exc_info["command"])

code = SubProcess("Code", ["exit 3"], shell=True)
code.execute()
code.communicate()
print("code", code.returncode())
