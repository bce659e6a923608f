"""Merging adapters into the kernels, and taking them out again bit for bit."""

import keras
import numpy as np
import pytest

from gemma import GemmaBackbone

SAME = 1e-5  # float32, sums in another order


@pytest.fixture
def adapted(arguments, randomise):
    """Build a small model with trained-looking adapters."""

    def build(factorisation="keras", dtype="float32", **settings):
        backbone = GemmaBackbone(**arguments("gemma2", num_layers=1), dtype=dtype)
        backbone.enable_lora(
            2, ["*"], alpha=3.0, factorisation=factorisation, **settings
        )
        randomise(backbone)
        return backbone

    return build


def bits(backbone):
    return {v.path: np.asarray(v.value).tobytes() for v in backbone.weights}


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_merged_adapters_compute_the_same(adapted, batch, factorisation):
    backbone = adapted(factorisation)
    before = np.asarray(backbone(batch))
    backbone.merge_lora()
    np.testing.assert_allclose(backbone(batch), before, atol=SAME, rtol=SAME)
    for variable in backbone.weights:
        if variable.path.endswith("lora_kernel_b"):
            assert not np.asarray(variable.value).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unmerging_gives_every_bit_back(adapted, dtype):
    backbone = adapted(dtype=dtype)
    before = bits(backbone)
    backbone.merge_lora()
    changed = {path for path, value in bits(backbone).items() if value != before[path]}
    assert len(changed) == 2 * 7  # kernel and B of every projection
    backbone.unmerge_lora()
    assert bits(backbone) == before


def test_a_function_compiled_before_merging_stays_right(adapted, batch):
    backbone = adapted()
    model = keras.Model(backbone.input, backbone.output)
    before = model.predict(batch, verbose=0)
    backbone.merge_lora()
    np.testing.assert_allclose(
        model.predict(batch, verbose=0), before, atol=SAME, rtol=SAME
    )
    backbone.unmerge_lora()
    np.testing.assert_array_equal(model.predict(batch, verbose=0), before)


def test_only_unmerged_adapters_are_trained(adapted):
    backbone = adapted()
    paths = [v.path for v in backbone.trainable_variables]
    assert len(paths) == 2 * 7
    backbone.merge_lora()
    assert backbone.trainable_variables == []
    backbone.unmerge_lora()
    assert [v.path for v in backbone.trainable_variables] == paths


def test_a_merged_model_saves_its_adapters_and_its_base_as_they_were(adapted, tmp_path):
    backbone = adapted()
    for name in ("apart", "merged"):
        backbone.save_lora_weights(str(tmp_path / f"{name}.lora.h5"))
        if name == "apart":
            backbone.merge_lora()
    files = [tmp_path / f"{name}{end}" for name in ("apart", "merged") for end in ENDS]
    contents = [file.read_bytes() for file in files]
    assert contents[:2] == contents[2:]


ENDS = (".lora.h5", ".json")


def test_a_merged_model_saves_the_same_preset(adapted, tmp_path):
    backbone = adapted()
    backbone.save_to_preset(str(tmp_path / "apart"))
    backbone.merge_lora()
    backbone.save_to_preset(str(tmp_path / "merged"))
    one = GemmaBackbone.from_preset(str(tmp_path / "apart"))
    other = GemmaBackbone.from_preset(str(tmp_path / "merged"))
    assert bits(one) == bits(other)


def test_merging_at_the_wrong_time_is_refused(adapted, arguments, tmp_path):
    plain = GemmaBackbone(**arguments("gemma2", num_layers=1))
    with pytest.raises(ValueError, match="no adapters to merge; call enable_lora fir"):
        plain.merge_lora()
    backbone = adapted()
    with pytest.raises(ValueError, match="not merged; call merge_lora first"):
        backbone.unmerge_lora()
    path = str(tmp_path / "adapter.lora.h5")
    backbone.save_lora_weights(path)
    backbone.merge_lora()
    with pytest.raises(ValueError, match="merged already; call unmerge_lora first"):
        backbone.merge_lora()
    with pytest.raises(ValueError, match="call unmerge_lora before loading .*lora.h5"):
        backbone.load_lora_weights(path)
