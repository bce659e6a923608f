"""What a run compiles: its step and its evaluation, once for each length."""

import contextlib
import json
import logging
import re
import threading

import jax
import pytest

from trainer.config.errors import NumericsError
from trainer.tracking import read_events

COMPILED = re.compile(r"Finished XLA compilation of jit\((\w+)\)")


@contextlib.contextmanager
def compiled_names():
    """Collect the names of the programs that JAX compiles meanwhile."""
    names = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: names.extend(COMPILED.findall(record.getMessage()))
    logger = logging.getLogger("jax._src.dispatch")
    with jax.log_compiles(True):
        logger.addHandler(handler)
        try:
            yield names
        finally:
            logger.removeHandler(handler)


def test_a_run_compiles_its_step_and_its_evaluation_once_and_so_does_its_rest(runs):
    """The last batch of an evaluation has sequences without a row."""
    words = (
        "run.name=once",
        "schedule=constant",
        "trainer.microbatch_size=4",
        "trainer.sample_prompts=0",
        "data.eval_rows=37",
        "artifacts.preset=false",
    )
    for last in (2, 4):
        with compiled_names() as names:
            assert runs.here(*words, f"trainer.num_train_steps={last}") == 0
        assert names.count("step") == 1
        assert names.count("evaluate") == 1
    assert list(runs.losses("once")) == [1, 2, 3, 4]


@pytest.fixture
def growing_rows(tmp_path):
    """Return rows of three sizes in order: 16 short ones, 16 middling, 16 long."""
    rows = [
        {"prompt": "Say it.", "response": " ".join(["owl"] * count)}
        for count in [4] * 16 + [10] * 16 + [24] * 16
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_unpacked_rows_compile_each_length_to_come_before_the_first_step(
    runs, growing_rows
):
    """Of 16 sequences each: the lengths come in turn, and the rest has one less."""
    words = (
        "run.name=lengths",
        *("data=jsonl", f"data.path={growing_rows}", f"data.eval_path={growing_rows}"),
        *("data.pack=false", "data.shuffle=false", "data.sequence_length=256"),
        *("schedule=constant", "optimizer.ema_decay=0.5", "trainer.sample_prompts=0"),
        *("trainer.global_batch_size=16", "artifacts.preset=false"),
        *("data.eval_rows=48", "trainer.eval_every_steps=1"),
    )
    for last, lengths in ((1, [32]), (3, [64, 128])):
        with compiled_names() as names:
            assert runs.here(*words, f"trainer.num_train_steps={last}") == 0
        step, evaluation = read_events(runs.root / "lengths", "compiled")[-2:]
        assert (step["program"], step["lengths"]) == ("step", lengths)
        assert evaluation["lengths"] == [32, 64, 128]
        # as many as were compiled ahead: none came later
        assert names.count("step") == len(lengths)
        assert names.count("evaluate") == 3
    assert list(runs.losses("lengths")) == [1, 2, 3]


def test_a_run_that_fails_leaves_no_thread(runs):
    before = set(threading.enumerate())
    with pytest.raises(NumericsError):
        runs.here(
            "run.name=fails",
            "optimizer.learning_rate=3e38",
            "trainer.eval_every_steps=0",
            "trainer.sample_prompts=0",
        )
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in left)
