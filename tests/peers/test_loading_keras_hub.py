"""We compute what KerasHub wrote: every architecture, whole and in shards."""

import pathlib

import numpy as np
import pytest

from gemma import Backbone, Gemma3Backbone, GemmaBackbone
from gemma.tokenizers import GemmaTokenizer

pytestmark = pytest.mark.peers

SAME = 1e-5  # float32 on a CPU, the same code on the same weights
VOCABULARY = pathlib.Path(__file__).parents[1] / "golden/tiny2k.spm"
DIMENSIONS = {
    "vocabulary_size": 2048,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "head_dim": 8,
}
POST_NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}
WINDOWS = {"use_sliding_window_attention": True, "sliding_window_size": 4}
MODELS = {
    "gemma": {"num_key_value_heads": 1},
    "gemma2": POST_NORMS
    | WINDOWS
    | {"attention_logit_soft_cap": 5.0, "final_logit_soft_cap": 3.0},
    "gemma3": POST_NORMS
    | WINDOWS
    | {"image_size": None, "num_layers": 7, "global_rope_scaling_factor": 8.0},
}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def theirs(keras_hub, name):
    """Build KerasHub's backbone with weights large enough that every feature shows."""
    models = keras_hub.models
    kind = models.Gemma3Backbone if name == "gemma3" else models.GemmaBackbone
    backbone = kind(**DIMENSIONS | MODELS[name])
    rng = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return backbone


def logits(backbone):
    ids = np.random.default_rng(1).integers(7, 2048, size=(2, 12)).astype("int32")
    hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(backbone.token_embedding(hidden, reverse=True))


@pytest.mark.parametrize("max_shard_size", [10, 2.6e-4])
def test_we_compute_its_logits(theirs, tmp_path, max_shard_size):
    theirs.save_to_preset(str(tmp_path), max_shard_size=max_shard_size)
    shards = list(tmp_path.glob("model_*.weights.h5"))
    assert (len(shards) > 1) == (max_shard_size < 1)
    ours = Backbone.from_preset(str(tmp_path))
    np.testing.assert_allclose(logits(ours), logits(theirs), atol=SAME, rtol=SAME)


@pytest.mark.parametrize("max_shard_size", [10, 2.6e-4])
def test_it_computes_our_logits(keras_hub, theirs, tmp_path, max_shard_size):
    theirs.save_to_preset(str(tmp_path / "theirs"))
    ours = Backbone.from_preset(str(tmp_path / "theirs"))
    ours.enable_lora(2, ["*"], alpha=3.0)
    rng = np.random.default_rng(2)
    for variable in ours.weights:
        if "lora_kernel" in variable.path:
            variable.assign(0.3 * rng.normal(size=variable.shape))
    ours.save_to_preset(str(tmp_path / "ours"), max_shard_size=max_shard_size)
    again = keras_hub.models.Backbone.from_preset(str(tmp_path / "ours"))
    np.testing.assert_allclose(logits(again), logits(ours), atol=SAME, rtol=SAME)
    assert np.abs(logits(again) - logits(theirs)).max() > 0.01


def test_we_read_its_bfloat16_bit_for_bit(keras_hub, theirs, tmp_path):
    theirs.save_to_preset(str(tmp_path / "float32"))
    half = keras_hub.models.Backbone.from_preset(
        str(tmp_path / "float32"), dtype="bfloat16"
    )
    half.save_to_preset(str(tmp_path / "bfloat16"))
    ours = Backbone.from_preset(str(tmp_path / "bfloat16"))
    for mine, its in zip(ours.weights, half.weights, strict=True):
        assert (mine.path, mine.dtype) == (its.path, "bfloat16")
        np.testing.assert_array_equal(
            np.asarray(mine.value).view("u2"), np.asarray(its.value).view("u2")
        )


def test_we_read_its_task_with_the_tokenizer(keras_hub, theirs, name, tmp_path):
    models, proto = keras_hub.models, VOCABULARY.read_bytes()
    if name == "gemma3":
        tokenizer = models.Gemma3Tokenizer(proto=proto, has_vision_tokens=False)
        preprocessor = models.Gemma3CausalLMPreprocessor(
            tokenizer=tokenizer, sequence_length=16
        )
        task = models.Gemma3CausalLM(backbone=theirs, preprocessor=preprocessor)
    else:
        tokenizer = models.GemmaTokenizer(proto=proto)
        preprocessor = models.GemmaCausalLMPreprocessor(tokenizer, sequence_length=16)
        task = models.GemmaCausalLM(theirs, preprocessor)
    task.save_to_preset(str(tmp_path))
    ours = GemmaTokenizer.from_preset(str(tmp_path))
    text = "Define the sea.<end_of_turn>"
    assert ours(text) == list(map(int, tokenizer(text)))


def test_it_computes_our_logits_from_hugging_faces_form(keras_hub, theirs, tmp_path):
    """It reads a scaled RoPE in the older spelling alone, which we write too."""
    theirs.save_to_preset(str(tmp_path / "theirs"))
    ours = Backbone.from_preset(str(tmp_path / "theirs"))
    ours.save_to_hf(str(tmp_path / "hf"))
    again = keras_hub.models.Backbone.from_preset(str(tmp_path / "hf"))
    np.testing.assert_allclose(logits(again), logits(ours), atol=SAME, rtol=SAME)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_it_computes_a_scale_of_the_query_that_it_has_no_name_for(
    keras_hub, tmp_path, family
):
    kind = Gemma3Backbone if family == "gemma3" else GemmaBackbone
    ours = kind(**DIMENSIONS | MODELS[family], query_pre_attn_scalar=5.0)
    rng = np.random.default_rng(0)
    for variable in ours.weights:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    ours.save_to_preset(str(tmp_path))
    again = keras_hub.models.Backbone.from_preset(str(tmp_path))
    np.testing.assert_allclose(logits(again), logits(ours), atol=SAME, rtol=SAME)
