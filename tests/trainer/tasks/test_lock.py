"""A directory has one owner at a time, and a dead one keeps it from nobody."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from trainer import storage
from trainer.__main__ import compose
from trainer.config.errors import DirectoryInUseError
from trainer.tasks.lock import Lock
from trainer.tasks.run_directory import RunDirectory

# takes the lock, says so, and keeps it until its input ends
OWNER = (
    "import sys\n"
    "from trainer.config.ending import end\n"
    "from trainer.tasks.lock import Lock\n"
    "def own():\n"
    "    lock = Lock(sys.argv[1], instead='x', pulse_seconds=float(sys.argv[2]))\n"
    "    sys.stdin.readline()\n"
    "    lock.take()\n"
    "    print('mine', flush=True)\n"
    "    sys.stdin.read()\n"
    "    lock.release()\n"
    "    return 0\n"
    "end(own, debug=False)\n"
)
RIVALS = 5


@pytest.fixture
def start_owner(repository):
    owners = []

    def start(path, *, pulse_seconds=10.0):
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(path), str(pulse_seconds)],
            cwd=repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        owners.append(owner)
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


def let_go(owner):
    owner.stdin.write("go\n")
    owner.stdin.flush()


@pytest.fixture
def killed(start_owner, tmp_path):
    """Return a function that leaves a file of a killed owner at a path."""

    def leave(path):
        owner = start_owner(path)
        let_go(owner)
        assert owner.stdout.readline() == "mine\n"
        owner.send_signal(signal.SIGKILL)  # it stays a zombie: nobody waits for it
        while path.exists() and "State:\tZ" not in status(owner.pid):
            time.sleep(0.01)

    return leave


def status(pid):
    with open(f"/proc/{pid}/status") as file:
        return file.read()


@pytest.mark.parametrize("before", ["nothing", "a dead owner", "a dead taker"])
def test_of_several_that_try_at_once_one_gets_the_lock(
    start_owner, killed, tmp_path, before
):
    lock = tmp_path / "run" / "LOCK"
    if before != "nothing":
        killed(lock)
    if before == "a dead taker":
        claim_of_a_dead_taker(lock, killed)
    rivals = [start_owner(lock) for _ in range(RIVALS)]
    for rival in rivals:
        let_go(rival)
    said = [rival.stdout.readline() for rival in rivals]
    assert sorted(said) == [*[""] * (RIVALS - 1), "mine\n"]
    winner = rivals[said.index("mine\n")]
    for rival in rivals:
        if rival is not winner:
            _, shown = rival.communicate()
            assert rival.returncode == 9
            assert f"process {winner.pid} on {os.uname().nodename}" in shown
    assert sorted(path.name for path in lock.parent.iterdir()) == ["LOCK"]
    winner.communicate()
    assert (winner.returncode, list(lock.parent.iterdir())) == (0, [])


def claim_of_a_dead_taker(lock, killed):
    """Leave what a process leaves that is killed while it takes a lock over."""
    dead = lock.read_bytes()
    claim = Lock(lock, instead="x")._claim(json.loads(dead))
    lock.unlink()
    killed(lock)
    lock.rename(claim)
    lock.write_bytes(dead)


def owner_elsewhere(path, beat=0):
    owner = {"host": "elsewhere", "space": "", "pid": 7, "started": "1", "token": "a"}
    storage.write_json(path, {**owner, "beat": beat})


def test_an_owner_elsewhere_that_says_nothing_is_dead(root):
    lock = Lock(f"{root}/LOCK", instead="x", silent_seconds=0.05)
    owner_elsewhere(f"{root}/LOCK")
    lock.take()
    assert storage.read_json(f"{root}/LOCK")["pid"] == os.getpid()
    lock.release()
    assert storage.list_names(root) == []


def test_an_owner_elsewhere_that_says_something_keeps_its_lock(tmp_path, monkeypatch):
    path = tmp_path / "LOCK"
    owner_elsewhere(path)
    speak = lambda seconds: owner_elsewhere(path, beat=1)  # noqa: E731
    monkeypatch.setattr(time, "sleep", speak)
    with pytest.raises(DirectoryInUseError, match="process 7 on elsewhere"):
        Lock(path, instead="x").take()
    assert storage.read_json(path)["pid"] == 7


def test_a_lock_that_was_taken_away_ends_its_owner(start_owner, tmp_path):
    lock = tmp_path / "LOCK"
    owner = start_owner(lock, pulse_seconds=0.05)
    let_go(owner)
    assert owner.stdout.readline() == "mine\n"
    beat = storage.read_json(lock)["beat"]
    while storage.read_json(lock)["beat"] == beat:
        time.sleep(0.01)
    while owner.poll() is None:  # a beat may be on its way
        owner_elsewhere(lock)
        time.sleep(0.02)
    assert owner.returncode == 9
    shown = owner.stderr.read()
    assert "process 7 on elsewhere took it over" in shown
    assert storage.read_json(lock)["pid"] == 7


def test_who_comes_second_leaves_before_jax_is_imported(runs):
    directory = RunDirectory(compose(runs.overrides("run.name=held")))
    words = runs.overrides("run.name=held", "device.simulated=8")
    with directory.locked():
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "trainer", *words],
            cwd=runs.repository,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 9
    assert f"process {os.getpid()} on" in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "trainer.tasks.lock" in imported
    assert not {"jax", "keras", "orbax", "grain"} & imported
    assert not directory.path.exists()
