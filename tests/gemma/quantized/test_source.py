"""Reading weights as integers and scales, whole, in slices and off the blocks."""

import numpy as np
import pytest

from gemma.presets import open_preset
from gemma.quantized.grid import quantize, quantized_shapes
from gemma.quantized.names import part_paths, weight_path
from gemma.quantized.source import QuantizedWeights

QUERY = "decoder_block_1/attention/query/kernel"
FFW = "decoder_block_1/ffw_gating/kernel"
TABLE = "token_embedding/embeddings"


@pytest.fixture(scope="module")
def preset():
    return open_preset("gemma2_tiny_en")


@pytest.fixture(params=["int8", "int4"])
def quantization(request):
    return request.param


def test_every_kernel_and_the_table_are_quantized_and_no_norm(preset, quantization):
    shapes = preset.config.parameter_shapes()
    with QuantizedWeights(preset.weights(), quantization) as source:
        paths = source.paths()
        whole = {path for path in paths if weight_path(path)[1] is None}
        assert whole == {path for path in shapes if path.endswith("/scale")}
        assert len(paths) == len(whole) + 2 * (len(shapes) - len(whole))
        for path in paths:
            values = source.read(path)
            assert (values.shape, values.dtype) == (
                source.shape(path),
                source.dtype(path),
            )


@pytest.mark.parametrize("path, axis", [(QUERY, -2), (TABLE, -1)])
def test_parts_are_the_quantized_weight(preset, quantization, path, axis):
    with preset.weights() as floats:
        want = quantize(floats.read(path), quantization, axis)
    with QuantizedWeights(preset.weights(), quantization) as source:
        for part, expected in zip(part_paths(path, quantization), want, strict=True):
            np.testing.assert_array_equal(source.read(part), expected)


@pytest.mark.parametrize("path, axis", [(QUERY, -2), (FFW, -2), (TABLE, -1)])
def test_tensors_are_read_in_parts(preset, monkeypatch, path, axis):
    monkeypatch.setattr("gemma.quantized.source._PART", 5000)
    with preset.weights() as floats:
        want = quantize(floats.read(path), "int4", axis)
    with QuantizedWeights(preset.weights(), "int4") as source:
        for part, expected in zip(part_paths(path, "int4"), want, strict=True):
            np.testing.assert_array_equal(source.read(part), expected)


def test_slices_off_the_blocks_are_slices_of_the_whole(preset, quantization):
    index = (slice(1, 3), slice(50, 103), slice(7, 20))
    values, scales = part_paths(QUERY, quantization)
    with QuantizedWeights(preset.weights(), quantization) as source:
        np.testing.assert_array_equal(
            source.read(values, index), source.read(values)[index]
        )
        index = (slice(1, 3), slice(1, 3), slice(7, 20))
        np.testing.assert_array_equal(
            source.read(scales, index), source.read(scales)[index]
        )


def test_scales_of_a_slice_that_was_read_need_no_second_reading(preset, quantization):
    values, scales = part_paths(QUERY, quantization)
    with QuantizedWeights(preset.weights(), quantization) as source:
        source.read(values)
        floats = source._source
        floats.close()
        shape = preset.config.parameter_shapes()[QUERY]
        want = quantized_shapes(shape, quantization, -2)[1]
        assert source.read(scales).shape == want


def test_parts_can_be_written_in_place(preset, quantization):
    norm = "final_normalization/scale"
    with QuantizedWeights(preset.weights(), quantization) as source:
        for path in (*part_paths(QUERY, quantization), norm):
            out = np.empty(source.shape(path), source.dtype(path))
            source.read_into(out, path)
            np.testing.assert_array_equal(out, source.read(path))


def test_names_lead_back_to_the_weight():
    assert part_paths(QUERY, "int4") == (QUERY + "_int4", QUERY + "_scale")
    assert weight_path(QUERY + "_int4") == (QUERY, "values")
    assert weight_path(TABLE + "_scale") == (TABLE, "scales")
    norm = "decoder_block_0/pre_attention_norm/scale"
    assert part_paths(norm, "int4") == (norm,)
    assert weight_path(norm) == (norm, None)
