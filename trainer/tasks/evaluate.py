"""task=evaluate: the held-out loss of a run, a preset, or a preset with an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig
from trainer.tasks.console import Screen
from trainer.tasks.evaluator import Evaluator
from trainer.tasks.subject import open_subject


def run_evaluation(
    config: RunConfig, screen: Screen, *, words: Sequence[str] = ()
) -> int:
    """Show the losses and return 0.

    Args:
        config: What to look at.
        screen: Where it is shown.
        words: What was typed: over a run's rows, even a default counts.

    Raises:
        ConfigError: The data has no held-out rows.
    """
    subject = open_subject(config, words=words)
    held_out = subject.session.open_data().evaluation
    if held_out is None:
        raise ConfigError(
            key="data.eval_path",
            expected="held-out rows to evaluate on",
            received="none",
            fix="data.eval_path=FILE, or data.eval_split=SPLIT for data=tfds",
        )
    values = Evaluator(subject.session, held_out)(subject.weights)
    screen.facts(
        f"evaluated {subject.origin}",
        {
            "held-out loss": f"{values['eval/loss']:.6f} nats a token over "
            f"{values['eval/loss_tokens']:,.0f} tokens",
            "content alone": f"{values['eval/content_loss']:.6f} nats a token over "
            f"{values['eval/content_tokens']:,.0f} tokens",
            "rows": f"{held_out.facts.rows:,}",
        },
    )
    return 0
