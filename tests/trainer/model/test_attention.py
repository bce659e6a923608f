"""The attention of a run: what its devices can, and what is said where they cannot."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from gemma.attention import CHOICES as PATHS
from gemma.attention import Target
from gemma.config import Gemma3Config, GemmaConfig
from trainer.config.errors import ConfigError
from trainer.config.limits import CHOICES
from trainer.model.attention import build_attention

SIZES = {
    "vocabulary_size": 96,
    "num_layers": 1,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 96,
    "head_dim": 8,
}
GEMMA2 = GemmaConfig(**SIZES, attention_logit_soft_cap=50.0)


def build(choice, model=GEMMA2, is_packed=True):
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("batch", "model"))
    return build_attention(
        choice, mesh, model=model, dtype="bfloat16", is_packed=is_packed
    )


def test_the_key_knows_the_paths_of_the_library():
    assert CHOICES["trainer.attention"] == PATHS


def test_the_mesh_says_what_it_is_for():
    attend = build("auto", is_packed=False)
    assert attend.target == Target("cpu")
    assert attend.mesh.shape == {"batch": 2, "model": 4}
    assert attend.one_row_each


@pytest.mark.parametrize(
    ("choice", "model", "reason"),
    [
        ("splash", GEMMA2, "needs a TPU and this program is for a cpu"),
        ("cudnn", Gemma3Config(**SIZES), "needs an NVIDIA GPU"),
    ],
)
def test_what_the_devices_cannot_run_is_refused(choice, model, reason):
    with pytest.raises(ConfigError) as caught:
        build(choice, model, is_packed=False)
    assert caught.value.key == "trainer.attention"
    assert reason in str(caught.value)
    assert "trainer.attention=blocked, or auto" in str(caught.value)
