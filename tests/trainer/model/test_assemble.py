"""A model on a mesh: shardings asked of one distribution, arrays never held twice."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gemma.abstract import is_abstract
from gemma.lora import lora_settings
from gemma.presets import PresetFileError, open_preset
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model, initial_arrays, split
from trainer.model.placement import check_all_large_are_split
from trainer.model.state import load_arrays

SUMS = 2e-5  # float32 sums over 8192 ranks in another order


@pytest.fixture(scope="module")
def golden(repository):
    return open_preset(str(repository / "tests/golden/keras_hub/gemma2"))


def model_of(preset, shape, *, rank=4, **lora):
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    settings = lora_settings(rank, **lora) if rank else None
    return build_model(preset, mesh, dtype="float32", lora=settings)


def arrays_of(model, **changes):
    settings = {"load_weights": True, "adapter": None, "seed": 0} | changes
    return initial_arrays(model, **settings)


def test_stacked_arrays_are_split_as_their_variables(golden):
    model = model_of(golden, (2, 2))
    specs = {path: model.placement.spec(v) for path, v in model.tree.items()}
    assert specs["token_embedding/embeddings"] == PartitionSpec("model", "batch")
    query = specs["decoder_blocks/attention/query/kernel"]
    assert query == PartitionSpec(None, "model", "batch", None)
    assert specs["decoder_blocks/ffw_linear/kernel"][0] is None


def test_weights_arrive_sharded_whole_and_once(golden):
    model = model_of(golden, (2, 4))
    arrays = arrays_of(model)
    assert arrays.keys() == model.tree.keys()
    assert is_abstract(model.stacked.backbone.variables)
    with golden.weights() as source:
        for path, variable in model.tree.items():
            if variable.is_adapter:
                continue
            members = [source.read(member.path) for member in variable.members]
            want = np.stack(members) if variable.is_stacked else members[0]
            assert np.array_equal(arrays[path], want), path
            assert arrays[path].sharding.spec == model.placement.spec(variable)


def test_a_tree_that_leaves_a_weight_unread_is_refused(golden):
    model = model_of(golden, (1, 1), rank=0)
    fewer = dict(list(model.tree.items())[1:])
    with (
        golden.weights() as source,
        pytest.raises(
            PresetFileError, match="token_embedding/embeddings: .* read once"
        ),
    ):
        load_arrays(fewer, source, model.placement.sharding)


@pytest.mark.parametrize(("factorisation", "inputs"), [("keras", 6), ("shared", 1)])
def test_adapters_begin_as_the_librarys(golden, factorisation, inputs):
    model = model_of(
        golden, (1, 1), targets=["ffw_gating"], factorisation=factorisation
    )
    arrays = arrays_of(model)
    drawn = np.abs(arrays["decoder_blocks/ffw_gating/lora_kernel_a"])
    bound = np.sqrt(inputs / golden.config.hidden_dim)
    assert 0.95 * bound < drawn.max() <= bound
    assert not arrays["decoder_blocks/ffw_gating/lora_kernel_b"].any()


def test_adapters_are_float32_over_a_bfloat16_base(golden):
    mesh = build_mesh((1, 1), jax.devices()[:1])
    model = build_model(golden, mesh, dtype="bfloat16", lora=lora_settings(4))
    arrays = arrays_of(model)
    trainable, frozen = split(arrays, model)
    assert {a.dtype.name for a in trainable.values()} == {"float32"}
    assert {a.dtype.name for a in frozen.values()} == {"bfloat16"}


def test_full_fine_tuning_keeps_float32_weights_under_bfloat16(golden):
    mesh = build_mesh((1, 1), jax.devices()[:1])
    model = build_model(golden, mesh, dtype="bfloat16", lora=None)
    assert {v.dtype.name for v in model.tree.values()} == {"float32"}
    assert model.stacked.backbone.dtype_policy.compute_dtype == "bfloat16"
    assert model.trainable_count == model.parameter_count == 168_048


def test_a_trained_embedding_is_float32_between_bfloat16_layers(golden):
    mesh = build_mesh((1, 1), jax.devices()[:1])
    model = build_model(
        golden, mesh, dtype="bfloat16", lora=lora_settings(4), train_embedding=True
    )
    trainable, frozen = split(arrays_of(model), model)
    assert trainable["token_embedding/embeddings"].dtype == "float32"
    assert {a.dtype.name for a in frozen.values()} == {"bfloat16"}
    assert model.stacked.backbone.token_embedding.compute_dtype == "bfloat16"
    assert (model.trains_embedding, model.has_only_adapters) == (True, False)


def test_random_weights_depend_on_the_seed_and_not_on_the_mesh(golden):
    one = arrays_of(model_of(golden, (1, 1)), load_weights=False)
    many = arrays_of(model_of(golden, (2, 4)), load_weights=False)
    other = arrays_of(model_of(golden, (1, 1)), load_weights=False, seed=1)
    path = "decoder_blocks/attention/query/kernel"
    assert all(np.array_equal(one[name], many[name]) for name in one)
    assert not np.array_equal(one[path], other[path])
    assert np.std(one[path]) == pytest.approx(0.02, rel=0.05)
    assert not np.array_equal(one[path][0], one[path][1])


def test_a_new_adapter_changes_nothing_yet(golden):
    arrays = arrays_of(model_of(golden, (1, 1)))
    for path, array in arrays.items():
        if path.endswith("lora_kernel_b"):
            assert not np.asarray(array).any()
        if path.endswith("lora_kernel_a"):
            assert np.asarray(array).any()


def test_what_is_restored_is_not_loaded_too(golden):
    full = model_of(golden, (1, 1), rank=0)
    assert arrays_of(full, only_frozen=True) == {}
    lora = model_of(golden, (1, 1))
    assert not any("lora" in path for path in arrays_of(lora, only_frozen=True))


def test_an_uncovered_variable_is_refused(golden):
    model = model_of(golden, (1, 1))
    variable = model.tree["decoder_blocks/attention/query/kernel"]
    member = dataclasses.make_dataclass("Member", ["path"])("elsewhere/kernel")
    foreign = dataclasses.replace(variable, members=(member,))
    with pytest.raises(ValueError, match="exactly one layout rule"):
        model.placement.spec(foreign)


def test_a_large_tensor_left_whole_is_refused(golden):
    model = model_of(golden, (1, 2))
    member = model.tree["final_normalization/scale"].members[0]
    large = dataclasses.make_dataclass("Member", ["path", "shape", "dtype", "_layout"])(
        member.path, (1 << 20,), "float32", None
    )
    tree = {
        "x": dataclasses.replace(
            model.tree["final_normalization/scale"], members=(large,)
        )
    }
    with pytest.raises(ValueError, match="its layout rule must split it"):
        check_all_large_are_split(tree, model.placement)


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_large_adapters_lie_on_every_device_and_compute_the_same(golden, factorisation):
    settings = {"rank": 8192, "targets": ["query"], "factorisation": factorisation}
    alone, spread = (model_of(golden, shape, **settings) for shape in ((1, 1), (2, 4)))
    one, many = arrays_of(alone), arrays_of(spread)
    factor = many["decoder_blocks/attention/query/lora_kernel_a"]
    assert factor.nbytes // len(factor) > 1_000_000  # of one layer
    assert factor.addressable_shards[0].data.size * 8 == factor.size
    path = "decoder_blocks/attention/query/lora_kernel_b"
    one[path] = one[path] + 0.01
    many[path] = many[path] + 0.01
    token_ids = np.arange(24, dtype="int32").reshape(2, 12)
    whole, parts = (
        jax.jit(model.stacked.hidden)(arrays, token_ids)
        for model, arrays in ((alone, one), (spread, many))
    )
    np.testing.assert_allclose(parts, whole, atol=SUMS)
