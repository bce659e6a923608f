"""The layout: one rule for everything, KerasHub's specs, and what does not divide."""

import re

import keras
import pytest

from gemma import GemmaBackbone
from gemma.adapters import factor_shapes
from gemma.config import GemmaConfig
from gemma.layout import RULES, fit, gemma_layout_map, matching_rules
from gemma.lora import PROJECTIONS
from gemma.presets import BUILT_IN

MESHES = [(1, 8), (2, 4), (8, 1)]

# Source: GemmaBackbone.get_layout_map of KerasHub 0.32.0
KERAS_HUB = {
    "token_embedding/embeddings": ("model", "batch"),
    "decoder_block.*attention.*(query|key|value).kernel": ("model", "batch", None),
    "decoder_block.*attention_output.kernel": ("model", None, "batch"),
    "decoder_block.*ffw_gating.kernel": ("batch", "model"),
    "decoder_block.*ffw_gating_2.kernel": ("batch", "model"),
    "decoder_block.*ffw_linear.kernel": ("model", "batch"),
}


def device_mesh(shape=(2, 4), names=("batch", "model")):
    return keras.distribution.DeviceMesh(
        shape, names, keras.distribution.list_devices()
    )


def variable_shapes(config):
    """Map every variable, and every adapter of either form, to its shape."""
    shapes = dict(config.parameter_shapes())
    for factorisation in ("keras", "shared"):
        factors = factor_shapes(
            config, rank=8, targets=PROJECTIONS, factorisation=factorisation
        )
        shapes |= {f"{path}#{factorisation}": s for path, s in factors.items()}
    return shapes


@pytest.mark.parametrize("preset", BUILT_IN)
def test_every_variable_of_every_preset_matches_exactly_one_rule(preset):
    for name in variable_shapes(BUILT_IN[preset].config):
        path = name.partition("#")[0]
        for spelling in (path, f"gemma_backbone/{path}"):
            assert len(matching_rules(spelling)) == 1, spelling
            whole = [rule for rule in RULES if re.fullmatch(rule.pattern, spelling)]
            assert whole == matching_rules(spelling)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"{m[0]}x{m[1]}")
@pytest.mark.parametrize("preset", BUILT_IN)
def test_every_split_divides_its_dim(preset, mesh):
    config = BUILT_IN[preset].config
    layout_map = gemma_layout_map(device_mesh(mesh), config=config)
    sizes = dict(zip(("batch", "model"), mesh, strict=True))
    for name, shape in variable_shapes(config).items():
        axes = layout_map[name.partition("#")[0]].axes
        for dim, axis in zip(shape, axes, strict=False):
            assert axis is None or dim % sizes[axis] == 0, (name, axes)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"{m[0]}x{m[1]}")
@pytest.mark.parametrize("preset", BUILT_IN)
def test_specs_are_those_of_keras_hub_where_they_divide(preset, mesh):
    config = BUILT_IN[preset].config
    layout_map = gemma_layout_map(device_mesh(mesh), config=config)
    sizes = dict(zip(("batch", "model"), mesh, strict=True))
    moved = set()
    for path, shape in config.parameter_shapes().items():
        wishes = [w for p, w in KERAS_HUB.items() if re.fullmatch(p, path)]
        wish = wishes[0] if wishes else (None,) * len(shape)
        divides = all(
            axis is None or dim % sizes[axis] == 0
            for dim, axis in zip(shape, wish, strict=True)
        )
        if divides:
            assert layout_map[path].axes == wish, path
        else:
            moved.add(path.split("/")[-2])
    assert moved <= {"query", "key", "value", "attention_output"}


def test_a_lone_key_value_head_is_split_along_its_dims():
    config = BUILT_IN["gemma_2b_en"].config
    layout_map = gemma_layout_map(device_mesh((1, 8)), config=config)
    axes = layout_map["decoder_block_3/attention/key/kernel"].axes
    assert axes == (None, "batch", "model")


@pytest.mark.parametrize(
    ("wish", "shape", "expected"),
    [
        (("model", "batch"), (8, 6), ("model", "batch")),
        (("model", "batch", None), (1, 6, 8), (None, "batch", "model")),  # moved
        (("model", "batch", None), (2, 6, 4), (None, "batch", "model")),
        (("model", "batch", None), (1, 6, 6), (None, "batch", None)),  # nowhere to go
        (
            ("model", "batch", None),
            (1, 7, 8),
            (None, None, "model"),
        ),  # batch is homeless
        (("model", "batch", None), (4, 7, 8), ("model", None, "batch")),
        (("model",), (4, 5, 6), ("model", None, None)),
        ((None,), (4, 4), (None, None)),
    ],
)
def test_fit_on_2x4(wish, shape, expected):
    assert fit(wish, shape, {"batch": 2, "model": 4}) == expected


def test_a_map_learns_from_the_model_built_under_it(arguments):
    config = arguments("gemma", num_layers=1, num_key_value_heads=1)
    layout_map = GemmaBackbone.get_layout_map(device_mesh((1, 8)))
    path = "decoder_block_0/attention/key/kernel"
    assert layout_map[path].axes == ("model", "batch", None)
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    with distribution.scope():
        GemmaBackbone(**config)
    given = GemmaBackbone.get_layout_map(
        device_mesh((1, 8)), config=GemmaConfig(**config)
    )
    assert layout_map[path].axes == given[path].axes == (None, "batch", "model")


def test_axes_may_have_other_names():
    mesh = device_mesh((2, 4), ("data", "tensor"))
    layout_map = GemmaBackbone.get_layout_map(mesh, "tensor", "data")
    assert layout_map["token_embedding/embeddings"].axes == ("tensor", "data")


def test_an_axis_that_the_mesh_lacks_is_named():
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
