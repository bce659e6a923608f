"""`GemmaCausalLM`: a backbone with its tied head, which continues text.

Turns a backbone into a Functional model from token ids to float32 logits, and prompts
into text. It refuses to know how tokens are chosen (`gemma.decoding`) and how chats
are written (`gemma.chat`).
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import keras

from gemma.backbones.backbone import Backbone
from gemma.backbones.gemma_backbone import GemmaBackbone
from gemma.decoding import Decoder
from gemma.preprocessors import GemmaCausalLMPreprocessor
from gemma.presets import write_preset
from gemma.stacked import Stacked
from gemma.stacked.forward import Weights
from gemma.stacked.tree import stack_values
from gemma.tokenizers import GemmaTokenizer

StopTokens = str | Sequence[int] | None


class GemmaCausalLM(keras.Model):
    """Gemma up to its logits, [batch, seq, vocabulary_size] in float32.

    A Functional model with the inputs of its backbone. The head is the embedding, so
    it has no weights of its own.

    Args:
        backbone: Model up to the hidden states.
        preprocessor: What turns strings into ids; `generate` needs it.

    Example:
        model = GemmaCausalLM.from_preset("gemma2_tiny_en")
        model.generate("Define the noun", max_length=64)
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocessor: GemmaCausalLMPreprocessor | None = None,
        **kwargs: object,
    ) -> None:
        inputs = backbone.input
        logits = backbone.token_embedding(backbone(inputs), reverse=True)
        super().__init__(inputs=inputs, outputs=logits, **kwargs)
        self._backbone = backbone
        self._preprocessor = preprocessor
        self._generator = _Generator(backbone)

    @property
    def backbone(self) -> Backbone:
        """The model up to the hidden states."""
        return self._backbone

    @property
    def preprocessor(self) -> GemmaCausalLMPreprocessor | None:
        """What turns strings into ids; None where the preset has no tokenizer."""
        return self._preprocessor

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, **kwargs: object
    ) -> GemmaCausalLM:
        """Build backbone and preprocessor from a preset.

        Args:
            preset: As `Backbone.from_preset`.
            load_weights: False draws random weights.
            **kwargs: Arguments of the backbone that override the preset's, such as
                `dtype`.

        Raises:
            PresetFileError: The preset is unknown or damaged.
        """
        backbone = GemmaBackbone.from_preset(preset, load_weights, **kwargs)
        if backbone.vocabulary is None:
            return cls(backbone)
        return cls(backbone, GemmaCausalLMPreprocessor.from_preset(preset))

    def generate(
        self,
        inputs: str | Sequence[str],
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
    ) -> str | list[str]:
        """Return each prompt with the likeliest text after it.

        The weights are stacked over layers on first use and kept until one changes:
        a second copy of them in memory.

        Args:
            inputs: A prompt or several; BOS is added.
            max_length: Tokens of prompt and continuation together; the
                preprocessor's `sequence_length` by default.
            stop_token_ids: Ids that end a text, without being part of it; `auto`
                stands for end of sequence and end of turn, None for no id.

        Raises:
            ValueError: There is no preprocessor, no prompt, one that leaves no room
                in `max_length`, or `stop_token_ids` is another word.
        """
        preprocessor = self._preprocessor
        if preprocessor is None:
            raise ValueError(
                "generate needs a preprocessor, received None; build the model from a "
                "preset with a tokenizer, or call gemma.decoding.Decoder with ids"
            )
        tokenizer = preprocessor.tokenizer
        stops = _stop_ids(stop_token_ids, tokenizer)
        prompts = [inputs] if isinstance(inputs, str) else list(inputs)
        ids = _encode_prompts(preprocessor, prompts)
        if max_length is None:
            max_length = preprocessor.sequence_length
        answers = self._generator.generate(ids, _room(ids, max_length), stops)
        texts = [
            prompt + tokenizer.detokenize(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return texts[0] if isinstance(inputs, str) else texts

    def save_to_preset(self, preset_dir: str) -> None:
        """Write KerasHub's preset directory with tokenizer, preprocessor and task.

        Raises:
            ValueError: The dtype of the weights is neither float32 nor bfloat16.
        """
        preprocessor = self._preprocessor
        if preprocessor is None:
            self._backbone.save_to_preset(preset_dir)
            return
        write_preset(
            preset_dir,
            config=self._backbone.gemma_config,
            dtype=self._backbone.dtype_policy.variable_dtype,
            arrays=self._backbone.merged_array,
            vocabulary=preprocessor.tokenizer.proto,
            sequence_length=preprocessor.sequence_length,
        )

    def get_config(self) -> dict[str, Any]:
        """Return name and backbone; a tokenizer is a file and has no place here."""
        return {"name": self.name, "backbone": self._backbone.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GemmaCausalLM:
        """Build from `get_config`'s result, without preprocessor."""
        backbone = GemmaBackbone.from_config(config["backbone"])
        return cls(backbone, name=config["name"])


class _Generator:
    """Decoders of a backbone and its stacked weights, which follow every change."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._stacked: Stacked | None = None
        self._decoders: dict[tuple[int, ...], Decoder] = {}
        self._weights: Weights = {}
        self._sources: list[weakref.ref[jax.Array]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        stop_token_ids: tuple[int, ...],
    ) -> list[list[int]]:
        """Return the ids that follow each prompt."""
        self._refresh()
        if stop_token_ids not in self._decoders:
            self._decoders[stop_token_ids] = Decoder(self._stacked, stop_token_ids)
        decoder = self._decoders[stop_token_ids]
        return decoder.generate(self._weights, prompts, max_new_tokens=max_new_tokens)

    def _refresh(self) -> None:
        """Stack the weights again if any variable holds another array than before.

        JAX arrays never change, so the same arrays are the same weights. They are
        known by weak references, lest old weights stay in memory.
        """
        arrays = [variable.value for variable in self._backbone.weights]
        known = [source() for source in self._sources]
        if len(arrays) == len(known) and all(map(operator.is_, arrays, known)):
            return
        if len(arrays) != len(known):  # adapters came: another tree
            self._stacked, self._decoders = Stacked(self._backbone), {}
        self._weights = {}  # the old copy goes before the new one comes
        self._weights = stack_values(self._stacked.tree)
        self._sources = [weakref.ref(array) for array in arrays]


def _stop_ids(stop_token_ids: StopTokens, tokenizer: GemmaTokenizer) -> tuple[int, ...]:
    if stop_token_ids == "auto":
        return (tokenizer.end_token_id, tokenizer.end_of_turn_id)
    if isinstance(stop_token_ids, str):
        raise ValueError(
            "stop_token_ids must be 'auto', None or a list of ids, "
            f"received {stop_token_ids!r}"
        )
    return tuple(stop_token_ids or ())


def _encode_prompts(
    preprocessor: GemmaCausalLMPreprocessor, prompts: Sequence[str]
) -> list[list[int]]:
    """Return the ids of each prompt, BOS first where the preprocessor adds it."""
    start = [preprocessor.tokenizer.start_token_id]
    if not preprocessor.add_start_token:
        start = []
    return [[*start, *preprocessor.tokenizer(prompt)] for prompt in prompts]


def _room(prompts: Sequence[Sequence[int]], max_length: int) -> list[int]:
    """Return how many tokens may follow each prompt."""
    for row, ids in enumerate(prompts):
        if len(ids) >= max_length:
            raise ValueError(
                f"max_length must be more than the {len(ids)} tokens of prompt {row}, "
                f"received {max_length}"
            )
    return [max_length - len(ids) for ids in prompts]
