"""transformers computes what we write, and we compute what transformers writes."""

import json
import pathlib

import numpy as np
import pytest

from gemma import Backbone
from gemma.chat import ChatFormat
from gemma.tokenizers import GemmaTokenizer

pytestmark = pytest.mark.peers

SAME = 1e-4  # float32 on two frameworks
VOCABULARY = pathlib.Path(__file__).parents[1] / "golden/tiny2k.spm"

DIMENSIONS = {
    "vocabulary_size": 2048,
    "num_layers": 3,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 24,
    "intermediate_dim": 40,
    "head_dim": 8,  # 4 heads x 8 is not the hidden 24
}
POST_NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}
GEMMA2 = POST_NORMS | {
    "attention_logit_soft_cap": 5.0,
    "final_logit_soft_cap": 3.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
GEMMA3 = POST_NORMS | {
    "image_size": None,
    "num_layers": 7,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
MODELS = {
    "gemma": {},
    "gemma_one_kv_head": {"num_key_value_heads": 1},
    "gemma2": GEMMA2,
    "gemma2_27b": GEMMA2 | {"query_head_dim_normalize": False},
    "gemma2_other_epsilon": GEMMA2 | {"layer_norm_epsilon": 1e-3},
    "gemma3": GEMMA3,
    "gemma3_27b": GEMMA3
    | {"query_head_dim_normalize": False, "global_rope_scaling_factor": 8.0},
}
ADAPTED = {"rank": 2, "targets": ["*"], "alpha": 3.0}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def transformers():
    """Import transformers, which brings torch, only where its tests run."""
    import transformers

    return transformers


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(0.3 * rng.normal(size=variable.shape))


def build(name):
    from gemma import Gemma3Backbone, GemmaBackbone

    kind = Gemma3Backbone if name.startswith("gemma3") else GemmaBackbone
    backbone = kind(**DIMENSIONS | MODELS[name])
    randomise(backbone)
    backbone.vocabulary = VOCABULARY.read_bytes()
    return backbone


def token_ids():
    ids = np.random.default_rng(1).integers(7, 2048, size=(2, 12))
    ids[:, 0] = 2
    return ids


def our_logits(backbone):
    ids = token_ids().astype("int32")
    hidden = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return np.asarray(backbone.token_embedding(hidden, reverse=True))


def their_logits(model):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(token_ids())).logits.float().numpy()


def load(transformers, directory):
    """Load a directory and see that no weight was missing or left over."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        dtype="float32",
        attn_implementation="eager",
        output_loading_info=True,
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], key
    return model.eval()


@pytest.mark.parametrize("max_shard_size", [10, 2e-4])
def test_transformers_computes_our_logits(transformers, name, tmp_path, max_shard_size):
    backbone = build(name)
    backbone.save_to_hf(str(tmp_path), max_shard_size=max_shard_size)
    is_sharded = (tmp_path / "model.safetensors.index.json").exists()
    assert is_sharded == (max_shard_size < 1)
    theirs = their_logits(load(transformers, tmp_path))
    np.testing.assert_allclose(theirs, our_logits(backbone), atol=SAME, rtol=SAME)


def test_transformers_computes_our_logits_with_the_adapter_on(
    transformers, name, tmp_path
):
    backbone = build(name)
    before = our_logits(backbone)
    backbone.enable_lora(**ADAPTED)
    rng = np.random.default_rng(2)
    for variable in backbone.weights:
        if "lora_kernel" in variable.path:
            variable.assign(0.3 * rng.normal(size=variable.shape))
    ours = our_logits(backbone)
    assert np.abs(ours - before).max() > 0.01
    backbone.save_to_hf(str(tmp_path))
    theirs = their_logits(load(transformers, tmp_path))
    np.testing.assert_allclose(theirs, ours, atol=SAME, rtol=SAME)


@pytest.mark.parametrize("max_shard_size", ["5GB", "100KB"])
def test_we_compute_the_logits_of_transformers(
    transformers, name, tmp_path, max_shard_size
):
    build(name).save_to_hf(str(tmp_path / "ours"))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    scale_up(model)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size)
    is_sharded = (tmp_path / "theirs/model.safetensors.index.json").exists()
    assert is_sharded == (max_shard_size == "100KB")
    ours = our_logits(Backbone.from_preset(str(tmp_path / "theirs")))
    np.testing.assert_allclose(ours, their_logits(model), atol=SAME, rtol=SAME)


def scale_up(model):
    """Draw weights large enough that every feature shows."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)


def test_bfloat16_arrives_bit_for_bit(transformers, tmp_path):
    backbone = build("gemma3")
    float32 = {v.path: np.asarray(v.value) for v in backbone.weights}
    backbone.save_to_hf(str(tmp_path / "float32"))
    half = Backbone.from_preset(str(tmp_path / "float32"), dtype="bfloat16")
    half.save_to_hf(str(tmp_path / "bfloat16"))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16")
    table = model.model.embed_tokens.weight
    assert str(table.dtype) == "torch.bfloat16"
    import ml_dtypes

    expected = float32["token_embedding/embeddings"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(
        table.detach().float().numpy(), expected.astype("float32")
    )


def test_the_text_model_of_a_multimodal_gemma_3_is_read(transformers, tmp_path):
    build("gemma3_27b").save_to_hf(str(tmp_path / "text"))
    text = json.loads((tmp_path / "text/config.json").read_text())
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 16,
        "patch_size": 8,
    }
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4
    )
    config._attn_implementation = "eager"
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    scale_up(model)
    model.save_pretrained(tmp_path / "multimodal")
    ours = our_logits(Backbone.from_preset(str(tmp_path / "multimodal")))
    np.testing.assert_allclose(ours, their_logits(model), atol=SAME, rtol=SAME)


@pytest.fixture(scope="module")
def tokenizers(transformers, tmp_path_factory):
    """Return transformers' tokenizer of a directory that we wrote, and ours."""
    directory = tmp_path_factory.mktemp("tokenizer")
    build("gemma2").save_to_hf(str(directory))
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    return theirs, GemmaTokenizer(VOCABULARY)


TEXTS = [
    'Define the noun "sea".',
    "<start_of_turn>user\nhi there<end_of_turn>\n",
    "안녕 🙂\t x",
    "  two  spaces\n\n\nand lines",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_our_ids_after_bos(tokenizers, text):
    theirs, ours = tokenizers
    ids = [ours.start_token_id, *ours(text)]
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True) == (
        text.replace("<start_of_turn>", "").replace("<end_of_turn>", "")
    )


def test_the_chat_template_gives_the_ids_of_our_chats(tokenizers):
    theirs, ours = tokenizers
    message = {"role": "user", "content": " Define the sea.\n"}
    rendered = theirs.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=False
    )
    ids = theirs(rendered, add_special_tokens=False)["input_ids"]
    assert ids == ChatFormat(ours).prompt(message["content"])


def test_generation_stops_at_the_end_of_the_turn(transformers, tmp_path):
    backbone = build("gemma")
    backbone.save_to_hf(str(tmp_path))
    model = load(transformers, tmp_path)
    end_of_turn = GemmaTokenizer(VOCABULARY).end_of_turn_id
    assert model.generation_config.eos_token_id == [1, end_of_turn]
