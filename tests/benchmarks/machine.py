"""What a figure was measured on: processor, memory, system and date."""

import datetime
import os
import pathlib
import platform
import resource
import time


def machine_facts() -> dict[str, str | int | float]:
    """Return what a reader needs to judge a time."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


class OtherWork:
    """How busy everybody else kept the processor while children of ours ran."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        """Return cores that others used since, on average; None where unknown."""
        (seconds, busy, ours), (now, busy_now, ours_now) = self._start, self._now()
        if busy is None or now == seconds:
            return None
        return max(0.0, (busy_now - busy - ours_now + ours) / (now - seconds))

    @staticmethod
    def _now() -> tuple[float, float | None, float]:
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = own.ru_utime + own.ru_stime + time.process_time()
        return time.perf_counter(), _busy_seconds(), ours


def _busy_seconds() -> float | None:
    """Return the processor time that all processes have used since the boot."""
    fields = (_field("/proc/stat", "cpu ", split=" ") or "").split()
    if not fields:
        return None
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields[:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def sentence(facts: dict[str, str | int | float]) -> str:
    """Return the facts as one line of text."""
    return (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}, Python {facts['python']}; "
        f"load before the first run {facts['load_before']}."
    )


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _field(path: str, name: str, *, split: str = ":") -> str | None:
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith(name)), None)
    return None if line is None else line.partition(split)[2].strip()
