"""What a signal does to a process, by what it is doing: in processes of their own."""

import signal
import subprocess
import sys

import pytest

# `work` comes from the test; what is printed before a signal is sent is "ready"
PROCESS = """
import hashlib, signal, sys, threading, time
from trainer.config import interruption
from trainer.config.ending import end, when_ending

def ready():
    print("ready", flush=True)

def wait():
    ready()
    time.sleep(60)

def compute():  # in C, where no handler of Python's runs
    threading.Timer(0.3, ready).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)

def closing(call):
    try:
        call()
    finally:
        print("closed", flush=True)

interruption.UNWIND_SECONDS = 0.2
interruption.listen()
"""


@pytest.fixture
def signalled(repository):
    """Run a process, send it signals one after the other as it gets ready for each."""
    started = []

    def run(work, *numbers):
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS + work],
            cwd=repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        for number in numbers:
            assert process.stdout.readline() == "ready\n", process.communicate()
            process.send_signal(number)
        said, shown = process.communicate(timeout=50)
        assert "Traceback" not in shown
        return process.returncode, said, shown

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 83), (signal.SIGINT, 130)]
)
def test_before_anything_is_open_a_signal_ends_on_the_spot(signalled, number, code):
    ended, said, shown = signalled("closing(wait)", number)
    assert (ended, said) == (code, "")
    assert f"(exit code {code})" in shown


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 83), (signal.SIGINT, 130)]
)
def test_with_nothing_to_save_what_is_open_is_closed(signalled, number, code):
    work = "end(lambda: closing(wait), debug=False)"
    ended, said, shown = signalled(work, number)
    assert (ended, said) == (code, "closed\n")
    assert "the same command goes on" in shown


def test_an_interruption_that_became_another_error_is_one(signalled):
    work = """
def convert():
    try:
        wait()
    except BaseException:
        raise TypeError("operation not defined") from None

end(convert, debug=False)
"""
    code, _, shown = signalled(work, signal.SIGTERM)
    assert code == 83
    assert "preempted (exit code 83)" in shown and "bug" not in shown


def test_a_bug_while_work_is_kept_stays_a_bug(signalled):
    work = """
def asked(number):
    raise TypeError("a bug of ours")

def work():
    interruption.ask_instead(asked)
    wait()

end(work, debug=False)
"""
    code, _, shown = signalled(work, signal.SIGTERM)
    assert code == 1
    assert "a bug of the trainer" in shown and "TypeError: a bug of ours" in shown


def test_a_computation_that_no_handler_interrupts_is_ended(signalled):
    work = (
        "when_ending(lambda code: print(f'the others are told {code}', flush=True))\n"
        "end(lambda: closing(compute), debug=False)"
    )
    ended, said, shown = signalled(work, signal.SIGTERM)
    assert (ended, said) == (83, "the others are told 83\n")
    assert "preempted (exit code 83)" in shown


def test_a_thread_that_computes_on_keeps_nobody(signalled):
    work = (
        "threading.Thread(target=compute).start()\n"
        "end(lambda: time.sleep(60), debug=False)"
    )
    assert signalled(work, signal.SIGTERM)[0] == 83


def test_what_must_not_be_interrupted_is_finished_or_ended(signalled):
    work = (
        "def shield():\n"
        "    with interruption.shielded():\n"
        "        ready()\n"
        "        time.sleep(0.1)\n"
        "        {work}\n"
        "    print('never', flush=True)\n"
        "end(shield, debug=False)"
    )
    for inside, said in (
        ("print('whole', flush=True)", "whole\n"),
        ("time.sleep(60)", ""),
    ):
        ended = signalled(work.format(work=inside), signal.SIGTERM)
        assert ended[:2] == (83, said)


def test_telling_the_others_does_not_last_for_ever(signalled):
    work = (
        "interruption._TELL_SECONDS = 0.2\n"
        "when_ending(lambda code: time.sleep(60))\n"
        "end(compute, debug=False)"
    )
    assert signalled(work, signal.SIGTERM)[0] == 83


KEEPING = """
def keep():
    asked = []
    interruption.ask_instead(asked.append)
    ready()
    while not asked:
        time.sleep(0.01)
    time.sleep(0.5)  # longer than a process may take that has nothing to save
    print(asked[0].name, flush=True)
    return {then}
end(keep, debug=False)
"""


def test_work_that_is_kept_is_finished_first(signalled):
    ended, said, _ = signalled(KEEPING.format(then="7"), signal.SIGTERM)
    assert (ended, said) == (7, "SIGTERM\n")


def test_what_was_asked_ends_the_process_when_all_is_saved(signalled):
    then = "interruption.ask_instead(None)"
    assert signalled(KEEPING.format(then=then), signal.SIGTERM)[0] == 83


@pytest.mark.parametrize("then", ["wait()", "compute()"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 83), (signal.SIGINT, 130)]
)
def test_a_second_signal_ends_at_once(signalled, number, code, then):
    work = KEEPING.format(then=f"closing(lambda: {then})").replace(
        "    print(asked[0].name, flush=True)\n", ""
    )
    ended, said, _ = signalled(work, number, number)
    assert (ended, said) == (code, "")


def test_a_code_that_is_known_is_kept(signalled):
    work = "when_ending(lambda code: wait())\nend(lambda: 0, debug=False)"
    assert signalled(work, signal.SIGTERM)[0] == 0


def test_signals_that_somebody_else_takes_are_left_alone(signalled):
    work = (
        "def take():\n"
        "    taken = []\n"
        "    signal.signal(signal.SIGTERM, lambda number, frame: taken.append(1))\n"
        "    ready()\n"
        "    while not taken:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    return 5\n"
        "end(take, debug=False)"
    )
    assert signalled(work, signal.SIGTERM)[0] == 5
