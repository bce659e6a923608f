"""`fit` and `evaluate` on text: the arrays, the loss and the weights behind it."""

import numpy as np
import pytest

from gemma import CausalLM, GemmaCausalLM

TEXTS = ['Define the noun "sea".', "a large body of water", "sea", "water"]
PAIRS = {
    "prompts": ["Define the noun", "sea", "a large"],
    "responses": ["water", "a body of water", "sea"],
}
SAME = 1e-5


@pytest.fixture(params=["gemma2", "gemma3"])
def fresh(request, directory, gemma3_directory):
    """A compiled model with sequences of 12 tokens."""
    chosen = {"gemma2": directory, "gemma3": gemma3_directory}[request.param]
    model = CausalLM.from_preset(chosen)
    model.preprocessor.sequence_length = 12
    model.compile()
    return model


def mean_loss(model, x):
    """Cross-entropy times weight, over all positions."""
    features, labels, weights = model.preprocessor(x)
    losses = model.score(**features, scoring_mode="loss", target_ids=labels)
    return float((np.asarray(losses) * weights).sum() / weights.size)


@pytest.mark.parametrize("x", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_the_first_loss_is_that_of_the_weighted_tokens(fresh, x):
    expected = mean_loss(fresh, x)
    assert fresh.evaluate(x, verbose=0)[0] == pytest.approx(expected, abs=SAME)
    history = fresh.fit(x, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, abs=SAME)
    assert history[1] < history[0]


def test_text_and_its_arrays_train_alike(directory):
    found = []
    for is_text in (True, False):
        model = GemmaCausalLM.from_preset(directory)
        model.compile()
        x, y, weight = (TEXTS, None, None) if is_text else model.preprocessor(TEXTS)
        model.fit(x, y, 4, 1, 0, sample_weight=weight, shuffle=False)
        found.append([np.asarray(v.value) for v in model.weights])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts_may_be_held_out(fresh):
    history = fresh.fit(
        np.array(TEXTS), verbose=0, validation_data=TEXTS[:2], batch_size=4
    ).history
    assert history["val_loss"][0] == pytest.approx(
        mean_loss(fresh, TEXTS[:2]), abs=SAME
    )


def test_adapters_learn_and_the_base_does_not(directory):
    model = GemmaCausalLM.from_preset(directory)
    model.backbone.enable_lora(2)
    model.compile("adam")
    before = {v.path: np.asarray(v.value) for v in model.weights}
    model.fit(TEXTS, batch_size=4, verbose=0)
    changed = {v.path for v in model.weights if (before[v.path] != v.value).any()}
    assert changed == {path for path in before if path.endswith("lora_kernel_b")}


def test_adam_in_bfloat16_is_refused_since_it_changes_nothing(directory):
    model = GemmaCausalLM.from_preset(directory, dtype="bfloat16")
    model.compile()
    with pytest.raises(ValueError, match="Adam cannot train .* in bfloat16, where its"):
        model.fit(TEXTS)
    model.backbone.enable_lora(2)
    model.compile("adam")
    before = [np.asarray(v.value) for v in model.trainable_variables]
    model.fit(TEXTS, batch_size=4, verbose=0)
    after = [np.asarray(v.value) for v in model.trainable_variables]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_text_without_preprocessor_is_refused(build):
    model = GemmaCausalLM(build(num_layers=1))
    model.compile()
    with pytest.raises(ValueError, match="text needs a preprocessor, received None"):
        model.fit(TEXTS)


def test_labels_beside_text_are_refused(fresh):
    with pytest.raises(ValueError, match="are made from x and must not be given"):
        fresh.fit(TEXTS, np.zeros((4, 12)))
