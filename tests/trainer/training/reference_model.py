"""Gemma 2 and 3 written plainly, to measure the engine against in any precision.

Turns arrays of a state tree and a batch into the loss and all its gradients, computed
in the dtype of choice: whole matrices of scores and logits, one layer after another,
nothing recomputed, nothing in parts. It shares no code with what it measures.
"""

import jax
import jax.numpy as jnp
import numpy as np


def loss_and_gradients(config, weights, batch, dtype, *, z_loss, label_smoothing):
    """Return the mean minimised loss, and its gradient by path, as NumPy arrays.

    Args:
        config: The model's dimensions.
        weights: Arrays of the state tree.
        batch: Arrays [sequences, length].
        dtype: In which everything is computed.
        z_loss: Coefficient of the squared normaliser.
        label_smoothing: Share of the target that is spread over the vocabulary.
    """
    with jax.enable_x64(dtype == "float64"):
        weights = {p: jnp.asarray(np.asarray(w), dtype) for p, w in weights.items()}
        batch = {name: jnp.asarray(x) for name, x in batch.items()}

        def mean_loss(weights):
            hidden = _hidden(config, weights, batch)
            table = weights["token_embedding/embeddings"]
            logits = _capped(hidden @ table.T, config.final_logit_soft_cap)
            losses = _losses(logits, batch["labels"], z_loss, label_smoothing)
            return (losses * batch["loss_mask"]).sum() / batch["loss_mask"].sum()

        value, gradients = jax.jit(jax.value_and_grad(mean_loss))(weights)
        return float(value), {p: np.asarray(g) for p, g in gradients.items()}


def _losses(logits, labels, z_loss, label_smoothing):
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    target = (1 - label_smoothing) * target + label_smoothing / logits.shape[-1]
    return normaliser - (target * logits).sum(-1) + z_loss * normaliser**2


def _hidden(config, weights, batch):
    x = weights["token_embedding/embeddings"][batch["token_ids"]]
    x = x * jnp.asarray(config.hidden_dim, x.dtype) ** 0.5
    for layer in range(config.num_layers):
        x = _block(config, _layer(config, weights, layer), layer, x, batch)
    return _norm(x, weights["final_normalization/scale"], config)


def _layer(config, weights, layer):
    """Return the weights of a layer by their path below the block."""
    whole = config.num_layers // len(config.attention_pattern)
    whole *= len(config.attention_pattern)
    stack, index = "decoder_blocks/", layer
    if layer >= whole:
        stack, index = "decoder_blocks_rest/", layer - whole
    return {
        path.removeprefix(stack): w[index]
        for path, w in weights.items()
        if path.startswith(stack)
    }


def _block(config, weights, layer, x, batch):
    kind = config.attention_kind(layer)
    mixed = _attention(
        config,
        weights,
        kind,
        _norm(x, weights["pre_attention_norm/scale"], config),
        batch,
    )
    x = x + _norm(mixed, weights["post_attention_norm/scale"], config)
    wide = _norm(x, weights["pre_ffw_norm/scale"], config)
    gate = jax.nn.gelu(wide @ weights["ffw_gating/kernel"], approximate=True)
    narrow = (gate * (wide @ weights["ffw_gating_2/kernel"])) @ weights[
        "ffw_linear/kernel"
    ]
    return x + _norm(narrow, weights["post_ffw_norm/scale"], config)


def _attention(config, weights, kind, x, batch):
    query, key, value = (
        _projected(weights, f"attention/{name}", x)
        for name in ("query", "key", "value")
    )
    if "attention/query_norm/scale" in weights:
        query = _norm(query, weights["attention/query_norm/scale"], config)
        key = _norm(key, weights["attention/key_norm/scale"], config)
    rope, positions = config.rope(kind), batch["positions"]
    query, key = (_rotated(h, positions, rope) for h in (query, key))
    groups = config.num_query_heads // config.num_key_value_heads
    key, value = (jnp.repeat(h, groups, axis=2) for h in (key, value))
    scores = jnp.einsum("bqnh,bknh->bnqk", query * config.query_scale, key)
    scores = _capped(scores, config.attention_logit_soft_cap)
    window = config.sliding_window_size if kind == "local" else None
    seen = _visible(batch["segment_ids"], window)[:, None]
    shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bnqk,bknh->bqnh", shares, value)
    return jnp.einsum(
        "bqnh,nhd->bqd", mixed, weights["attention/attention_output/kernel"]
    )


def _visible(segments, window):
    places = np.arange(segments.shape[1])
    distance = places[:, None] - places[None]
    near = (distance >= 0) & (distance < (window or len(places)))
    return near & (segments[:, :, None] == segments[:, None])


def _projected(weights, path, x):
    projected = jnp.einsum("bsd,ndh->bsnh", x, weights[f"{path}/kernel"])
    if f"{path}/lora_kernel_a" in weights:
        narrow = jnp.einsum("bsd,ndr->bsnr", x, weights[f"{path}/lora_kernel_a"])
        projected += jnp.einsum(
            "bsnr,rh->bsnh", narrow, weights[f"{path}/lora_kernel_b"]
        )
    return projected


def _rotated(x, positions, rope):
    half = x.shape[-1] // 2
    turns = rope.max_wavelength ** -(jnp.arange(half, dtype=x.dtype) / half)
    angles = positions[..., None, None].astype(x.dtype) * turns / rope.scaling_factor
    first, second = x[..., :half], x[..., half:]
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def _norm(x, scale, config):
    mean_square = jnp.mean(x * x, axis=-1, keepdims=True)
    return x / jnp.sqrt(mean_square + config.layer_norm_epsilon) * (1 + scale)


def _capped(x, soft_cap):
    return soft_cap * jnp.tanh(x / soft_cap) if soft_cap else x
