"""Two processes of which one dies, hangs or leaves: the other ends too and says so.

No case computes anything; all of them run at the same time.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEMBER = Path(__file__).parent / "member.py"
SETTINGS = {"initialize_seconds": 60, "heartbeat_seconds": 4, "stuck_seconds": 8}
TOGETHER_SECONDS = 60  # until both have joined, on a busy machine


@dataclasses.dataclass(frozen=True)
class Case:
    victim: int
    role: str = "lives"
    other: str = "lives"
    signal: int | None = None


CASES = {
    "killed": Case(victim=1, signal=signal.SIGKILL),
    "first killed": Case(victim=0, signal=signal.SIGKILL),
    "frozen": Case(victim=1, signal=signal.SIGSTOP),
    "first frozen": Case(victim=0, signal=signal.SIGSTOP),
    "hangs": Case(victim=1, role="hangs"),
    "leaves": Case(victim=1, role="leaves"),
    "closes": Case(victim=0, role="closes", other="leaves"),
    "preempted": Case(victim=1, signal=signal.SIGTERM),
    "first preempted": Case(victim=0, signal=signal.SIGTERM),
    "stopped": Case(victim=1, signal=signal.SIGINT),
    "asked": Case(victim=1, other="asks"),
    "vanishes": Case(victim=1, role="vanishes"),
    "first vanishes": Case(victim=0, role="vanishes"),
}


@dataclasses.dataclass(frozen=True)
class Ended:
    codes: list
    said: list


@pytest.fixture(scope="module")
def ended(repository, free_port, tmp_path_factory):
    """Return how both processes of every case ended."""
    place = tmp_path_factory.mktemp("watch")
    started = {}
    for name, case in CASES.items():
        port = free_port()
        started[name] = [
            start(repository, place / f"{name}-{index}", case, index, port)
            for index in range(2)
        ]
    try:
        for name, case in CASES.items():
            for process, log in started[name]:
                wait_for("joined", process, log)
            if case.signal is not None:
                started[name][case.victim][0].send_signal(case.signal)
        until = time.monotonic() + 45
        for name, case in CASES.items():
            if case.signal in (signal.SIGKILL, signal.SIGSTOP):
                processes = [started[name][1 - case.victim][0]]
            else:
                processes = [process for process, _ in started[name]]
            for process in processes:
                process.wait(max(until - time.monotonic(), 0.1))
    finally:
        for process, _ in [p for pair in started.values() for p in pair]:
            process.kill()
            process.wait()
    return {
        name: Ended(
            [p.returncode for p, _ in pair], [log.read_text() for _, log in pair]
        )
        for name, pair in started.items()
    }


def start(repository, log, case, index, port):
    role = case.role if index == case.victim else case.other
    keys = {"coordinator": f"127.0.0.1:{port}", "num_processes": 2, **SETTINGS}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                MEMBER,
                role,
                json.dumps({**keys, "process_index": index}),
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
    return process, log


def wait_for(word, process, log):
    until = time.monotonic() + TOGETHER_SECONDS
    while word not in log.read_text() and process.poll() is None:
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["killed", "frozen", "leaves"])
def test_the_first_process_names_the_other_one_and_exits_6(ended, name):
    assert ended[name].codes[0] == 6, ended[name].said
    assert "process 1 on" in ended[name].said[0]


@pytest.mark.parametrize("name", ["killed", "frozen"])
def test_silence_is_measured_in_the_seconds_that_were_set(ended, name):
    assert "no sign of life for 4 s" in ended[name].said[0]


@pytest.mark.parametrize("name", ["first killed", "first frozen"])
def test_losing_the_first_process_is_exit_6_too(ended, name):
    assert ended[name].codes[1] == 6, ended[name].said


def test_what_a_process_left_with_is_told(ended):
    assert ended["leaves"].codes == [6, 3]
    assert "ended with exit code 3 (data error: data: none)" in ended["leaves"].said[0]


def test_who_has_more_to_close_than_the_others_closes_it(ended):
    assert ended["closes"].codes == [3, 3], ended["closes"].said
    assert "closed" in ended["closes"].said[0]


@pytest.mark.parametrize("name", ["vanishes", "first vanishes"])
def test_a_process_that_dies_after_the_roll_call_ends_the_other(ended, name):
    assert ended[name].codes[1 - CASES[name].victim] == 6, ended[name].said


@pytest.mark.parametrize("name", ["preempted", "first preempted", "stopped"])
def test_who_is_told_to_end_takes_the_other_one_along(ended, name):
    victim = CASES[name].victim
    code = 130 if name == "stopped" else 83
    assert ended[name].codes == [code, code], ended[name].said
    assert f"process {victim} on" in ended[name].said[1 - victim]
    assert "most recent call first" not in ended[name].said[1 - victim]


def test_a_process_that_hangs_ends_both_and_says_where(ended):
    assert ended["hangs"].codes == [6, 6], ended["hangs"].said
    assert "process 1 on" in ended["hangs"].said[1]
    assert "stands at its start for 8 s" in ended["hangs"].said[1]


@pytest.mark.parametrize("name", ["killed", "first killed", "frozen", "hangs"])
def test_stacks_are_dumped(ended, name):
    survivor = 1 - CASES[name].victim
    assert "most recent call first" in ended[name].said[survivor]


def test_a_word_that_does_not_come_is_missed_by_name(ended):
    assert ended["asked"].codes[0] == 6
    said = ended["asked"].said[0]
    assert "process 1 on" in said
    assert "a word on: a word" in said
    assert "nothing for 7.2 s" in said
