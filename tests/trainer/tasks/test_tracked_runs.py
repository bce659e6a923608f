"""Runs under W&B without a network, and several runs compared."""

import pytest

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


def test_the_best_step_can_make_the_artifacts(runs, repository, capsys):
    """Training on one answer alone makes the held-out loss rise."""
    rows = runs.root / "rows.jsonl"
    rows.write_text('{"prompt": "p", "response": "aaaa aaaa aaaa"}\n' * 99)
    heldout = repository / "trainer/data/wordnet/heldout.jsonl"
    data = ("data=jsonl", f"data.path={rows}", f"data.eval_path={heldout}")
    words = ("lora=none", "optimizer.learning_rate=0.03", "artifacts.from=best")
    rhythm = ("trainer.eval_every_steps=2", "checkpoint.every_steps=2")
    assert runs.here("run.name=overshoots", *data, *words, *rhythm) == 0
    kept = {s: x for s, x in runs.evaluations("overshoots").items() if s > 0}
    best = min(kept, key=kept.get)
    assert best != 6, "the last step must not be the best for this to show anything"
    merged = read_events(runs.root / "overshoots", "merged")[0]
    assert merged["trained"] == pytest.approx(kept[best], rel=1e-6)
    assert f"made from step {best}" in capsys.readouterr().out
