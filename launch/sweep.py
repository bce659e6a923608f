"""A sweep as a file for W&B and as one command for Hydra: the same runs.

Turns keys with their values into `wandb sweep`'s YAML and into `--multirun`. It
refuses to know what the keys mean; each run checks its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

TEMPLATE = Path(__file__).parent / "templates" / "wandb_sweep.yaml"
METHODS = ("grid", "random", "bayes")
EXAMPLE: dict[str, list[object]] = {
    "lora.rank": [4, 8, 16],
    "optimizer.learning_rate": [0.0001, 0.001],
}
Values = Mapping[str, Sequence[object]]


def render_sweep(
    parameters: Values,
    *,
    overrides: Sequence[str] = (),
    method: str = "grid",
    metric: str = "eval/loss",
    on_pod: bool = False,
) -> str:
    """Return the text of a W&B sweep file.

    Args:
        parameters: Values to try of every key, such as `{"lora.rank": [4, 8]}`.
        overrides: Further words of every run's command line.
        method: How W&B chooses among the values: one of `METHODS`.
        metric: Name of the value in `metrics.jsonl` that is made small.
        on_pod: Let every process of a run get each trial (`launch.sweep`).

    Raises:
        ValueError: The method is unknown, or a key has no values.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, received {method!r}")
    empty = [key for key, values in parameters.items() if not values]
    if empty or not parameters:
        raise ValueError(f"every key needs values, received none for {empty or 'any'}")
    sweep = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    sweep["method"] = method
    sweep["metric"]["name"] = metric
    sweep["parameters"] = {
        key: {"values": [_value(value) for value in values]}
        for key, values in parameters.items()
    }
    *words, arguments = sweep["command"]
    if on_pod:
        words[words.index("trainer")] = "launch.pod_sweep"
    sweep["command"] = [*words, *overrides, arguments]
    return yaml.safe_dump(sweep, sort_keys=False, width=88)


def multirun_command(parameters: Values, *, overrides: Sequence[str] = ()) -> str:
    """Return the Hydra command that runs every combination, one after the other."""
    swept = [
        f"{key}={','.join(str(_value(value)) for value in values)}"
        for key, values in parameters.items()
    ]
    return shlex.join(["python", "-m", "trainer", "--multirun", *overrides, *swept])


def _value(value: object) -> object:
    """Return a value whose text Hydra reads; W&B would write `None`."""
    return "null" if value is None else value
