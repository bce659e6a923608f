"""How KerasHub names Gemma's variables inside its files.

Turns a variable path (`decoder_block_1/attention/query/kernel`) into the name of the
dataset that holds it, and back into the order of layers that adapter files count by.
It refuses to know files: every fact here is a name or a number.

Source: files written by KerasHub 0.32.0 on Keras 3.15.1, kept in `tests/golden`.
"""

from __future__ import annotations

from gemma.config import Architecture, GemmaConfig

_ATTRIBUTES = {
    "pre_attention_norm": "pre_attention_norm",
    "post_attention_norm": "post_attention_norm",
    "attention/query": "attention/query_dense",
    "attention/key": "attention/key_dense",
    "attention/value": "attention/value_dense",
    "attention/query_norm": "attention/query_norm",
    "attention/key_norm": "attention/key_norm",
    "attention/attention_output": "attention/output_dense",
    "pre_ffw_norm": "pre_ffw_norm",
    "post_ffw_norm": "post_ffw_norm",
    "ffw_gating": "gating_ffw",
    "ffw_gating_2": "gating_ffw_2",
    "ffw_linear": "ffw_linear",
}
"""Layer path inside a block -> attribute path, which is what files are named by."""


def dataset_names(config: GemmaConfig) -> dict[str, str]:
    """Map every variable path to the name of the dataset that holds it."""
    return {
        path: f"{layer_group(path.rsplit('/', 1)[0], config.architecture)}/vars/0"
        for path in config.parameter_shapes()
    }


def layer_group(layer: str, architecture: Architecture) -> str:
    """Return the group of a layer that has weights, such as `token_embedding`."""
    if layer == "token_embedding":
        return "layers/reversible_embedding"
    if layer == "final_normalization":
        return "layers/rms_normalization"
    block, inner = layer.split("/", 1)
    group = block_group(int(block.rsplit("_", 1)[1]), architecture)
    return f"{group}/{_ATTRIBUTES[inner]}"


def block_group(layer: int, architecture: Architecture) -> str:
    """Return the group of decoder block `layer`; the first has no suffix."""
    return f"layers/{architecture}_decoder_block" + (f"_{layer}" if layer else "")


def group_names(config: GemmaConfig) -> dict[str, str]:
    """Map every group that Keras writes to its attribute `name`, empty ones included.

    Layers without weights have groups too; those that Keras numbers by itself count
    from the first block, as in a process that built only this model.
    """
    names = {
        "": f"{config.architecture}_backbone",
        "layers/input_layer": "token_ids",
        "layers/input_layer_1": "padding_mask",
        "layers/reversible_embedding": "token_embedding",
        "layers/rms_normalization": "final_normalization",
    }
    for layer in range(config.num_layers):
        group = block_group(layer, config.architecture)
        suffix = f"_{layer}" if layer else ""
        names[group] = f"decoder_block_{layer}"
        names[f"{group}/attention"] = "attention"
        names[f"{group}/attention/dropout_layer"] = f"dropout{suffix}"
        names[f"{group}/attention/rope_layer"] = f"rotary_embedding{suffix}"
        names[f"{group}/attention/softmax"] = f"softmax{suffix}"
        if config.dropout:
            names[f"{group}/attention_dropout"] = "attention_dropout"
            names[f"{group}/feedforward_dropout"] = "feedforward_dropout"
        for path in config.block_shapes():
            inner = path.rsplit("/", 1)[0]
            names[f"{group}/{_ATTRIBUTES[inner]}"] = inner.rsplit("/", 1)[-1]
    return names


def adapter_indices(config: GemmaConfig) -> dict[str, int]:
    """Map every projection's path to the number that adapter files give it.

    KerasHub counts the layers that have weights: the embedding first, then each block
    before its children, and the children in the reverse of their creation.
    """
    order = ["", "ffw_linear", "ffw_gating_2", "ffw_gating"]
    order += ["post_ffw_norm"] if config.use_post_ffw_norm else []
    order += ["pre_ffw_norm", "attention", "attention/attention_output"]
    if config.use_query_key_norm:
        order += ["attention/key_norm", "attention/query_norm"]
    order += ["attention/value", "attention/key", "attention/query"]
    order += ["post_attention_norm"] if config.use_post_attention_norm else []
    order += ["pre_attention_norm"]
    kernels = {path for path in config.block_shapes() if path.endswith("/kernel")}
    return {
        f"decoder_block_{layer}/{inner}": 1 + layer * len(order) + offset
        for layer in range(config.num_layers)
        for offset, inner in enumerate(order)
        if f"{inner}/kernel" in kernels
    }
