"""The real program, compiled by the real compiler, and what the compiler says of it.

Turns a `StepProgram` into bytes, collectives and the seconds that it took. A program
that the compiler refuses for its size is a result too. It refuses to judge.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import re
import time

import jax

from trainer.model.objective import loss_form
from trainer.tasks.planning.collectives import Collective, collectives_of
from trainer.tasks.program import StepProgram

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT])"
_TEMPORARY = re.compile(rf"required for HLO temporaries \({_SIZE}\)")
_USED = re.compile(rf"Used {_SIZE} of [\d.]+[KMGT] hbm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """What a compiler says of a step.

    Attributes:
        compiler: Its name and version.
        seconds: From Python to the finished program.
        fits: It compiled; a TPU's compiler refuses what does not fit.
        total: Bytes on each device; None where a refusal does not tell.
        collectives: Of a step; empty where it was refused.
    """

    compiler: str
    seconds: float
    fits: bool
    total: int | None
    collectives: list[Collective]


def compile_program(program: StepProgram) -> Compilation:
    """Lower and compile a step; nothing is allocated on devices."""
    started = time.perf_counter()
    platform = program.parts.mesh.devices.flat[0].platform
    compiler = _compiler(platform)
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compilation(
            compiler=compiler,
            seconds=time.perf_counter() - started,
            fits=False,
            total=refused_bytes(str(error), _argument_bytes(program)),
            collectives=[],
        )
    return Compilation(
        compiler=compiler,
        seconds=time.perf_counter() - started,
        fits=True,
        total=_total(compiled.memory_analysis()),
        collectives=collectives_of(
            compiled.as_text(), unknown_trips=_loss_trips(program)
        ),
    )


def refused_bytes(message: str, argument_bytes: int) -> int | None:
    """Return the bytes of a program that was refused, as the refusal tells them.

    Args:
        message: Of a TPU's compiler.
        argument_bytes: Of the step's arguments, which some messages leave out.
    """
    if found := _USED.search(message):
        return round(float(found[1]) * _UNITS[found[2]])
    if found := _TEMPORARY.search(message):
        return argument_bytes + round(float(found[1]) * _UNITS[found[2]])
    return None


def _total(memory: jax.stages.CompiledMemoryStats) -> int:
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def _argument_bytes(program: StepProgram) -> int:
    return sum(
        jax.numpy.dtype(x.dtype).itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(program.arguments())
    )


def _loss_trips(program: StepProgram) -> tuple[int, ...]:
    """Return how often the loss's outer loop runs when all positions have loss.

    Its end depends on the batch; of all loops the loss's alone have none in the
    program. Those inside it exchange nothing.
    """
    config, mesh = program.parts.config, program.parts.mesh
    tokens = config.trainer.forward_size * config.data.sequence_length
    form = loss_form(program.parts.model, config.trainer.loss_chunk_tokens)
    shard = tokens // mesh.devices.shape[0]
    return (-(-shard // form.chunk_size(shard)),)


def _compiler(platform: str) -> str:
    name = "libtpu" if platform == "tpu" else "jaxlib"
    return f"{name} {importlib.metadata.version(name)}"
