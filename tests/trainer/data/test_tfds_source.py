"""A real TFDS builder, prepared as array_record and trained from without TensorFlow."""

import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from trainer.config.errors import ConfigError, DataError
from trainer.config.schema import ColumnsConfig, DataConfig
from trainer.data import open_data
from trainer.data.tfds import find_prepared, open_tfds

COLUMNS = ColumnsConfig(prompt="question", response="answer")
TRAIN_FROM_IT = """
import sys
from gemma.tokenizers import GemmaTokenizer
from trainer.config.schema import ColumnsConfig, DataConfig
from trainer.data import open_data
columns = ColumnsConfig(prompt="question", response="answer")
config = DataConfig(
    source="tfds", name="riddles", data_dir=sys.argv[1], columns=columns
)
data = open_data(config, GemmaTokenizer(sys.argv[2]), seed=0, global_batch_size=2)
print(next(data.train.batches()).facts.rows, "tensorflow" in sys.modules)
"""


class Riddles(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict({"question": text, "answer": text})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._rows(40), "test": self._rows(5)}

    def _generate_examples(self):
        yield from ()  # the splits bring their own rows

    def _rows(self, count):
        for number in range(count):
            yield number, {"question": f"q{number} é", "answer": f"a{number}"}


class Chats(Riddles):
    def _info(self):
        text = tfds.features.Text()
        message = tfds.features.FeaturesDict({"role": text, "content": text})
        features = {"messages": tfds.features.Sequence(message)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _rows(self, count):
        for number in range(count):
            ask = {"role": "user", "content": f"q{number}"}
            answer = {"role": "model", "content": f"a{number}"}
            yield number, {"messages": [ask, answer]}


class Latin(Riddles):
    def _rows(self, count):
        for number in range(count):
            yield number, {"question": "café".encode("latin-1"), "answer": "secret"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("tfds"))
    for builder in (Riddles, Chats, Latin):
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


def config(data_dir, **options):
    options = {"name": "riddles", "columns": COLUMNS} | options
    return DataConfig(source="tfds", data_dir=data_dir, **options)


def test_a_prepared_data_set_is_trained_from(data_dir, tokenizer):
    data = open_data(
        config(data_dir, eval_split="test", sequence_length=64),
        tokenizer,
        seed=0,
        global_batch_size=4,
    )
    assert (len(data.train.rows), data.evaluation.facts.rows) == (40, 5)
    prompts = {prompt for prompt, _ in data.evaluation.prompts(5)}
    assert prompts == {f"q{n} é" for n in range(5)}
    rows = 0
    for step in data.train.batches():
        rows += step.facts.rows
        if step.position.epoch:
            break
    assert rows >= 40


def test_tensorflow_is_never_imported(data_dir, repository):
    vocabulary = repository / "tests/golden/tiny2k.spm"
    command = [sys.executable, "-c", TRAIN_FROM_IT, data_dir, str(vocabulary)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, imported = done.stdout.split()
    assert (int(rows) > 0, imported) == (True, "False")


def test_slices_of_splits_are_read(data_dir):
    assert len(open_tfds(config(data_dir), "train[:10%]", key="data.split")) == 4
    assert len(open_tfds(config(data_dir), "train[5:]", key="data.split")) == 35


def test_chats_are_read(data_dir):
    chats = open_tfds(config(data_dir, name="chats"), "test", key="data.split")
    turns = [tuple(turn) for turn in chats.read(0).turns]
    number = turns[0][1][1:]
    assert turns == [("user", f"q{number}"), ("model", f"a{number}")]


def test_names_may_have_versions(data_dir):
    for name in ("riddles", "riddles:1.0.0", "riddles/1.0.0"):
        assert find_prepared(name, data_dir).name == "1.0.0"


def test_the_newest_version_of_the_only_config_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0"):
        (tmp_path / "set" / "large" / version).mkdir(parents=True)
    assert find_prepared("set", str(tmp_path)).name == "1.10.0"
    assert find_prepared("set/large:1.9.0", str(tmp_path)).name == "1.9.0"


def test_the_directory_may_come_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert find_prepared("riddles", None).name == "1.0.0"


def test_what_is_not_prepared_fails_at_once_with_the_place_looked_in(data_dir):
    started = time.monotonic()
    with pytest.raises(DataError) as refused:
        open_tfds(config(data_dir, name="ridles"), "train", key="data.split")
    assert time.monotonic() - started < 5
    assert f"ridles in {data_dir}" in refused.value.expected
    assert refused.value.fix == "data.name=riddles"


def test_an_empty_directory_says_how_to_prepare(tmp_path):
    with pytest.raises(DataError, match="file_format='array_record'"):
        find_prepared("riddles", str(tmp_path))


def test_other_names_are_listed(data_dir):
    with pytest.raises(DataError, match="choose one of chats, latin, riddles"):
        find_prepared("mnist", data_dir)


@pytest.mark.parametrize("split", ["nope", "train[zzz"])
def test_an_unknown_split_is_refused(data_dir, split):
    with pytest.raises(DataError) as refused:
        open_tfds(config(data_dir), split, key="data.split")
    assert f"split {split} of" in refused.value.expected
    assert "check the split's name" in refused.value.fix


def test_a_data_set_of_another_format_is_refused(tmp_path):
    builder = Riddles(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    info = tmp_path / "riddles/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="prepared as array_record"):
        open_tfds(config(str(tmp_path)), "train", key="data.split")


def test_a_name_is_needed(data_dir):
    with pytest.raises(ConfigError, match="the name of a prepared TFDS data set"):
        open_tfds(config(data_dir, name=None), "train", key="data.split")


def test_bad_records_are_named_by_number(data_dir, tokenizer):
    wrong = config(data_dir, columns=ColumnsConfig())
    with pytest.raises(DataError) as refused:
        open_data(wrong, tokenizer, seed=0, global_batch_size=1)
    first = refused.value.received.splitlines()[1]
    assert first.startswith("riddles/1.0.0 train:0 has neither 'prompt'")
    assert refused.value.received.endswith("and 20 more")
    assert refused.value.key == "data.name"


def test_bytes_that_are_no_text_are_bad_records(data_dir, tokenizer):
    with pytest.raises(DataError) as refused:
        open_data(
            config(data_dir, name="latin"), tokenizer, seed=0, global_batch_size=1
        )
    assert "latin/1.0.0 train:0 is not UTF-8 at byte 3" in refused.value.received
    assert "secret" not in str(refused.value)


def test_the_digest_knows_the_split(data_dir):
    splits = ("train", "train[:50%]", "test")
    digests = {open_tfds(config(data_dir), s, key="k").digest() for s in splits}
    assert len(digests) == 3
