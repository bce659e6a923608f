"""The nearest right spelling of a wrong word.

Turns what was typed and what may be typed into a suggestion, or into none when
nothing is near: a far-fetched suggestion is worse than a list.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIASES = {
    "lr": "optimizer.learning_rate",
    "steps": "trainer.num_train_steps",
    "num_steps": "trainer.num_train_steps",
    "max_steps": "trainer.num_train_steps",
    "iters": "trainer.num_train_steps",
    "batch_size": "trainer.global_batch_size",
    "per_device_batch_size": "trainer.microbatch_size",
    "seq_len": "data.sequence_length",
    "max_length": "data.sequence_length",
    "model": "preset.name",
    "model_name": "preset.name",
    "dataset": "data.source",
    "output_dir": "run.root",
    "wandb": "tracker.name",
    "devices": "device.simulated",
    "num_devices": "device.simulated",
}  # words of other tools for what has another name here


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the choice that is spelled most like `word`, or None."""
    by_case = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=cutoff)
    return by_case[found[0]] if found else None


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """Return the key that was meant: spelled alike, or alike in its last part.

    `learning_rate` and `optim.learning_rate` both mean `optimizer.learning_rate`.
    """
    names = list(keys)
    last = key.rsplit(".", 1)[-1]
    same_last = [name for name in names if name.rsplit(".", 1)[-1] == last]
    if same_last:
        return nearest(key, same_last, cutoff=0.0)
    whole = nearest(key, names, cutoff=0.75)
    if whole or last in _ALIASES:
        return whole or _ALIASES[last]
    by_last: dict[str, list[str]] = {}
    for name in names:
        by_last.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    like = nearest(last, by_last, cutoff=0.7)
    if like:
        return nearest(key, by_last[like], cutoff=0.0)
    return nearest(key, names)


def listing(choices: Iterable[str], *, limit: int = 24) -> str:
    """Return the choices as one line of words, cut when there are too many."""
    names = list(choices)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
