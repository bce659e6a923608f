"""The table of built-in presets: what is published of each, in literal numbers."""

import json
import subprocess
import sys

import pytest

from gemma.config import Gemma3Config, GemmaConfig
from gemma.presets import BUILT_IN, open_preset

# Source: the presets of KerasHub 0.32.0 (tests/peers/test_preset_facts.py compares)
PUBLISHED = {
    "gemma_2b_en": (2_506_172_416, "keras/gemma/keras/gemma_2b_en/3"),
    "gemma_instruct_2b_en": (2_506_172_416, "keras/gemma/keras/gemma_instruct_2b_en/3"),
    "gemma_1.1_instruct_2b_en": (
        2_506_172_416,
        "keras/gemma/keras/gemma_1.1_instruct_2b_en/4",
    ),
    "gemma_7b_en": (8_537_680_896, "keras/gemma/keras/gemma_7b_en/4"),
    "gemma_instruct_7b_en": (8_537_680_896, "keras/gemma/keras/gemma_instruct_7b_en/4"),
    "gemma_1.1_instruct_7b_en": (
        8_537_680_896,
        "keras/gemma/keras/gemma_1.1_instruct_7b_en/5",
    ),
    "code_gemma_1.1_2b_en": (
        2_506_172_416,
        "keras/codegemma/keras/code_gemma_1.1_2b_en/2",
    ),
    "code_gemma_2b_en": (2_506_172_416, "keras/codegemma/keras/code_gemma_2b_en/2"),
    "code_gemma_7b_en": (8_537_680_896, "keras/codegemma/keras/code_gemma_7b_en/3"),
    "code_gemma_instruct_7b_en": (
        8_537_680_896,
        "keras/codegemma/keras/code_gemma_instruct_7b_en/3",
    ),
    "code_gemma_1.1_instruct_7b_en": (
        8_537_680_896,
        "keras/codegemma/keras/code_gemma_1.1_instruct_7b_en/3",
    ),
    "gemma2_2b_en": (2_614_341_888, "keras/gemma2/keras/gemma2_2b_en/2"),
    "gemma2_instruct_2b_en": (
        2_614_341_888,
        "keras/gemma2/keras/gemma2_instruct_2b_en/2",
    ),
    "gemma2_9b_en": (9_241_705_984, "keras/gemma2/keras/gemma2_9b_en/4"),
    "gemma2_instruct_9b_en": (
        9_241_705_984,
        "keras/gemma2/keras/gemma2_instruct_9b_en/4",
    ),
    "gemma2_27b_en": (27_227_128_320, "keras/gemma2/keras/gemma2_27b_en/3"),
    "gemma2_instruct_27b_en": (
        27_227_128_320,
        "keras/gemma2/keras/gemma2_instruct_27b_en/3",
    ),
    "shieldgemma_2b_en": (
        2_614_341_888,
        "google/shieldgemma/keras/shieldgemma_2b_en/2",
    ),
    "shieldgemma_9b_en": (
        9_241_705_984,
        "google/shieldgemma/keras/shieldgemma_9b_en/2",
    ),
    "shieldgemma_27b_en": (
        27_227_128_320,
        "google/shieldgemma/keras/shieldgemma_27b_en/2",
    ),
    "gemma3_270m": (268_098_176, "keras/gemma3/keras/gemma3_270m/3"),
    "gemma3_instruct_270m": (268_098_176, "keras/gemma3/keras/gemma3_instruct_270m/4"),
    "gemma3_1b": (999_885_952, "keras/gemma3/keras/gemma3_1b/3"),
    "gemma3_instruct_1b": (999_885_952, "keras/gemma3/keras/gemma3_instruct_1b/3"),
    "gemma3_4b_text": (3_880_099_328, "keras/gemma3/keras/gemma3_4b_text/2"),
    "gemma3_instruct_4b_text": (
        3_880_099_328,
        "keras/gemma3/keras/gemma3_instruct_4b_text/3",
    ),
    "gemma3_12b_text": (11_765_788_416, "keras/gemma3/keras/gemma3_12b_text/3"),
    "gemma3_instruct_12b_text": (
        11_765_788_416,
        "keras/gemma3/keras/gemma3_instruct_12b_text/3",
    ),
    "gemma3_27b_text": (27_009_002_240, "keras/gemma3/keras/gemma3_27b_text/4"),
    "gemma3_instruct_27b_text": (
        27_009_002_240,
        "keras/gemma3/keras/gemma3_instruct_27b_text/3",
    ),
}
TINY_PARAMETERS = 3_805_440  # of the files inside the package

BUILD_ALL = """
import json, pathlib, time
from gemma.abstract import build_abstract
from gemma.backbones.families import backbone_class
from gemma.presets import BUILT_IN
counts = {}
for name, facts in BUILT_IN.items():
    cls, config = backbone_class(facts.config), facts.config
    counts[name] = build_abstract(lambda: cls(**config.to_mapping())).count_params()
status = pathlib.Path("/proc/self/status").read_text()
print(json.dumps({
    "counts": counts,
    "bytes": int(status.split("VmHWM:")[1].split()[0]) * 1024,
    "seconds": time.process_time(),
}))
"""


def test_names_and_places_are_those_that_are_published():
    handles = {name: facts.handle for name, facts in BUILT_IN.items()}
    assert handles == {
        **{name: f"kaggle://{handle}" for name, (_, handle) in PUBLISHED.items()},
        "gemma2_tiny_en": None,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_dimensions_give_the_published_parameter_count(name):
    assert BUILT_IN[name].parameter_count == PUBLISHED[name][0]


def test_every_preset_builds_with_its_count_in_a_minute_and_1500_megabytes(repository):
    """Keras models without arrays, one after the other in one process.

    Seconds are those of the processor: tests that run beside this one do not count.
    """
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ALL],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    built = json.loads(done.stdout.splitlines()[-1])
    assert built["counts"] == {
        **{name: count for name, (count, _) in PUBLISHED.items()},
        "gemma2_tiny_en": TINY_PARAMETERS,
    }
    assert built["bytes"] < 1.5e9
    assert built["seconds"] < 60


def test_the_table_opens_without_files_and_network():
    for name, facts in BUILT_IN.items():
        preset = open_preset(name)
        assert preset.config == facts.config
        assert preset.name == name
        assert (preset.form == "table") == (facts.handle is not None)


def test_27b_divides_its_queries_by_hidden_dim_over_heads():
    normalised = {
        name: facts.config.query_scale**-2
        for name, facts in BUILT_IN.items()
        if not facts.config.query_head_dim_normalize
    }
    assert normalised == pytest.approx(
        {
            "gemma2_27b_en": 144,
            "gemma2_instruct_27b_en": 144,
            "shieldgemma_27b_en": 144,
            "gemma3_27b_text": 168,
            "gemma3_instruct_27b_text": 168,
        }
    )


def test_gemma_3_is_of_its_own_class_and_long_from_4b_on():
    long = {name for name in BUILT_IN if name.endswith("_text")}
    assert len(long) == 6
    for name, facts in BUILT_IN.items():
        config = facts.config
        if not name.startswith("gemma3_"):
            assert type(config) is GemmaConfig
            continue
        assert type(config) is Gemma3Config
        assert config.use_query_key_norm
        assert config.use_post_ffw_norm and config.use_post_attention_norm
        assert config.attention_logit_soft_cap is config.final_logit_soft_cap is None
        assert config.rope("global").scaling_factor == (8.0 if name in long else 1.0)
        assert config.sliding_window_size == (1024 if name in long else 512)
