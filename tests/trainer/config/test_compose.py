import pytest
import yaml

from trainer.__main__ import compose
from trainer.config.choices import conf_directory, groups
from trainer.config.compose import from_mapping, from_yaml, to_yaml
from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig

ORIGINAL = """
    gemma_2b_en gemma_instruct_2b_en gemma_1.1_instruct_2b_en code_gemma_1.1_2b_en
    code_gemma_2b_en gemma_7b_en gemma_instruct_7b_en gemma_1.1_instruct_7b_en
    code_gemma_7b_en code_gemma_instruct_7b_en code_gemma_1.1_instruct_7b_en
    gemma2_2b_en gemma2_instruct_2b_en gemma2_9b_en gemma2_instruct_9b_en
    gemma2_27b_en gemma2_instruct_27b_en shieldgemma_2b_en shieldgemma_9b_en
    shieldgemma_27b_en
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", [*ORIGINAL, "gemma2_tiny_en"])
def test_every_preset_composes_to_its_name(name):
    assert compose([f"+preset={name}"]).preset.name == name


def test_the_choice_of_presets_is_the_table_of_presets():
    from gemma.presets import BUILT_IN

    assert set(groups()["preset"]) == set(BUILT_IN)


def test_every_option_of_every_group_composes():
    needs = {
        ("data", "jsonl"): ["data.path=x"],
        ("data", "tfds"): ["data.name=x", "data.data_dir=x"],
        ("launch", "tpu_vm"): ["run.root=gs://x"],
        ("launch", "tpu_queued"): ["run.root=gs://x"],
        ("launch", "gke"): ["run.root=gs://x", "launch.image=x"],
        ("launch", "skypilot"): ["run.root=gs://x"],
    }
    for group, options in groups().items():
        for option in options:
            compose([f"{group}={option}", *needs.get((group, option), [])])


def test_group_files_are_short():
    long = [
        str(file)
        for file in conf_directory().rglob("*.yaml")
        if file.parent.name not in ("conf", "experiment")
        and file.read_text().count("\n") > 12
    ]
    assert long == []


def test_a_configuration_comes_back_from_its_yaml():
    config = compose(["mesh=1x8", "lora.targets=[query,key]", "generate.prompt=a: #b"])
    text = to_yaml(config)
    assert "\n  from: last\n" in text
    assert yaml.safe_load(text)["lora"]["targets"] == ["query", "key"]
    assert from_yaml(text, origin="config.yaml") == config


def test_an_interpolation_in_a_stored_file_stays_text(monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    text = "tracker:\n  project: ${oc.env:SECRET}\n"
    assert from_yaml(text, origin="f").tracker.project == "${oc.env:SECRET}"


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("- 1", "list"),
        ("a: [", "while parsing"),
        ("a: &x 1\nb: *x", "anchors"),
        ("a: " + "b" * 2_000_000, "1 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, received):
    with pytest.raises(ConfigError) as caught:
        from_yaml(text, origin="runs/a/config.yaml")
    assert caught.value.key == "runs/a/config.yaml"
    assert received in caught.value.received


def test_an_unknown_key_of_a_file_is_named_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        from_mapping({"lora": {"rnak": 3}}, origin="config.yaml")
    assert caught.value.fix == "lora.rank=3"
    assert "config.yaml" in caught.value.expected


def test_a_partial_mapping_keeps_defaults_elsewhere():
    expected = RunConfig(seed=3)
    assert from_mapping({"seed": 3}, origin="f") == expected
