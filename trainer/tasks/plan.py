"""task=plan: what a step needs of each device, with no weights and no accelerator.

Turns a configuration, or an existing run's, into a plan on the screen or as one JSON
object. Exit code 0 where it fits, 5 where it does not.
"""

from __future__ import annotations

import dataclasses
import sys

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
from trainer.tasks.subject import overlaid

FITS, DOES_NOT_FIT = 0, MemoryPlanError.exit_code


def run_plan(config: RunConfig, screen: Screen) -> int:
    """Show the plan and return whether it fits, as an exit code.

    Raises:
        PresetError: There is no such preset.
        ConfigError: The mesh, the chips or the adapters are impossible.
    """
    config, saved = _of_run(config, screen)
    target = target_of(planned_topology(config))
    plan = make_plan(prepare(config, target, saved=saved), confirm=config.plan.confirm)
    if config.plan.format == "json":
        if target.devices is None:
            print(plan.source, file=sys.stderr)
        print(plan.to_json())
    else:
        show(screen, plan)
    return FITS if plan.fits else DOES_NOT_FIT


def _of_run(config: RunConfig, screen: Screen) -> tuple[RunConfig, LoraSettings | None]:
    """Return the configuration of the run that is named, what was typed on top.

    A name that no run has yet is that of the run which is planned.
    """
    directory = RunDirectory(config)
    if not directory.exists():
        return config, None
    stored = directory.stored_config()
    mesh = config.mesh if config.mesh.shape != "auto" else stored.mesh
    config = dataclasses.replace(
        config,
        preset=stored.preset,
        lora=stored.lora,
        optimizer=stored.optimizer,
        schedule=stored.schedule,
        seed=stored.seed,
        data=overlaid(stored.data, config.data),
        trainer=overlaid(stored.trainer, config.trainer),
        mesh=mesh,
    )
    check_topology(config)
    return config, saved_settings(directory)
