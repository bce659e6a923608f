"""Answers of a run that goes on under other keys than it began with."""

from trainer.tasks.samples import Samples
from trainer.tracking import Sample


def test_a_run_that_is_to_answer_no_more_leaves_out_what_it_answered():
    earlier = [Sample(prompt="sea", reference="a body of water", before="a sea")]
    silent = Samples(session=None, held_out=None)
    assert silent.before({}) == silent.after({}, earlier) == []
