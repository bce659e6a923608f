"""What `metrics.jsonl` says about the devices, and the profile of a few steps."""

import gzip
import json
import os
from types import SimpleNamespace

import jax
import pytest

from trainer.distribution.chips import CHIPS
from trainer.model.flops import StepFlops
from trainer.tasks.gauge import Gauge, peak_bytes
from trainer.tasks.program import step_program
from trainer.tasks.session import build_session
from trainer.tracking import read_events, read_metrics
from trainer.training.loop import StepFacts


@pytest.fixture(scope="module")
def profiled(runs_below, tmp_path_factory):
    made = runs_below(tmp_path_factory.mktemp("profiled"))
    words = ("trainer.profile=2-3", "trainer.num_train_steps=4")
    assert made.here("run.name=seen", *words, "artifacts.preset=false") == 0
    return made.root / "seen"


def test_every_step_tells_rates_memory_and_operations(profiled):
    lines = [m for m in read_metrics(profiled) if "train/loss" in m]
    assert [m["step"] for m in lines] == [1, 2, 3, 4]
    for m in lines:
        seconds, tokens = m["train/step_seconds"], m["train/tokens_per_second"]
        assert 0.0 <= m["train/data_wait_share"] <= 1.0
        told = m["train/loss_tokens"] / m["train/loss_tokens_per_second"]
        assert told == pytest.approx(seconds)
        assert m["train/loss_tokens_per_second"] < tokens
        assert 10**8 < m["train/memory_peak_bytes"] < 2**40  # of a process with JAX
        assert "train/mfu" not in m  # a CPU has no peak in the table


def test_operations_are_those_of_the_model_and_the_batch(profiled, runs_below):
    lines = [m for m in read_metrics(profiled) if "train/loss" in m]
    session = build_session(runs_below("/").config("run.name=x"))
    flops = StepFlops(config=session.model.preset.config, lora=session.model.lora)
    steps = session.open_data().train.batches()
    for m, step in zip(lines, steps, strict=False):
        facts = step.facts
        want = flops.of(lengths=facts.lengths, loss_tokens=facts.loss_tokens)
        told = m["train/flops_per_second"] * m["train/step_seconds"]
        assert told == pytest.approx(want)
    steps.close()


def test_mfu_is_the_share_of_the_peak_of_all_chips(runs_below):
    parts = step_program(runs_below("/").config("run.name=x"), jax.devices()).parts
    facts = StepFacts(lengths=[40] * 25, loss_tokens=100, seconds=0.5)
    numbers = Gauge(parts, CHIPS["v5e"])(facts)
    want = numbers["train/flops_per_second"] / (8 * 197e12)
    assert numbers["train/mfu"] == pytest.approx(want)


def test_the_memory_of_a_cpu_is_what_this_process_held():
    held = bytes([1]) * (3 * 10**8)
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert len(held) <= peak_bytes(jax.local_devices()) <= there_is


def test_the_memory_of_accelerators_is_that_of_the_fullest():
    told = [{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 9}, {}, None]
    devices = [
        SimpleNamespace(platform="gpu", memory_stats=lambda s=s: s) for s in told
    ]
    assert peak_bytes(devices) == 9


def test_a_run_tells_when_it_was_built(profiled):
    (event,) = read_events(profiled, "built")
    assert 0.0 < event["seconds"] < 600.0


def test_a_profile_holds_the_steps_that_were_asked_for(profiled):
    (trace,) = (profiled / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == "train"]
    assert sorted({int(step) for step in steps}) == [2, 3]
    assert list((profiled / "profile").rglob("*.xplane.pb"))
    memory = gzip.decompress((profiled / "profile/memory.prof").read_bytes())
    assert b"trainer/training" in memory  # who allocated what was alive


def test_a_run_that_is_over_before_the_steps_writes_no_profile(runs):
    words = ("trainer.profile=2", "trainer.num_train_steps=2", "artifacts.preset=false")
    assert runs.here("run.name=late", *words[1:]) == 0
    assert runs.here("run.name=late", *words) == 0
    assert not (runs.root / "late" / "profile").exists()
