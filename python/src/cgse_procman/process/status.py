"""`ProcessStatus`: what this very process uses, as `egse.process` tells it. Read from `/proc`; no daemon is asked."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Set

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Usage(NamedTuple):
    """What the kernel says, in seconds and bytes."""

    user: float
    system: float
    started: float
    """Since the boot of the host."""
    rss: int
    uss: Optional[int]


def _usage() -> _Usage:
    """proc_pid_stat(5), proc_pid_statm(5), proc_pid_smaps(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    uss: Optional[int] = None
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        uss = 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    except OSError:
        pass
    return _Usage(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS, int(fields[19]) / _TICKS, rss, uss)


def physical_cores() -> Optional[int]:
    """The physical cores of the host: so many sets of hyper threads that share one."""
    cores: Set[str] = set()
    for name in ("core_cpus_list", "thread_siblings_list"):
        for path in Path("/sys/devices/system/cpu").glob(f"cpu[0-9]*/topology/{name}"):
            try:
                cores.add(path.read_text().strip())
            except OSError:
                pass
        if cores:
            return len(cores)
    return None


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat holds no btime")


def _own_uuid() -> uuid.UUID:
    """The UUID by which the daemon knows this process, where it is one of its sub-processes; else a new one."""
    said = os.environ.get("PROCMAN_UUID")
    # What a sub-process starts has its environment, too; the sub-process itself leads a session.
    if said and os.getsid(0) == os.getpid():
        try:
            return uuid.UUID(said)
        except ValueError:
            pass
    return uuid.uuid1()


class ProcessStatus:
    """The status of the running process: PID, up-time in seconds, UUID, memory in bytes, processor time in seconds, cores, and share of a processor.

    It is brought up to date before it is returned or printed.
    """

    def __init__(self, *, metrics_prefix: Optional[str] = None) -> None:
        """
        Args:
            metrics_prefix: put before the names of the metrics, in lower case.
        """
        self._pid = os.getpid()
        self._cpu_count = physical_cores()
        self._uuid = _own_uuid()
        self._usage = _usage()
        self._create_time = _boot_time() + self._usage.started
        self._seen = time.monotonic()
        self._cpu_percent = 0.0
        self.metrics: Dict[str, Any] = _gauges(metrics_prefix)
        if self.metrics:
            self.metrics["PSUTIL_NUMBER_OF_CPU"].set(self._cpu_count or 0)
            self.metrics["PSUTIL_PID"].set(self._pid)
        self.update()

    def update_metrics(self) -> None:
        """Brings the metrics up to date, where prometheus_client is installed. The number of cores and the PID never change."""
        if not self.metrics:
            return
        self.metrics["PSUTIL_MEMORY_INFO"].labels(type="rss").set(self._usage.rss)
        self.metrics["PSUTIL_MEMORY_INFO"].labels(type="uss").set(self._usage.uss or 0)
        self.metrics["PSUTIL_CPU_TIMES"].labels(type="user").set(self._usage.user)
        self.metrics["PSUTIL_CPU_TIMES"].labels(type="system").set(self._usage.system)
        self.metrics["PSUTIL_CPU_PERCENT"].set(self._cpu_percent)
        self.metrics["PSUTIL_NUMBER_OF_THREADS"].set(threading.active_count())
        self.metrics["PSUTIL_PROC_UPTIME"].set(self._uptime())

    def update(self) -> ProcessStatus:
        """Updates what changes during execution, and the metrics.

        Returns:
            the ProcessStatus object, self.
        """
        before, seen = self._usage, self._seen
        self._usage, self._seen = _usage(), time.monotonic()
        passed = self._seen - seen
        if passed > 0:
            spent = self._usage.user + self._usage.system - before.user - before.system
            self._cpu_percent = round(100 * spent / passed, 1)
        self.update_metrics()
        return self

    def _uptime(self) -> float:
        """By the clock that counts suspension, too: the wall clock may be set."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._usage.started

    def as_dict(self) -> Dict[str, Any]:
        """Returns all process information as a dictionary, brought up to date."""
        self.update()
        return {
            "PID": self._pid,
            "Up": self._uptime(),
            "UUID": self._uuid,
            "RSS": self._usage.rss,
            "USS": self._usage.uss,
            "CPU User": self._usage.user,
            "CPU System": self._usage.system,
            "CPU count": self._cpu_count,
            "CPU%": self._cpu_percent,
        }

    def __str__(self) -> str:
        self.update()
        uss = "unknown" if self._usage.uss is None else _size(self._usage.uss)
        return (
            f"PID: {self._pid}, Up: {_duration(self._uptime())}, UUID: {self._uuid}, RSS: {_size(self._usage.rss)}, USS: {uss}, "
            f"CPU User: {_duration(self._usage.user)}, CPU System: {_duration(self._usage.system)}, "
            f"CPU Count: {self._cpu_count}, CPU%: {self._cpu_percent}"
        )


def _size(number: float) -> str:
    """`12.345 MiB`, as egse.bits.humanize_bytes writes it."""
    if number < 1024:
        return f"{number:.0f} byte{'' if number == 1 else 's'}"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1024 or unit == "TiB":
            break
    return f"{number:.3f} {unit}"


def _duration(seconds: float) -> str:
    """`1d 02h03m04s.005`, as egse.system.humanize_seconds writes it."""
    milliseconds = round(seconds * 1000)
    rest, milliseconds = divmod(milliseconds, 1000)
    days, rest = divmod(rest, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{days}d " if days else ""
    if hours:
        text += f"{hours:02d}h"
    if minutes or hours:
        text += f"{minutes:02d}m"
    return f"{text}{rest:02d}s.{milliseconds:03d}"


_made: Dict[str, Dict[str, Any]] = {}


def _gauges(metrics_prefix: Optional[str]) -> Dict[str, Any]:
    """The gauges under this prefix, the same ones for every ProcessStatus of it; none where prometheus_client, which CGSE brings, is not installed."""
    prefix = f"{metrics_prefix.lower()}_" if metrics_prefix else ""
    if prefix in _made:
        return _made[prefix]
    try:
        from prometheus_client import Gauge
    except ImportError:
        return {}

    def gauge(name: str, text: str, *labels: str) -> Any:
        try:
            return Gauge(prefix + name, text, labels)
        except ValueError:
            # egse.process has one of this name in this program: that is the one which is served.
            return Gauge(prefix + name, text, labels, registry=None)

    _made[prefix] = {
        "PSUTIL_NUMBER_OF_CPU": gauge("psutil_number_of_cpu", "Number of physical cores, excluding hyper thread CPUs"),
        "PSUTIL_CPU_TIMES": gauge("psutil_cpu_times_seconds", "Accumulated process time in seconds", "type"),
        "PSUTIL_CPU_PERCENT": gauge("psutil_cpu_percent", "The current process CPU utilization as a percentage"),
        "PSUTIL_PID": gauge("psutil_pid", "Process ID"),
        "PSUTIL_MEMORY_INFO": gauge("psutil_memory_info_bytes", "Memory info for this instrumented process", "type"),
        "PSUTIL_NUMBER_OF_THREADS": gauge("psutil_number_of_threads", "Return the number of Thread objects currently alive"),
        "PSUTIL_PROC_UPTIME": gauge("psutil_process_uptime", "Return the time in seconds that the process is up and running"),
    }
    return _made[prefix]
