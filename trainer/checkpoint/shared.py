"""Proof that all processes of a run see the same directory.

Turns a directory into a yes, or an error with advice, before anything is compiled:
with a directory of its own in every process Orbax would wait for ever. It refuses to
know what is kept there.
"""

from __future__ import annotations

import secrets

from etils import epath

from trainer import storage
from trainer.config.errors import StorageError
from trainer.distribution.exchange import from_primary, gather, wait_for_all
from trainer.distribution.joining import hosts
from trainer.distribution.processes import is_primary, process_count


def check_shared(directory: epath.Path) -> None:
    """Raise in every process unless all of them see `directory` alike.

    Raises:
        StorageError: Who does not see what process 0 wrote there, by host.
    """
    if process_count() == 1:
        return

    def write() -> str:
        name = f"shared-{secrets.token_hex(4)}"
        storage.write_bytes(directory / name, b"")
        return name

    proof = directory / from_primary("a file for all", write)
    sees = gather("whether all see it", storage.exists(proof))
    wait_for_all("that all have looked")
    if is_primary():
        storage.remove(proof)
    blind = [index for index, seen in enumerate(sees) if not seen]
    if blind:
        names = hosts()
        shown = ", ".join(f"process {i} on {names[i % len(names)]}" for i in blind)
        raise StorageError(
            key="run.root",
            expected="one directory that all processes share",
            received=f"{directory} is another one for {shown}; process 0 wrote to it "
            f"on {names[0]}",
            fix="run.root=gs://BUCKET/runs, or a directory mounted on all hosts",
        )
