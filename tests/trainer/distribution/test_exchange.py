"""A process alone only talks to itself; with others: tests/trainer/processes."""

import pytest

from trainer.config.errors import ConfigError, ConfigErrors, DataError, StorageError
from trainer.distribution import exchange


def test_alone_values_are_ones_own():
    assert exchange.gather("a number", (1, 2)) == [[1, 2]]
    assert exchange.from_primary("a word", lambda: "here") == "here"
    assert exchange.agree("nothing", lambda: None) is None
    exchange.check_same("facts", {"seed": 0})
    exchange.wait_for_all("the end")


def test_alone_errors_are_raised_as_they_are():
    error = DataError(key="data", expected="rows", received="none", fix="some")

    def fail():
        raise error

    for call in (exchange.agree, exchange.from_primary):
        with pytest.raises(DataError) as caught:
            call("rows", fail)
        assert caught.value is error


def test_an_error_comes_through_with_the_process_that_met_it():
    error = StorageError(key="run.root", expected="a", received=7, fix="b")
    raised = exchange._raised(exchange._described(error), 0)
    assert isinstance(raised, StorageError)
    assert raised.received.startswith("7 (process 0 on ")
    assert (raised.key, raised.expected, raised.fix) == ("run.root", "a", "b")


def test_several_problems_come_through_together():
    problems = [
        ConfigError(key=key, expected="a", received="b", fix="c") for key in "xy"
    ]
    raised = exchange._raised(exchange._described(ConfigErrors(problems)), 0)
    assert [problem.key for problem in raised.problems] == ["x", "y"]
