"""Strings to the arrays that a causal language model trains on or continues.

Turns a string, or several, into right-padded ids, padding mask, labels and weights,
with KerasHub's constructor and outputs in plain NumPy. It refuses to know chats and
packing, which the trainer has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma.tokenizers import Gemma3Tokenizer, GemmaTokenizer

DEFAULT_SEQUENCE_LENGTH = 1024

Texts = str | Sequence[str]
Inputs = Texts | Mapping[str, Texts]
Features = dict[str, np.ndarray]


class GemmaCausalLMPreprocessor:
    """Tokenizes, adds BOS and EOS, pads and shifts.

    `x` is a string or several; or a dict of `prompts` and `responses`, of which only
    the responses have weight.

    A text that does not fit is cut without EOS, where KerasHub writes EOS at the cut:
    a model should not learn to end in the middle of a sentence.

    Args:
        tokenizer: Vocabulary to encode with.
        sequence_length: Length of the arrays; may be set later too.
        add_start_token: Whether sequences begin with BOS.
        add_end_token: Whether training sequences end with EOS.
    """

    tokenizer_class: type[GemmaTokenizer] = GemmaTokenizer

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
        add_start_token: bool | None = None,
        add_end_token: bool | None = None,
    ) -> GemmaCausalLMPreprocessor:
        """Build on the tokenizer of a built-in preset, a handle or a directory.

        Args:
            preset: Name, handle or directory.
            sequence_length: Length of the arrays; None takes the preset's, else 1024.
            add_start_token: As in the constructor; None takes the preset's.
            add_end_token: As in the constructor; None takes the preset's.
        """
        from gemma.presets import open_preset

        tokenizer = cls.tokenizer_class.from_preset(preset)
        known = open_preset(preset)
        start, end = known.add_start_token, known.add_end_token
        return cls(
            tokenizer,
            sequence_length=sequence_length
            or known.sequence_length
            or DEFAULT_SEQUENCE_LENGTH,
            add_start_token=start if add_start_token is None else add_start_token,
            add_end_token=end if add_end_token is None else add_end_token,
        )

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
            [batch, sequence_length] for several. Weights are False at padding and
            at prompts.

        Raises:
            ValueError: `y` or `sample_weight` is given; both follow from `x`. Or `x`
                is neither text nor prompts with their responses.
        """
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y and sample_weight are made from x and must not be given"
            )
        length = _checked_length(sequence_length or self.sequence_length)
        rows, is_one = self._rows(x)
        if isinstance(x, Mapping) and "responses" not in x:
            raise ValueError("x must have responses to its prompts, received none")
        end = [self.tokenizer.end_token_id] if self.add_end_token else []
        ids, mask = self._pad([[*p, *r, *end] for p, r in rows], length + 1)
        weights = mask.copy()
        if isinstance(x, Mapping):
            for row, (prompt, _) in enumerate(rows):
                weights[row, : len(prompt)] = False
        features = {"token_ids": ids[:, :-1], "padding_mask": mask[:, :-1]}
        batch = features, ids[:, 1:], weights[:, 1:]
        return _first(batch) if is_one else batch

    def generate_preprocess(
        self, x: Inputs, sequence_length: int | None = None
    ) -> Features:
        """Return `token_ids` and `padding_mask` of prompts: BOS, but no EOS."""
        length = _checked_length(sequence_length or self.sequence_length)
        rows, is_one = self._rows(x)
        ids, mask = self._pad([[*p, *r] for p, r in rows], length)
        features = {"token_ids": ids, "padding_mask": mask}
        return _first(features) if is_one else features

    def prompt_ids(self, x: Inputs) -> list[list[int]]:
        """Return the ids of each prompt, unpadded: BOS, but no EOS."""
        return [[*p, *r] for p, r in self._rows(x)[0]]

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

    def _rows(self, x: Inputs) -> tuple[list[tuple[list[int], list[int]]], bool]:
        """Return ids of each prompt, with BOS, and response; and if `x` is one row.

        A text without response has an empty one.
        """
        prompts, responses = _prompts_and_responses(x)
        is_one = isinstance(prompts, str)
        start = [self.tokenizer.start_token_id] if self.add_start_token else []
        firsts = self.tokenizer([prompts] if is_one else _strings(prompts))
        if responses is None:
            seconds: list[list[int]] = [[] for _ in firsts]
        else:
            seconds = self.tokenizer([responses] if is_one else _strings(responses))
        if len(firsts) != len(seconds):
            raise ValueError(
                f"x must have a response for each prompt, received {len(firsts)} "
                f"prompts and {len(seconds)} responses"
            )
        rows = zip(firsts, seconds, strict=True)
        return [([*start, *first], second) for first, second in rows], is_one

    def _pad(
        self, rows: Sequence[Sequence[int]], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask, both [batch, length]; what is too long is cut."""
        ids = np.full((len(rows), length), self.tokenizer.pad_token_id, np.int32)
        mask = np.zeros((len(rows), length), bool)
        for row, tokens in enumerate(rows):
            kept = tokens[:length]
            ids[row, : len(kept)] = kept
            mask[row, : len(kept)] = True
        return ids, mask


class Gemma3CausalLMPreprocessor(GemmaCausalLMPreprocessor):
    """The same for Gemma 3's text models; images are refused.

    Args:
        tokenizer: Vocabulary to encode with.
        image_converter: None; the models here see text only.
        sequence_length: Length of the arrays; may be set later too.
        add_start_token: Whether sequences begin with BOS.
        add_end_token: Whether training sequences end with EOS.

    Raises:
        ValueError: There is an image converter.
    """

    tokenizer_class = Gemma3Tokenizer

    def __init__(
        self,
        tokenizer: GemmaTokenizer,
        image_converter: None = None,
        sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ) -> None:
        if image_converter is not None:
            raise ValueError(
                "image_converter must be None: text models see no images, received "
                f"{type(image_converter).__name__}"
            )
        super().__init__(tokenizer, sequence_length, add_start_token, add_end_token)


def _prompts_and_responses(x: Inputs) -> tuple[Texts, Texts | None]:
    if not isinstance(x, Mapping):
        return x, None
    if x.get("images") is not None:
        raise ValueError("x must hold no images: this is a preprocessor of text models")
    if "prompts" not in x:
        raise ValueError(
            "x must be text, or a dict with prompts and responses, received one with "
            f"{', '.join(map(repr, x)) or 'nothing'}"
        )
    return x["prompts"], x.get("responses")


def _first(batch: Any) -> Any:  # noqa: ANN401  # dicts and tuples of arrays
    """Return the only row of every array."""
    if isinstance(batch, dict):
        return {name: _first(values) for name, values in batch.items()}
    return tuple(map(_first, batch)) if isinstance(batch, tuple) else batch[0]


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
