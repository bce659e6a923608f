"""The last word of a save: what is written once all files are there, before the commit.

Turns a call into a kind of temporary directory for Orbax, which makes that call when a
step is complete but for its commit: what is written then is in every committed step,
and in no other. It refuses to know what is written.

Orbax 0.12 has a callback before the commit too, but writes the time of the commit into
a file after it: no description of the files could be true. To go once that callback
comes last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

MARKER = ocp.path.atomicity.COMMIT_SUCCESS_FILE
Seal = Callable[[int, epath.Path, bytes], None]
"""Called with the step, the directory of its files now, and the marker's content."""


def sealed_paths(directory: epath.Path, seal: Seal) -> type[Any]:
    """Return the temporary paths that Orbax uses for `directory`, with a seal."""
    kind = ocp.path.atomicity_defaults.get_default_temporary_path_class(directory)

    class Sealed(kind):  # type: ignore[misc, valid-type]  # chosen by the storage
        async def finalize(self) -> None:
            """Complete the files, seal them, and let Orbax commit."""
            times = self._checkpoint_metadata_store
            if times is not None:  # the items in a step have none, and no seal
                written, final = self.get(), self.get_final()
                await asyncio.to_thread(_write_time, times, written)
                marker = f"Checkpoint commit was successful to {final}".encode()
                await asyncio.to_thread(seal, int(final.name), written, marker)
                self._checkpoint_metadata_store = None  # not written once more
            await super().finalize()

    return Sealed


def _write_time(times: Any, written: epath.Path) -> None:  # noqa: ANN401  # Orbax's own
    """Complete the metadata of a step as Orbax would after the seal."""
    times.wait_until_finished()
    times.update(
        file_path=written / "_CHECKPOINT_METADATA",
        commit_timestamp_nsecs=time.time_ns(),
    )
    times.wait_until_finished()
