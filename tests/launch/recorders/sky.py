"""Takes a managed job as sky does, and plays what becomes of its machines.

The `run` of the task really runs; a planned preemption kills it, and the job goes on
elsewhere. Ends of the program itself follow `job_recovery`, as its documentation says
(docs.skypilot.co, examples/managed-jobs).
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

PLACE = Path(os.environ["RECORDER"])
words = sys.argv[1:]
with open(PLACE / "sky.jsonl", "a") as file:
    file.write(json.dumps(words) + "\n")
assert words[:2] == ["jobs", "launch"], words
text = Path(words[-1]).read_text()
(PLACE / "given.yaml").write_text(text)
task = yaml.safe_load(text)
plan = PLACE / "lives.json"
lives = json.loads(plan.read_text()) if plan.exists() else []
recovery = task["resources"]["job_recovery"]
status, recoveries = "PENDING", 0
for number, life in enumerate(lives):
    (PLACE / "life").write_text(json.dumps(life["codes"]))
    home = PLACE / f"machine{number}"
    home.mkdir()
    node = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    node |= {"SKYPILOT_NUM_NODES": str(task["num_nodes"]), "HOME": str(home)}
    for part in ("setup", "run"):
        running = subprocess.Popen(
            ["bash", "-c", task.get(part, "")],
            cwd=home,
            env={**os.environ, **node},
            start_new_session=True,
        )
        if part == "run" and life.get("preempted"):
            while not (home / "began").exists():
                time.sleep(0.02)
            os.killpg(running.pid, signal.SIGKILL)
        code = running.wait()
    if code == 0:
        status = "SUCCEEDED"
        break
    if not life.get("preempted") and code not in recovery["recover_on_exit_codes"]:
        assert recovery["max_restarts_on_errors"] == 0
        status = "FAILED"
        break
    recoveries += 1
(PLACE / "job.json").write_text(json.dumps([status, recoveries]))
