"""task=evaluate: the held-out loss of a run, a preset, or a preset with an adapter."""

from __future__ import annotations

from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig
from trainer.tasks.console import Screen
from trainer.tasks.evaluator import Evaluator
from trainer.tasks.subject import open_subject


def run_evaluation(config: RunConfig, screen: Screen) -> int:
    """Show the losses and return 0.

    Raises:
        ConfigError: The data has no held-out rows.
    """
    subject = open_subject(config)
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
