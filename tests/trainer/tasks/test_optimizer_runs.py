"""Runs with averages and with terms beside the loss, and what a run tells of them."""

import re

import pytest

SETTINGS = (
    "optimizer=muon",
    "trainer.eval_every_steps=2",
    "trainer.sample_prompts=0",
    "data.eval_rows=8",
    "artifacts.preset=false",
)
AVERAGED = (*SETTINGS, "optimizer.ema_decay=0.5")
PRINTED = 1e-6  # digits after the point of a printed loss


@pytest.fixture(scope="module")
def trained(runs_below, tmp_path_factory):
    """A run of four steps without averages, and one with them."""
    made = runs_below(tmp_path_factory.mktemp("averages"))
    assert made.here(*SETTINGS, "trainer.num_train_steps=4", "run.name=plain") == 0
    assert made.here(*AVERAGED, "trainer.num_train_steps=4", "run.name=averaged") == 0
    return made


def evaluated(runs, capsys, *words):
    capsys.readouterr()
    assert runs.here("task=evaluate", "data.eval_rows=8", *words) == 0
    return float(re.search(r"held-out loss +([\d.]+)", capsys.readouterr().out)[1])


def test_averages_change_what_is_evaluated_and_not_what_is_trained(trained):
    assert trained.losses("averaged") == trained.losses("plain")
    plain, averaged = trained.evaluations("plain"), trained.evaluations("averaged")
    assert averaged[0] == plain[0]
    assert abs(averaged[4] - plain[4]) > 1e-4


def test_a_run_and_its_adapter_hold_the_averages(trained, capsys):
    loss = trained.evaluations("averaged")[4]
    by_name = evaluated(trained, capsys, "run.name=averaged")
    assert by_name == pytest.approx(loss, abs=PRINTED)
    adapter = trained.root / "averaged" / "artifacts" / "lora" / "adapter.lora.h5"
    by_file = evaluated(
        trained, capsys, f"lora.path={adapter}", f"run.root={trained.root}/none"
    )
    assert by_file == pytest.approx(loss, abs=PRINTED)


def test_terms_beside_the_loss_are_told_apart_from_it(trained):
    words = ("run.name=terms", "trainer.z_loss=0.001", "trainer.label_smoothing=0.1")
    assert trained.here(*SETTINGS, "trainer.num_train_steps=4", *words) == 0
    first = next(m for m in trained.metrics("terms") if "train/loss" in m)
    assert first["train/loss"] == trained.losses("plain")[1]
    assert first["train/minimised_loss"] > first["train/loss"]
    assert trained.losses("terms")[4] != trained.losses("plain")[4]
    assert trained.evaluations("terms")[0] == trained.evaluations("plain")[0]


def test_averages_go_on_where_they_were(trained):
    halves = (*AVERAGED, "run.name=halves")
    assert trained.here(*halves, "trainer.num_train_steps=2") == 0
    assert trained.here(*halves, "trainer.num_train_steps=4") == 0
    assert trained.evaluations("halves") == trained.evaluations("averaged")


def test_a_run_tells_what_muon_really_updates(runs, capsys):
    assert runs.here(*SETTINGS, "trainer.num_train_steps=1") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "by muon 4 of 8 arrays: decoder_blocks/attention/query/lora_kernel_b, "
        "decoder_blocks/attention/value/lora_kernel_b, "
    ) in told
    assert "by adamw 4 of 8 arrays: decoder_blocks/attention/query/lora_k" in told
