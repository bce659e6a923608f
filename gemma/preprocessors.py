"""Strings to the arrays that a causal language model trains on or continues.

Turns a string, or several, into right-padded ids, padding mask, labels and weights,
with KerasHub's constructor and outputs in plain NumPy. It refuses to know chats and
packing, which the trainer has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma.tokenizers import GemmaTokenizer

DEFAULT_SEQUENCE_LENGTH = 1024

Inputs = str | Sequence[str]
Features = dict[str, np.ndarray]


class GemmaCausalLMPreprocessor:
    """Tokenizes, adds BOS and EOS, pads and shifts.

    A text that does not fit is cut without EOS, where KerasHub writes EOS at the cut:
    a model should not learn to end in the middle of a sentence.

    Args:
        tokenizer: Vocabulary to encode with.
        sequence_length: Length of the arrays; may be set later too.
        add_start_token: Whether sequences begin with BOS.
        add_end_token: Whether training sequences end with EOS.
    """

    def __init__(
        self,
        tokenizer: GemmaTokenizer,
        sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token

    @classmethod
    def from_preset(
        cls,
        preset: str,
        sequence_length: int | None = None,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ) -> GemmaCausalLMPreprocessor:
        """Build on the tokenizer of a built-in preset, a handle or a directory.

        Args:
            preset: Name, handle or directory.
            sequence_length: Length of the arrays; None takes the preset's, else 1024.
            add_start_token: As in the constructor.
            add_end_token: As in the constructor.
        """
        from gemma.presets import open_preset

        tokenizer = GemmaTokenizer.from_preset(preset)
        known = sequence_length or open_preset(preset).sequence_length
        length = known or DEFAULT_SEQUENCE_LENGTH
        return cls(tokenizer, length, add_start_token, add_end_token)

    @property
    def sequence_length(self) -> int:
        """Length of the arrays, in tokens."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        self._sequence_length = _checked_length(value)

    def __call__(
        self,
        x: Inputs,
        y: None = None,
        sample_weight: None = None,
        sequence_length: int | None = None,
    ) -> tuple[Features, np.ndarray, np.ndarray]:
        """Return `(x, y, sample_weight)` to train on.

        Returns:
            Features `token_ids` (int32) and `padding_mask` (bool), labels (int32) and
            weights (bool), each [sequence_length] for a string and
            [batch, sequence_length] for several. Weights are False at padding.

        Raises:
            ValueError: `y` or `sample_weight` is given; both follow from `x`.
        """
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y and sample_weight are made from x and must not be given"
            )
        length = _checked_length(sequence_length or self.sequence_length)
        ids, mask = self._pad(x, length + 1, add_end_token=self.add_end_token)
        features = {"token_ids": ids[..., :-1], "padding_mask": mask[..., :-1]}
        return features, ids[..., 1:], mask[..., 1:]

    def generate_preprocess(
        self, x: Inputs, sequence_length: int | None = None
    ) -> Features:
        """Return `token_ids` and `padding_mask` of prompts: BOS, but no EOS."""
        length = _checked_length(sequence_length or self.sequence_length)
        ids, mask = self._pad(x, length, add_end_token=False)
        return {"token_ids": ids, "padding_mask": mask}

    def generate_postprocess(self, x: Mapping[str, Any]) -> str | list[str]:
        """Return the text of ids, without padding, BOS and EOS."""
        ids = np.asarray(x["token_ids"])
        mask = np.asarray(x["padding_mask"]).astype(bool)
        keep = mask & ~np.isin(ids, self.tokenizer.special_token_ids)
        if ids.ndim == 1:
            return self.tokenizer.detokenize(ids[keep])
        rows = zip(ids, keep, strict=True)
        return [self.tokenizer.detokenize(row[kept]) for row, kept in rows]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are plain values."""
        return {
            "sequence_length": self.sequence_length,
            "add_start_token": self.add_start_token,
            "add_end_token": self.add_end_token,
        }

    def _pad(
        self, x: Inputs, length: int, *, add_end_token: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask, [length] for a string, [batch, length] for several."""
        texts = [x] if isinstance(x, str) else _strings(x)
        start = [self.tokenizer.start_token_id] if self.add_start_token else []
        end = [self.tokenizer.end_token_id] if add_end_token else []
        ids = np.full((len(texts), length), self.tokenizer.pad_token_id, np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, tokens in enumerate(self.tokenizer(texts)):
            whole = [*start, *tokens, *end][:length]
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = True
        return (ids[0], mask[0]) if isinstance(x, str) else (ids, mask)


def _strings(x: Sequence[Any]) -> list[str]:
    """Return `x` as strings; bytes, as data sets hold them, are UTF-8."""
    texts = [text.decode() if isinstance(text, bytes) else text for text in x]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(
            f"x must be a string or a list of strings, received {type(wrong).__name__}"
        )
    return texts


def _checked_length(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"sequence_length must be a positive integer, received {value!r}"
        )
    return value
