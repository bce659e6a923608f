"""A child process: tries jobs one after the other and writes how each ended.

Turns the words of several jobs into runs, and beside each run's directory
`NAME.json`: its exit code and what a person was told. An error ends one job only.
"""

import json
import sys
from pathlib import Path

from trainer.__main__ import compose
from trainer.config.ending import end
from trainer.config.errors import RunError
from trainer.config.simulated import prepare_devices


def work():
    jobs = [compose(words) for words in json.loads(sys.argv[1])]
    prepare_devices(jobs[0])
    from trainer.run import run

    for job in jobs:
        try:
            ended = {"code": run(job), "said": ""}
        except RunError as error:
            ended = {"code": error.exit_code, "said": error.message()}
        place = Path(job.run.root) / f"{job.run.name}.json"
        place.write_text(json.dumps(ended))
    return 0


if __name__ == "__main__":
    end(work, debug=True)
