"""Whether the keys of `launch.*` name things that can be, before a tool is called.

Turns a configuration into the problems of its launch: what a target needs, what it does
not read, and names that could not be one where they go. Whether a zone, a cluster or an
image is there, the tools say that are called with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.config.compose import typed_again
from trainer.config.errors import ConfigError
from trainer.config.keys import value_of
from trainer.config.schema import RunConfig

MAX_JOB_LETTERS = 40  # JobSet and the TPU API append to it and stop at 63
_LABEL = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NAMES = {
    "launch.job": (_LABEL, "small letters, digits and dashes, at most 40", "mine"),
    "launch.project": (
        r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "a Google Cloud project's id",
        "my-project",
    ),
    "launch.zone": (r"[a-z]+-[a-z]+\d+-[a-z]", "a Google Cloud zone", "us-west4-a"),
    "launch.cluster": (_LABEL, "the name of a GKE cluster", "mine"),
    "launch.accelerator": (
        r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,62}",
        "the name of an accelerator",
        "v5litepod-8",
    ),
    "launch.runtime": (
        r"[a-z0-9][a-z0-9.-]{0,62}",
        "a TPU software version",
        "v2-alpha-tpuv5-lite",
    ),
    "launch.image": (
        r"[a-z0-9][a-z0-9._/:-]{0,149}(:[A-Za-z0-9._-]{1,99})?(@[a-z0-9:]{1,99})?",
        "the name of a container image, in lower case up to the tag: registries know "
        "no other repository names",
        "us-docker.pkg.dev/my-project/images/trainer:1",
    ),
    "launch.partition": (_WORD, "the name of a partition", "gpu"),
    "launch.account": (_WORD, "the name of an account", "mine"),
    "launch.sweep": (
        rf"{_WORD}/{_WORD}/[A-Za-z0-9]{{1,64}}",
        "ENTITY/PROJECT/ID of a W&B sweep",
        "me/gemma-finetuning/ab12cd34",
    ),
}
_SECRET = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_TPU = ("job", "project", "zone", "accelerator", "runtime", "spot", "image", "secrets")
_READS: dict[str, tuple[str, ...]] = {
    "none": (),
    "local": ("processes", "sweep"),
    "tpu_vm": (*_TPU, "sweep"),
    "tpu_queued": (*_TPU, "sweep"),
    "gke": (
        *("job", "processes", "project", "zone", "cluster", "accelerator", "spot"),
        *("image", "secrets", "grace_seconds", "sweep"),
    ),
    "slurm": (
        *("job", "processes", "accelerator", "secrets", "partition", "account"),
        *("limit_minutes", "grace_seconds", "sweep"),
    ),
    "skypilot": ("job", "processes", "accelerator", "spot", "image", "secrets"),
}
_NEEDS = {
    "tpu_vm": ("zone", "accelerator"),
    "tpu_queued": ("zone", "accelerator"),
    "gke": ("accelerator", "image"),
    "skypilot": ("accelerator",),
}
_READ_BY_ALL = ("name", "submit", "max_restarts")
_WITHOUT_OUR_DISK = ("tpu_vm", "tpu_queued", "gke", "skypilot")


def launched_processes(config: RunConfig) -> int | None:
    """Return how many processes the launch will start, where its keys say so."""
    return None if config.launch.name == "none" else config.launch.processes


def launch_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield every problem of the launch alone and together with other keys."""
    if config.launch.name not in _READS:
        return
    yield from _name_problems(config)
    yield from _secret_problems(config)
    yield from _unread_problems(config)
    for field in _NEEDS.get(config.launch.name, ()):
        key = f"launch.{field}"
        if value_of(config, key) is None:
            _, words, example = _NAMES[key]
            yield ConfigError(
                key=key,
                expected=f"{words}, which launch={config.launch.name} needs",
                received="nothing",
                fix=f"{key}={example}",
            )
    yield from _time_problems(config)
    yield from _root_problems(config)


def _name_problems(config: RunConfig) -> Iterator[ConfigError]:
    for key, (pattern, words, example) in _NAMES.items():
        value = value_of(config, key)
        if value is not None and not re.fullmatch(pattern, value):
            yield ConfigError(
                key=key, expected=words, received=value, fix=f"{key}={example}"
            )


def _secret_problems(config: RunConfig) -> Iterator[ConfigError]:
    for name in config.launch.secrets:
        if not _SECRET.fullmatch(name):
            yield ConfigError(
                key="launch.secrets",
                expected="names of environment variables, never their values",
                received="something else, not shown here",
                fix="launch.secrets=[WANDB_API_KEY]",
            )
            return


def _unread_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield keys that were set although this target does nothing with them."""
    name = config.launch.name
    default = RunConfig()
    for field in vars(config.launch):
        key = f"launch.{field}"
        value = value_of(config, key)
        if field in (*_READ_BY_ALL, *_READS[name]) or value == value_of(default, key):
            continue
        users = [user for user, fields in _READS.items() if field in fields]
        typed = "launch.secrets=[...]" if field == "secrets" else None
        yield ConfigError(
            key=key,
            expected=f"{typed_again(value_of(default, key))}, since launch={name} "
            f"does not read it; it is read by {', '.join(users)}",
            received="names" if typed else value,
            fix=f"launch={users[0]} {typed or f'{key}={typed_again(value)}'}",
        )


def _time_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield a limit that is over before the warning of its end could come."""
    minutes, grace = config.launch.limit_minutes, config.launch.grace_seconds
    if config.launch.name == "slurm" and minutes and 0 < minutes * 60 <= grace:
        unit = "minute" if minutes == 1 else "minutes"
        yield ConfigError(
            key="launch.limit_minutes",
            expected=f"more than launch.grace_seconds ({grace} s), which end it",
            received=f"{minutes} {unit}",
            fix=f"launch.limit_minutes={grace // 60 + 1}",
        )


def _root_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield a root that the machines of the launch do not share with each other."""
    root, name = config.run.root, config.launch.name
    if name in _WITHOUT_OUR_DISK and "://" not in root and not root.startswith("/"):
        yield ConfigError(
            key="run.root",
            expected=f"a bucket, or the absolute path of a mounted disk: the machines "
            f"of launch={name} share no folder, and may be taken away with theirs",
            received=root,
            fix="run.root=gs://BUCKET/runs",
        )
