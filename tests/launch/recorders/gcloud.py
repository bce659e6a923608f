"""Answers as gcloud does for TPUs, and notes every call: a recorder for PATH.

A TPU lives through the states of its plan, one with each `describe`; its workers are
folders in which the commands of `ssh` really run. When it is suspended or deleted, its
processes are gone, as are the folders.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PLACE = Path(os.environ["RECORDER"])
RUNS_IN = ("READY", "ACTIVE", "SUSPENDING")
GONE = ("SUSPENDED", "FAILED", "PREEMPTED")


def main():
    words = sys.argv[1:]
    with open(PLACE / "calls.jsonl", "a") as file:
        file.write(json.dumps(words) + "\n")
    if words[:3] == ["secrets", "versions", "access"]:
        print(f"value-of-{words[-1].removeprefix('--secret=')}")
        return 0
    if words[0] == "auth":
        return 0
    assert words[:2] == ["compute", "tpus"], words
    assert words[2] in ("tpu-vm", "queued-resources"), words
    verbs = {"describe": describe, "create": create, "delete": delete}
    verbs |= {"ssh": ssh, "scp": scp}
    return verbs[words[3]](words[4:])


def read():
    return json.loads((PLACE / "plan.json").read_text())


def write(plan):
    (PLACE / "plan.next").write_text(json.dumps(plan))
    os.replace(PLACE / "plan.next", PLACE / "plan.json")


def state(plan):
    """Return the state of the TPU that there is, None where there is none."""
    return plan["lives"][plan["life"]]["states"][0] if plan["exists"] else None


def describe(words):
    plan = read()
    if plan.get("unreachable", 0):
        write(plan | {"unreachable": plan["unreachable"] - 1})
        print("ERROR: gcloud crashed (ConnectionError): no route", file=sys.stderr)
        return 1
    if not plan["exists"]:
        what = f"Resource 'projects/p/locations/z/nodes/{words[0]}' was not found"
        print(
            f"ERROR: (gcloud.compute.tpus.describe) NOT_FOUND: {what}", file=sys.stderr
        )
        return 1
    life = plan["lives"][plan["life"]]
    print(state(plan))
    if len(life["states"]) > 1:
        life["states"].pop(0)
    write(plan)
    if state(plan) == "SUSPENDING":
        end_processes(signal.SIGTERM)
    if state(plan) in GONE:
        wipe()
    return 0


def create(words):
    plan = read()
    if plan["exists"]:
        print("ERROR: ALREADY_EXISTS", file=sys.stderr)
        return 1
    write(plan | {"exists": True, "life": plan["life"] + 1})
    for number in range(plan["workers"]):
        (PLACE / f"worker{number}").mkdir()
    return 0


def delete(words):
    plan = read()
    if not plan["exists"]:
        print("ERROR: NOT_FOUND", file=sys.stderr)
        return 1
    assert "--quiet" in words
    wipe()
    write(plan | {"exists": False})
    return 0


def reachable(words):
    plan = read()
    if state(plan) not in RUNS_IN or not (PLACE / "worker0").exists():
        print("ERROR: (gcloud.compute.tpus.ssh) not in a state READY", file=sys.stderr)
        return None
    chosen = next(w for w in words if w.startswith("--worker=")).removeprefix(
        "--worker="
    )
    numbers = range(plan["workers"]) if chosen == "all" else [int(chosen)]
    return [PLACE / f"worker{number}" for number in numbers]


def ssh(words):
    homes = reachable(words)
    if homes is None:
        return 1
    command = next(w for w in words if w.startswith("--command=")).removeprefix(
        "--command="
    )
    codes = []
    for home in homes:
        variables = {**os.environ, "HOME": str(home)}
        codes.append(
            subprocess.run(["bash", "-c", command], cwd=home, env=variables).returncode
        )
    return max(codes)


def scp(words):
    homes = reachable(words)
    if homes is None:
        return 1
    source, target = words[:2]
    for home in homes:
        shutil.copy(source, home / target.split(":", 1)[1])
    return 0


def end_processes(number):
    for file in PLACE.glob("worker*/*/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), number)


def wipe():
    end_processes(signal.SIGKILL)
    for home in PLACE.glob("worker*"):
        shutil.rmtree(home, ignore_errors=True)


sys.exit(main())
