"""`generate`: prompts as a user has them, continued by a decoder.

Turns strings or padded ids into prompts, and the ids that follow into what was given:
text for text, arrays for arrays. It keeps a decoder for each set of stops and reads the
variables of the Keras model as they are, without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma.backbones.backbone import Backbone
from gemma.decoding import Decoder, Sampler
from gemma.preprocessors import GemmaCausalLMPreprocessor
from gemma.stacked import Stacked
from gemma.stacked.tree import apart_values
from gemma.tokenizers import GemmaTokenizer

Prompts = str | Sequence[str] | Mapping[str, Any]
"""Texts; or prompts as the preprocessor takes them; or arrays of ids."""
StopTokens = str | Sequence[int] | None
StopSequence = str | Sequence[int]
Rows = list[list[int]]


class Continuer:
    """Decoders of a backbone; compiled programs are kept for the next call."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._stacked: Stacked | None = None
        self._paths: list[str] = []
        self._decoders: dict[tuple, Decoder] = {}

    def forget(self) -> None:
        """Drop every compiled program."""
        self._stacked, self._decoders = None, {}

    @property
    def programs(self) -> int:
        """Number of compiled programs that are kept."""
        return sum(decoder.programs for decoder in self._decoders.values())

    def generate(
        self,
        inputs: Prompts,
        *,
        preprocessor: GemmaCausalLMPreprocessor | None,
        max_length: int | None,
        stop_token_ids: StopTokens,
        stop_sequences: Sequence[StopSequence],
        strip_prompt: bool,
        sampler: Sampler,
        seed: int,
    ) -> str | list[str] | dict[str, np.ndarray]:
        """Continue prompts; see `CausalLM.generate`."""
        tokenizer = None if preprocessor is None else preprocessor.tokenizer
        stops = _stop_ids(stop_token_ids, tokenizer)
        sequences = [_sequence_ids(stop, tokenizer) for stop in stop_sequences]

        def follow(prompts: Rows, max_length: int) -> Rows:
            return self._decoder(stops, sequences).generate(
                apart_values(self._stacked.tree),
                prompts,
                max_new_tokens=_room(prompts, max_length),
                sampler=sampler,
                seed=seed,
            )

        if isinstance(inputs, Mapping) and "token_ids" in inputs:
            prompts = _rows_of_ids(inputs)
            size = max_length or np.shape(inputs["token_ids"])[1]
            return _padded(prompts, follow(prompts, size), size, strip=strip_prompt)
        if preprocessor is None:
            raise ValueError(
                "generate needs a preprocessor, received None; build the model from a "
                "preset with a tokenizer, or pass token_ids and padding_mask"
            )
        prompts = preprocessor.prompt_ids(inputs)
        answers = follow(prompts, max_length or preprocessor.sequence_length)
        texts = [
            _until_text(tokenizer.detokenize(answer), stop_sequences)
            for answer in answers
        ]
        given = inputs["prompts"] if isinstance(inputs, Mapping) else inputs
        if not strip_prompt:
            skip = int(preprocessor.add_start_token)
            written = _written_prompts(inputs, prompts, tokenizer, skip)
            texts = [a + b for a, b in zip(written, texts, strict=True)]
        return texts[0] if isinstance(given, str) else texts

    def _decoder(
        self, stops: tuple[int, ...], sequences: Sequence[Sequence[int]]
    ) -> Decoder:
        """Return the decoder of these stops; all are new when the tree is another."""
        paths = [variable.path for variable in self._backbone.weights]
        if self._stacked is None or paths != self._paths:
            self.forget()  # adapters came, or integers in the place of floats
            self._stacked, self._paths = Stacked(self._backbone), paths
        key = (stops, *map(tuple, sequences))
        if key not in self._decoders:
            self._decoders[key] = Decoder(
                self._stacked, stops, stop_sequences=sequences
            )
        return self._decoders[key]


def _stop_ids(
    stop_token_ids: StopTokens, tokenizer: GemmaTokenizer | None
) -> tuple[int, ...]:
    if isinstance(stop_token_ids, str) and stop_token_ids == "auto":
        if tokenizer is None:
            raise ValueError(
                "stop_token_ids='auto' needs a preprocessor, received None; pass ids, "
                "or None to go on until max_length"
            )
        return (tokenizer.end_token_id, tokenizer.end_of_turn_id)
    if isinstance(stop_token_ids, str):
        raise ValueError(
            "stop_token_ids must be 'auto', None or a list of ids, "
            f"received {stop_token_ids!r}"
        )
    return tuple(stop_token_ids or ())


def _sequence_ids(stop: StopSequence, tokenizer: GemmaTokenizer | None) -> list[int]:
    """Return the ids of a stop sequence.

    A text may spell a string with other tokens: those of a string end the loop early,
    and the finished text is cut too.
    """
    if not isinstance(stop, str):
        return [int(token) for token in stop]
    if tokenizer is None:
        raise ValueError(
            f"the stop sequence {stop!r} needs a preprocessor, received None; pass ids"
        )
    if not stop:
        raise ValueError("stop_sequences must hold no empty string")
    return tokenizer(stop)


def _until_text(text: str, stop_sequences: Sequence[StopSequence]) -> str:
    """Return the text before the first stop string."""
    strings = [stop for stop in stop_sequences if isinstance(stop, str)]
    places = [text.find(stop) for stop in strings if stop in text]
    return text[: min(places)] if places else text


def _written_prompts(
    inputs: Prompts, prompts: Rows, tokenizer: GemmaTokenizer, skip: int
) -> list[str]:
    """Return the prompts as text: as they were given, or with their responses."""
    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, Mapping):
        return [tokenizer.detokenize(ids[skip:]) for ids in prompts]
    return [text.decode() if isinstance(text, bytes) else text for text in inputs]


def _rows_of_ids(inputs: Mapping[str, Any]) -> Rows:
    """Return the ids of each row without their padding."""
    token_ids = np.asarray(inputs["token_ids"])
    mask = np.asarray(inputs.get("padding_mask", np.ones_like(token_ids))).astype(bool)
    if token_ids.ndim != 2 or mask.shape != token_ids.shape:
        raise ValueError(
            "token_ids and padding_mask must both be [batch, seq], received "
            f"{list(token_ids.shape)} and {list(mask.shape)}"
        )
    rows = zip(token_ids, mask, strict=True)
    return [ids[kept].tolist() for ids, kept in rows]


def _padded(
    prompts: Rows, answers: Rows, length: int, *, strip: bool
) -> dict[str, np.ndarray]:
    """Return rows as `token_ids` and `padding_mask`, each [batch, length]."""
    token_ids = np.zeros((len(prompts), length), "int32")
    mask = np.zeros((len(prompts), length), bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = answer if strip else [*prompt, *answer]
        token_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return {"token_ids": token_ids, "padding_mask": mask}


def _room(prompts: Rows, max_length: int) -> list[int]:
    """Return how many tokens may follow each prompt."""
    for row, ids in enumerate(prompts):
        if len(ids) >= max_length:
            raise ValueError(
                f"max_length must be more than the {len(ids)} tokens of prompt {row}, "
                f"received {max_length}"
            )
    return [max_length - len(ids) for ids in prompts]
