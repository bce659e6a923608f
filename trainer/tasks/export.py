"""task=export: a run, or a preset with an adapter, in a form that others read.

Turns a subject into a directory: KerasHub's preset, transformers' model or PEFT's
adapter. It never writes where something else lies, and refuses to know how each form
is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatch

from etils import epath

from gemma.presets import FORM_FILES, UNFINISHED
from trainer import storage
from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig
from trainer.distribution.exchange import from_primary
from trainer.tasks.console import Screen
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.sharing import held_by_primary
from trainer.tasks.subject import Subject, check_run_is_there, open_subject

_FILES = {
    "preset": (*FORM_FILES["keras"], UNFINISHED),
    "hf": (*FORM_FILES["hf"], UNFINISHED),
    "peft": ("adapter_config.json", "adapter_model.safetensors*"),
}
"""Names that an export of each form may have left in a run's own directory."""


def run_export(
    config: RunConfig,
    screen: Screen,
    *,
    write: Callable[[Subject, epath.Path], None],
    words: Sequence[str] = (),
) -> int:
    """Write `export.format` to `export.path`, say what lies there and return 0.

    Args:
        config: What to export, and as what.
        screen: Where a person looks.
        write: Writes a subject to a directory.
        words: What was typed: over a run's rows, even a default counts.

    Raises:
        ConfigError: There is no such run, no place to write to, something else lies
            there, or `peft` is asked of a model without adapter.
        DirectoryInUseError: The place is a run's own, and a process is at work there.
    """
    directory = RunDirectory(config)
    check_run_is_there(config, directory)
    from_primary("the target", lambda: str(_target(config, directory)))
    _check_adapter(config, directory)
    subject = open_subject(config, words=words)
    is_own = config.export.path is None
    elsewhere = f"export.path={directory.path.name}-{config.export.format}"
    own = held_by_primary(directory, instead=elsewhere)
    with own if is_own else contextlib.nullcontext():
        # again: nobody else writes there now
        place = from_primary("the target", lambda: str(_target(config, directory)))
        target = epath.Path(place)
        write(subject, target)
    screen.facts(
        f"exported {subject.origin}",
        {
            "format": config.export.format,
            "directory": str(target),
            "files": ", ".join(storage.list_names(target)),
        },
    )
    return 0


def _target(config: RunConfig, directory: RunDirectory) -> epath.Path:
    """Return the directory to write to: a new one, an empty one, or the run's own."""
    form, path = config.export.format, config.export.path
    if path is not None:
        target = epath.Path(path)
        expected, names = "a new or empty directory", storage.list_names(target)
        others = names
    elif directory.exists():
        target = directory.artifacts / form
        expected, names = f"nothing but {form} files", storage.list_names(target)
        allowed = [file.split("/")[0] for file in _FILES[form]]
        others = [n for n in names if not any(fnmatch(n, f) for f in allowed)]
    else:
        raise ConfigError(
            key="export.path",
            expected="a directory to write to, since there is no run that has one",
            received="nothing",
            fix=f"export.path=exported/{form}, or run.name of a run",
        )
    if not names and storage.exists(target) and not target.is_dir():
        others = ["a file of this name"]
    if others:
        raise ConfigError(
            key="export.path",
            expected=f"{expected}: {target} is never overwritten",
            received=", ".join(others[:3]) + (" and more" if others[3:] else ""),
            fix=f"export.path={target}-{form}, or remove what is there",
        )
    return target


def _check_adapter(config: RunConfig, directory: RunDirectory) -> None:
    """Refuse `peft` before weights are read, where there is no adapter.

    Raises:
        ConfigError: The run trained more than an adapter, or no adapter was named.
    """
    is_run = directory.exists()
    lora = directory.stored_config().lora if is_run else config.lora
    has_adapter = lora.rank > 0 and (is_run or lora.path is not None)
    if config.export.format == "peft" and is_run and lora.train_embedding:
        raise ConfigError(
            key="export.format",
            expected="preset or hf, since the embedding was trained beside the adapter "
            "(lora.train_embedding=true)",
            received="peft",
            fix="export.format=hf",
        )
    if config.export.format == "peft" and not has_adapter:
        raise ConfigError(
            key="export.format",
            expected="preset or hf, since there is no adapter",
            received="peft",
            fix="export.format=hf, or lora.path=ADAPTER beside preset=NAME",
        )
