"""A process that joins others and then does nothing but live, hang or leave."""

import json
import sys
import time

from trainer.config.ending import end
from trainer.config.errors import DataError
from trainer.config.schema import DistributedConfig, RunConfig
from trainer.distribution.exchange import gather
from trainer.distribution.joining import advance, join, note_end

LIFE_SECONDS = 60


def live():
    role, keys = sys.argv[1], json.loads(sys.argv[2])
    join(RunConfig(distributed=DistributedConfig(**keys)), {})
    print("joined", flush=True)
    if role == "leaves":
        error = DataError(key="data", expected="rows", received="none", fix="some")
        note_end(error)
        raise error
    if role == "asks":
        gather("a word", None)
    until = time.monotonic() + LIFE_SECONDS
    while time.monotonic() < until:
        if role != "hangs":
            advance("a step")
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    end(live, debug=False)
