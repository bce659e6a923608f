"""Numbers and events survive kills, restarts and object stores."""

import math
import subprocess
import sys

import jax.numpy as jnp

from trainer import storage
from trainer.tracking import (
    Artifact,
    JsonlTracker,
    MetricsLog,
    Sample,
    Trackers,
    read_events,
    read_metrics,
    read_samples,
)
from trainer.tracking.lines import LineFile, read_lines

SAMPLE = Sample(prompt="What is rain?", reference="Water.", before="xq", after="Wet.")


def test_each_step_is_read_once_and_the_last_value_counts(root):
    for losses in ({1: 3.0, 2: 2.5}, {2: 2.25, 3: 2.0}):
        with MetricsLog(root) as log:
            for step, loss in losses.items():
                log.write(step, {"train/loss": loss})
    assert [(line["step"], line["train/loss"]) for line in read_metrics(root)] == [
        (1, 3.0),
        (2, 2.25),
        (3, 2.0),
    ]


def test_lines_of_one_step_are_read_as_one(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(5, {"train/loss": 2.0})
        log.write(5, {"eval/loss": 2.5})
    assert read_metrics(tmp_path) == [{"step": 5, "train/loss": 2.0, "eval/loss": 2.5}]


def test_float32_losses_come_back_bit_for_bit(tmp_path):
    loss = jnp.float32(2.7182817)
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train/loss": loss, "train/rows_seen": 8})
    (line,) = read_metrics(tmp_path)
    assert jnp.float32(line["train/loss"]) == loss
    assert line["train/rows_seen"] == 8 and isinstance(line["train/rows_seen"], int)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train/loss": math.nan, "train/grad_norm": math.inf})
    assert read_metrics(tmp_path) == [
        {"step": 1, "train/loss": None, "train/grad_norm": None}
    ]


def test_a_torn_line_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 3.0}\n{"step": 2, "trai')
    assert read_metrics(tmp_path) == [{"step": 1, "train/loss": 3.0}]
    with MetricsLog(tmp_path) as log:
        log.write(2, {"train/loss": 2.5})
    assert path.read_text().count("\n") == 2
    assert read_metrics(tmp_path)[1] == {"step": 2, "train/loss": 2.5}


def test_what_was_written_survives_a_kill(tmp_path):
    script = (
        "import os, signal; from trainer.tracking import MetricsLog;"
        f"log = MetricsLog({str(tmp_path)!r});"
        "[log.write(step, {'train/loss': 1.0}) for step in range(1, 8)];"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 8))


def test_a_remote_file_is_uploaded_when_it_is_time_and_at_the_end(bucket):
    lines = LineFile(f"{bucket}/metrics.jsonl", upload_seconds=3600)
    lines.append({"step": 1})
    assert not storage.exists(f"{bucket}/metrics.jsonl")
    lines.flush()
    lines.append({"step": 2})
    assert read_lines(f"{bucket}/metrics.jsonl") == [{"step": 1}]
    lines.close()
    assert read_lines(f"{bucket}/metrics.jsonl") == [{"step": 1}, {"step": 2}]
    eager = LineFile(f"{bucket}/metrics.jsonl", upload_seconds=0)
    eager.append({"step": 3})
    assert len(read_lines(f"{bucket}/metrics.jsonl")) == 3
    eager.close()


def test_events_have_time_kind_and_facts(root):
    with MetricsLog(root) as log:
        log.event("start", {"mesh": "1x8"})
        log.event("checkpoint", {"step": 5})
    start, checkpoint = read_events(root)
    assert start["time"] <= checkpoint["time"] and start["mesh"] == "1x8"
    assert read_events(root, "checkpoint") == [checkpoint]


def test_a_run_without_files_has_no_numbers(tmp_path):
    assert read_metrics(tmp_path) == [] and read_events(tmp_path) == []


def test_the_tracker_keeps_everything_in_the_files(tmp_path):
    tracker = Trackers(JsonlTracker(MetricsLog(tmp_path)))
    tracker.log(1, {"train/loss": 3.0})
    tracker.samples(0, [])
    tracker.samples(1, [SAMPLE])
    tracker.artifact(Artifact(name="lora", path="artifacts/lora"))
    tracker.flush()
    tracker.close(exit_code=0)
    kinds = [event["kind"] for event in read_events(tmp_path)]
    assert kinds == ["samples", "samples", "artifact", "end"]
    assert read_samples(read_events(tmp_path)) == [SAMPLE]
    assert read_metrics(tmp_path) == [{"step": 1, "train/loss": 3.0}]


def test_no_tracker_at_all_is_silent(tmp_path):
    silent = Trackers()
    silent.log(1, {"train/loss": 3.0})
    silent.event("start")
    silent.close(1)
    assert storage.list_names(tmp_path) == []
