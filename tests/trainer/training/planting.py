"""Batches whose loss is really not a number: one token's embedding overflows.

Its row is as large as float32 allows in one element, so that the scaled embedding is
infinite and the first norm makes no number of it. As an output it has a finite logit,
since logits are capped: nothing but the sequences that hold the token is spoiled.
"""

import json
import shutil

import h5py
import numpy as np

POISON_ID = 5  # below the ids that `make_batch` draws
POISON, BYTE_ID = "\N{SECTION SIGN}", 185  # the second of its two bytes as a token
HUGE = 3e38


def poison(preset, directory, *, token_id=POISON_ID):
    """Copy a preset of capped logits and spoil a token; return its directory."""
    shutil.copytree(preset, directory, copy_function=shutil.copyfile)
    with h5py.File(directory / "model.weights.h5", "r+") as file:
        table = file["layers/reversible_embedding/vars/0"]
        table[token_id] = np.eye(1, table.shape[1], dtype=table.dtype)[0] * HUGE
    return directory


def plant(batch, *, sequence=0, token_id=POISON_ID):
    """Return a batch that holds the token at the beginning of a sequence."""
    token_ids = batch["token_ids"].copy()
    token_ids[sequence, 0] = token_id
    return batch | {"token_ids": token_ids}


def write_planted(path, count, *, batch, bad):
    """Write rows for `count` batches; in those of `bad` the last row overflows."""
    rows = [
        {"prompt": f"Row {n}?", "response": f"{n * n} it is."}
        for n in range(count * batch)
    ]
    for number in bad:
        rows[(number + 1) * batch - 1]["prompt"] += POISON
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
