"""`score`: logits and losses of given tokens, layer by layer."""

import jax
import numpy as np
import pytest

IDS = np.array([[2, 40, 41, 9, 30], [2, 7, 8, 100, 3]])
SAME = 1e-5  # float32, eager and compiled


def test_logits_are_the_models(model):
    expected = model({"token_ids": IDS, "padding_mask": np.ones_like(IDS)})
    logits = model.score(IDS)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, expected, atol=SAME, rtol=SAME)


def test_losses_are_the_negative_log_likelihoods(model):
    targets = np.roll(IDS, -1, axis=1)
    losses = model.score(IDS, scoring_mode="loss", target_ids=targets)
    log_likely = jax.nn.log_softmax(model.score(IDS), axis=-1)
    expected = -np.take_along_axis(np.asarray(log_likely), targets[..., None], -1)
    np.testing.assert_allclose(losses, expected[..., 0], atol=SAME, rtol=SAME)


def test_padding_is_not_attended_to(model):
    mask = np.ones_like(IDS)
    mask[:, 1] = 0
    changed = IDS.copy()
    changed[:, 1] = 55
    before, after = (np.array(model.score(ids, mask)) for ids in (IDS, changed))
    np.testing.assert_allclose(before[:, 2:], after[:, 2:], atol=SAME)


def test_a_function_sees_every_layer(model):
    seen = {}
    logits = model.score(IDS, layer_intercept_fn=lambda x, i: seen.setdefault(i, x))
    assert list(seen) == [-1, *range(model.backbone.gemma_config.num_layers)]
    np.testing.assert_array_equal(
        seen[-1], np.asarray(model.backbone.token_embedding(IDS))
    )
    last = model.backbone.get_layer("final_normalization")(seen[max(seen)])
    np.testing.assert_array_equal(
        logits, model.backbone.token_embedding(last, reverse=True)
    )


@pytest.mark.parametrize("layer", [-1, 0])
def test_what_a_function_returns_goes_on(model, layer):
    def doubled(x, i):
        return x * 2 if i == layer else x

    changed = model.score(IDS, layer_intercept_fn=doubled)
    assert np.abs(np.asarray(changed - model.score(IDS))).max() > 0.01


def test_gradients_reach_the_embeddings(model):
    """What interpretability asks: which token the loss hangs on."""

    def loss(offset):
        def add(x, i):
            return x + offset if i == -1 else x

        return model.score(IDS, None, "loss", add, target_ids=np.roll(IDS, -1, 1))[
            :, 2
        ].sum()

    width = model.backbone.gemma_config.hidden_dim
    gradient = np.asarray(jax.grad(loss)(np.zeros((2, 5, width), "float32")))
    assert np.abs(gradient[:, :3]).max(-1).min() > 0
    np.testing.assert_array_equal(gradient[:, 3:], 0)


def test_another_mode_is_refused(model):
    with pytest.raises(ValueError, match="'logits' or 'loss', received 'nats'"):
        model.score(IDS, scoring_mode="nats")


def test_a_loss_without_targets_is_refused(model):
    with pytest.raises(ValueError, match="needs target_ids, received None"):
        model.score(IDS, scoring_mode="loss")
