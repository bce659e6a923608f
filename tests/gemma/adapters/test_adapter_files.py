"""Adapters survive the way through KerasHub's file, alpha and shared A included."""

import json
import pathlib

import h5py
import numpy as np
import pytest

from gemma.adapters import factor_shapes, read_lora, sidecar_path, write_lora
from gemma.lora import PROJECTIONS
from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/keras_hub"
HASH = "central8-bfloat16-sha256:" + "5" * 64
BASE = {"base": "tiny", "base_hash": HASH}
ONE_ULP = 1.2e-7  # B is rounded once when alpha / rank is no power of two


def config_of(name="gemma2"):
    return open_preset(str(GOLDEN / name)).config


def random_factors(config, **settings):
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in factor_shapes(config, **settings).items()
    }


def write(path, *, alpha=3.0, targets=("query", "value"), factorisation="keras"):
    config = config_of()
    settings = {"rank": 3, "targets": targets, "factorisation": factorisation}
    arrays = random_factors(config, **settings)
    write_lora(path, arrays, config=config, alpha=alpha, **BASE, **settings)
    return arrays


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_keras_hub_file_without_sidecar_has_alpha_equal_to_rank(name):
    adapter = read_lora(GOLDEN / name / "adapter.lora.h5", config_of(name))
    assert (adapter.rank, adapter.alpha, adapter.base) == (3, 3.0, None)
    assert adapter.targets == ("query", "value")
    assert adapter.factorisation == "keras"
    golden = json.loads((GOLDEN / name / "golden.json").read_text())
    expected = {p: tuple(s) for p, s, _ in golden["variables"] if "lora_kernel" in p}
    assert {p: a.shape for p, a in adapter.arrays.items()} == expected
    numbers = {"gemma": 10 + 11, "gemma2": 11 + 13, "gemma3": 13 + 15}
    with h5py.File(GOLDEN / name / "adapter.lora.h5") as file:
        np.testing.assert_array_equal(
            adapter.arrays["decoder_block_1/attention/query/lora_kernel_b"],
            file[f"lora/{numbers[name]}/vars/lora_kernel_b"][()],
        )


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_a_copy_of_keras_hubs_file_has_its_datasets(tmp_path, name):
    config = config_of(name)
    adapter = read_lora(GOLDEN / name / "adapter.lora.h5", config)
    write_lora(
        tmp_path / "adapter.lora.h5",
        adapter.arrays,
        config=config,
        rank=3,
        alpha=3.0,
        targets=adapter.targets,
    )
    assert (
        datasets(tmp_path / "adapter.lora.h5").keys()
        == (golden := datasets(GOLDEN / name / "adapter.lora.h5")).keys()
    )
    for key, values in datasets(tmp_path / "adapter.lora.h5").items():
        np.testing.assert_array_equal(values, golden[key])


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
@pytest.mark.parametrize("targets", [("query", "value"), PROJECTIONS, ("ffw_linear",)])
def test_adapters_come_back_as_they_were(tmp_path, targets, factorisation):
    path = tmp_path / "adapter.lora.h5"
    arrays = write(path, alpha=6.0, targets=targets, factorisation=factorisation)
    adapter = read_lora(path, config_of())
    assert (adapter.rank, adapter.alpha) == (3, 6.0)
    assert (adapter.base, adapter.base_hash) == ("tiny", HASH)
    assert (adapter.targets, adapter.factorisation) == (tuple(targets), factorisation)
    assert list(adapter.arrays) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(adapter.arrays[name], values)  # 2 is exact


