"""The model card says what was measured, and under which terms the model is."""

import pytest
from omegaconf import OmegaConf

from trainer import storage
from trainer.artifacts.card import CardFacts, licence_of, write_card
from trainer.tracking import Sample

FACTS = CardFacts(
    name="gemma2_tiny_en-wordnet-1a2b3c4d",
    preset="gemma2_tiny_en",
    data="WordNet definitions and example sentences, 4,000 rows",
    data_digest="0f1e2d3c",
    command="python -m trainer lora.rank=4",
    where="'run.root=my runs' run.name=gemma2_tiny_en-wordnet-1a2b3c4d",
    adapter=True,
    full_preset=True,
    lora={"rank": 4, "alpha": 8.0, "targets": ["query", "value"]},
    environment={"jax": "0.10.2"},
)
METRICS = [
    {"step": 0, "eval/loss": 4.0},
    {"step": 1, "train/loss": 4.5},
    {"step": 100, "train/loss": 3.0, "eval/loss": 3.0},
]
SAMPLE = Sample(prompt="a|b", reference="<b>", before="*x*\ny", after="`z`")


def card(tmp_path, facts=FACTS, metrics=METRICS, samples=(SAMPLE,)):
    write_card(tmp_path / "README.md", facts, metrics=metrics, samples=samples)
    return storage.read_text(tmp_path / "README.md")


def front_matter(text):
    return OmegaConf.to_container(OmegaConf.create(text.split("---\n")[1]))


def test_the_card_names_base_data_numbers_and_command(tmp_path):
    text = card(tmp_path)
    assert "| base model | `gemma2_tiny_en` |" in text
    assert "| fingerprint of the data | `0f1e2d3c` |" in text
    assert "| held-out loss (content and end of turn) | 4 | 3 | -25.0 % |" in text
    assert "    python -m trainer lora.rank=4\n" in text
    assert 'load_lora_weights("artifacts/lora/adapter.lora.h5")' in text
    assert "were not evaluated" in text


def test_a_hub_understands_its_front_matter(tmp_path):
    facts = front_matter(card(tmp_path))
    assert facts["license"] == "apache-2.0"
    assert facts["tags"] == ["gemma", "jax", "keras", "lora"]
    assert "base_model" not in facts


def test_samples_are_shown_literally_in_their_cells(tmp_path):
    row = r"| a&#124;b | &lt;b> | \*x\* y | \`z\` |"
    assert row in card(tmp_path)


def test_a_card_tells_where_its_run_is(tmp_path):
    words = "'run.root=my runs' run.name=gemma2_tiny_en-wordnet-1a2b3c4d"
    assert f"trainer task=generate {words} generate.prompt=" in card(tmp_path)


def test_a_card_without_measurements_claims_nothing(tmp_path):
    text = card(tmp_path, metrics=[], samples=())
    assert "says nothing about the quality" in text and "## Samples" not in text


def test_full_training_has_no_words_about_adapters(tmp_path):
    full = CardFacts(
        name="full",
        preset="hf://google/gemma-2-2b/revision",
        data="rows",
        data_digest="00",
        command="python -m trainer lora=none",
        where="run.root=outputs run.name=full",
        adapter=False,
        full_preset=True,
    )
    text = card(tmp_path, full)
    assert "every weight trained" in text and "load_lora_weights" not in text
    assert front_matter(text)["base_model"] == "google/gemma-2-2b"


@pytest.mark.parametrize(
    ("preset", "identifier"),
    [
        ("gemma2_tiny_en", "apache-2.0"),
        ("gemma2_9b_en", "gemma"),
        ("hf://google/gemma-2-2b", "gemma"),
        ("/models/mine", "other"),
    ],
)
def test_the_licence_follows_the_base_model(preset, identifier):
    assert licence_of(preset).identifier == identifier
