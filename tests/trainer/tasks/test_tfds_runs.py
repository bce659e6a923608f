"""A whole run on a real TFDS data set, prepared here as array_record."""

import tensorflow_datasets as tfds

from trainer.tracking import read_metrics


class Sums(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = tfds.features.FeaturesDict({"question": text, "answer": text})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for n in range(60):
            yield n, {"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."}


def test_a_run_trains_from_a_prepared_data_set(runs, tmp_path):
    builder = Sums(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    builder.download_and_prepare()
    code = runs.here(
        "run.name=sums",
        "data=tfds",
        "data.name=sums",
        f"data.data_dir={tmp_path / 'tfds'}",
        "data.split=train[:80%]",
        "data.eval_split=test",
        "data.columns.prompt=question",
        "data.columns.response=answer",
        "data.sequence_length=64",
        "optimizer.learning_rate=1e-2",
    )
    assert code == 0
    metrics = read_metrics(runs.root / "sums")
    losses = [m["eval/loss"] for m in metrics if "eval/loss" in m]
    assert losses[-1] < losses[0]
