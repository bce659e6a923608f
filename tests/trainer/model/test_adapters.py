"""Adapters of a run: read from either form, and only beside the base they know."""

import dataclasses

import jax
import numpy as np
import pytest

from gemma.adapters import Adapter, read_lora, write_peft
from gemma.lora import lora_settings
from gemma.presets import open_preset
from trainer.config.errors import ConfigError, PresetError
from trainer.config.schema import LoraConfig
from trainer.distribution.mesh import build_mesh
from trainer.model.adapters import adapter_settings
from trainer.model.assemble import build_model, hash_of_base, initial_arrays


@pytest.fixture(scope="module")
def golden(repository):
    return open_preset(str(repository / "tests/golden/keras_hub/gemma2"))


@pytest.fixture(scope="module")
def kept(repository, golden):
    return read_lora(
        repository / "tests/golden/keras_hub/gemma2/adapter.lora.h5", golden.config
    )


def model_of(preset, shape=(1, 1), *, rank=3, dtype="float32", **lora):
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    settings = lora_settings(rank, **lora) if rank else None
    return build_model(preset, mesh, dtype=dtype, lora=settings)


def arrays_of(model, **changes):
    settings = {"load_weights": True, "adapter": None, "seed": 0} | changes
    return initial_arrays(model, **settings)


def written(adapter, golden):
    """Return the arguments with which an adapter is written."""
    fields = [field.name for field in dataclasses.fields(Adapter)]
    values = {name: getattr(adapter, name) for name in fields}
    arrays = values.pop("arrays")
    return arrays, values | {"config": golden.config}


def test_a_directory_of_pefts_is_read_too(golden, kept, tmp_path):
    arrays, settings = written(kept, golden)
    write_peft(tmp_path, arrays, **settings)
    lora, adapter = adapter_settings(LoraConfig(path=str(tmp_path)), golden)
    assert (lora.rank, lora.factorisation) == (3, "keras")
    for name, values in arrays.items():
        assert np.array_equal(adapter.arrays[name], values)


def test_the_hash_is_the_same_for_files_and_arrays_on_any_mesh(golden):
    hashes = set()
    for shape, dtype in (((1, 1), "float32"), ((2, 4), "bfloat16")):
        model = model_of(golden, shape, dtype=dtype)
        arrays = arrays_of(model)
        hashes |= {
            hash_of_base(model, arrays, load_weights=loaded) for loaded in (True, False)
        }
    assert len(hashes) == 1


@pytest.mark.parametrize("load_weights", [True, False])
def test_adapters_of_another_base_are_refused(golden, kept, load_weights):
    model = model_of(golden)
    arrays = arrays_of(model, load_weights=load_weights)
    found = hash_of_base(model, arrays, load_weights=load_weights)
    fitting = dataclasses.replace(kept, base="tiny", base_hash=found)
    arrays_of(model, load_weights=load_weights, adapter=fitting)
    other = "central8-bfloat16-sha256:" + "0" * 64
    foreign = dataclasses.replace(fitting, base_hash=other)
    with pytest.raises(PresetError) as error:
        arrays_of(model, load_weights=load_weights, adapter=foreign)
    assert error.value.key == "lora.path"
    assert error.value.expected.endswith(f"tiny ({other})")
    assert error.value.received == f"{golden.name} ({found})"


def test_an_adapter_file_brings_its_own_settings(golden, repository):
    path = repository / "tests/golden/keras_hub/gemma2/adapter.lora.h5"
    settings, adapter = adapter_settings(LoraConfig(path=str(path)), golden)
    assert (settings.rank, settings.targets) == (3, ("query", "value"))
    arrays = arrays_of(model_of(golden, (2, 2), rank=3), adapter=adapter)
    name = "decoder_block_1/attention/query/lora_kernel_b"
    stacked = arrays["decoder_blocks/attention/query/lora_kernel_b"]
    assert np.array_equal(stacked[1], adapter.arrays[name])


def test_an_adapter_file_of_another_name_or_place_is_named(golden):
    with pytest.raises(ConfigError, match="ends in .lora.h5, or a directory"):
        adapter_settings(LoraConfig(path="adapter.h5"), golden)
    with pytest.raises(PresetError, match="lora.path"):
        adapter_settings(LoraConfig(path="nowhere/x.lora.h5"), golden)


def test_rank_zero_means_no_adapters(golden):
    assert adapter_settings(LoraConfig(rank=0), golden) == (None, None)


def test_a_rank_above_a_kernels_own_is_refused_with_the_largest(golden):
    head_dim = golden.config.head_dim
    adapter_settings(LoraConfig(rank=head_dim), golden)
    with pytest.raises(ConfigError, match=rf"fix +lora.rank={head_dim}, or lora=none"):
        adapter_settings(LoraConfig(rank=head_dim + 1), golden)


def test_adapters_with_a_shared_factor_reach_over_all_heads(golden):
    config = golden.config
    width = min(config.hidden_dim, config.num_query_heads * config.head_dim)
    lora = LoraConfig(rank=width, targets=["query"], factorisation="shared")
    assert adapter_settings(lora, golden)[0].rank == width
    lora = LoraConfig(rank=width + 1, targets=["query"], factorisation="shared")
    with pytest.raises(ConfigError, match=f"at most {width}"):
        adapter_settings(lora, golden)
