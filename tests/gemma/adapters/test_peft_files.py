"""Adapters in PEFT's directory: written exactly, read back, refused by name."""

import hashlib
import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gemma.adapters import factor_shapes, read_peft, write_peft
from gemma.adapters.peft.config import PeftConfig
from gemma.lora import PROJECTIONS
from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/keras_hub"
ROUNDED = 3e-7  # float32, scales multiplied in and summed in another order
MODULE = "base_model.model.model.layers.{}.{}.lora_{}.weight"
SIDECAR = "adapter_model.safetensors.json"


@pytest.fixture(scope="module")
def config():
    return open_preset(str(GOLDEN / "gemma2")).config


@pytest.fixture
def write(tmp_path, config):
    """Write random adapters and return them."""

    def new(factorisation="keras", targets=("query", "value"), alpha=7.0, **more):
        settings = {"rank": 3, "targets": targets, "factorisation": factorisation}
        rng = np.random.default_rng(0)
        arrays = {
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in factor_shapes(config, **settings).items()
        }
        write_peft(tmp_path, arrays, config=config, alpha=alpha, **settings, **more)
        return arrays

    return new


def change(directory, **values):
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def forget_sidecar(directory):
    (directory / SIDECAR).unlink()


def write_tensors(directory, tensors):
    safetensors.numpy.save_file(tensors, directory / "adapter_model.safetensors")
    (directory / SIDECAR).unlink(missing_ok=True)


def deltas(adapter):
    """Return scale * A B of every layer, in float64."""
    found = {}
    for name, a in adapter.arrays.items():
        if not name.endswith("_a"):
            continue
        b = adapter.arrays[f"{name[:-1]}b"].astype(np.float64)
        form = "dr,rnh->ndh" if b.ndim == 3 else "...r,ro->...o"
        product = np.einsum(form, a.astype(np.float64), b)
        found[name.rsplit("/", 1)[0]] = adapter.alpha / adapter.rank * product
    return found


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
@pytest.mark.parametrize("targets", [("query", "value"), PROJECTIONS])
def test_ours_come_back_as_they_were(write, tmp_path, config, targets, factorisation):
    arrays = write(factorisation, targets, base="hf://me/model@3")
    adapter = read_peft(tmp_path, config)
    assert (adapter.rank, adapter.alpha) == (3, 7.0)
    assert (adapter.targets, adapter.factorisation) == (targets, factorisation)
    assert adapter.base == "hf://me/model@3"
    assert list(adapter.arrays) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(adapter.arrays[name], values)


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_without_the_sidecar_the_products_are_the_same(
    write, tmp_path, config, factorisation
):
    write(factorisation, PROJECTIONS)
    ours = deltas(read_peft(tmp_path, config))
    forget_sidecar(tmp_path)
    adapter = read_peft(tmp_path, config)
    assert (adapter.factorisation, adapter.base_hash) == ("shared", None)
    assert adapter.rank == (12 if factorisation == "keras" else 3)
    for layer, delta in deltas(adapter).items():
        np.testing.assert_allclose(delta, ours[layer], rtol=ROUNDED, atol=ROUNDED)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("hf://me/model@3", "me/model"),
        ("/models/gemma@home/2b", "/models/gemma@home/2b"),
        ("kaggle://keras/gemma/keras/gemma_2b_en/2",) * 2,
        (None, None),
    ],
)
def test_peft_is_told_the_name_of_the_base(write, tmp_path, base, expected):
    write(base=base)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == expected


@pytest.mark.parametrize("dtype", ["int8", "bool", "float8_e4m3fn"])
def test_numbers_that_are_no_factors_are_refused(write, tmp_path, config, dtype):
    write("shared")
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn).astype(dtype)
    write_tensors(tmp_path, tensors)
    with pytest.raises(PresetFileError, match=f"float64, received {dtype}; merge the"):
        read_peft(tmp_path, config)


def test_an_adapter_that_began_with_eva_is_read(write, tmp_path, config):
    write("shared")
    forget_sidecar(tmp_path)
    change(tmp_path, init_lora_weights="eva", eva_config={"rho": 2.0, "tau": 0.99})
    assert read_peft(tmp_path, config).rank == 3


