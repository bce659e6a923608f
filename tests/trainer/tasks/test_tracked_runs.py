"""Runs under W&B without a network, and several runs compared."""

from trainer.tracking import read_events


def test_wandb_goes_offline_without_a_key(runs, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(runs.root))
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = ("tracker=wandb", "tracker.mode=offline", "trainer.num_train_steps=2")
    assert runs.here("run.name=tracked", *words) == 0
    assert "wandb sync" in capsys.readouterr().out
    offline = list((runs.root / "tracked").rglob("run-*.wandb"))
    assert len(offline) == 1
    assert read_events(runs.root / "tracked", "artifact")


def test_the_best_step_can_make_the_artifacts(runs, capsys):
    words = ("optimizer.learning_rate=3", "artifacts.from=best")
    assert runs.here("run.name=diverges", *words, "optimizer.clip_norm=null") == 0
    losses = runs.evaluations("diverges")
    merged = read_events(runs.root / "diverges", "merged")[0]
    kept = {step: loss for step, loss in losses.items() if step in (3, 6)}
    assert merged["trained"] <= max(kept.values())
    assert "best kept" in capsys.readouterr().out