def test_any_alpha_comes_back_within_a_rounding(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    arrays = write(path, alpha=7.0)
    adapter = read_lora(path, config_of())
    for name, values in arrays.items():
        np.testing.assert_allclose(adapter.arrays[name], values, rtol=ONE_ULP)


def test_stored_factors_multiply_to_the_scaled_shared_product(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    arrays = write(path, alpha=6.0, factorisation="shared")
    stored = datasets(path)
    for layer, number in (("query", 11), ("value", 9)):
        a = arrays[f"decoder_block_0/attention/{layer}/lora_kernel_a"]
        b = arrays[f"decoder_block_0/attention/{layer}/lora_kernel_b"]
        wide_a = stored[f"lora/{number}/vars/lora_kernel_a"]
        wide_b = stored[f"lora/{number}/vars/lora_kernel_b"]
        assert wide_a.shape[-1] == wide_b.shape[0] == stored["lora/vars/rank"] == 12
        expected = 2.0 * np.einsum("dr,rnh->ndh", a, b)
        np.testing.assert_allclose(wide_a @ wide_b, expected, rtol=1e-5, atol=1e-5)


def test_sidecar_holds_what_the_file_cannot(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    write(path, alpha=6.0)
    assert sidecar_path(path) == sidecar_path(str(path))
    values = json.loads((tmp_path / "adapter.json").read_text())
    assert len(values.pop("sha256")) == 64
    assert values == {
        "rank": 3,
        "alpha": 6.0,
        "targets": ["query", "value"],
        "factorisation": "keras",
        "base": "tiny",
        "base_hash": HASH,
    }


WRONG = {
    "rank": (0, "rank: expected an integer >= 1, received 0"),
    "alpha": (-1.0, "alpha: expected a finite number > 0, received -1.0"),
    "targets": (["lm_head"], "targets: expected some of query, key"),
    "factorisation": ("both", "factorisation: expected keras or shared"),
    "base": (3, "base: expected a name or null, received 3"),
    "base_hash": (
        "central8-bfloat16-sha256:" + "z" * 64,
        "base_hash: expected central8-bfloat16-sha256:<64 hex digits>, null or",
    ),
    "sha256": ("0" * 64, "sha256: expected that of adapter.lora.h5"),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_sidecar_is_refused_by_key(tmp_path, key):
    path = tmp_path / "adapter.lora.h5"
    write(path)
    change(tmp_path / "adapter.json", **{key: WRONG[key][0]})
    with pytest.raises(PresetFileError, match=WRONG[key][1]):
        read_lora(path, config_of())


@pytest.mark.parametrize("content", ['{"rank": 3, "name": "gemma"}', "no JSON"])
def test_no_other_file_is_lost_to_a_sidecar(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(PresetFileError, match="another file") as told:
        write(tmp_path / "config.lora.h5")
    assert "config.json: expected nothing, or" in str(told.value)
    assert "give the adapter another name" in str(told.value)
    assert (tmp_path / "config.json").read_text() == content
    assert not (tmp_path / "config.lora.h5").exists()


def test_an_adapter_is_written_again_over_itself(tmp_path):
    write(tmp_path / "adapter.lora.h5", alpha=3.0)
    write(tmp_path / "adapter.lora.h5", alpha=6.0)
    assert read_lora(tmp_path / "adapter.lora.h5", config_of()).alpha == 6.0


def test_a_sidecar_without_a_hash_of_the_base_is_read(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    write(path)
    values = json.loads((tmp_path / "adapter.json").read_text())
    del values["base_hash"]
    (tmp_path / "adapter.json").write_text(json.dumps(values))
    assert read_lora(path, config_of()).base_hash is None


def test_a_sidecar_of_another_rank_or_form_is_refused(tmp_path):
    path = tmp_path / "adapter.lora.h5"
    write(path)
    change(tmp_path / "adapter.json", rank=2)
    with pytest.raises(PresetFileError, match="expected rank 2, received 3"):
        read_lora(path, config_of())
    path = tmp_path / "wide.lora.h5"
    config = config_of()
    settings = {"rank": 12, "targets": ("query",), "factorisation": "keras"}
    arrays = random_factors(config, **settings)
    write_lora(path, arrays, config=config, alpha=12.0, **settings)
    change(tmp_path / "wide.json", rank=3, factorisation="shared")
    with pytest.raises(PresetFileError, match="same A for every head"):
        read_lora(path, config)


def test_an_adapter_of_another_model_is_refused():
    source = GOLDEN / "gemma2/adapter.lora.h5"
    with pytest.raises(PresetFileError, match="layer number 11, which has no proj"):
        read_lora(source, config_of("gemma"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("lora/vars/rank", "lora/vars/rank with one integer"),
        ("lora/24", "none for .*the adapter was trained on"),
    ],
    ids=["rank", "layer"],
)
def test_a_file_that_lacks_a_part_is_refused(tmp_path, part, message):
    path = tmp_path / "adapter.lora.h5"
    path.write_bytes((GOLDEN / "gemma2/adapter.lora.h5").read_bytes())
    with h5py.File(path, "a") as file:
        del file[part]
    with pytest.raises(PresetFileError, match=message):
        read_lora(path, config_of())


def test_writing_names_what_is_wrong(tmp_path):
    config = config_of()
    settings = {"rank": 3, "targets": ("query",), "factorisation": "keras"}
    arrays = random_factors(config, **settings)
    with pytest.raises(ValueError, match=r"must end in .lora.h5, received 'a.h5'"):
        write_lora("a.h5", arrays, config=config, alpha=3.0, **settings)
    path = tmp_path / "a.lora.h5"
    with pytest.raises(ValueError, match="alpha must be positive and finite"):
        write_lora(path, arrays, config=config, alpha=0.0, **settings)
    with pytest.raises(ValueError, match="must be float32, received float64"):
        doubles = {name: values.astype(np.float64) for name, values in arrays.items()}
        write_lora(path, doubles, config=config, alpha=3.0, **settings)
    arrays.popitem()
    with pytest.raises(ValueError, match="expected all 6 variables.*; pass one array"):
        write_lora(path, arrays, config=config, alpha=3.0, **settings)
    assert not path.exists()


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found
