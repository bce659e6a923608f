"""Starts tasks as srun does: N processes with their numbers, output behind a label."""

import os
import signal
import subprocess
import sys
import threading

words = sys.argv[1:]
options = [word for word in words if word.startswith("--")]
command = words[len(options) :]
assert options == ["--kill-on-bad-exit=0", "--wait=0", "--label"], options
count = int(os.environ["SLURM_NNODES"])
tasks = []
for number in range(count):
    task = {
        "SLURM_PROCID": str(number),
        "SLURM_NTASKS": str(count),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{count})",
    }
    tasks.append(
        subprocess.Popen(
            command,
            env={**os.environ, **task},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    )


def relay(number, stream):
    for line in stream:
        sys.stdout.write(f"{number}: {line.decode()}")
        sys.stdout.flush()


def tell(number, _):
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, number)


signal.signal(signal.SIGTERM, tell)
threads = [
    threading.Thread(target=relay, args=(n, task.stdout))
    for n, task in enumerate(tasks)
]
for thread in threads:
    thread.start()
ends = [task.wait() for task in tasks]
for thread in threads:
    thread.join()
sys.exit(max(128 - end if end < 0 else end for end in ends))
