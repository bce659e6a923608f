"""The dimensions of a Gemma model, as a frozen object that knows no framework.

Turns the constructor arguments of a backbone into facts that follow from them: which
layers attend locally, how the query is scaled, how many parameters there are. It
refuses to know arrays, files and Keras, so that a plan or an error costs no import.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

AttentionKind = Literal["local", "global"]
Architecture = Literal["gemma", "gemma3"]

EMBEDDING = "token_embedding/embeddings"
"""Path of the table that turns ids into vectors, and hidden states into logits."""

HEADS_FIRST = frozenset(("query", "key", "value"))
"""Projections with a kernel of (heads, hidden_dim, head_dim)."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions of one kind of layer.

    Attributes:
        max_wavelength: Base of the wavelengths.
        scaling_factor: Positions are divided by it (linear scaling).
    """

    max_wavelength: float = 10_000.0
    scaling_factor: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    """Dimensions and switches of Gemma 1 and 2, under KerasHub's names.

    `intermediate_dim` is twice the feed-forward width, as in KerasHub's files: the
    gate and the linear branch together. `ffw_dim` is the width of one branch.
    """

    architecture: ClassVar[Architecture] = "gemma"
    use_query_key_norm: ClassVar[bool] = False

    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    num_key_value_heads: int
    hidden_dim: int
    intermediate_dim: int
    head_dim: int
    query_head_dim_normalize: bool = True
    use_post_ffw_norm: bool = False
    use_post_attention_norm: bool = False
    attention_logit_soft_cap: float | None = None
    final_logit_soft_cap: float | None = None
    use_sliding_window_attention: bool = False
    sliding_window_size: int = 4096
    layer_norm_epsilon: float = 1e-6
    dropout: float = 0.0
    query_pre_attn_scalar: float | None = None
    """Scale queries by its inverse square root; KerasHub has no name for it. None:
    what `query_head_dim_normalize` says."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer, received {value!r}"
                )
        if self.num_query_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_query_heads ({self.num_query_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        self._check_intermediate_dim()
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim must be even for rotary positions, received {self.head_dim}"
            )
        for name in _POSITIVE_IF_GIVEN:
            value = getattr(self, name, None)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(
                    f"{name} must be positive and finite, received {value!r}"
                )
        if not 0.0 <= self.layer_norm_epsilon < math.inf:
            raise ValueError(
                "layer_norm_epsilon must be 0 or more and finite, received "
                f"{self.layer_norm_epsilon!r}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), received {self.dropout!r}")

    def _check_intermediate_dim(self) -> None:
        if self.intermediate_dim % 2:
            raise ValueError(
                "intermediate_dim is twice the feed-forward width and must be even, "
                f"received {self.intermediate_dim}"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping that may hold other keys too, such as a file's."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def to_mapping(self) -> dict[str, Any]:
        """Return the constructor's arguments of a backbone."""
        return dataclasses.asdict(self)

    @property
    def ffw_dim(self) -> int:
        """Width of one feed-forward branch."""
        return self.intermediate_dim // 2

    @property
    def query_scale(self) -> float:
        """Factor on the query before its product with the keys.

        Source: Gemma 2 report, section 2; 27B divides by hidden_dim / num_query_heads.
        """
        width: float = self.hidden_dim // self.num_query_heads
        if self.query_pre_attn_scalar is not None:
            width = self.query_pre_attn_scalar
        elif self.query_head_dim_normalize:
            width = self.head_dim
        return 1.0 / math.sqrt(width)

    @property
    def attention_pattern(self) -> tuple[AttentionKind, ...]:
        """Kinds of attention in one period of layers, first layer first."""
        return ("local", "global") if self.use_sliding_window_attention else ("global",)

    def attention_kind(self, layer: int) -> AttentionKind:
        """Return whether `layer` (from 0) attends within a window or globally."""
        return self.attention_pattern[layer % len(self.attention_pattern)]

    def rope(self, kind: AttentionKind) -> Rope:
        """Return the rotary positions of layers of a kind; here all are alike."""
        return Rope()

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the family was trained for.

        Source: Gemma 1 report, table 1; Gemma 2 report, section 2.
        """
        return 8192

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Map every variable path to its shape, in the order of the Keras model."""
        shapes: dict[str, tuple[int, ...]] = {}
        shapes[EMBEDDING] = (self.vocabulary_size, self.hidden_dim)
        for layer in range(self.num_layers):
            for path, shape in self.block_shapes().items():
                shapes[f"decoder_block_{layer}/{path}"] = shape
        shapes["final_normalization/scale"] = (self.hidden_dim,)
        return shapes

    def block_shapes(self) -> dict[str, tuple[int, ...]]:
        """Map the variable paths of one decoder block to their shapes."""
        hidden, heads = self.hidden_dim, self.num_query_heads
        kv_heads, head = self.num_key_value_heads, self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"pre_attention_norm/scale": (hidden,)}
        if self.use_post_attention_norm:
            shapes["post_attention_norm/scale"] = (hidden,)
        shapes["attention/query/kernel"] = (heads, hidden, head)
        shapes["attention/key/kernel"] = (kv_heads, hidden, head)
        shapes["attention/value/kernel"] = (kv_heads, hidden, head)
        if self.use_query_key_norm:
            shapes["attention/query_norm/scale"] = (head,)
            shapes["attention/key_norm/scale"] = (head,)
        shapes["attention/attention_output/kernel"] = (heads, head, hidden)
        shapes["pre_ffw_norm/scale"] = (hidden,)
        if self.use_post_ffw_norm:
            shapes["post_ffw_norm/scale"] = (hidden,)
        shapes["ffw_gating/kernel"] = (hidden, self.ffw_dim)
        shapes["ffw_gating_2/kernel"] = (hidden, self.ffw_dim)
        shapes["ffw_linear/kernel"] = (self.ffw_dim, hidden)
        return shapes

    @property
    def parameter_count(self) -> int:
        """Number of parameters; the tied embedding counts once."""
        total = 0
        for shape in self.parameter_shapes().values():
            size = 1
            for dim in shape:
                size *= dim
            total += size
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma3Config(GemmaConfig):
    """Dimensions and switches of Gemma 3's text model, under KerasHub's names.

    Five local layers precede each global one. `intermediate_dim` is the feed-forward
    width itself, once, as in KerasHub's files of Gemma 3.

    Source: Gemma 3 report, arXiv 2503.19786, section 2.
    """

    architecture: ClassVar[Architecture] = "gemma3"

    use_query_key_norm: bool = True  # type: ignore[misc]  # fixed for Gemma 1 and 2
    sliding_window_size: int = 1024
    local_rope_scaling_factor: float = 1.0
    global_rope_scaling_factor: float = 1.0

    def _check_intermediate_dim(self) -> None:
        """Any width will do: it is not halved."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the constructor's arguments; those of vision are off."""
        return {**super().to_mapping(), **TEXT_ONLY}

    @property
    def ffw_dim(self) -> int:
        """Width of one feed-forward branch."""
        return self.intermediate_dim

    @property
    def attention_pattern(self) -> tuple[AttentionKind, ...]:
        """Kinds of attention in one period of layers, first layer first."""
        if not self.use_sliding_window_attention:
            return ("global",)
        return ("local", "local", "local", "local", "local", "global")

    def rope(self, kind: AttentionKind) -> Rope:
        """Return the rotary positions of layers of a kind."""
        if kind == "local":
            return Rope(10_000.0, self.local_rope_scaling_factor)
        return Rope(1_000_000.0, self.global_rope_scaling_factor)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence that the family was trained for.

        Source: Gemma 3 report, section 2: 128K, reached by scaling the positions of
        global layers; 32K for the models without it, 270M and 1B.
        """
        return 131_072 if self.global_rope_scaling_factor > 1 else 32_768


TEXT_ONLY: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": None,
        "vision_encoder": None,
        "use_bidirectional_attention": False,
        "is_embedding_model": False,
        "pooling_intermediate_dim": None,
        "embedding_dim": None,
    }
)
"""Arguments of KerasHub's Gemma 3 that a causal text model has one value for."""

_POSITIVE = (
    "vocabulary_size",
    "num_layers",
    "num_query_heads",
    "num_key_value_heads",
    "hidden_dim",
    "intermediate_dim",
    "head_dim",
    "sliding_window_size",
)
_POSITIVE_IF_GIVEN = (
    "attention_logit_soft_cap",
    "final_logit_soft_cap",
    "query_pre_attn_scalar",
    "local_rope_scaling_factor",
    "global_rope_scaling_factor",
)
