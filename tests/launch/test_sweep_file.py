"""A sweep's file and command give the runs that they promise."""

import itertools
import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from launch.sweep import EXAMPLE, METHODS, multirun_command, render_sweep
from trainer.__main__ import compose


def combinations(sweep):
    keys = list(sweep["parameters"])
    values = (sweep["parameters"][key]["values"] for key in keys)
    for chosen in itertools.product(*values):
        yield dict(zip(keys, chosen, strict=True))


def command_line(sweep, chosen):
    """Return what W&B's agent makes of the command, with its own function."""
    sent = {"args": {key: {"value": value} for key, value in chosen.items()}}
    words = create_sweep_command_args(sent)
    places = {"${args_no_hyphens}": words["args_no_hyphens"]}
    return [part for word in sweep["command"] for part in places.get(word, [word])]


def test_every_command_that_the_file_can_produce_composes(repository):
    sweep = yaml.safe_load((repository / "launch" / "wandb_sweep.yaml").read_text())
    found = set()
    for chosen in combinations(sweep):
        words = command_line(sweep, chosen)
        assert words[:4] == ["${env}", "${interpreter}", "-m", "trainer"]
        config = compose(words[4:])
        assert config.tracker.name == "wandb"
        assert config.lora.rank == chosen["lora.rank"]
        assert config.optimizer.learning_rate == chosen["optimizer.learning_rate"]
        found.add((config.lora.rank, config.optimizer.learning_rate))
    assert len(found) == 6


def test_the_file_is_what_its_renderer_writes(repository):
    text = (repository / "launch" / "wandb_sweep.yaml").read_text()
    assert yaml.safe_load(text) == yaml.safe_load(render_sweep(EXAMPLE))


def test_its_metric_is_one_that_runs_log(repository):
    sweep = yaml.safe_load((repository / "launch" / "wandb_sweep.yaml").read_text())
    assert sweep["metric"] == {"name": "eval/loss", "goal": "minimize"}
    assert sweep["method"] in METHODS


def test_values_and_further_words_reach_the_file():
    sweep = yaml.safe_load(
        render_sweep(
            {"mesh": ["1x8", "2x4"], "seed": [1, 2], "lora.alpha": [None, 16.0]},
            overrides=["+preset=gemma2_2b_en", "device.simulated=8"],
            method="random",
            metric="eval/content_loss",
        )
    )
    assert sweep["method"] == "random"
    assert sweep["metric"]["name"] == "eval/content_loss"
    for chosen in combinations(sweep):
        config = compose(command_line(sweep, chosen)[4:])
        assert (config.preset.name, config.device.simulated) == ("gemma2_2b_en", 8)
        assert (config.mesh.shape, config.seed) == (chosen["mesh"], chosen["seed"])
        assert config.lora.alpha == {"null": None}.get(*[chosen["lora.alpha"]] * 2)


def test_the_multirun_command_has_the_same_runs():
    words = shlex.split(multirun_command(EXAMPLE, overrides=["mesh=1x1"]))
    assert words[:4] == ["python", "-m", "trainer", "--multirun"]
    swept = OverridesParser.create().parse_overrides(words[5:])
    values = {one.key_or_group: list(one.sweep_iterator()) for one in swept}
    assert {key: [float(v) for v in found] for key, found in values.items()} == EXAMPLE
    assert words[4] == "mesh=1x1"


@pytest.mark.parametrize(
    ("parameters", "method", "message"),
    [
        (EXAMPLE, "guess", "method must be one of"),
        ({"seed": []}, "grid", r"received none for \['seed'\]"),
        ({}, "grid", "received none for any"),
    ],
)
def test_what_cannot_be_swept_is_refused(parameters, method, message):
    with pytest.raises(ValueError, match=message):
        render_sweep(parameters, method=method)
