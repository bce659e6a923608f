"""`launch=local`: N processes of this machine as one run.

Turns the training command into one command a process, joined at a port of this machine,
and runs them under the supervisor. Where a machine has a single process of a run, as
the workers of a TPU pod have, the supervisor alone is called:

    python -m launch.local --max-restarts 10 -- python -m trainer ...
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Mapping, Sequence

from launch.supervisor import supervise

_LOOPBACK = "127.0.0.1"


def local_commands(
    command: Sequence[str], *, processes: int, port: int
) -> list[list[str]]:
    """Return the command of every process, with its place in the run."""
    if processes == 1:
        return [list(command)]
    return [
        [
            *command,
            f"distributed.coordinator={_LOOPBACK}:{port}",
            f"distributed.num_processes={processes}",
            f"distributed.process_index={index}",
        ]
        for index in range(processes)
    ]


def run_local(
    command: Sequence[str],
    *,
    processes: int,
    max_restarts: int,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run N processes of a command to their end and return the exit code.

    Every attempt takes a new port: the last one's may still be held.
    """

    def commands(attempt: int) -> list[list[str]]:
        return local_commands(command, processes=processes, port=_free_port())

    return supervise(commands, max_restarts=max_restarts, environment=environment)


def main(arguments: Sequence[str]) -> int:
    """Supervise the command behind `--`."""
    parser = argparse.ArgumentParser(prog="python -m launch.local")
    parser.add_argument("--max-restarts", type=int, default=10, metavar="N")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    return run_local(given.command, processes=1, max_restarts=given.max_restarts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
