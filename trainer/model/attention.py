"""The attention of a run: the wish of `trainer.attention` on the mesh's devices.

Turns a choice into a `gemma.attention.Attention`, or into an error that names the key
and the nearest choice that works. It decides nothing that `gemma.attention` decides.
"""

from __future__ import annotations

from jax.sharding import Mesh

from gemma.attention import Attention, Facts, Target, Unfit, choose
from gemma.config import GemmaConfig
from trainer.config.errors import ConfigError


def build_attention(
    choice: str, mesh: Mesh, *, model: GemmaConfig, dtype: str, is_packed: bool
) -> Attention:
    """Return the attention of a run, whose devices may be those of a topology.

    Args:
        choice: Of `trainer.attention`.
        mesh: What the program is compiled for.
        model: Dimensions.
        dtype: Of computation.
        is_packed: Sequences hold several rows.

    Raises:
        ConfigError: The devices cannot run the choice, or it cannot express the model.
    """
    attend = Attention.on_mesh(mesh, choice, one_row_each=not is_packed)
    attention_path(choice, attend.target, model=model, dtype=dtype, is_packed=is_packed)
    return attend


def attention_path(
    choice: str,
    target: Target,
    *,
    model: GemmaConfig,
    dtype: str,
    is_packed: bool,
    length: int | None = None,
) -> str:
    """Return the path that attention takes on a target.

    Args as in `build_attention`; without a length, it is that of long sequences.

    Raises:
        ConfigError: The target cannot run the choice, or it cannot express the model.
    """
    facts = Facts(
        head_dim=model.head_dim,
        soft_cap=model.attention_logit_soft_cap,
        dtype=dtype,
        has_segments=is_packed,
        length=length,
    )
    try:
        return choose(choice, target, facts)
    except Unfit as error:
        raise ConfigError(
            key="trainer.attention",
            expected="a path that these devices have and that can express the model",
            received=f"{choice}, which {error.reason}",
            fix=f"trainer.attention={error.nearest}, or auto",
        ) from error
