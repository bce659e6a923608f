"""Files that process 0 writes from arrays whose parts all processes hold.

Gathering an array is a computation of all processes: what the first one reads, the
others read along. It refuses to know how an array is gathered and a file written.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.distribution.exchange import from_primary, wait_for_all
from trainer.distribution.processes import is_primary, process_count

Read = Callable[[str], np.ndarray]


def write_on_primary(name: str, write: Callable[[Read], object], read: Read) -> None:
    """Let process 0 write what all processes read with it, in its order.

    Args:
        name: What is written, for messages.
        write: Called in process 0 with what gives it the arrays.
        read: Returns the array of a name; a computation of all processes.
    """
    if process_count() == 1:
        write(read)
        return
    if not is_primary():
        while (wanted := from_primary(name, str)) is not None:
            read(wanted)
        wait_for_all(name)
        return

    def read_along(wanted: str) -> np.ndarray:
        from_primary(name, lambda: wanted)
        return read(wanted)

    try:
        write(read_along)
    finally:
        from_primary(name, lambda: None)
    wait_for_all(name)
