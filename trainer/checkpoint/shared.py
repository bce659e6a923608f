"""Proof that all processes of a run see the same directory.

Turns a directory into a yes, or an error with advice, before the first checkpoint:
with a directory of its own in every process Orbax would wait for ever. It refuses to
know what is kept there.
"""

from __future__ import annotations

import secrets

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from trainer import storage
from trainer.config.errors import StorageError


def check_shared(directory: epath.Path) -> None:
    """Raise in every process unless all of them see `directory` alike."""
    if jax.process_count() == 1:
        return
    token = np.uint32(secrets.randbits(32))
    token = np.uint32(multihost_utils.broadcast_one_to_all(token))
    proof = directory / f"shared-{int(token):08x}"
    if jax.process_index() == 0:
        storage.create(proof, b"")
    multihost_utils.sync_global_devices("the token is written")
    sees = multihost_utils.process_allgather(np.array(storage.exists(proof)))
    if jax.process_index() == 0:
        storage.remove(proof)
    blind = [str(process) for process, seen in enumerate(sees.ravel()) if not seen]
    if blind:
        raise StorageError(
            key="run.root",
            expected="one directory that all processes share",
            received=f"{directory} is another one in process {', '.join(blind)}",
            fix="mount one directory on all machines, or use run.root=gs://...",
        )
