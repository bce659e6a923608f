"""task=train: from a session to a finished run's directory.

Reads top to bottom as what a run does: admit the directory, restore or start, answer
prompts, train, answer again, write artifacts and the report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping

from trainer.checkpoint import SaveRequest
from trainer.config.ending import BUG
from trainer.config.errors import RunError
from trainer.config.interruption import Interrupted
from trainer.config.schema import RunConfig
from trainer.data.opening import TrainingData
from trainer.distribution.exchange import agree, from_primary
from trainer.distribution.joining import concluding
from trainer.distribution.stop import SharedStop
from trainer.model.assemble import initial_arrays, split
from trainer.model.state import Arrays
from trainer.tasks.ahead import compile_ahead, step_ahead
from trainer.tasks.beginning import check_may_begin
from trainer.tasks.console import Bar, Screen
from trainer.tasks.evaluator import Evaluator, is_missing
from trainer.tasks.explaining import explained
from trainer.tasks.feed import placed_batches
from trainer.tasks.gauge import build_gauge
from trainer.tasks.introduce import introduce
from trainer.tasks.keeping import facts_of_run, go_on, keep, open_store, prepare_saves
from trainer.tasks.profiling import profiled
from trainer.tasks.program import Step, kept_step
from trainer.tasks.rhythm import rhythm_of
from trainer.tasks.run_adapters import keep_settings, saved_settings
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.samples import Samples, samples_so_far
from trainer.tasks.session import Session, build_session
from trainer.tasks.sharing import held_by_primary, open_shared_data
from trainer.tasks.skipping import Skipping, check_finite
from trainer.tasks.state import (
    build_optimizer,
    restore_state,
    shapes_of_state,
    weights_in_use,
)
from trainer.tasks.stopping import end_stopped, keeping
from trainer.tasks.trackers import open_trackers
from trainer.tracking import Sample, Tracker
from trainer.training.loop import Hooks, Outcome, Progress, train
from trainer.training.step import TrainState
from trainer.training.stop import StopRequest


def run_training(
    config: RunConfig, screen: Screen, *, finish: Callable[[Finished], None]
) -> int:
    """Train, or go on, or say that the run is finished; return the exit code.

    Args:
        config: The run's configuration.
        screen: Where a person looks.
        finish: Writes what the finished run leaves behind.
    """
    started, directory = time.perf_counter(), RunDirectory(config)
    with StopRequest(screen.line) as stop:
        finished = from_primary("the directory", lambda: directory.results_of(config))
        if finished and finished["step"] >= config.trainer.num_train_steps:
            screen.facts(f"{directory.path} is finished", finished)
            return 0
        with held_by_primary(directory):
            saved = saved_settings(directory)
            session = agree("the model", lambda: build_session(config, saved=saved))
            data = open_shared_data(session)
            stop.share(SharedStop(session.mesh))
            allowed = from_primary("the change", lambda: directory.changes(config))
            run = Run(session, data, directory, screen=screen, stop=stop, finish=finish)
            run.started, run.typed = started, config
            return run.go(changed=allowed)


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run after its last step: everything that artifacts are made from."""

    run: Run
    weights: Arrays
    progress: Progress
    samples: list[Sample]


