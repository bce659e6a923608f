"""peft computes what we compute with one adapter, whoever of the two wrote it."""

import pathlib

import numpy as np
import pytest

from gemma import Backbone
from gemma.lora import PROJECTIONS

pytestmark = pytest.mark.peers

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/hf"
SAME = 1e-4  # float32 logits of two libraries
SEEN = 0.05  # an adapter that moves no logit would prove nothing


@pytest.fixture(params=["gemma", "gemma2", "gemma3"])
def family(request):
    return request.param


@pytest.fixture
def golden(family):
    return np.load(GOLDEN / family / "golden.npz")


@pytest.fixture
def ours(family):
    return Backbone.from_preset(str(GOLDEN / family), dtype="float32")


@pytest.fixture
def theirs(family):
    """Load transformers' model, and with it torch, only where its tests run."""
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_pretrained(
        GOLDEN / family, dtype=torch.float32, attn_implementation="eager"
    )


def our_logits(backbone, golden):
    hidden = backbone(
        {
            "token_ids": golden["input_ids"],
            "padding_mask": golden["attention_mask"],
        }
    )
    return np.asarray(backbone.token_embedding(hidden, reverse=True))


def their_logits(model, golden):
    import torch

    inputs = {
        key: torch.as_tensor(golden[key]) for key in ("input_ids", "attention_mask")
    }
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


def check_same(backbone, model, golden):
    valid = golden["attention_mask"].astype(bool)
    mine = our_logits(backbone, golden)[valid]
    assert np.abs(mine - golden["logits"][valid]).max() > SEEN
    other = their_logits(model, golden)[valid]
    np.testing.assert_allclose(mine, other, atol=SAME, rtol=0)


def randomise(backbone):
    rng = np.random.default_rng(0)
    for variable in backbone.trainable_variables:
        variable.assign(0.2 * rng.normal(size=variable.shape))


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
@pytest.mark.parametrize("targets", [None, PROJECTIONS], ids=["defaults", "all"])
def test_peft_loads_ours(ours, theirs, golden, tmp_path, factorisation, targets):
    import peft

    ours.enable_lora(3, targets, alpha=7.5, factorisation=factorisation)
    randomise(ours)
    ours.save_peft_adapter(str(tmp_path))
    model = peft.PeftModel.from_pretrained(theirs, tmp_path)
    check_same(ours, model, golden)
    ranks = {m.r["default"] for m in model.modules() if hasattr(m, "lora_A")}
    if factorisation == "shared":
        assert ranks == {3}
    merged = model.merge_and_unload()
    check_same(ours, merged, golden)


SETTINGS = {
    "defaults": {"r": 4, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj"]},
    "regex": {
        "r": 2,
        "lora_alpha": 5,
        "target_modules": r".*layers\.(0|1)\.(self_attn\.o_proj|mlp\.down_proj)",
    },
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": "all-linear",
        "rank_pattern": {"k_proj": 5, r"layers\.1\.mlp\.up_proj": 3},
        "alpha_pattern": {"o_proj": 8, "0.self_attn.q_proj": 1},
    },
    "rslora": {
        "r": 3,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["gate_proj", "k_proj"],
    },
    "layers": {
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "o_proj"],
        "layers_to_transform": [1],
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_we_load_pefts(ours, theirs, golden, tmp_path, name):
    import peft

    config = peft.LoraConfig(
        **SETTINGS[name], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(theirs, config)
    model.save_pretrained(tmp_path)
    ours.load_peft_adapter(str(tmp_path))
    check_same(ours, model, golden)


def test_an_adapter_goes_there_and_back(ours, theirs, family, golden, tmp_path):
    import peft

    ours.enable_lora(2, ["*"], alpha=5.0, factorisation="shared")
    randomise(ours)
    ours.save_peft_adapter(str(tmp_path / "ours"))
    model = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    again = Backbone.from_preset(str(GOLDEN / family), dtype="float32")
    again.load_peft_adapter(str(tmp_path / "theirs"))
    assert again.lora == ours.lora
    for one, other in zip(ours.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one.value), np.asarray(other.value))
    check_same(again, model, golden)
