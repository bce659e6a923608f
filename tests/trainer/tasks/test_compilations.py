"""What a run compiles: its step once, and its evaluation once."""

import contextlib
import logging
import re
import threading

import jax
import pytest

from trainer.config.errors import NumericsError

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