def test_blocks_are_said_in_the_patterns_of_the_config(write, tmp_path):
    write("keras", ("query", "value", "ffw_linear"), dropout=0.1, base="tiny")
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"], values["lora_dropout"]) == (3, 7, 0.1)
    assert values["rank_pattern"] == {"q_proj": 12, "v_proj": 6}  # 4 and 2 heads
    assert values["alpha_pattern"] == {"q_proj": 28, "v_proj": 14}
    assert values["target_modules"] == ["q_proj", "v_proj", "down_proj"]
    assert values["base_model_name_or_path"] == "tiny"


def test_shared_factors_keep_their_rank(write, tmp_path):
    write("shared", PROJECTIONS)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (values["rank_pattern"], values["alpha_pattern"]) == ({}, {})
    tensors = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors")
    assert {t.shape[0] for n, t in tensors.items() if "lora_A" in n} == {3}


def test_ranks_and_alphas_may_differ_between_modules(tmp_path, config):
    rng = np.random.default_rng(0)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 2,
                "lora_alpha": 3,
                "target_modules": ".*(q|o)_proj",
                "rank_pattern": {"layers.1.self_attn.q_proj": 4},
                "alpha_pattern": {r"self_attn\.o_proj": 10},
                "lora_dropout": 0.1,
            }
        )
    )
    tensors = {
        MODULE.format(0, "self_attn.o_proj", "A"): rng.normal(size=(2, 32)),
        MODULE.format(0, "self_attn.o_proj", "B"): rng.normal(size=(32, 2)),
        MODULE.format(1, "self_attn.q_proj", "A"): rng.normal(size=(4, 32)),
        MODULE.format(1, "self_attn.q_proj", "B"): rng.normal(size=(32, 4)),
    }
    hidden = config.hidden_dim
    width = config.num_query_heads * config.head_dim
    shapes = {"o_proj": (width, hidden), "q_proj": (hidden, width)}
    for name, values in tensors.items():
        module, factor = name.split(".")[-3], name.split(".")[-2][-1]
        rank = min(values.shape)
        inputs, outputs = shapes[module]
        shape = (rank, inputs) if factor == "A" else (outputs, rank)
        tensors[name] = rng.normal(size=shape).astype(np.float32)
    write_tensors(tmp_path, tensors)
    adapter = read_peft(tmp_path, config)
    assert (adapter.rank, adapter.targets) == (4, ("query", "attention_output"))
    found = deltas(adapter)
    assert not found["decoder_block_0/attention/query"].any()  # it has no adapter
    a, b = (tensors[MODULE.format(0, "self_attn.o_proj", f)] for f in "AB")
    expected = 10 / 2 * (b.astype(np.float64) @ a).T
    np.testing.assert_allclose(
        found["decoder_block_0/attention/attention_output"].reshape(width, hidden),
        expected,
        rtol=1e-5,
        atol=1e-5,
    )
    a, b = (tensors[MODULE.format(1, "self_attn.q_proj", f)] for f in "AB")
    heads = found["decoder_block_1/attention/query"].transpose(0, 2, 1)
    expected = 3 / 4 * b.astype(np.float64) @ a
    np.testing.assert_allclose(
        heads.reshape(width, hidden), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_adapters_of_a_multimodal_models_text_are_read(write, tmp_path, config, prefix):
    write("shared")
    expected = deltas(read_peft(tmp_path, config))
    path = tmp_path / "adapter_model.safetensors"
    tensors = {
        name.replace(".model.model.", f".model.{prefix}"): values
        for name, values in safetensors.numpy.load_file(path).items()
    }
    write_tensors(tmp_path, tensors)
    for layer, delta in deltas(read_peft(tmp_path, config)).items():
        np.testing.assert_array_equal(delta, expected[layer])


def test_rank_stabilised_scales_are_divided_by_the_root():
    config = PeftConfig(rank=4, alpha=6.0, use_rslora=True)
    assert config.alpha_at("model.layers.0.mlp.up_proj", 4) / 4 == 3.0  # 6 / sqrt(4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: expected LORA, received 'IA3'"),
        ({"bias": "all"}, "bias: expected none: our layers have no bias"),
        ({"use_dora": True}, "use_dora: expected nothing: our adapters have no place"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: expected nothing.*lm_h"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out: expected nothing"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: .* leaves the base as it"),
        ({"some_new_thing": {"x": 1}}, "some_new_thing: expected nothing"),
        ({"r": 0}, ", r: expected an integer >= 1, received 0"),
        ({"lora_alpha": -1}, "lora_alpha: expected a finite number > 0, received -1"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "alpha_pattern: expected names of modules"),
        ({"rank_pattern": [1]}, "rank_pattern: expected an object, received"),
    ],
)
def test_what_has_no_place_is_refused_by_key(write, tmp_path, config, values, message):
    write()
    change(tmp_path, **values)
    with pytest.raises(PresetFileError, match=message):
        read_peft(tmp_path, config)