class Run:
    """One process's part of a training run."""

    def __init__(
        self,
        session: Session,
        data: TrainingData,
        directory: RunDirectory,
        *,
        screen: Screen,
        stop: StopRequest,
        finish: Callable[[Finished], None],
    ) -> None:
        self._finish = finish
        self.session, self.directory = session, directory
        self.screen, self.stop = screen, stop
        self.config, self.data = session.config, data
        self.optimizer = build_optimizer(session)
        held_out = self.data.evaluation
        self.evaluator = Evaluator(session, held_out) if held_out else None
        self.samples = Samples(session, held_out)
        # last, since they are to be closed: `go` does, whatever happens
        self.tracker: Tracker = open_trackers(session, self.data, directory, screen)
        self.started, self.typed = time.perf_counter(), session.config

    def go(self, *, changed: Mapping[str, object]) -> int:
        """Do the whole run and return its exit code; record keys that `changed`."""
        exit_code, place = BUG, self.directory.checkpoints
        try:
            with explained(self.config):
                from_primary("the configuration", self._write_configuration)
                if changed:
                    self.tracker.event("changed", {"keys": changed})
                with (
                    SaveRequest(self.directory.path, place) as self.request,
                    open_store(place, self.config.checkpoint) as self.store,
                ):
                    self.stop.save_with(self.request.take)
                    exit_code = self._go()
        except (RunError, Interrupted) as error:
            exit_code = error.exit_code
            raise
        finally:
            with concluding():  # the others have less to close, and are gone sooner
                self.tracker.close(exit_code)
        return exit_code

    def _write_configuration(self) -> None:
        """Keep what was typed, before it is done; devices have filled it in since."""
        self.directory.forget_done()
        self.directory.write_config(self.typed)
        if self.typed.lora.path is not None:
            keep_settings(self.directory, self.session.model.lora)

    def _go(self) -> int:
        rules = self.optimizer.rules()
        introduce(self.screen, self.session, self.data, self.directory, rules)
        state, frozen, progress = self._start_or_restore()
        prepare_saves(self.store, state, progress, self.config)
        self.tracker.event("built", {"seconds": time.perf_counter() - self.started})
        if progress.step == 0:
            samples = self.samples.before({**frozen, **state.trainable})
            self._tell(0, samples)
        else:
            samples = samples_so_far(self.directory.path)
        outcome = self._train(state, frozen, progress)
        self.store.wait()
        if outcome.was_stopped:
            return self._stopped(outcome)
        self.stop.let_go()
        weights = {**frozen, **weights_in_use(self._chosen_state(outcome))}
        samples = self.samples.after(weights, samples)
        self._tell(outcome.progress.step, samples)
        self._finish(Finished(self, weights, outcome.progress, samples))
        return 0

    def _chosen_state(self, outcome: Outcome) -> TrainState:
        """Return the state that artifacts are made from: the last, or the best kept."""
        best = self.store.best()
        if self.config.artifacts.source == "last" or best in (
            None,
            outcome.progress.step,
        ):
            return outcome.state
        self.screen.line(f"artifacts are made from step {best}, the best kept")
        like = shapes_of_state(self.session.model, self.optimizer)
        return restore_state(self.store, best, like)[0]

    def _start_or_restore(self) -> tuple[TrainState, Arrays, Progress]:
        session, config = self.session, self.config
        arrays = initial_arrays(
            session.model,
            load_weights=config.preset.load_weights,
            adapter=session.adapter,
            seed=config.seed,
            only_frozen=self.store.latest() is not None,
        )
        trainable, frozen = split(arrays, session.model)
        self._facts = facts_of_run(self.typed, session, self.data, frozen)
        if self.store.latest() is None:
            check_may_begin(config, self.directory.checkpoints)
            state = TrainState(trainable, self.optimizer.initial_slots())
            return state, frozen, Progress()
        state, progress = go_on(
            self.store,
            shapes_of_state(session.model, self.optimizer),
            self.typed,
            facts=self._facts,
            screen=self.screen,
            tracker=self.tracker,
        )
        return state, frozen, progress

    def _train(self, state: TrainState, frozen: Arrays, progress: Progress) -> Outcome:
        recorder = profiled(
            self._compiled_step(state, frozen, progress),
            done=progress.step,
            directory=self.directory.path / "profile",
            say=self.screen.line,
        )
        rhythm = rhythm_of(self.config, is_evaluated=self.evaluator is not None)
        steps = rhythm.num_train_steps
        bar = Bar(self.screen, first_step=progress.step, num_train_steps=steps)
        batches = placed_batches(self.session, self.data.train, progress)
        skipping = Skipping(
            config=self.config,
            rows=self.data.train.rows,
            like=shapes_of_state(self.session.model, self.optimizer),
            store=self.store,
            tracker=self.tracker,
            screen=self.screen,
        )
        with bar, contextlib.closing(batches), recorder as recording:

            def log(step: int, values: Mapping[str, float]) -> None:
                if not values:  # an evaluation that was left
                    return
                self.tracker.log(step, values)
                bar.show(step, values)

            def evaluate(state: TrainState) -> Mapping[str, float]:
                weights = {**frozen, **weights_in_use(state)}
                return self.evaluator(weights, is_left=self.stop.is_asked)

            if is_missing(self.directory.path, progress.step, rhythm=rhythm):
                values = evaluate(state)
                log(progress.step, values)
                if "eval/loss" in values:  # it was saved without
                    self.store.rate(progress.step, values["eval/loss"])

            hooks = Hooks(
                gauge=build_gauge(self.session),
                log=log,
                evaluate=evaluate,
                save=self._save,
                skipped=skipping.tell,
                rewind=skipping.rewind,
                start_recording=recording.start,
                stop_recording=recording.stop,
            )
            return train(
                state,
                frozen,
                keeping(recording, self.stop),
                batches,
                progress=progress,
                rhythm=rhythm,
                hooks=hooks,
                stop=self.stop,
            )

    def _compiled_step(
        self, state: TrainState, frozen: Arrays, progress: Progress
    ) -> Step:
        """Return the step, compiled for every length that comes if none is skipped."""
        step, stream = kept_step(self.session, self.optimizer), self.data.train
        first = step_ahead(self.session, stream, step, state, frozen, progress=progress)
        programs = [first]
        if self.evaluator and self.config.trainer.eval_every_steps:
            weights = {**frozen, **weights_in_use(state)}
            programs.append(self.evaluator.ahead(weights))
        compile_ahead(programs, tell=self.tracker.event, say=self.screen.line)
        return step

    def _save(self, state: TrainState, progress: Progress, loss: float | None) -> None:
        check_finite(state, step=progress.step, kept=self.store.latest())
        keep(self.store, state, progress, loss=loss, facts=self._facts)
        self.request.started(progress.step)
        self.tracker.event("checkpoint", {"step": progress.step})
        self.tracker.flush()

    def _tell(self, step: int, samples: list[Sample]) -> None:
        if samples:
            self.tracker.samples(step, samples)

    def _stopped(self, outcome: Outcome) -> int:
        step = outcome.progress.step
        self.tracker.event("stopped", {"step": step, "signal": self.stop.signal.name})
        return end_stopped(
            self.stop,
            step,
            directory=self.directory.path,
            num_train_steps=self.config.trainer.num_train_steps,
            say=self.screen.line,
        )
