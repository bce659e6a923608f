"""The state tree: which variables stand in which array."""

import pytest

from gemma.config import GemmaConfig
from gemma.stacked import stacked_tree
from gemma.stacked.tree import stacks


@pytest.fixture
def config(arguments):
    def choose(family, num_layers):
        return GemmaConfig(**arguments(family, num_layers=num_layers))

    return choose


@pytest.mark.parametrize(
    ("family", "num_layers", "expected"),
    [
        ("gemma", 3, [("decoder_blocks", range(3), ("global",))]),
        ("gemma2", 4, [("decoder_blocks", range(4), ("local", "global"))]),
        (
            "gemma2",
            3,
            [
                ("decoder_blocks", range(2), ("local", "global")),
                ("decoder_blocks_rest", range(2, 3), ("local",)),
            ],
        ),
        ("gemma2", 1, [("decoder_blocks_rest", range(1), ("local",))]),
    ],
)
def test_scans_cover_whole_periods_first(config, family, num_layers, expected):
    found = stacks(config(family, num_layers))
    assert [(s.name, s.layers, s.kinds) for s in found] == expected


def test_every_variable_stands_in_one_array(build):
    backbone = build("gemma2", 3)
    members = [v.path for s in stacked_tree(backbone).values() for v in s.members]
    assert sorted(members) == sorted(backbone.gemma_config.parameter_shapes())


def test_shapes_have_the_layers_first(build):
    tree = stacked_tree(build("gemma2", 3))
    assert tree["decoder_blocks/attention/query/kernel"].shape == (2, 4, 32, 8)
    assert tree["decoder_blocks_rest/ffw_linear/kernel"].shape == (1, 48, 32)
    assert tree["token_embedding/embeddings"].shape == (96, 32)


def test_adapters_are_told_apart(build):
    backbone = build("gemma2", 1, fresh=True)
    backbone.enable_lora(2)
    adapters = {p for p, v in stacked_tree(backbone).items() if v.is_adapter}
    assert adapters == {
        f"decoder_blocks_rest/attention/{name}/lora_kernel_{factor}"
        for name in ("query", "value")
        for factor in "ab"
    }


def test_a_variable_that_no_array_stands_for_is_refused(build):
    """Without values it would be drawn at random, and nobody would notice."""
    backbone = build("gemma2", 1, fresh=True)
    norm = backbone.get_layer("final_normalization")
    norm._tracker.unlock()
    norm.bias = norm.add_weight(name="bias", shape=(32,))
    with pytest.raises(ValueError, match="no array for final_normalization/bias"):
        stacked_tree(backbone)
