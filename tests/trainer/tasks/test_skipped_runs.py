"""Whole runs that meet rows whose loss is no number, and what they leave behind."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.trainer.training.planting import BYTE_ID, POISON, poison, write_planted
from trainer.config.errors import NumericsError
from trainer.tasks.skipping import check_finite
from trainer.tracking import read_events, read_metrics
from trainer.training.step import TrainState

BATCH = 2  # sequences, a row each
WORDS = (
    f"trainer.global_batch_size={BATCH}",
    "trainer.num_train_steps=8",
    "trainer.eval_every_steps=0",
    "trainer.sample_prompts=0",
    "checkpoint.every_steps=3",
    "checkpoint.keep_last=99",
    "artifacts.preset=false",
    "data=jsonl",
    "data.pack=false",
    "data.shuffle=false",
    "data.sequence_length=32",
    "mesh=2x4",
)


@pytest.fixture(scope="module")
def preset(repository, tmp_path_factory):
    directory = tmp_path_factory.mktemp("presets") / "poisoned"
    golden = repository / "tests/golden/keras_hub/gemma2"
    return poison(golden, directory, token_id=BYTE_ID)


@pytest.fixture
def planted(runs, preset, tmp_path):
    """Return a function that gives the words of a run whose batches `bad` overflow."""

    def write(name, bad, *, left_out=False):
        path = write_planted(tmp_path / f"{name}.jsonl", 20, batch=BATCH, bad=bad)
        if left_out:
            rows = path.read_text().splitlines(keepends=True)
            kept = [row for n, row in enumerate(rows) if n // BATCH not in bad]
            path.write_text("".join(kept))
        words = [*WORDS, f"preset.name={preset}", f"data.path={path}"]
        return [*words, f"run.name={name}"]

    return write


def places(event):
    return [int(place.rpartition(":")[2]) for place in event["rows"]]


def test_a_run_ends_as_one_that_never_had_the_rows(runs, planted, capsys):
    assert runs.here(*planted("planted", (1, 2, 5))) == 0
    assert "step 2 is skipped: loss nan, gradient norm nan" in capsys.readouterr().out
    assert runs.here(*planted("clean", (1, 2, 5), left_out=True)) == 0
    assert runs.losses("planted") == runs.losses("clean")
    events = read_events(runs.root / "planted", "skipped")
    assert [(e["step"], e["skipped_steps"]) for e in events] == [(2, 1), (2, 2), (4, 3)]
    assert [places(e) for e in events] == [[3, 4], [5, 6], [11, 12]]
    assert {(e["reason"], e["loss"], e["grad_norm"]) for e in events} == {
        ("not finite", "nan", "nan")
    }
    told = [m["train/skipped_steps"] for m in read_metrics(runs.root / "planted")]
    assert told == [0, 2, 2, 3, 3, 3, 3, 3]
    assert POISON not in (runs.root / "planted/events.jsonl").read_text()


def test_a_stopped_run_meets_its_rows_again_and_counts_them_once(runs, planted):
    words = planted("stopped", (3, 4))
    for last in (3, 5, 8):
        more = [w for w in words if "num_train_steps" not in w]
        assert runs.here(*more, f"trainer.num_train_steps={last}") == 0
    assert runs.here(*planted("unbroken", (3, 4))) == 0
    assert runs.losses("stopped") == runs.losses("unbroken")
    assert read_metrics(runs.root / "stopped")[-1]["train/skipped_steps"] == 2


def test_too_many_in_a_row_stop_with_exit_code_8_and_go_on_once_there_are_fewer(
    runs, planted
):
    words = [*planted("stuck", range(4, 8)), "trainer.max_skipped_steps=3"]
    process_words = [w for w in words if w != "mesh=2x4"]
    code, output = runs.finish(*process_words)
    assert code == 8, output
    assert "3 in a row" in output
    assert "checkpoint 4 is from before" in output
    assert "Traceback" not in output
    assert read_events(runs.root / "stuck", "end")[-1]["exit_code"] == 8
    assert len(read_events(runs.root / "stuck", "skipped")) == 3
    assert (runs.root / "stuck/checkpoints/4").exists()
    more = [*process_words, "optimizer.learning_rate=1e-4"]
    more[more.index("trainer.max_skipped_steps=3")] = "trainer.max_skipped_steps=9"
    code, output = runs.finish(*more)
    assert code == 0, output
    assert "going on from step 4" in output
    assert list(runs.losses("stuck")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert np.isfinite([*runs.losses("stuck").values()]).all()


REWIND = ("trainer.rewind=true", "trainer.max_skipped_steps=2")


def rewound(runs, name):
    return [(e["from"], e["to"]) for e in read_events(runs.root / name, "rewound")]


def test_a_run_goes_back_and_on_after_the_rows_it_skipped(runs, planted):
    """Wherever it was stopped: a checkpoint that was not due is no place to go to."""
    unbroken, stopped = (
        [word for word in planted(name, (8, 9)) if "num_train_steps" not in word]
        for name in ("unbroken", "stopped")
    )
    assert runs.here(*unbroken, *REWIND, "trainer.num_train_steps=9") == 0
    for last in (7, 8, 9):
        assert runs.here(*stopped, *REWIND, f"trainer.num_train_steps={last}") == 0
    for name in ("unbroken", "stopped"):
        assert rewound(runs, name) == [(8, 6)]
        lines = runs.metrics(name)
        assert [m["step"] for m in lines] == [*range(1, 9), 7, 8, 9]
        assert [m["train/rows_seen"] for m in lines[-3:]] == [14, 16, 18]
        assert lines[-1]["train/skipped_steps"] == 2
    assert runs.losses("stopped") == runs.losses("unbroken")


def test_a_run_that_would_go_back_to_the_same_step_again_ends(runs, planted):
    words = planted("again", (8, 9, 12, 13))
    words[words.index("trainer.num_train_steps=8")] = "trainer.num_train_steps=12"
    with pytest.raises(NumericsError, match="at step 9, 2 in a row"):
        runs.here(*words, *REWIND)
    assert rewound(runs, "again") == [(8, 6)]
    steps = [int(p.name) for p in (runs.root / "again/checkpoints").glob("[0-9]*")]
    assert sorted(steps) == [3, 6, 8]


@pytest.mark.parametrize("kept", [None, 4])
def test_a_state_that_is_not_finite_is_refused_before_it_is_saved(kept):
    slots = {"iteration": jnp.int32(5), "velocity/w": jnp.ones(2)}
    good = TrainState({"w": jnp.array([1.0, 2.0])}, slots)
    check_finite(good, step=5, kept=kept)
    bad = good._replace(slots=slots | {"velocity/w": jnp.array([1.0, jnp.inf])})
    goes_on = "checkpoint 4 is the newest good one" if kept else "none is kept"
    with pytest.raises(NumericsError, match=f"after step 5(.|\n)*{goes_on}"):
        check_finite(bad, step=5, kept=kept)
