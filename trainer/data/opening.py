"""From configuration to training and held-out rows, checked.

Turns `DataConfig` into streams of batches, or an error that names the key or the rows,
before anything is trained. It refuses to know the model, devices and processes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from gemma.tokenizers import GemmaTokenizer
from trainer.config.errors import ConfigError
from trainer.config.schema import DataConfig
from trainer.data.batches import TrainingStream, encode_window, measure
from trainer.data.encode import Encoder
from trainer.data.evaluation import EvaluationSet
from trainer.data.fingerprint import fingerprint
from trainer.data.jsonl import open_jsonl
from trainer.data.sources import (
    RowSet,
    Share,
    Source,
    check_rows,
    list_bad_rows,
    open_wordnet,
)

SAMPLED_ROWS = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Everything that a run reads."""

    config: DataConfig
    train: TrainingStream
    evaluation: EvaluationSet | None
    digests: dict[str, str]
    """SHA-256 of the content of `train` and, where there is one, `evaluation`."""
    fingerprint: str
    """Hash of all that decides the sequences but seed and batch size."""

    def describe(self) -> dict[str, Any]:
        """Return what to show and record: sources, rows, lengths, bad rows."""
        held_out = self.evaluation
        facts: dict[str, Any] = {
            "source": self.config.source,
            "train": _describe_rows(self.train.rows, self.digests["train"]),
            "evaluation": held_out
            and _describe_rows(held_out.rows, self.digests["evaluation"]),
            "sequence_length": self.config.sequence_length,
            "fingerprint": self.fingerprint,
        }
        return facts | {"first_rows": self._measure_first_rows()}

    def _measure_first_rows(self) -> dict[str, Any]:
        """Return the lengths of the first rows, and how many are cut or left out."""
        rows = self.train.rows
        numbers = np.arange(min(SAMPLED_ROWS, len(rows)))
        length = self.config.sequence_length
        encoder = self.train.encoder
        pieces = [
            p for s in encode_window(rows, numbers, encoder, pack=False) for p in s
        ]
        facts = measure([pieces])
        whole = 1 << 40  # longer than any row: nothing is cut
        uncut = dataclasses.replace(encoder, sequence_length=whole)
        lengths = [s[0].length for s in encode_window(rows, numbers, uncut, pack=False)]
        return {
            "rows": len(numbers),
            "tokens_per_row": float(np.mean(lengths)) if lengths else 0.0,
            "longest_row_tokens": max(lengths, default=0),
            "rows_longer_than_a_sequence": sum(n > length for n in lengths),
            "rows_with_nothing_to_learn": len(numbers) - facts.rows,
            "loss_share": facts.loss_tokens / max(facts.tokens, 1),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What the rows are read from, found but not checked, and the keys that name it."""

    train: Source
    train_key: str
    evaluation: Source | None
    evaluation_key: str

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the content of each."""
        both = {"train": self.train, "evaluation": self.evaluation}
        return {name: source.digest() for name, source in both.items() if source}


def open_sources(config: DataConfig) -> Sources:
    """Open what a configuration names.

    Raises:
        ConfigError: A key that the source needs is missing.
        DataError: Rows cannot be found.
    """
    train, key = _open_train(config)
    held_out, eval_key = _open_evaluation(config)
    return Sources(
        train=train, train_key=key, evaluation=held_out, evaluation_key=eval_key
    )


def open_data(
    config: DataConfig,
    tokenizer: GemmaTokenizer,
    *,
    seed: int,
    global_batch_size: int,
    sources: Sources | None = None,
    share: Share | None = None,
) -> TrainingData:
    """Open and check the rows that a configuration names.

    Every record is read once, so that bad rows are known before training.

    Args:
        config: The `data` keys.
        tokenizer: Encodes the rows.
        seed: Decides their order.
        global_batch_size: Sequences of a batch.
        sources: What `open_sources` returned, None to open it here.
        share: The part of the records that this process checks; the other processes
            have opened the same.

    Raises:
        ConfigError: A key that the source needs is missing.
        DataError: Rows cannot be found or read.
    """
    sources = sources or open_sources(config)
    held_out = sources.evaluation
    rows = check_rows(
        sources.train, on_bad_row=config.on_bad_row, key=sources.train_key, share=share
    )
    encoder = Encoder(tokenizer, config.sequence_length, config.on_long_row)
    train = TrainingStream(
        rows=rows,
        encoder=encoder,
        seed=seed,
        global_batch_size=global_batch_size,
        pack=config.pack,
        pack_window_rows=config.pack_window_rows,
        shuffle=config.shuffle,
    )
    digests = sources.digests
    evaluation = None
    if held_out is not None:
        evaluation = EvaluationSet(
            rows=check_rows(
                held_out,
                on_bad_row=config.on_bad_row,
                key=sources.evaluation_key,
                limit=config.eval_rows,
            ),
            encoder=encoder,
            global_batch_size=global_batch_size,
            pack=config.pack,
            pack_window_rows=config.pack_window_rows,
        )
    if config.on_long_row == "raise":
        _check_lengths(train, evaluation)
    return TrainingData(
        config=config,
        train=train,
        evaluation=evaluation,
        digests=digests,
        fingerprint=fingerprint(config, tokenizer, digests),
    )


def _check_lengths(train: TrainingStream, evaluation: EvaluationSet | None) -> None:
    """Encode everything once, which raises at the first row that is too long."""
    for rows in filter(None, (train.rows, evaluation and evaluation.rows)):
        for first in range(0, len(rows), SAMPLED_ROWS):
            numbers = np.arange(first, min(first + SAMPLED_ROWS, len(rows)))
            encode_window(rows, numbers, train.encoder, pack=False)


def _open_train(config: DataConfig) -> tuple[Source, str]:
    """Return the source of training rows, and the key that names it."""
    if config.source == "wordnet":
        return open_wordnet("train"), "data"
    if config.source == "jsonl":
        path = _required(config.path, "data.path", "data.path=rows.jsonl")
        return open_jsonl(path, config.columns, key="data.path"), "data.path"
    if config.source == "tfds":
        from trainer.data.tfds import open_tfds

        return open_tfds(config, config.split, key="data.split"), "data.name"
    raise ConfigError(
        key="data.source",
        expected="wordnet, jsonl or tfds",
        received=config.source,
        fix="data=jsonl data.path=rows.jsonl",
    )


def _open_evaluation(config: DataConfig) -> tuple[Source | None, str]:
    """Return the source of held-out rows, None without one, and its key."""
    if config.source == "wordnet":
        return open_wordnet("heldout"), "data"
    if config.source == "jsonl":
        key = "data.eval_path"
        path = config.eval_path
        return (open_jsonl(path, config.columns, key=key) if path else None), key
    from trainer.data.tfds import open_tfds

    key = "data.eval_split"
    split = config.eval_split
    return (open_tfds(config, split, key=key) if split else None), key


def _required(value: str | None, key: str, example: str) -> str:
    if value is None:
        raise ConfigError(key=key, expected="a value", received="null", fix=example)
    return value


def _describe_rows(rows: RowSet, digest: str) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "sha256": digest,
        "bad_rows": rows.bad_row_count,
        "bad_rows_listed": list_bad_rows(rows.bad_rows, rows.bad_row_count),
    }
