"""A process that joins others and then does nothing but live, hang or leave."""

import json
import os
import sys
import time

from trainer.config.ending import end
from trainer.config.errors import DataError
from trainer.config.interruption import listen
from trainer.config.schema import DistributedConfig, RunConfig
from trainer.distribution.detection import find_rendezvous
from trainer.distribution.exchange import gather
from trainer.distribution.joining import advance, concluding, join, note_end
from trainer.distribution.roll_call import call_roll

LIFE_SECONDS = 60
CLOSING_SECONDS = 7  # longer than a process may live on where another has ended


def live():
    listen()
    role, keys = sys.argv[1], json.loads(sys.argv[2])
    config = DistributedConfig(**keys)
    if role == "vanishes":  # between the roll call and JAX's own start
        call_roll(find_rendezvous(config, simulated=1), {}, seconds=LIFE_SECONDS)
        print("joined", flush=True)
        os._exit(9)
    join(RunConfig(distributed=config), {})
    print("joined", flush=True)
    if role in ("leaves", "closes"):
        error = DataError(key="data", expected="rows", received="none", fix="some")
        with concluding():
            time.sleep(CLOSING_SECONDS if role == "closes" else 0)
            print("closed", flush=True)
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
