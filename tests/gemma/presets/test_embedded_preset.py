"""gemma2_tiny_en: a real, small, pretrained Gemma 2 in KerasHub's form."""

import json
import os
import subprocess
import sys

from gemma.presets import open_preset
from gemma.tokenizers import GemmaTokenizer

XZ_WORDNET, XZ_SHAKESPEARE = 3.49, 2.75  # bits a byte, `xz -9`


def test_it_is_gemma_2_with_everything_on():
    config = open_preset("gemma2_tiny_en").config
    assert 2e6 <= config.parameter_count <= 6e6
    assert config.num_query_heads > config.num_key_value_heads > 1
    assert config.attention_logit_soft_cap and config.final_logit_soft_cap
    assert config.use_sliding_window_attention
    assert config.use_post_ffw_norm and config.use_post_attention_norm


def test_its_directory_is_a_preset_of_at_most_8_mb(repository):
    directory = repository / "gemma/presets/gemma2_tiny_en"
    golden = repository / "tests/golden/keras_hub/gemma2"
    names = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert names == {
        str(path.relative_to(golden))
        for path in golden.rglob("*")
        if path.is_file() and not path.name.startswith(("golden", "adapter"))
    }
    assert sum((directory / name).stat().st_size for name in names) <= 8_000_000
    stated = json.loads((directory / "config.json").read_text())
    assert stated["registered_name"] == "keras_hub>GemmaBackbone"


def test_every_weight_is_there_once():
    with open_preset("gemma2_tiny_en").weights() as weights:
        assert {weights.dtype(path).name for path in weights.paths()} == {"bfloat16"}


def test_its_vocabulary_falls_back_to_bytes():
    tokenizer = GemmaTokenizer.from_preset("gemma2_tiny_en")
    for text in ("안녕 🙂\t x", "  two  spaces\n\n", "Define the noun."):
        assert tokenizer.detokenize(tokenizer(text)) == text


def test_it_takes_far_fewer_bits_than_xz(repository):
    done = subprocess.run(
        [
            sys.executable,
            "tests/tools/bits_per_byte.py",
            "--rows=100",
            "--characters=9000",
        ],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    wordnet, shakespeare = [
        float(line.split(": ")[1].split()[0]) for line in done.stdout.splitlines()
    ]
    assert wordnet <= 0.75 * XZ_WORDNET
    assert shakespeare <= 0.85 * XZ_SHAKESPEARE