@pytest.mark.parametrize(
    ("tensor", "shape", "message"),
    [
        ("base_model.model.lm_head.lora_A.weight", (3, 4), "lm_head.* expected lora_A"),
        (MODULE.format(9, "self_attn.q_proj", "A"), (3, 4), "layers.9.* expected lora"),
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
            (4,),
            "lora_magnitude_vector: expected lora_A and lora_B",
        ),
        (
            MODULE.format(0, "self_attn.q_proj", "A").replace("A.", "A.default."),
            (3, 4),
            "once each, received another tensor",
        ),
        (MODULE.format(0, "mlp.up_proj", "A"), (3, 64), "up_proj: expected all 2 var"),
    ],
)
def test_a_tensor_without_a_place_is_refused(
    write, tmp_path, config, tensor, shape, message
):
    write("shared")
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    write_tensors(tmp_path, {**tensors, tensor: np.zeros(shape, np.float32)})
    with pytest.raises(PresetFileError, match=message):
        read_peft(tmp_path, config)


def test_another_bases_shape_is_refused(write, tmp_path):
    write("shared")
    forget_sidecar(tmp_path)
    other = open_preset("gemma_2b_en").config
    with pytest.raises(PresetFileError, match="q_proj, A: expected shape .*2048.*rece"):
        read_peft(tmp_path, other)


def test_a_sidecar_that_contradicts_the_files_is_refused(write, tmp_path, config):
    write("keras")
    change(tmp_path, lora_alpha=9, alpha_pattern={})
    with pytest.raises(
        PresetFileError, match="alpha 7.0 .* another alpha in adapter_c"
    ):
        read_peft(tmp_path, config)
    write("shared")
    path = tmp_path / SIDECAR
    text = path.read_text()
    path.write_text(text.replace('"shared"', '"keras"'))
    with pytest.raises(PresetFileError, match="received rank 3 is not 4 blocks of 3"):
        read_peft(tmp_path, config)
    path.write_text(text.replace('"rank": 3', '"rank": 2'))
    with pytest.raises(PresetFileError, match="another alpha"):
        read_peft(tmp_path, config)


def test_blocks_that_differ_between_heads_are_refused(write, tmp_path, config):
    write("keras", ("query",))
    side = json.loads((tmp_path / SIDECAR).read_text())
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    next(t for n, t in tensors.items() if "lora_B" in n)[-1, -1] += 1
    safetensors.numpy.save_file(tensors, path)
    side["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / SIDECAR).write_text(json.dumps(side))
    with pytest.raises(PresetFileError, match="not one block, 4 times on the diagonal"):
        read_peft(tmp_path, config)


def test_files_that_are_missing_or_damaged_are_named(write, tmp_path, config):
    with pytest.raises(PresetFileError, match="adapter_config.json: expected a file"):
        read_peft(tmp_path, config)
    write()
    forget_sidecar(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PresetFileError, match="expected 768 bytes from byte 22656 on"):
        read_peft(tmp_path, config)
    safetensors.numpy.save_file({}, path)
    with pytest.raises(PresetFileError, match="expected adapters, received no tensor"):
        read_peft(tmp_path, config)
    path.unlink()
    with pytest.raises(PresetFileError, match="pickled weights are never opened"):
        read_peft(tmp_path, config)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_directory_is_refused(write, tmp_path, config, name):
    write()
    elsewhere = tmp_path.with_name(f"{tmp_path.name}_elsewhere")
    (tmp_path / name).rename(elsewhere)
    (tmp_path / name).symlink_to(elsewhere)
    with pytest.raises(PresetFileError, match="received a link to .*_elsewhere"):
        read_peft(tmp_path, config)


def test_a_config_that_is_no_json_is_refused(write, tmp_path, config):
    write()
    (tmp_path / "adapter_config.json").write_text("<html>404</html>")
    with pytest.raises(PresetFileError, match="adapter_config.json: expected JSON"):
        read_peft(tmp_path, config)
