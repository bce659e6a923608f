"""Takes a JobSet as kubectl does, and plays its pods' ends by the set's own policies.

The ends are planned, a list for each start; what becomes of the set is noted.

Source: kubernetes.io/docs/concepts/workloads/controllers/job (pod failure policy: the
first rule that matches; Count is the default) and jobset.sigs.k8s.io (failure policy:
the first rule that matches, and RestartJobSet where none does).
"""

import json
import os
import sys
from pathlib import Path

import yaml

PLACE = Path(os.environ["RECORDER"])


def main():
    words = sys.argv[1:]
    with open(PLACE / "kubectl.jsonl", "a") as file:
        file.write(json.dumps(words) + "\n")
    assert words[:2] == ["apply", "-f"], words
    text = Path(words[2]).read_text()
    (PLACE / "given.yaml").write_text(text)
    answer = PLACE / "kubectl.answer"
    if answer.exists():
        print(answer.read_text(), file=sys.stderr)
        return 1
    jobset = yaml.safe_load(text)
    print(f"jobset.jobset.x-k8s.io/{jobset['metadata']['name']} created")
    plan = PLACE / "pods.json"
    if plan.exists():
        played = play(jobset["spec"], json.loads(plan.read_text()))
        (PLACE / "jobset.json").write_text(json.dumps(played))
    return 0


def play(spec, starts):
    """Return the last condition of the set and how often it was restarted."""
    (job,) = [replicated["template"]["spec"] for replicated in spec["replicatedJobs"]]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    restarts = 0
    for ends in starts:
        reason = next(filter(None, (job_failure(job, end) for end in ends)), None)
        if reason is None:
            return ["Completed", restarts]
        if action(spec["failurePolicy"], reason) == "FailJobSet":
            return ["Failed", restarts]
        restarts += 1
        if restarts > spec["failurePolicy"]["maxRestarts"]:
            return ["Failed", restarts - 1]
    return ["Running", restarts]


def job_failure(job, end):
    """Return why a Job fails whose pod ends so; None where it does not."""
    if end["code"] == 0:
        return None
    for rule in job["podFailurePolicy"]["rules"]:
        if matches(rule, end):
            if rule["action"] == "FailJob":
                return "PodFailurePolicy"
            break
    assert job["backoffLimit"] == 0
    return "BackoffLimitExceeded"


def matches(rule, end):
    if "onPodConditions" in rule:
        wanted = {(c["type"], c["status"]) for c in rule["onPodConditions"]}
        return end.get("disrupted", False) and ("DisruptionTarget", "True") in wanted
    codes = rule["onExitCodes"]
    return (end["code"] in codes["values"]) == (codes["operator"] == "In")


def action(policy, reason):
    for rule in policy["rules"]:
        if reason in rule["onJobFailureReasons"]:
            return rule["action"]
    return "RestartJobSet"


sys.exit(main())
