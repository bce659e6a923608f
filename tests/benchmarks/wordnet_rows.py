"""What every subject of `wordnet_270m.py` trains: rows of WordNet, as text and tokens.

Turns the embedded rows into files: JSONL for a command line, and ids with their loss
masks for whoever takes tokens, so that all subjects learn the same positions.
"""

import json
import pathlib
from typing import Any

from gemma.presets import open_preset
from gemma.tokenizers import GemmaTokenizer
from trainer.data.encode import Encoder, Piece
from trainer.data.packing import first_fit
from trainer.data.sources import WORDNET_DIRECTORY, open_wordnet

COUNTS = {"train": 320, "heldout": 200}
SEQUENCE_LENGTH = 256
SETTINGS = {
    "rows_per_step": 8,
    "steps": 40,
    "learning_rate": 1e-3,
    "rank": 8,
    "alpha": 16,
}


def write_rows(directory: str, place: pathlib.Path) -> int:
    """Write `train.jsonl`, `heldout.jsonl` and `rows.json`; return how many packs.

    Args:
        directory: Has the vocabulary.
        place: Gets the files.
    """
    tokenizer = GemmaTokenizer(open_preset(directory).vocabulary())
    encoder = Encoder(tokenizer, SEQUENCE_LENGTH, "raise")
    pieces: dict[str, list[Piece]] = {}
    for split, count in COUNTS.items():
        source = open_wordnet(split)
        pieces[split] = encoder.encode([source.read(i) for i in range(count)])
        lines = (WORDNET_DIRECTORY / f"{split}.jsonl").read_text().splitlines()
        (place / f"{split}.jsonl").write_text("\n".join(lines[:count]) + "\n")
    content: dict[str, Any] = {
        split: [_lists(piece) for piece in found] for split, found in pieces.items()
    }
    content["settings"] = SETTINGS | {"end_of_turn": tokenizer.end_of_turn_id}
    (place / "rows.json").write_text(json.dumps(content))
    return len(first_fit([piece.length for piece in pieces["train"]], SEQUENCE_LENGTH))


def _lists(piece: Piece) -> dict[str, list[int]]:
    return {"ids": piece.ids.tolist(), "loss_mask": piece.loss_mask.tolist()}
