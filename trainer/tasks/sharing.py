"""Whether processes share the encoding of rows, and over which wire.

Turns a stream that encodes everything into one that encodes a part, where that is less
work: learning a share of the lengths and building what a process needs against all.
"""

from __future__ import annotations

import dataclasses

from trainer.data.batches import TrainingStream
from trainer.data.sharing import Share
from trainer.distribution.exchange import channel, gather
from trainer.distribution.processes import process_count, process_index


def share_encoding(stream: TrainingStream, *, needed: int) -> TrainingStream:
    """Return a stream of the same batches, encoded together where that is less work.

    On a mesh whose `model` axis spans processes they need the same sequences, and each
    encodes what it needs by itself.

    Args:
        stream: Batches of which a process builds some sequences.
        needed: Sequences of a global batch that this process builds.
    """
    count = process_count()
    largest = max(gather("sequences of a process", needed))
    if 1 / count + largest / stream.global_batch_size >= 1:
        return stream
    tell = channel("lengths of rows")
    return dataclasses.replace(stream, share=Share(process_index(), count, tell))
