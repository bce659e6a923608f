"""`launch=...` of a command line: shown, or written down and run.

Turns a configuration into the files of its launch. It shows them; with
`launch.submit=true` it writes them and calls the one tool that starts them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from launch.children import die_with_parent
from launch.command import job_name, training_words
from launch.local import run_local
from launch.targets import Rendered, render_target, training_command
from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig

FOLDER = Path("outputs", "launch")


def start(config: RunConfig, words: Sequence[str]) -> int:
    """Show what a launch would run, or run it; return the exit code.

    Args:
        config: The checked configuration, its `launch.name` not `none`.
        words: All words of the command line, normalised.

    Raises:
        ConfigError: The accelerator does not exist, or a tool or a secret is missing.
    """
    training = training_words(words, config)
    if config.launch.name == "local":
        return _local(config, training)
    rendered = render_target(config, training)
    if not config.launch.submit:
        _show(rendered)
        return 0
    return _submit(config, rendered)


def _local(config: RunConfig, training: Sequence[str]) -> int:
    command = training_command(config, training, python=sys.executable)
    processes = config.launch.processes or 1
    if not config.launch.submit:
        print(f"{shlex.join(command)}  # as {processes} processes of this machine")
        return 0
    sweeps = config.launch.sweep is not None
    return run_local(
        command,
        processes=processes,
        max_restarts=0 if sweeps else config.launch.max_restarts,
        environment={"LAUNCH_START": str(time.time_ns())} if sweeps else None,
    )


def _show(rendered: Rendered) -> None:
    """Print files, one after the other, and to stderr what would start them."""
    for name, text in rendered.files.items():
        _tell(f"{name}:")
        print(text, end="", flush=True)
    _tell(f"launch.submit=true would write this and run: {shlex.join(rendered.start)}")


def _submit(config: RunConfig, rendered: Rendered) -> int:
    """Write the files and run the command that starts them, in their folder."""
    _check_tool(rendered.tool)
    _check_secrets(rendered.needs)
    folder = FOLDER / job_name(config)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    _tell(f"in {folder}: {shlex.join(rendered.start)}")
    bound = die_with_parent(os.getpid())  # tpu_queued stays and watches
    done = subprocess.run(rendered.start, cwd=folder, preexec_fn=bound, check=False)
    return done.returncode


def _check_tool(tool: str) -> None:
    if shutil.which(tool) is None:
        raise ConfigError(
            key="launch.submit",
            expected=f"{tool} on PATH",
            received="no such command",
            fix=f"install {tool}, or leave launch.submit out to see what it would run",
        )


def _check_secrets(names: Sequence[str]) -> None:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            key="launch.secrets",
            expected=f"a value of {', '.join(missing)} in the environment",
            received="none",
            fix=f"export {missing[0]}, or leave it out of launch.secrets",
        )


def _tell(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)
