"""Keras's layout map: fitted to a model given, or to the one built under it."""

import keras
import pytest

from gemma import GemmaBackbone
from gemma.config import GemmaConfig
from gemma.layout import gemma_layout_map
from gemma.lora import lora_settings


def test_a_map_learns_from_the_model_built_under_it(arguments):
    config = arguments("gemma", num_layers=1, num_key_value_heads=1)
    mesh = keras.distribution.DeviceMesh(
        (1, 8), ("batch", "model"), keras.distribution.list_devices()
    )
    layout_map = GemmaBackbone.get_layout_map(mesh)
    path = "decoder_block_0/attention/key/kernel"
    assert layout_map[path].axes == ("model", "batch", None)
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    with distribution.scope():
        GemmaBackbone(**config)
    given = GemmaBackbone.get_layout_map(mesh, config=GemmaConfig(**config))
    assert layout_map[path].axes == given[path].axes == (None, "batch", "model")


def test_a_map_given_the_adapters_splits_large_ones_over_both_axes(
    arguments, device_mesh
):
    config = GemmaConfig(**arguments("gemma", num_layers=1))
    layout_map = gemma_layout_map(
        device_mesh(), config=config, lora=lora_settings(4096)
    )
    axes = layout_map["decoder_block_0/attention/query/lora_kernel_a"].axes
    assert axes == ("model", None, "batch")


def test_axes_may_have_other_names(device_mesh):
    mesh = device_mesh((2, 4), ("data", "tensor"))
    layout_map = GemmaBackbone.get_layout_map(mesh, "tensor", "data")
    assert layout_map["token_embedding/embeddings"].axes == ("tensor", "data")


def test_an_axis_that_the_mesh_lacks_is_named(device_mesh):
    with pytest.raises(
        ValueError,
        match=r"data_parallel_dim_name must name .* one of \('batch', 'model'\), "
        "received 'data'",
    ):
        GemmaBackbone.get_layout_map(device_mesh(), "model", "data")
    with pytest.raises(ValueError, match="model_parallel_dim_name .* received 'heads'"):
        GemmaBackbone.get_layout_map(device_mesh(), "heads")


def test_what_is_no_mesh_is_refused():
    with pytest.raises(ValueError, match=r"DeviceMesh, received \(1, 8\) of type tup"):
        GemmaBackbone.get_layout_map((1, 8))


@pytest.mark.parametrize(
    ("factorisation", "expected"),
    [("keras", ("model", None, "batch")), ("shared", ("model", "batch"))],
)
def test_a_map_learns_the_adapters_that_are_added_under_it(
    arguments, device_mesh, factorisation, expected
):
    layout_map = GemmaBackbone.get_layout_map(device_mesh())
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    with distribution.scope():
        backbone = GemmaBackbone(**arguments("gemma", num_layers=1))
        backbone.enable_lora(8192, ["query"], factorisation=factorisation)
    factor = backbone.blocks[0].attention.query_dense.lora_kernel_a
    assert tuple(factor.value.sharding.spec) == expected
    assert len({str(part.index) for part in factor.value.addressable_shards}) == 8
