"""The learning rate by step, computed by hand."""

import pytest

from trainer.config.errors import ConfigError
from trainer.training.schedule import Schedule


def rates(name, *, warmup=0, final=0.0, steps=4, decay=0.5):
    schedule = Schedule(
        name,
        peak=8.0,
        warmup_steps=warmup,
        num_train_steps=steps,
        final_fraction=final,
        decay_fraction=decay,
    )
    return [float(schedule(step)) for step in range(steps)]


def test_constant_stays_at_the_peak():
    assert rates("constant") == [8.0, 8.0, 8.0, 8.0]


def test_warm_up_rises_from_the_first_step():
    assert rates("constant", warmup=4) == [2.0, 4.0, 6.0, 8.0]


def test_linear_falls_towards_its_final_fraction():
    assert rates("linear") == [8.0, 6.0, 4.0, 2.0]
    assert rates("linear", final=0.5) == [8.0, 7.0, 6.0, 5.0]


def test_cosine_is_at_half_in_the_middle():
    assert rates("cosine")[0] == 8.0
    assert rates("cosine")[2] == pytest.approx(4.0)


def test_decay_begins_after_the_warm_up():
    assert rates("linear", warmup=2, steps=6) == [4.0, 8.0, 8.0, 6.0, 4.0, 2.0]


def test_wsd_falls_in_its_last_part_alone():
    assert rates("wsd", steps=8) == [8.0, 8.0, 8.0, 8.0, 8.0, 6.0, 4.0, 2.0]
    assert rates("wsd", warmup=2, steps=6, decay=0.4) == [4.0, 8, 8, 8, 8, 4.0]
    assert rates("wsd", final=0.5) == [8.0, 8.0, 8.0, 6.0]
    assert rates("wsd", decay=0.0) == [8.0, 8.0, 8.0, 8.0]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="constant, linear, cosine, wsd"):
        rates("exponential")


def test_the_configuration_makes_it_again():
    schedule = Schedule(
        "cosine", peak=1.0, warmup_steps=1, num_train_steps=9, final_fraction=0.1
    )
    assert Schedule(**schedule.get_config())(5) == schedule(5)
