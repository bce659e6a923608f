"""A W&B sweep on a pod: one agent, and the same overrides in every process.

Process 0 runs W&B's agent, whose program is this file again: each trial's words are put
where every process sees them, and the training starts with them. The other processes
wait there for the next trial until the agent has ended.

    python -m launch.pod_sweep --sweep=E/P/ID --exchange=gs://BUCKET/x -- TRAINING

It refuses to know W&B: the agent is a command, and a trial is a list of words.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from launch.supervisor import supervise
from trainer.config.errors import Preempted

_EXCHANGE = "LAUNCH_SWEEP_EXCHANGE"
_TRAINING = "LAUNCH_SWEEP_TRAINING"
_AGENT = "LAUNCH_SWEEP_AGENT"
_START = "LAUNCH_START"
_INDICES = (
    ("SLURM_PROCID",),
    ("OMPI_COMM_WORLD_RANK",),
    ("MEGASCALE_SLICE_ID", "TPU_WORKER_ID"),
    ("TPU_WORKER_ID",),
)
_LOOK_SECONDS = 1.0
_END = "end"


def main(arguments: Sequence[str]) -> int:
    """Run the agent or follow it; as the agent's program, run one trial."""
    parser = argparse.ArgumentParser(prog="python -m launch.pod_sweep")
    parser.add_argument("--sweep", required=True, metavar="ENTITY/PROJECT/ID")
    parser.add_argument("--exchange", required=True, metavar="DIRECTORY")
    parser.add_argument("training", nargs="+")
    given = parser.parse_args(arguments)
    # a start of its own for every restart, or the trials of the last one came again
    exchange = epath.Path(given.exchange) / os.environ.get(_START, "0")
    if is_first(given.training, os.environ):
        return run_agent(given.sweep, given.training, exchange)
    return follow(given.training, exchange)


def is_first(training: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether this is process 0, by its words or by what a cluster says."""
    key = "distributed.process_index="
    named = [word.removeprefix(key) for word in training if word.startswith(key)]
    if named:
        return int(named[-1]) == 0
    for names in _INDICES:
        if all(name in environment for name in names):
            return all(int(environment[name]) == 0 for name in names)
    return True


def run_agent(sweep: str, training: Sequence[str], exchange: epath.Path) -> int:
    """Run W&B's agent to its end, then let the other processes go."""
    variables = {
        _EXCHANGE: str(exchange),
        _TRAINING: json.dumps(list(training)),
        _AGENT: str(os.getpid()),
    }
    code = _run(["wandb", "agent", "--forward-signals", sweep], variables)
    last = _read(exchange, _count(exchange) - 1) or {}
    if _END not in last:
        _publish(exchange, {_END: code})
        return code
    return int(last[_END])


def run_trial(words: Sequence[str]) -> int:
    """Run one trial for the agent: tell all processes its words, and start it here.

    A trial that was preempted is the last: the agent would ask for one after the other
    on machines that are being taken away.
    """
    exchange = epath.Path(os.environ[_EXCHANGE])
    last = _read(exchange, _count(exchange) - 1) or {}
    if _END in last:  # the agent asked before our signal reached it
        return int(last[_END])
    _publish(exchange, {"words": list(words)})
    code = _run([*json.loads(os.environ[_TRAINING]), *words])
    if code == Preempted.exit_code:
        _publish(exchange, {_END: code})
        os.kill(int(os.environ[_AGENT]), signal.SIGTERM)
    return code


def follow(training: Sequence[str], exchange: epath.Path) -> int:
    """Run every trial that process 0 announces, with the same words, until the end."""
    number = 0
    while True:
        announced = _read(exchange, number)
        if announced is None:
            time.sleep(_LOOK_SECONDS)
            continue
        if _END in announced:
            return int(announced[_END])
        code = _run([*training, *announced["words"]])
        print(f"launch: trial {number} ended with {code}", file=sys.stderr, flush=True)
        number += 1


def _run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> int:
    """Run a command that gets our signals and does not outlive us."""
    return supervise(lambda attempt: [command], max_restarts=0, environment=variables)


def _publish(exchange: epath.Path, content: Mapping[str, object]) -> None:
    """Write the next announcement, whole or not at all."""
    exchange.mkdir(parents=True, exist_ok=True)
    number = _count(exchange)
    file = exchange / f"{number}.json"
    if "://" in str(file):
        file.write_text(json.dumps(content))  # an object appears when it is complete
        return
    beside = exchange / f"{number}.partial"
    beside.write_text(json.dumps(content))
    os.replace(beside, file)


def _read(exchange: epath.Path, number: int) -> dict[str, Any] | None:
    file = exchange / f"{number}.json"
    return json.loads(file.read_text()) if file.exists() else None


def _count(exchange: epath.Path) -> int:
    if not exchange.exists():
        return 0
    return sum(file.name.endswith(".json") for file in exchange.iterdir())


if __name__ == "__main__":
    if _EXCHANGE in os.environ:
        sys.exit(run_trial(sys.argv[1:]))
    sys.exit(main(sys.argv[1:]))
