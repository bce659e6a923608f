"""What a run is about to do, before it does anything that takes long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from trainer.data.opening import TrainingData
from trainer.tasks.console import Screen
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.session import Session


def introduce(
    screen: Screen,
    session: Session,
    data: TrainingData,
    directory: RunDirectory,
    rules: Mapping[str, Sequence[str]],
) -> None:
    """Show preset, parameters, trainable share, mesh, data and steps.

    Args:
        screen: Where a person looks.
        session: The model and its configuration.
        data: The rows.
        directory: Where the run leaves its files.
        rules: What `StackedOptimizer.rules` says.
    """
    config, model = session.config, session.model
    trained, total = model.trainable_count, model.parameter_count
    facts = data.describe()
    rows = facts["first_rows"]
    held_out = facts["evaluation"]
    trainer = config.trainer
    device = jax.devices()[0]
    screen.facts(
        directory.name,
        {
            "preset": f"{config.preset.name}, {total:,} parameters, "
            f"computed in {config.preset.dtype}",
            "trained": f"{trained:,} ({100 * trained / total:.2f} %) "
            + _trained_what(session),
            "mesh": f"{session.choice} (batch x model) on {jax.device_count()} "
            f"{device.device_kind} device(s)" + _because(session.choice.reason),
            "data": f"{config.data.source}: {facts['train']['rows']:,} rows, "
            f"{held_out['rows'] if held_out else 0:,} held out, about "
            f"{rows['tokens_per_row']:.0f} tokens a row",
            "steps": f"{trainer.num_train_steps} x {trainer.global_batch_size} "
            f"sequences of {config.data.sequence_length} tokens"
            + (f", {session.microbatches} microbatches" * (session.microbatches > 1))
            + f", remat {trainer.remat}",
            "optimizer": f"{config.optimizer.name}, learning rate "
            f"{config.optimizer.learning_rate:g}, {config.schedule.name}",
            **_rules(rules),
            "directory": directory.path,
        },
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _rules(rules: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Say which arrays get which update, where the optimizer has more than one."""
    if len(rules) == 1:
        return {}
    count = sum(map(len, rules.values()))
    return {
        f"by {rule}": f"{len(paths)} of {count} arrays: " + (", ".join(paths) or "none")
        for rule, paths in rules.items()
    }


def _trained_what(session: Session) -> str:
    lora = session.model.lora
    if lora is None:
        return "all weights"
    also = "" if session.model.has_only_adapters else ", and the embedding"
    targets = ", ".join(lora.targets)
    return f"LoRA rank {lora.rank}, alpha {lora.alpha:g}, on {targets}{also}"
