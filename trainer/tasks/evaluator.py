"""Held-out loss and answers to held-out prompts, for any weights.

Turns weights into named numbers and texts. Sums of all batches are divided once.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from gemma.chat import ChatFormat
from gemma.decoding import STATIC, Decoder, Sampler
from trainer.config.errors import DataError
from trainer.config.schema import GenerateConfig
from trainer.data.evaluation import EvaluationSet
from trainer.distribution.exchange import from_primary
from trainer.distribution.joining import advance
from trainer.distribution.rows import local_sequences
from trainer.model.objective import evaluation_sums
from trainer.tasks.ahead import Ahead
from trainer.tasks.kept_programs import Program, Shelf, shelf_of
from trainer.tasks.program import evaluation_shapes
from trainer.tasks.session import Session
from trainer.tracking import read_metrics
from trainer.training.loop import Rhythm
from trainer.training.step import place_batch

Weights = Mapping[str, jax.Array]


class Evaluator:
    """Measures the loss on the same held-out batches every time."""

    def __init__(self, session: Session, held_out: EvaluationSet) -> None:
        self._mesh = session.mesh
        self._held_out = held_out
        end_of_turn = session.tokenizer.end_of_turn_id
        self._sums = Program(
            evaluation_sums(
                session.model,
                chunk_tokens=session.config.trainer.loss_chunk_tokens,
                end_of_turn=end_of_turn,
            ),
            shelf_of(session, "evaluation", end_of_turn),
            varies=lambda weights, batch: batch["token_ids"].shape,
        )

    def ahead(self, weights: Weights) -> Ahead:
        """Return what is to be compiled to measure such weights."""
        size = self._held_out.global_batch_size

        def arguments(length: int) -> tuple[Weights, Weights]:
            return weights, evaluation_shapes(self._mesh, sequences=size, length=length)

        return Ahead(
            name="evaluation",
            function=self._sums,
            arguments=arguments,
            lengths=self._held_out.lengths(),
        )

    def __call__(
        self, weights: Weights, *, is_left: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Return losses in nats a token, over all positions with loss and content only.

        Content leaves out `<end_of_turn>`, which is nearly free to learn.

        Args:
            weights: What to measure.
            is_left: Asked once a batch, alike in all processes, whether to return
                nothing instead.

        Raises:
            DataError: There is nothing to learn in the held-out rows.
        """
        since = time.perf_counter()
        if len(self._held_out) == 0:
            raise DataError(
                key="data.sequence_length",
                expected="held-out rows whose response begins within a sequence",
                received="none that has anything to learn left",
                fix="a larger data.sequence_length, or other held-out rows",
            )
        size = self._held_out.global_batch_size
        sums = []
        for batch in self._held_out.batches(rows=local_sequences(size, self._mesh)):
            if is_left():
                return {}
            advance(f"batch {len(sums)} of an evaluation")
            placed = place_batch(batch, self._mesh, sequences=size)
            sums.append(self._sums(weights, placed))
        total = {name: sum(float(s[name]) for s in sums) for name in sums[0]}
        content_tokens = max(total["content_tokens"], 1.0)
        return {
            "eval/loss": total["loss_sum"] / max(total["loss_tokens"], 1.0),
            "eval/content_loss": total["content_loss_sum"] / content_tokens,
            "eval/loss_tokens": total["loss_tokens"],
            "eval/content_tokens": total["content_tokens"],
            "eval/seconds": time.perf_counter() - since,
        }


def is_missing(directory: epath.PathLike, step: int, *, rhythm: Rhythm) -> bool:
    """Return whether a run that goes on left the evaluation of a step, or lost it.

    That of step 0 is made in any case before the first step.
    """
    every = rhythm.eval_every_steps
    is_due = step and every and (step % every == 0 or step == rhythm.num_train_steps)
    if not is_due:
        return False

    def read() -> bool:
        lines = read_metrics(directory)
        return any(m["step"] == step and "eval/loss" in m for m in lines)

    return not from_primary("the evaluations", read)


class Answerer:
    """Answers prompts as a chat's model turn, or continues them as text."""

    def __init__(
        self, session: Session, settings: GenerateConfig, *, is_chat: bool
    ) -> None:
        tokenizer = session.tokenizer
        self._tokenizer, self._settings = tokenizer, settings
        seed = settings.seed
        self._seed = session.config.seed if seed is None else seed
        self._sampler = Sampler(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
        self._chat = ChatFormat(tokenizer) if is_chat else None
        stops = [tokenizer.end_token_id, tokenizer.end_of_turn_id]
        self._decoder = Decoder(
            session.model.stacked,
            stops,
            batch_multiple=session.mesh.devices.shape[0],
            keep=functools.partial(_kept, shelf_of(session, "answers", *stops)),
        )

    def __call__(self, weights: Weights, prompts: Sequence[str]) -> list[str]:
        """Return the text that follows each prompt."""
        ids = [self._prompt_ids(prompt) for prompt in prompts]
        answers = self._decoder.generate(
            weights,
            ids,
            max_new_tokens=self._settings.max_new_tokens,
            sampler=self._sampler,
            seed=self._seed,
        )
        return [self._tokenizer.detokenize(answer) for answer in answers]

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self._chat:
            return self._chat.prompt(prompt)
        content = self._tokenizer.encode_content([prompt])[0].tolist()
        return [self._tokenizer.start_token_id, *content]


def _kept(
    shelf: Shelf | None, function: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """Return a decoder's function with its programs kept."""

    def varies(weights: Weights, token_ids: np.ndarray, **more: Any) -> Hashable:  # noqa: ANN401
        return token_ids.shape, *(more[name] for name in STATIC)

    return Program(function, shelf, varies=varies, static=STATIC)
