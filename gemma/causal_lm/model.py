"""`GemmaCausalLM`, `Gemma3CausalLM`: a backbone with its tied head.

Turns a backbone into a Functional model from token ids to float32 logits, which trains
on strings and continues prompts. It refuses to know how tokens are chosen
(`gemma.decoding`) and how chats are written (`gemma.chat`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import keras
import numpy as np

from gemma.backbones.backbone import Backbone
from gemma.backbones.gemma3_backbone import Gemma3Backbone
from gemma.backbones.gemma_backbone import GemmaBackbone
from gemma.causal_lm.continuing import (
    Continuer,
    Prompts,
    StopSequence,
    StopTokens,
)
from gemma.causal_lm.scoring import score
from gemma.causal_lm.training import TextTraining
from gemma.config import Architecture
from gemma.decoding import Sampler, sampler_named
from gemma.preprocessors import Gemma3CausalLMPreprocessor, GemmaCausalLMPreprocessor
from gemma.presets import PresetFileError, open_preset, write_preset


class CausalLM(TextTraining, keras.Model):
    """Gemma up to its logits, [batch, seq, vocabulary_size] in float32.

    A Functional model with the inputs of its backbone. The head is the embedding, so
    it has no weights of its own. `CausalLM.from_preset` chooses the class.

    Args:
        backbone: Model up to the hidden states.
        preprocessor: What turns strings into ids; `generate` and `fit` need it for
            strings.
    """

    backbone_class: ClassVar[type[Backbone]] = Backbone
    preprocessor_class: ClassVar[type[GemmaCausalLMPreprocessor]]

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
        self._sampler = sampler_named("greedy")
        self._continuer = Continuer(backbone)

    @property
    def backbone(self) -> Backbone:
        """The model up to the hidden states."""
        return self._backbone

    @property
    def preprocessor(self) -> GemmaCausalLMPreprocessor | None:
        """What turns strings into ids; None where the preset has no tokenizer."""
        return self._preprocessor

    @property
    def sampler(self) -> Sampler:
        """How `generate` chooses tokens, as `compile` set it; greedy before."""
        return self._sampler

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, **kwargs: object
    ) -> CausalLM:
        """Build backbone and preprocessor from a preset.

        Args:
            preset: As `Backbone.from_preset`.
            load_weights: False draws random weights.
            **kwargs: Arguments of the backbone that override the preset's, such as
                `dtype`.

        Raises:
            PresetFileError: The preset is unknown or damaged, or of another class.
        """
        built_by = cls._class_for(preset)
        backbone = built_by.backbone_class.from_preset(preset, load_weights, **kwargs)
        if backbone.vocabulary is None:
            return built_by(backbone)
        return built_by(backbone, built_by.preprocessor_class.from_preset(preset))

    @classmethod
    def _class_for(cls, preset: str) -> type[CausalLM]:
        """Return the class that builds a preset: this one or a subclass of it."""
        built_by = _MODELS[open_preset(preset).config.architecture]
        if issubclass(cls, built_by):
            return cls
        if not issubclass(built_by, cls):
            raise PresetFileError(
                preset,
                expected=f"a preset of {cls.__name__}",
                received=f"one of {built_by.__name__}",
                fix=f"call {built_by.__name__}.from_preset",
            )
        return built_by

    def compile(
        self,
        optimizer: str | keras.Optimizer = "auto",
        loss: str | keras.Loss | Callable[..., Any] | None = "auto",
        *,
        weighted_metrics: str | Sequence[Any] | None = "auto",
        sampler: str | Sampler = "greedy",
        **kwargs: object,
    ) -> None:
        """Set optimizer, loss, metrics and sampler; `auto` is KerasHub's choice.

        Args:
            optimizer: `auto` is Adam with a learning rate of 2e-5.
            loss: `auto` is the cross-entropy of logits, averaged over all positions,
                those of weight 0 included.
            weighted_metrics: `auto` is the accuracy at positions that have weight.
            sampler: A `Sampler` or a name of `gemma.decoding.SAMPLERS`.
            **kwargs: As `keras.Model.compile`.

        Raises:
            ValueError: There is no sampler of this name.
        """
        self._sampler = sampler_named(sampler)
        self._continuer.forget()
        super().compile(
            optimizer=keras.optimizers.Adam(2e-5) if optimizer == "auto" else optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if isinstance(loss, str) and loss == "auto"
            else loss,
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()]
            if isinstance(weighted_metrics, str) and weighted_metrics == "auto"
            else weighted_metrics,
            **kwargs,
        )

    def generate(
        self,
        inputs: Prompts,
        max_length: int | None = None,
        stop_token_ids: StopTokens = "auto",
        strip_prompt: bool = False,
        *,
        stop_sequences: Sequence[StopSequence] = (),
        sampler: str | Sampler | None = None,
        seed: int = 0,
    ) -> str | list[str] | dict[str, np.ndarray]:
        """Return each prompt with the text that follows it.

        Compiled once for each bucket of prompt lengths and of new lengths, batch size
        and kind of sampler; the model's variables are read as they are.

        Args:
            inputs: A prompt or several, BOS is added; or `token_ids` and
                `padding_mask`, each [batch, seq], which come back with what was added.
            max_length: Tokens of prompt and continuation together; by default the
                preprocessor's `sequence_length`, or the length of `token_ids`.
            stop_token_ids: Ids that end a text, without being part of it; `auto`
                stands for end of sequence and end of turn, None for no id.
            strip_prompt: Return only what was added.
            stop_sequences: Strings, or lists of ids, that end a text likewise.
            sampler: Instead of the one of `compile`.
            seed: Of the draws; the same seed gives the same text.

        Raises:
            ValueError: There is no preprocessor for strings, no prompt, one that
                leaves no room in `max_length`, or `stop_token_ids` is another word.
        """
        return self._continuer.generate(
            inputs,
            preprocessor=self._preprocessor,
            max_length=max_length,
            stop_token_ids=stop_token_ids,
            stop_sequences=stop_sequences,
            strip_prompt=strip_prompt,
            sampler=self._sampler if sampler is None else sampler_named(sampler),
            seed=seed,
        )

    def score(
        self,
        token_ids: Any,  # noqa: ANN401  # whatever becomes an array
        padding_mask: Any = None,  # noqa: ANN401
        scoring_mode: Literal["logits", "loss"] = "logits",
        layer_intercept_fn: Callable[[jax.Array, int], jax.Array] | None = None,
        target_ids: Any = None,  # noqa: ANN401
    ) -> jax.Array:
        """Return logits [batch, seq, vocabulary], or losses [batch, seq] in nats.

        Args:
            token_ids: int [batch, seq].
            padding_mask: [batch, seq], false at padding; all true by default.
            scoring_mode: `logits`, or `loss` against `target_ids`.
            layer_intercept_fn: Gets the hidden states and their layer: -1 for the
                embeddings, then 0, 1, ... for the blocks; what it returns goes on.
            target_ids: int [batch, seq], the tokens that should follow.

        Raises:
            ValueError: The mode is another word, or there are no targets for a loss.
        """
        return score(
            self._backbone,
            token_ids,
            padding_mask=padding_mask,
            scoring_mode=scoring_mode,
            layer_intercept_fn=layer_intercept_fn,
            target_ids=target_ids,
        )

    def save_to_preset(self, preset_dir: str, max_shard_size: float = 10) -> None:
        """Write KerasHub's preset directory with tokenizer, preprocessor and task.

        Args:
            preset_dir: Local or remote directory.
            max_shard_size: In GB of 1024**3 bytes; larger weights are split.

        Raises:
            ValueError: The dtype of the weights is neither float32 nor bfloat16.
        """
        preprocessor = self._preprocessor
        if preprocessor is None:
            self._backbone.save_to_preset(preset_dir, max_shard_size)
            return
        write_preset(
            preset_dir,
            config=self._backbone.gemma_config,
            dtype=self._backbone.dtype_policy.variable_dtype,
            arrays=self._backbone.merged_array,
            vocabulary=preprocessor.tokenizer.proto,
            sequence_length=preprocessor.sequence_length,
            add_start_token=preprocessor.add_start_token,
            add_end_token=preprocessor.add_end_token,
            max_shard_bytes=int(max_shard_size * 1024**3),
        )

    def get_config(self) -> dict[str, Any]:
        """Return name and backbone; a tokenizer is a file and has no place here."""
        return {"name": self.name, "backbone": self._backbone.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CausalLM:
        """Build from `get_config`'s result, without preprocessor."""
        backbone = cls.backbone_class.from_config(config["backbone"])
        return cls(backbone, name=config["name"])


class GemmaCausalLM(CausalLM):
    """Gemma 1, CodeGemma, Gemma 2 and ShieldGemma; see `CausalLM`.

    Example:
        model = GemmaCausalLM.from_preset("gemma2_tiny_en")
        model.generate("Define the noun", max_length=64)
    """

    backbone_class = GemmaBackbone
    preprocessor_class = GemmaCausalLMPreprocessor


class Gemma3CausalLM(CausalLM):
    """Gemma 3's text models; see `CausalLM`."""

    backbone_class = Gemma3Backbone
    preprocessor_class = Gemma3CausalLMPreprocessor


_MODELS: dict[Architecture, type[CausalLM]] = {
    "gemma": GemmaCausalLM,
    "gemma3": Gemma3CausalLM,
}
