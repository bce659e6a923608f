"""What a figure was measured on: processor, memory, system and date."""

import datetime
import os
import pathlib
import platform


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


def sentence(facts: dict[str, str | int | float]) -> str:
    """Return the facts as one line of text."""
    return (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}, Python {facts['python']}; "
        f"load before the first run {facts['load_before']}."
    )


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _field(path: str, name: str) -> str | None:
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return None
    return next(
        (x.partition(":")[2].strip() for x in lines if x.startswith(name)), None
    )
