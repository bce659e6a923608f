"""Several processes of one run on this machine, started and ended in bounded time."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.tracking import read_metrics

SMALL = (
    "preset.dtype=float32",
    "trainer.global_batch_size=8",
    "trainer.num_train_steps=20",
    "trainer.eval_every_steps=0",
    "trainer.sample_prompts=0",
    "artifacts.preset=false",
    "checkpoint.every_steps=20",
    "data.sequence_length=32",
    "data.eval_rows=8",
    "distributed.initialize_seconds=90",
    "distributed.heartbeat_seconds=20",
)
WORKER = Path(__file__).parent / "worker.py"
GRACE_SECONDS = 5  # between SIGTERM and SIGKILL for what a test leaves behind


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclasses.dataclass
class Group:
    """Processes that were started together; what they print goes to files."""

    processes: list
    logs: list

    def wait(self, seconds=150):
        """Return the exit codes; None for one that had to be killed."""
        until = time.monotonic() + seconds
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(max(until - time.monotonic(), 0.1)))
            except subprocess.TimeoutExpired:
                codes.append(None)
        self.end()
        return codes

    def end(self):
        living = [process for process in self.processes if process.poll() is None]
        for process in living:
            process.terminate()
        until = time.monotonic() + GRACE_SECONDS
        while any(p.poll() is None for p in living) and time.monotonic() < until:
            time.sleep(0.05)
        for process in living:
            process.kill()  # JAX may have taken SIGTERM
            process.wait()

    def said(self, index):
        return self.logs[index].read_text()

    def everything(self):
        return "\n".join(f"--- {i}\n{self.said(i)[-3000:]}" for i in self.indices)

    @property
    def indices(self):
        return range(len(self.logs))


@dataclasses.dataclass
class Starter:
    """Starts groups below a directory and ends whatever a test leaves running."""

    repository: Path
    root: Path
    groups: list = dataclasses.field(default_factory=list)

    def words(self, *more):
        preset = self.repository / "tests/golden/keras_hub/gemma"
        words = (f"preset.name={preset}", *SMALL, f"run.root={self.root}", *more)
        return list({word.split("=", 1)[0]: word for word in words}.values())

    def start(
        self,
        jobs,
        *,
        processes,
        devices=1,
        places=None,
        environment=None,
        worker=WORKER,
        **variables,
    ):
        """Start the command line, or several jobs after each other, in processes.

        Args:
            jobs: Words of a job, or a list of such for a worker.
            processes: How many; one is started without `distributed` keys.
            devices: Simulated devices of each.
            places: Current directory of each, by index.
            environment: Variables in place of the keys that name a process, by index.
            worker: What runs several jobs.
            variables: More of them, the same for all.
        """
        port, group = unused_port(), Group([], [])
        for index in range(processes):
            named = [
                f"distributed.coordinator=127.0.0.1:{port}",
                f"distributed.num_processes={processes}",
                f"distributed.process_index={index}",
            ]
            named = [] if processes == 1 or environment else named
            last = [f"device.simulated={devices}", *named]
            several = isinstance(jobs[0], list)
            command = ["-m", "trainer", *self.words(*([] if several else jobs), *last)]
            if several:
                every = [self.words(*job, *last) for job in jobs]
                command = [str(worker), json.dumps(every)]
            log = self.root / f"log-{len(self.groups)}-{index}.txt"
            with open(log, "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, *command],
                    cwd=(places or {}).get(index, self.repository),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "PYTHONPATH": str(self.repository),
                        **variables,
                        **(environment or {}).get(index, {}),
                    },
                )
            group.processes.append(process)
            group.logs.append(log)
        self.groups.append(group)
        return group

    def losses(self, name):
        """Return the training loss by step, the last of repeated ones."""
        if not (self.root / name / "metrics.jsonl").exists():
            return {}
        lines = read_metrics(self.root / name)
        return {m["step"]: m["train/loss"] for m in lines if "train/loss" in m}

    def signal_at(self, group, name, *, step, index, number=signal.SIGKILL):
        """Send a signal to one process once a step is logged."""
        until = time.monotonic() + 120
        while max(self.losses(name), default=0) < step:
            assert time.monotonic() < until, group.everything()
            assert group.processes[index].poll() is None, group.everything()
            time.sleep(0.02)
        group.processes[index].send_signal(number)


@pytest.fixture(scope="module")
def starter(repository, tmp_path_factory):
    starter = Starter(repository, tmp_path_factory.mktemp("processes"))
    yield starter
    for group in starter.groups:
        group.end()


@pytest.fixture(scope="session")
def free_port():
    """Return a function that returns a port nobody listens at."""
    return unused_port
