"""task=plan: what a step needs of each device, with no weights and no accelerator.

Turns a configuration, or an existing run's, into a plan on the screen or as one JSON
object. Exit code 0 where it fits, 5 where it does not.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from gemma.lora import LoraSettings
from trainer.config.errors import MemoryPlanError
from trainer.config.schema import RunConfig
from trainer.config.topology import check_topology, planned_topology
from trainer.tasks.console import Screen
from trainer.tasks.planning.chips import target_of
from trainer.tasks.planning.making import make_plan
from trainer.tasks.planning.preparing import prepare
from trainer.tasks.planning.telling import show
from trainer.tasks.run_adapters import saved_settings
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.typed_over import lay_over, overlaid, typed_keys

_OF_RUN = ("preset", "lora", "optimizer", "schedule")
_OVERLAID = frozenset({*_OF_RUN, "data", "trainer", "mesh", "seed"})
FITS, DOES_NOT_FIT = 0, MemoryPlanError.exit_code


def run_plan(config: RunConfig, screen: Screen, *, words: Sequence[str] = ()) -> int:
    """Show the plan and return whether it fits, as an exit code.

    Args:
        config: What to plan, or the name of a run.
        screen: Where it is shown.
        words: What was typed: over a run's configuration, even a default counts.

    Raises:
        PresetError: There is no such preset.
        ConfigError: The mesh, the chips or the adapters are impossible.
    """
    config, saved = _of_run(config, typed_keys(words, _OVERLAID))
    target = target_of(planned_topology(config))
    planned = prepare(config, target, saved=saved)
    plan = make_plan(planned, confirm=config.plan.confirm, say=_aside)
    if config.plan.format == "json":
        if target.devices is None:
            _aside(plan.source)
        print(plan.to_json())
    else:
        show(screen, plan)
    return FITS if plan.fits else DOES_NOT_FIT


def _aside(text: str) -> None:
    """Show a line that is no part of the plan: standard output may hold JSON."""
    print(text, file=sys.stderr, flush=True)


def _of_run(
    config: RunConfig, typed: frozenset[str]
) -> tuple[RunConfig, LoraSettings | None]:
    """Return the configuration of the run that is named, what was typed on top.

    A name that no run has yet is that of the run which is planned.
    """
    directory = RunDirectory(config)
    if not directory.exists():
        return config, None
    stored = directory.stored_config()
    under = dataclasses.replace(
        config,
        seed=stored.seed,
        data=overlaid(stored.data, config.data),
        trainer=overlaid(stored.trainer, config.trainer),
        mesh=config.mesh if config.mesh.shape != "auto" else stored.mesh,
        **{name: getattr(stored, name) for name in _OF_RUN},
    )
    under = lay_over(under, config, typed)
    check_topology(under)
    is_new = any(key.startswith("lora.") for key in typed)
    return under, None if is_new else saved_settings(directory)
