"""Prompts at once and then token by token, equal to whole texts."""

import functools

import jax
import numpy as np
import pytest

from gemma import Backbone
from gemma.layers.token_embedding import unembed
from gemma.stacked import Stacked
from gemma.stacked.cached import decode, places, prefill
from gemma.stacked.tree import apart_values, stack_values

SAME = 1e-5  # float32 on a CPU, sums in another order
GOLDEN = 1e-4  # float32 on two frameworks
LENGTHS = np.array([6, 4, 3])  # of the prompts
MODELS = [("gemma", 3), ("gemma2", 3), ("gemma3", 8)]
ids_of_models = [name for name, _ in MODELS]


@pytest.fixture(scope="module", params=MODELS, ids=ids_of_models)
def stacked(request, build):
    """Windows of 4 places; the last period of layers is not whole."""
    return Stacked(build(*request.param))


@pytest.fixture(scope="module")
def texts():
    """Three rows of 24 ids: six times the window."""
    return np.random.default_rng(1).integers(3, 96, (3, 24)).astype("int32")


def left_padded(texts, columns):
    """Return the prompts at the end of `columns` columns, and where they start."""
    starts = (columns - LENGTHS).astype("int32")
    token_ids = np.zeros((3, columns), "int32")
    for row, (start, length) in enumerate(zip(starts, LENGTHS, strict=True)):
        token_ids[row, start:] = texts[row, :length]
    return token_ids, starts


def step_by_step(stacked, weights, texts, *, prompt_columns, columns, steps):
    """Return the hidden states after the prompts and after each token."""
    fill = functools.partial(prefill, stacked, columns=columns)
    token_ids, starts = left_padded(texts, prompt_columns)
    hidden, state = jax.jit(fill)(weights, token_ids, starts)
    found, step = [hidden], jax.jit(functools.partial(decode, stacked))
    for n in range(steps):
        hidden, state = step(weights, texts[np.arange(3), LENGTHS + n], state)
        found.append(hidden)
    return np.stack(found), state


def whole(stacked, texts, steps):
    """Return the same states from whole texts."""
    hidden = jax.jit(stacked.hidden)(stack_values(stacked.tree), texts)
    places = [hidden[np.arange(3), LENGTHS - 1 + n] for n in range(steps + 1)]
    return np.stack(places)


@pytest.mark.parametrize("values", [stack_values, apart_values])
def test_steps_equal_the_whole_text_far_beyond_the_window(stacked, texts, values):
    found, _ = step_by_step(
        stacked, values(stacked.tree), texts, prompt_columns=6, columns=24, steps=18
    )
    np.testing.assert_allclose(found, whole(stacked, texts, 18), atol=SAME, rtol=SAME)


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_logits_of_each_step_are_those_of_transformers(name, repository):
    """24 tokens, twice the window of the golden models or more."""
    directory = repository / "tests/golden/hf" / name
    golden = np.load(directory / "golden.npz")
    stacked = Stacked(Backbone.from_preset(str(directory)))
    config, weights = stacked.config, stack_values(stacked.tree)
    window = config.sliding_window_size
    assert window < 12 or not config.use_sliding_window_attention
    texts, lengths = golden["input_ids"].astype("int32"), golden["lengths"]
    found, _ = step_by_step(
        stacked, weights, texts, prompt_columns=6, columns=24, steps=18
    )
    table = weights["token_embedding/embeddings"]
    logits = np.asarray(unembed(found, table, soft_cap=config.final_logit_soft_cap))
    for row, prompt in enumerate(LENGTHS):
        steps = lengths[row] - prompt + 1  # what follows is padding
        np.testing.assert_allclose(
            logits[:steps, row],
            golden["logits"][row, prompt - 1 : lengths[row]],
            atol=GOLDEN,
            rtol=GOLDEN,
        )


def test_columns_of_padding_change_nothing(stacked, texts):
    found, _ = step_by_step(
        stacked,
        stack_values(stacked.tree),
        texts,
        prompt_columns=13,
        columns=32,
        steps=8,
    )
    np.testing.assert_allclose(found, whole(stacked, texts, 8), atol=SAME, rtol=SAME)


def test_local_layers_keep_a_window_and_global_ones_everything(build, texts):
    stacked = Stacked(build("gemma3", 8))
    _, state = step_by_step(
        stacked,
        stack_values(stacked.tree),
        texts,
        prompt_columns=6,
        columns=24,
        steps=1,
    )
    shapes = [keys.shape for keys, _ in state.kept["decoder_blocks"]]
    assert shapes == 5 * [(1, 3, 4, 16)] + [(1, 3, 24, 16)]
    assert [keys.shape for keys, _ in state.kept["decoder_blocks_rest"]] == [
        (2, 3, 4, 16)
    ]


def test_a_window_longer_than_the_text_takes_no_more_than_the_text(build):
    config = build("gemma2", 3, sliding_window_size=64).gemma_config
    assert places(config, "local", 24) == places(config, "global", 24) == 24


def test_fewer_columns_than_the_prompts_are_refused(build, texts):
    stacked = Stacked(build("gemma2", 3))
    with pytest.raises(ValueError, match="at least the prompts' 24, received 8"):
        prefill(stacked, stack_values(stacked.tree), texts, LENGTHS, columns=8)


def test_columns_that_the_prompts_do_not_fit_in_are_refused(stacked, texts):
    weights = stack_values(stacked.tree)
    with pytest.raises(ValueError, match="at least the prompts' 24, received 23"):
        prefill(stacked, weights, texts, np.zeros(3, "int32"), columns=23)
