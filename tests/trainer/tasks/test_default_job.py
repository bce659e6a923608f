"""The default job, whole, as `python -m trainer` runs it (slow: about a minute)."""

import re
import resource
import subprocess
import sys

import pytest

from trainer.tracking import read_events, read_metrics, read_samples

MEMORY_BYTES = 4 * 2**30


@pytest.mark.slow
def test_the_default_job_learns_what_the_readme_says(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trainer", f"run.root={tmp_path}", "device.simulated=1"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    directory = next(path for path in tmp_path.iterdir() if path.is_dir())
    metrics = [m for m in read_metrics(directory) if "eval/loss" in m]
    first, last = metrics[0], metrics[-1]
    assert len(metrics) >= 3
    assert last["eval/content_loss"] <= 0.90 * first["eval/content_loss"]
    assert last["eval/loss"] <= 0.75 * first["eval/loss"]
    samples = read_samples(read_events(directory))
    assert samples and all(s.before != s.after for s in samples)
    for shown in ("preset", "trained", "mesh", "data", "steps", "held-out loss"):
        assert re.search(rf"^ *{shown}", done.stdout, re.MULTILINE), shown
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak <= MEMORY_BYTES
