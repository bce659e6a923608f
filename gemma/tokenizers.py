"""Text to ids and back, with the SentencePiece vocabulary that a preset carries.

Turns strings into lists of ids without BOS, and ids into strings. Two ways in: calling
the tokenizer reads `<start_of_turn>` and `<end_of_turn>` as the turn tokens they name,
as KerasHub does; `encode_content` keeps them text, so that nothing that a user wrote
can forge a turn or an image. It refuses to know chats, sequences and padding.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sentencepiece
from etils import epath

PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
SPECIAL_PIECES = (PAD, EOS, BOS, UNKNOWN, START_OF_TURN, END_OF_TURN)

START_OF_IMAGE, END_OF_IMAGE, IMAGE = "<start_of_image>", "<end_of_image>", "<img>"

# SentencePiece matches these inside text. No piece of a vocabulary can span the cut
# between the first character and the rest, because the halves are encoded apart.
_CONTROL_PIECE = re.compile(r"(?<=<)(?=(?:start|end)_of_(?:turn|image)>)")


class GemmaTokenizer:
    """SentencePiece tokenizer of Gemma 1 and 2.

    Special ids are found by the names of their pieces, never assumed: published Gemma
    vocabularies differ in them.

    Args:
        proto: A serialized SentencePiece model, or the path of one.

    Raises:
        ValueError: `proto` is no SentencePiece model, or a special piece is missing.
    """

    def __init__(self, proto: bytes | str | os.PathLike[str]) -> None:
        is_content = isinstance(proto, bytes)
        self.proto = proto if is_content else epath.Path(proto).read_bytes()
        self._processor = _load(self.proto)
        ids = {piece: self._find(piece) for piece in SPECIAL_PIECES}
        missing = [piece for piece, found in ids.items() if found is None]
        if missing:
            raise ValueError(
                f"proto has no piece {', '.join(missing)}; a Gemma vocabulary names "
                f"all of {', '.join(SPECIAL_PIECES)}"
            )
        self.pad_token_id: int = ids[PAD]
        self.end_token_id: int = ids[EOS]
        self.start_token_id: int = ids[BOS]
        self.unknown_token_id: int = ids[UNKNOWN]
        self.start_of_turn_id: int = ids[START_OF_TURN]
        self.end_of_turn_id: int = ids[END_OF_TURN]

    @classmethod
    def from_preset(cls, preset: str) -> GemmaTokenizer:
        """Load the vocabulary of a built-in preset, a handle or a directory."""
        from gemma.presets import open_preset

        vocabulary = open_preset(preset).vocabulary()
        if vocabulary is None:
            raise ValueError(f"preset {preset!r} has no tokenizer files")
        return cls(vocabulary)

    def __call__(self, inputs: str | Sequence[str]) -> list[Any]:
        """Return the ids of a string, or a list of them for several, without BOS."""
        return self._processor.encode(inputs if isinstance(inputs, str) else [*inputs])

    def encode_content(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Return int32 ids of each text, in which no turn or image token can occur.

        Where a text spells one, the ids are those of its characters.
        """
        return [
            self._encode_cut(text) if _CONTROL_PIECE.search(text) else ids
            for text, ids in _zip_encoded(self._processor, texts)
        ]

    def detokenize(self, inputs: Iterable[Any]) -> Any:  # noqa: ANN401
        """Return the text of a row of ids, or a list of texts for rows of ids.

        Raises:
            ValueError: An id lies outside the vocabulary.
        """
        rows = inputs.tolist() if isinstance(inputs, np.ndarray) else [*inputs]
        if rows and not isinstance(rows[0], (int, np.integer)):
            return [self.detokenize(row) for row in rows]
        ids = [int(token) for token in rows]
        size = self.vocabulary_size()
        outside = [token for token in ids if not 0 <= token < size]
        if outside:
            raise ValueError(
                f"inputs must be ids from 0 to {size - 1}, received {outside[0]}"
            )
        return self._processor.decode(ids)

    decode = detokenize

    def vocabulary_size(self) -> int:
        """Return the number of pieces."""
        return self._processor.get_piece_size()

    def id_to_token(self, token: int) -> str:
        """Return the piece of an id."""
        if not 0 <= token < self.vocabulary_size():
            raise ValueError(
                f"token must be an id from 0 to {self.vocabulary_size() - 1}, "
                f"received {token}"
            )
        return self._processor.id_to_piece(int(token))

    def token_to_id(self, piece: str) -> int:
        """Return the id of a piece, the unknown one's if there is no such piece."""
        return self._processor.piece_to_id(piece)

    @property
    def special_token_ids(self) -> tuple[int, int, int]:
        """Ids that stand for no text at the ends of a sequence: BOS, EOS, padding."""
        return self.start_token_id, self.end_token_id, self.pad_token_id

    @property
    def digest(self) -> str:
        """SHA-256 of the vocabulary, in hex."""
        return hashlib.sha256(self.proto).hexdigest()

    def _find(self, piece: str) -> int | None:
        """Return the id of `piece`, or None; SentencePiece would say `<unk>`."""
        found = self._processor.piece_to_id(piece)
        return found if self._processor.id_to_piece(found) == piece else None

    def _encode_cut(self, text: str) -> np.ndarray:
        """Encode `text` in parts, none of which holds a whole control token."""
        parts = self._processor.encode(_CONTROL_PIECE.split(text))
        return np.asarray([*itertools.chain.from_iterable(parts)], np.int32)


class Gemma3Tokenizer(GemmaTokenizer):
    """SentencePiece tokenizer of Gemma 3.

    Args:
        proto: A serialized SentencePiece model, or the path of one.
        has_vision_tokens: Whether the vocabulary must name the tokens around images;
            without it, as for the text models, their ids are -1.

    Raises:
        ValueError: As `GemmaTokenizer`, or a token of images is missing.
    """

    def __init__(
        self,
        proto: bytes | str | os.PathLike[str],
        has_vision_tokens: bool = False,
    ) -> None:
        super().__init__(proto)
        self.has_vision_tokens = has_vision_tokens
        pieces = (IMAGE, START_OF_IMAGE, END_OF_IMAGE)
        ids = {
            piece: self._find(piece) if has_vision_tokens else -1 for piece in pieces
        }
        if missing := [piece for piece, found in ids.items() if found is None]:
            raise ValueError(
                f"proto has no piece {', '.join(missing)}; has_vision_tokens=False "
                "does without"
            )
        self.image_placeholder_id: int = ids[IMAGE]
        self.start_of_image_token_id: int = ids[START_OF_IMAGE]
        self.end_of_image_token_id: int = ids[END_OF_IMAGE]


def _load(proto: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(proto)
    except RuntimeError as error:
        raise ValueError(
            "proto must be a serialized SentencePiece model, received "
            f"{len(proto)} bytes that are none"
        ) from error
    return processor


def _zip_encoded(
    processor: sentencepiece.SentencePieceProcessor, texts: Iterable[str]
) -> Iterable[tuple[str, np.ndarray]]:
    """Return each text with its ids, encoded in one call."""
    listed = [*texts]
    encoded = processor.encode(listed) if listed else []
    return zip(listed, (np.asarray(ids, np.int32) for ids in encoded), strict=True)
