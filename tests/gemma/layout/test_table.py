"""The table of a layout: rows, totals, what is lost, and how it prints."""

import pytest

from gemma.config import Gemma3Config
from gemma.layout import table
from gemma.lora import lora_settings

CONFIG = Gemma3Config(
    vocabulary_size=1000,
    num_layers=2,
    num_query_heads=4,
    num_key_value_heads=1,
    hidden_dim=256,
    intermediate_dim=512,
    head_dim=64,
)


@pytest.fixture(scope="module")
def on_1x8():
    """4 query heads and 1 of keys and values over 8 devices, in bfloat16."""
    return table(CONFIG, (1, 8), dtype="bfloat16")


def test_rows_are_the_variables_in_the_order_of_the_model(on_1x8):
    assert [row.path for row in on_1x8.rows] == list(CONFIG.parameter_shapes())
    assert [row.shape for row in on_1x8.rows] == [*CONFIG.parameter_shapes().values()]


def test_a_row_says_where_its_variable_lies(on_1x8):
    rows = {row.path: row for row in on_1x8.rows}
    key = rows["decoder_block_1/attention/key/kernel"]
    assert (key.shape, key.dtype) == ((1, 256, 64), "bfloat16")
    assert key.spec == (None, "batch", "model")  # the lone head is whole
    assert (key.bytes, key.devices, key.bytes_per_device) == (32_768, 8, 4096)
    norm = rows["decoder_block_1/attention/query_norm/scale"]
    assert (norm.spec, norm.devices, norm.bytes_per_device) == ((None,), 1, 128)


def test_totals_and_what_is_lost_against_a_perfect_split(on_1x8):
    # embedding 256,000; a block 65,536 + 2 x 16,384 + 65,536 + 3 x 131,072
    kernels = 2 * (256_000 + 2 * 557_056)
    norms = 2 * (2 * (2 * 256 + 2 * 64) + 256)
    assert on_1x8.bytes == kernels + norms
    assert on_1x8.bytes_per_device == kernels // 8 + norms
    assert on_1x8.bytes_lost == norms - norms // 8


def test_an_axis_that_divides_no_dim_is_bytes_lost():
    odd = Gemma3Config(
        vocabulary_size=1000,
        num_layers=1,
        num_query_heads=3,
        num_key_value_heads=3,
        hidden_dim=25,
        intermediate_dim=15,
        head_dim=6,
    )
    listed = table(odd, (1, 4), dtype="float32")
    embedding, *others = listed.rows
    assert embedding.devices == 4
    assert {row.devices for row in others} == {1}
    lost = sum(row.bytes for row in others)
    assert listed.bytes_lost == lost - lost // 4


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_adapters_are_listed_in_float32(factorisation, adapter_shapes):
    lora = lora_settings(4, targets=["*"], factorisation=factorisation)
    listed = table(CONFIG, (2, 4), dtype="bfloat16", lora=lora)
    factors = {r.path: r.shape for r in listed.rows if "/lora_kernel_" in r.path}
    assert factors == adapter_shapes(CONFIG, 4, factorisation)
    rows = {row.path: row for row in listed.rows}
    a = rows["decoder_block_0/attention/query/lora_kernel_a"]
    assert (a.dtype, a.devices, len(a.spec)) == ("float32", 4, len(a.shape))
    heads = 4 if factorisation == "keras" else 1
    assert a.bytes == heads * 256 * 4 * 4


def test_only_the_adapters_asked_for_are_listed():
    listed = table(CONFIG, (1, 2), dtype="float32", lora=lora_settings(2))
    factors = [row.path for row in listed.rows if "/lora_kernel_" in row.path]
    assert len(factors) == 2 * 2 * 2
    assert all("/query/" in path or "/value/" in path for path in factors)


def test_a_table_prints_a_line_for_each_kind_of_variable(on_1x8):
    lines = str(on_1x8).splitlines()
    assert lines[0].split() == (
        ["path", "shape", "split", "over", "devices", "layers", "MB/device"]
    )
    assert len(lines) == 1 + 13 + 1
    key = next(line for line in lines if "/key/kernel" in line)
    assert key.split("  ")[0] == "decoder_block_*/attention/key/kernel"
    assert " 1 x 256 x 64 " in key and " - x batch x model " in key
    assert key.split()[-3:] == ["8", "2", "0.0"]
    assert lines[-1] == (
        "0.3 MB on each of 8 devices (1x8, batch x model); 0.0 MB of them lost "
        "against a perfect split"
    )


def test_the_table_of_a_published_size():
    from gemma.presets import BUILT_IN

    listed = table(BUILT_IN["gemma2_9b_en"].config, (1, 8), dtype="bfloat16")
    assert listed.bytes == 2 * 9_241_705_984
    assert str(listed).splitlines()[-1].startswith("2,311.5 MB on each of 8 devices")


@pytest.mark.parametrize("shape", [(8,), (1, 0), (1, 2.0), (2, 2, 2), "1x8", [1, 8]])
def test_a_shape_that_is_no_mesh_is_refused(shape):
    with pytest.raises(
        ValueError, match="mesh_shape must be two positive integers.*received"
    ):
        table(CONFIG, shape, dtype="float32")


def test_an_unknown_dtype_is_refused():
    with pytest.raises(
        ValueError, match="one of float32, bfloat16, float16, received 'fp8'"
    ):
        table(CONFIG, (1, 1), dtype="fp8")
