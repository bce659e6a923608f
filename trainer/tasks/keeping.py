"""What goes into a run's checkpoints, and what comes back of it.

Turns a state and its progress into a checkpoint that stands by itself: with the
configuration, code and packages it was made with, and the hashes of base, rows and
vocabulary. What is restored is compared with them before it is used. It refuses to
know when a checkpoint is due and how it is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from trainer.checkpoint import Store, compile_ahead
from trainer.config.errors import DataError, PresetError
from trainer.config.identity import check_same_keys
from trainer.config.schema import CheckpointConfig, RunConfig
from trainer.data.opening import TrainingData
from trainer.distribution.facts import shared_facts
from trainer.model.assemble import hash_of_base
from trainer.model.state import Arrays
from trainer.tasks.console import Screen
from trainer.tasks.session import Session
from trainer.tasks.skipping import compile_check
from trainer.tasks.state import flatten_state, restore_state
from trainer.tracking import Tracker
from trainer.training.loop import Progress
from trainer.training.step import TrainState


def open_store(directory: epath.Path, rules: CheckpointConfig) -> Store:
    """Open the checkpoints of a run that trains, by its `checkpoint` keys."""
    return Store(
        directory,
        rules.keep_last,
        on_corrupt=rules.on_corrupt,
        due_every=rules.every_steps,
    )


def facts_of_run(
    config: RunConfig, session: Session, data: TrainingData, frozen: Arrays
) -> dict[str, Any]:
    """Return what every checkpoint of a run has beside state and progress.

    Args:
        config: As it was typed: the seed of all randomness is in it.
        session: What it became.
        data: The rows.
        frozen: Weights that are not in the checkpoints: of them the base's hash.
    """
    load_weights = config.preset.load_weights
    hashes = {
        **{f"{name} rows": digest for name, digest in data.digests.items()},
        "vocabulary": session.tokenizer.digest,
    }
    model = session.model
    is_whole = all(model.tree[path].is_adapter for path in model.trainable)
    if frozen and (load_weights or is_whole):
        hashes["base"] = hash_of_base(model, frozen, load_weights=load_weights)
    return {"made_with": shared_facts(config), "hashes": hashes}


def keep(
    store: Store,
    state: TrainState,
    progress: Progress,
    *,
    loss: float | None,
    facts: Mapping[str, Any],
) -> None:
    """Start to save a step of a run, with `facts_of_run`."""
    metadata = {"progress": dataclasses.asdict(progress), **facts}
    store.save(progress.step, flatten_state(state), metadata, loss=loss)


def go_on(
    store: Store,
    like: Mapping[str, jax.ShapeDtypeStruct],
    config: RunConfig,
    *,
    facts: Mapping[str, Any],
    screen: Screen,
    tracker: Tracker,
) -> tuple[TrainState, Progress]:
    """Return the newest state of a run and its progress, proven to be this run's.

    Raises:
        DamagedError: It changed since, and no other may be taken.
        RunError: As `check_belongs` does.
    """
    state, metadata = restore_state(store, None, like)
    for left_out in store.left_out:
        screen.line(str(left_out))
        tracker.event("damaged", vars(left_out))
    progress = Progress(**metadata["progress"])
    check_belongs(metadata, facts, config, to=f"checkpoint {progress.step}")
    screen.line(f"going on from step {progress.step}")
    tracker.event("restored", {"step": progress.step})
    return state, progress


def prepare_saves(
    store: Store, state: TrainState, progress: Progress, config: RunConfig
) -> None:
    """Make ready for the checkpoints to come.

    Raises:
        StorageError: They would fill the disk.
    """
    left = config.trainer.num_train_steps - progress.step
    saves = math.ceil(left / config.checkpoint.every_steps)
    arrays = flatten_state(state)
    store.check_room(arrays, saves=saves)
    compile_ahead(arrays)
    compile_check(state)


def check_belongs(
    metadata: Mapping[str, Any], facts: Mapping[str, Any], config: RunConfig, *, to: str
) -> None:
    """Refuse a checkpoint of another run, whatever directory it lies in.

    Args:
        metadata: What came with its arrays.
        facts: Those of the run that would go on.
        config: That run's, as it was typed.
        to: Name of the checkpoint, for messages.

    Raises:
        ConfigError: A key differs that would make it another run.
        DataError: The rows changed; their order and packs would be others.
        PresetError: The base or the vocabulary changed.
    """
    check_same_keys(metadata["made_with"], config, to=to)
    kept, now = metadata["hashes"], facts["hashes"]
    for name in ("train rows", "vocabulary", "base"):
        if kept.get(name) == now.get(name):
            continue
        kind, key, fix = DataError, "data", "restore the file"
        if name != "train rows":
            kind, key, fix = PresetError, "preset.name", "restore the preset"
        raise kind(
            key=key,
            expected=f"the {name} that {to} was made with, {kept.get(name)}",
            received=f"other {name}, {now.get(name)}",
            fix=f"{fix}, or use another run.name",
        )
