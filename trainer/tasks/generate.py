"""task=generate: answers of a run, a preset, or a preset with an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig, TrainerConfig
from trainer.tasks.console import Screen
from trainer.tasks.evaluator import Answerer
from trainer.tasks.subject import open_subject


def run_generation(
    config: RunConfig, screen: Screen, *, words: Sequence[str] = ()
) -> int:
    """Print the answer to `generate.prompt`, or to held-out prompts; return 0.

    Args:
        config: What to look at.
        screen: Where it is shown.
        words: What was typed: over a run's rows, even a default counts.

    Raises:
        ConfigError: There is neither a prompt nor held-out rows.
    """
    subject = open_subject(config, words=words)
    settings = config.generate
    if settings.prompt is not None:
        answer = Answerer(subject.session, settings, is_chat=settings.chat)
        screen.line(answer(subject.weights, [settings.prompt])[0])
        return 0
    held_out = subject.session.open_data().evaluation
    if held_out is None:
        raise ConfigError(
            key="generate.prompt",
            expected="a prompt, or held-out rows that have some",
            received="neither",
            fix="generate.prompt='Define the noun \"sea\".'",
        )
    # a run that answers none while it trains is asked here all the same
    count = config.trainer.sample_prompts or TrainerConfig.sample_prompts
    prompts = [prompt for prompt, _ in held_out.prompts(count)]
    is_chat = settings.chat and held_out.prompts_are_chat
    answers = Answerer(subject.session, settings, is_chat=is_chat)
    screen.line(f"answers of {subject.origin}")
    for prompt, text in zip(prompts, answers(subject.weights, prompts), strict=True):
        screen.facts(prompt, {"answer": text})
    return 0
