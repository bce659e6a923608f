"""The memory of this machine that this process may use.

Turns what the kernel says into one number of bytes: what is there, what the process is
limited to and what its control group is. It refuses to know devices that share it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2, and of 1


def host_bytes(cgroup: Path = _CGROUP) -> int:
    """Return the bytes that a process here may use, the least of its limits.

    Args:
        cgroup: Where its control group is mounted, as in a container.
    """
    return min(_limits(cgroup))


def _limits(cgroup: Path) -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        yield allowed
    for name in _LIMITS:
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:  # no such version here
            continue
        if text.isdecimal():  # else `max`
            yield int(text)
