"""Takes a job as sbatch does, and runs it as slurmctld would: again when requeued."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

place = Path(os.environ["RECORDER"])
words = sys.argv[1:]
with open(place / "sbatch.jsonl", "a") as file:
    file.write(json.dumps(words) + "\n")
folder = next(w for w in words if w.startswith("--chdir=")).removeprefix("--chdir=")
script = Path(words[-1]).resolve()
options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script.read_text(), re.M))
print("Submitted batch job 4711")
number = signal.Signals[f"SIG{options['signal'].partition('@')[0]}"]
early = float(os.environ.get("RECORDER_LIMIT_SECONDS", "0"))
restarts, code = 0, None
while True:
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": options["job-name"],
        "SLURM_NNODES": options["nodes"],
        "SLURM_NTASKS": options["nodes"],
        "SLURM_RESTART_COUNT": str(restarts),
    }
    requeued = place / "requeued"
    requeued.unlink(missing_ok=True)
    with open(place / f"{options['job-name']}-4711.log", "a") as log:
        running = subprocess.Popen(
            ["bash", script],
            cwd=folder,
            env={**os.environ, **job},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        code = running.wait(early or None)
    except subprocess.TimeoutExpired:  # the steps are told, the batch script is not
        steps = subprocess.run(
            ["pgrep", "-P", str(running.pid), "-f", "srun"],
            capture_output=True,
            text=True,
        )
        for pid in steps.stdout.split():
            os.kill(int(pid), number)
        early = 0
        code = running.wait()
    if not requeued.exists():
        break
    restarts += 1
(place / "ended").write_text(f"{code} after {restarts}")
