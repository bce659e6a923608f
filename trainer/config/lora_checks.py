"""Which adapters make sense, alone and with what else is configured.

Turns `lora.*` into problems, like `trainer.config.checks`, of which it is a part. It
refuses to know dimensions: the rank is compared with them where the preset is open.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from trainer.config.errors import ConfigError
from trainer.config.limits import PROJECTIONS
from trainer.config.schema import RunConfig
from trainer.config.spelling import listing, nearest

STEPPING = ("train", "plan")
"""Tasks that are about a step of training."""


def lora_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with `lora.*`, alone and with other keys."""
    lora = config.lora
    if lora.rank > 0 and not lora.targets:
        yield ConfigError(
            key="lora.targets",
            expected="at least one pattern of layer names",
            received="[]",
            fix="lora.targets=[query,value], or lora=none for full fine-tuning",
        )
    meant = [_meant_target(pattern) for pattern in lora.targets]
    if lora.rank > 0 and meant != lora.targets:
        yield ConfigError(
            key="lora.targets",
            expected=f"patterns that match some of {listing(PROJECTIONS)}",
            received=f"[{','.join(lora.targets)}]",
            fix=f"lora.targets=[{','.join(dict.fromkeys(meant))}]",
        )
    if lora.rank == 0 and lora.path:
        yield ConfigError(
            key="lora.path",
            expected="null, since lora.rank is 0 and nothing takes an adapter",
            received=lora.path,
            fix=f"lora=rank8 lora.path={lora.path}",
        )
    if lora.train_embedding:
        yield from _embedding_problems(config)


def _embedding_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield what cannot be beside an embedding that is trained under adapters."""
    if config.lora.rank == 0 and config.task in STEPPING:
        yield ConfigError(
            key="lora.train_embedding",
            expected="false, since lora.rank is 0 and every weight is trained",
            received="true",
            fix="lora.train_embedding=false, or lora=rank8",
        )
    if config.preset.quantize != "none":
        yield ConfigError(
            key="lora.train_embedding",
            expected="false, since the base is frozen by preset.quantize="
            f"{config.preset.quantize} and only adapters can be trained",
            received="true",
            fix="lora.train_embedding=false, or preset.quantize=none",
        )
    if config.task == "train" and not config.artifacts.preset:
        yield ConfigError(
            key="artifacts.preset",
            expected="true, since lora.train_embedding=true trains what no file of "
            "adapters can hold",
            received="false",
            fix="artifacts.preset=true, or lora.train_embedding=false",
        )


def _meant_target(pattern: str) -> str:
    """Return a pattern that selects projections, or else the nearest name of one."""
    if fnmatch.filter(PROJECTIONS, pattern):
        return pattern
    return nearest(pattern, PROJECTIONS) or PROJECTIONS[0]
