"""One hash for the rows of a run and how they become sequences.

Turns content hashes and settings into a string that differs whenever a resumed run
would read other sequences. It refuses to know paths: the same rows elsewhere are the
same rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from gemma.tokenizers import GemmaTokenizer
from trainer.config.schema import DataConfig

_DECIDING = (
    "sequence_length",
    "pack",
    "pack_window_rows",
    "shuffle",
    "eval_rows",
    "on_bad_row",
    "on_long_row",
)


def fingerprint(
    config: DataConfig, tokenizer: GemmaTokenizer, digests: Mapping[str, str]
) -> str:
    """Return 64 hex digits: SHA-256 of contents, vocabulary and settings."""
    facts = {
        "content": dict(digests),
        "tokenizer": tokenizer.digest,
        "columns": dataclasses.asdict(config.columns),
        "settings": {name: getattr(config, name) for name in _DECIDING},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
