"""What 8 and 4 bits cost the tiny preset, and the plain scheme beside them.

`tests/benchmarks/results/quantized.md` has the figures on all held-out rows. At 8 bits
perplexities differ by their fourth digit in either direction: there the divergence from
the float model tells the schemes apart.
"""

import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from quantized import SCHEMES, Subject, chats, table  # noqa: E402


@pytest.fixture(scope="module")
def costs():
    tiny = Subject("gemma2_tiny_en")
    return tiny.costs(chats(tiny.tokenizer, 100), SCHEMES)


def test_logits_stay_within_the_stated_error(costs):
    # of the float logits' standard deviation; measured: 0.4 % and 7.4 %
    assert costs["int8, blocks of 32"].logits_rms < 0.006
    assert costs["int4, blocks of 32"].logits_rms < 0.09


def test_4_bits_lose_less_perplexity_than_one_scale_a_channel(costs):
    base, ours, plain = (
        costs[name].perplexity
        for name in ("float", "int4, blocks of 32", "int4, one scale a channel")
    )
    assert 0 < ours - base < 0.6 * (plain - base)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_blocks_diverge_less_than_one_scale_a_channel(costs, bits):
    ours, plain = (
        costs[f"{bits}, {kind}"] for kind in ("blocks of 32", "one scale a channel")
    )
    assert ours.divergence < 0.7 * plain.divergence
    assert ours.logits_rms < 0.8 * plain.logits_rms


def test_the_float_model_costs_nothing(costs):
    assert costs["float"].logits_max < 1e-5  # the same sums, compiled twice
    assert "| float | " in table(costs)
