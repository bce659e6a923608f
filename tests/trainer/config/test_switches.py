"""Words with dashes in front: a wrong one is told as every other wrong word."""

import pytest
from hydra._internal.utils import get_args_parser

from trainer.config.errors import ConfigError
from trainer.config.switches import parse_switches

HELP = "python -m trainer --help lists groups and keys"
CASES = {
    "--multirun=3": ("--multirun", "no value", "'3'", "--multirun lora.rank=4,8"),
    "--cfg=x": ("--cfg", "a value that it takes", "invalid choice: 'x'", "--cfg job"),
    "--config-name": ("--config-name", "a value", "expected one argument", HELP),
    "--mutirun": ("command line", "a switch that there is", "--mutirun", "--multirun"),
    "--lora.rank=4": ("command line", "key=value", "--lora.rank=4", "lora.rank=4, wit"),
    "--foo": ("command line", "key=value", "--foo", "foo=VALUE, without dashes"),
}


@pytest.mark.parametrize("word", CASES)
def test_a_wrong_switch_is_told_with_what_would_be_right(word, capsys):
    key, expected, received, fix = CASES[word]
    with pytest.raises(ConfigError) as caught:
        parse_switches(get_args_parser(), ["seed=1", word])
    problem = caught.value
    assert problem.key == key
    assert expected in problem.expected
    assert received in problem.received
    assert problem.fix.startswith(fix)
    assert capsys.readouterr().err == ""


def test_right_switches_are_read():
    found = parse_switches(get_args_parser(), ["-m", "lora.rank=4,8", "seed=1"])
    assert (found.multirun, found.overrides) == (True, ["lora.rank=4,8", "seed=1"])
