"""The supervisor with real processes: it ends them together, and starts them again."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from launch import supervisor
from launch.supervisor import Patience, supervise

QUICK = Patience(leave=0.5, save=5.0, backoff=0.05)
SLEEPS = "import time; time.sleep(60)"


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(*codes, max_restarts=0, patience=QUICK):
    commands = [python(code) for code in codes]
    return supervise(
        lambda attempt: commands, max_restarts=max_restarts, patience=patience
    )


def ends_with(code):
    return f"raise SystemExit({code})"


def test_a_run_is_done_when_all_its_processes_are(tmp_path):
    late = f"import time; time.sleep(1); open({str(tmp_path / 'late')!r}, 'w')"
    assert run(ends_with(0), late) == 0
    assert (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("codes", "joint"),
    [
        ((0, 0), 0),
        ((6, 0), 6),
        ((83, 83), 83),
        ((6, 3), 3),  # the others lost the one that could not read its rows
        ((83, 2), 2),
        ((6, 130), 130),
        ((83, 6), 83),
    ],
)
def test_the_joint_code_is_the_cause_not_what_followed(codes, joint):
    assert run(*map(ends_with, codes)) == joint


def test_a_process_that_stays_behind_a_lost_one_is_ended(capfd):
    began = time.monotonic()
    assert run(ends_with(6), SLEEPS, SLEEPS) == 6
    assert time.monotonic() - began < 10
    errors = capfd.readouterr().err
    assert "launch: process 0 ended with 6" in errors


def test_a_killed_process_counts_as_lost(capfd):
    assert run("import os; os.kill(os.getpid(), 9)", SLEEPS) == 6
    assert "launch: process 0 ended with 6, by SIGKILL" in capfd.readouterr().err


@pytest.mark.parametrize("code", [6, 83])
def test_a_lost_or_preempted_run_starts_again(tmp_path, code, capfd):
    count = f"""
        import pathlib
        file = pathlib.Path({str(tmp_path)!r}) / "starts"
        starts = len(file.read_text()) if file.exists() else 0
        file.write_text("x" * (starts + 1))
        raise SystemExit({code} if starts < 2 else 0)
    """
    assert run(count, max_restarts=3) == 0
    assert (tmp_path / "starts").read_text() == "xxx"
    assert f"ended with {code}; restart 2 of 3" in capfd.readouterr().err


def test_restarts_are_counted_and_wait_longer_each_time(capfd):
    began = time.monotonic()
    assert run(ends_with(6), max_restarts=3) == 6
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2
    errors = capfd.readouterr().err
    assert "restart 3 of 3 in 0.2 s" in errors
    assert "ended with 6 after 3 restarts, as many as there may be" in errors


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 7, 8, 9, 130])
def test_other_ends_are_final(code, capfd):
    assert run(ends_with(code), max_restarts=3) == code
    assert "restart" not in capfd.readouterr().err


def test_lines_say_which_process_wrote_them(capfd):
    writes = (
        "import sys; print('one'); print('half', end=''); print('e', file=sys.stderr)"
    )
    assert run(writes, "print('10%\\r20%')") == 0
    output = capfd.readouterr()
    assert sorted(output.out.splitlines()) == [
        "[0] half",
        "[0] one",
        "[1] 10%",
        "[1] 20%",
    ]
    assert "[0] e" in output.err


GLOO = "[Gloo] Rank 1 is connected to 1 peer ranks. Expected number of connected"
JAXLIB = (
    "W1122 21:24:41.277175 15265 coordination_service.cc:185] [4189047406392830180] "
    "Using experimental recoverable task feature. The default shutdown barrier will"
)


def test_what_libraries_write_at_every_start_is_left_out(capfd):
    failed = GLOO.replace("is connected", "failed to connect")
    writes = f"""
        import sys
        print({GLOO!r})
        print({failed!r})
        print({JAXLIB!r}, file=sys.stderr)
        print("W1122 another warning", file=sys.stderr)
    """
    assert run(writes, "pass") == 0
    output = capfd.readouterr()
    assert output.out == f"[0] {failed}\n"
    assert output.err == "[0] W1122 another warning\n"


def test_lines_come_when_they_are_written(repository):
    process = supervised(repository, "import time; print('ready 1'); time.sleep(60)")
    assert ready(process, 1) == [1]
    process.terminate()
    process.communicate(timeout=20)


def test_one_process_alone_writes_as_if_it_were_not_supervised(capfd):
    assert run("print('plain')") == 0
    assert capfd.readouterr().out == "plain\n"


PREEMPTIBLE = """
    import os, signal, sys, time
    def leave(number, frame):
        print("told", number, flush=True)
        sys.exit(83 if number == signal.SIGTERM else 130)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
"""


def supervised(repository, *codes, restarts=3):
    """Start a supervisor in a process of its own."""
    code = f"""
        import sys
        from launch.supervisor import Patience, supervise
        commands = {[python(code) for code in codes]!r}
        sys.exit(supervise(lambda attempt: commands, max_restarts={restarts},
                           patience=Patience(leave=1, save=5, backoff=0.1)))
    """
    return subprocess.Popen(
        python(code),
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ready(process, count):
    """Return the ids of the children once all have said that they run."""
    found = []
    while len(found) < count:
        line = process.stdout.readline()
        if "ready" in line:
            found.append(int(line.split()[-1]))
    return found


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 83), (signal.SIGINT, 130)]
)
def test_a_signal_reaches_every_process_and_no_restart_follows(
    repository, number, code
):
    process = supervised(repository, PREEMPTIBLE, PREEMPTIBLE)
    ready(process, 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert output.count(f"told {int(number)}") == 2
    assert "restart" not in output


def test_nothing_outlives_a_killed_supervisor(repository):
    process = supervised(repository, PREEMPTIBLE, PREEMPTIBLE)
    children = ready(process, 2)
    process.kill()
    process.communicate(timeout=20)
    assert gone(children)


def test_what_a_process_started_goes_with_it(tmp_path):
    file = tmp_path / "grandchild"
    parent = f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}])
        open({str(file)!r}, "w").write(str(child.pid))
        raise SystemExit(2)
    """
    assert run(parent) == 2
    assert gone([int(file.read_text())])


def gone(pids):
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not [pid for pid in pids if alive(pid)]:
            return True
        time.sleep(0.05)
    return False


def alive(pid):
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_restarted_codes_are_the_resumable_ones():
    assert supervisor.RESTARTED == (6, 83)


def test_the_command_line_supervises_what_is_behind_the_dashes(repository):
    command = [sys.executable, "-m", "launch.local", "--max-restarts", "1", "--"]
    done = subprocess.run(
        [*command, *python(ends_with(6))],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 6
    assert "restart 1 of 1" in done.stderr
