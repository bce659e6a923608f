"""A run in W&B, one and the same however often the run is killed and goes on.

Turns what a run tells into calls of W&B's client, online or into files for later. It
refuses to be a reason for a run to stop: without a key or a network it works offline
and says how to upload. W&B is imported when a tracker is made: it takes seconds.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from etils import epath

from trainer import storage
from trainer.config.errors import ConfigError, Preempted
from trainer.config.schema import TrackerConfig
from trainer.config.wandb_mode import choose_mode
from trainer.tracking.lines import as_number
from trainer.tracking.tracker import Artifact, Lineage, Sample

RUN_ID = "wandb-id"
_AUTO_TIMEOUT_SECONDS = 30.0
_TYPES = {"lora": "lora", "preset": "model"}


class WandbTracker:
    """Tells W&B; the primary process of a run has one.

    Args:
        config: Project, mode and what to upload.
        directory: The run's directory. It keeps W&B's id of the run, and W&B's files
            below `wandb/`; for a remote directory they are copied there.
        name: The run's name.
        settings: The resolved configuration, without secrets.
        lineage: What the run is made from.
        say: Shows one line to the user.
    """

    def __init__(
        self,
        config: TrackerConfig,
        *,
        directory: epath.PathLike,
        name: str,
        settings: Mapping[str, Any],
        lineage: Sequence[Lineage],
        say: Callable[[str], None] = print,
    ) -> None:
        self._config = config
        self._directory = epath.Path(directory)
        self._lineage = [asdict(item) for item in lineage]
        self._say = say
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._environment = _Environment(WANDB_DATA_DIR=self._local("wandb", "data"))
        self._id = _run_id(self._directory)
        self._name = name
        try:
            self._run = self._start({**settings, "inputs": self._lineage})
        except Exception:
            self._environment.restore()
            raise
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # W&B's own never goes back
        for item in lineage if self._online else ():
            self._use(item)
        say(self._where())

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send named numbers of a step; it returns before they are there."""
        self._run.log({**_numbers(values), "step": int(step)})

    def event(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Keep the newest facts of each kind in the run's summary, but no lists.

        Those are for `events.jsonl`, such as the places of thousands of rows.
        """
        single = {n: v for n, v in (facts or {}).items() if not isinstance(v, list)}
        if single:
            self._run.summary.update({f"{kind}/{n}": v for n, v in single.items()})

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Send a table of what the model answers at a step."""
        import wandb

        columns = ["step", "prompt", "reference", "before", "after"]
        table = wandb.Table(columns=columns)
        for sample in samples:
            after = sample.after or ""
            table.add_data(step, sample.prompt, sample.reference, sample.before, after)
        self._run.log({"samples": table, "step": int(step)})

    def artifact(self, artifact: Artifact) -> None:
        """Send files if `tracker.upload` names them."""
        if artifact.name not in self._config.upload:
            return
        import wandb

        metadata = {**artifact.metadata, "inputs": self._lineage}
        sent = wandb.Artifact(
            f"{artifact.name}-{self._id}",
            type=_TYPES.get(artifact.name, "model"),
            metadata=metadata,
        )
        # Immutable, no cache: W&B would copy gigabytes into its staging directory.
        if os.path.isdir(artifact.path):
            sent.add_dir(artifact.path, policy="immutable", skip_cache=True)
        else:
            sent.add_file(artifact.path, policy="immutable", skip_cache=True)
        self._run.log_artifact(sent)

    def flush(self) -> None:
        """Copy W&B's files of this process to a remote run directory."""
        if self._scratch is not None:
            files = epath.Path(self._run.dir).parent
            storage.upload(files, self._directory / "wandb" / files.name)

    def close(self, exit_code: int = 0) -> None:
        """End the run, or let it wait for its continuation when preempted."""
        import wandb

        if self._online and exit_code == Preempted.exit_code:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)
        wandb.teardown()  # wandb 0.31: offline, `finish` returns before all is written
        self.flush()
        self._say(self._where())
        self._environment.restore()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _start(self, settings: dict[str, Any]) -> Any:  # noqa: ANN401  # W&B's own
        """Return the run of W&B, offline if it cannot be reached and need not."""
        import wandb

        mode = choose_mode(self._config.mode)
        try:
            return self._init(mode, settings)
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            if self._config.mode != "auto":
                raise ConfigError(
                    key="tracker.mode",
                    expected="a W&B server that answers and takes the key",
                    received=reason,
                    fix="repeat with tracker.mode=offline and upload later",
                ) from error
        wandb.teardown()  # its service still holds the run that it could not start
        self._say(f"W&B cannot be reached ({reason[:120]}); it goes on offline")
        return self._init("offline", settings)

    def _init(self, mode: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
        """Return the run of W&B in one mode."""
        import wandb

        options = {"console": "off", "silent": True}  # the progress bar stays whole
        if self._config.mode == "auto":
            options["init_timeout"] = _AUTO_TIMEOUT_SECONDS
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            group=self._config.group,
            id=self._id,
            name=self._name,
            config=settings,
            mode=mode,
            resume="allow",
            dir=self._local(),
            settings=wandb.Settings(**options),
        )
        self._online = mode == "online"
        return run

    def _use(self, item: Lineage) -> None:
        """Record an input of the run in W&B's graph: its description, not its bytes."""
        import wandb

        facts = asdict(item)
        artifact = wandb.Artifact(
            _artifact_name(item.name), type=item.kind, metadata=facts
        )
        with artifact.new_file("source.json") as file:
            json.dump(facts, file, indent=2, sort_keys=True)
        self._run.use_artifact(artifact)

    def _where(self) -> str:
        """Return where the run is to be seen, or how it gets there."""
        if self._online:
            return f"W&B: {self._run.url}"
        place = self._directory / "wandb"
        copy = "" if self._scratch is None else f"copy {place} here, then "
        shown = "wandb" if self._scratch is not None else str(place)
        return f"W&B works offline; to upload: {copy}wandb sync {shown}"

    def _local(self, *parts: str) -> str:
        """Return a path for W&B's files on this machine."""
        if storage.is_local(self._directory):
            root = os.path.abspath(self._directory)
        else:
            self._scratch = self._scratch or tempfile.TemporaryDirectory(
                prefix="trainer-wandb-"
            )
            root = self._scratch.name
        path = os.path.join(root, *parts)
        os.makedirs(path, exist_ok=True)
        return path


class _Environment:
    """Variables that hold while a tracker lives, unless the user has set them."""

    def __init__(self, **values: str) -> None:
        self._added = [name for name in values if name not in os.environ]
        os.environ.update({name: values[name] for name in self._added})

    def restore(self) -> None:
        """Take the variables back, for the next run of this process."""
        for name in self._added:
            os.environ.pop(name, None)


def _run_id(directory: epath.Path) -> str:
    """Return W&B's id of the run in `directory`, made by whoever comes first.

    An agent of a W&B sweep has given the run an id before it started.
    """
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:
        storage.write_text(directory / RUN_ID, os.environ["WANDB_RUN_ID"])
    storage.create(directory / RUN_ID, secrets.token_hex(4).encode())
    return storage.read_text(directory / RUN_ID).strip()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return plain numbers; one that is not finite is shown as such."""
    numbers = {name: as_number(value) for name, value in values.items()}
    return {n: float("nan") if value is None else value for n, value in numbers.items()}


def _artifact_name(name: str) -> str:
    """Return a name with the characters that W&B allows."""
    allowed = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return allowed.strip("-")[-120:]
