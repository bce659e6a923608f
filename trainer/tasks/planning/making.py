"""From a prepared configuration to its plan: estimate, compile, search, advise.

Turns a `Planned` into a `Plan`. Without a compiler for those chips the
estimate stands in its place, and the plan says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trainer.config.mesh_shape import auto_shapes
from trainer.config.schema import RunConfig
from trainer.config.topology import larger_topologies
from trainer.model.flops import StepFlops
from trainer.model.memory import DeviceBytes
from trainer.tasks.planning.chips import PlannedChips
from trainer.tasks.planning.collectives import Collective
from trainer.tasks.planning.compiling import Compilation, compile_program
from trainer.tasks.planning.confirming import Sizes, confirmed
from trainer.tasks.planning.estimated_collectives import estimated_collectives
from trainer.tasks.planning.plan import Largest, Plan
from trainer.tasks.planning.preparing import Planned, search_of
from trainer.tasks.planning.search import SEQUENCE_STEP, Change, Search
from trainer.tasks.program import step_program

Say = Callable[[str], None]


def make_plan(planned: Planned, *, confirm: bool, say: Say) -> Plan:
    """Compile what was asked for where there is a compiler, search and advise.

    Args:
        planned: What to plan.
        confirm: Compile the largest step that the search finds, too.
        say: Shows a line before something takes long.
    """
    estimate = planned.memory.estimate(planned.shape)
    can_compile = planned.target.devices is not None
    compilation = _compile(planned, planned.config, say) if can_compile else None
    needed = _measured(estimate, compilation)
    limit = planned.limit
    fits = limit is None or needed.total <= limit
    fits = fits and (compilation is None or compilation.fits)
    ratio = _work_ratio(estimate, needed)
    search = limit and search_of(planned, limit=limit, work_ratio=ratio)
    is_compiled = fits and compilation is not None
    largest = search and _largest(
        planned, search, confirm=confirm, is_compiled=is_compiled, say=say
    )
    return Plan(
        subject=_subject(planned),
        source=_source(planned.target, compilation),
        needed=needed,
        limit=limit,
        fits=fits,
        flops_per_step=_flops(planned),
        collectives=_collectives(planned, compilation),
        shards=planned.memory.layout(planned.shape),
        largest=largest or None,
        advice=_advice(planned, search) if search and not fits else [],
    )


def _compile(planned: Planned, config: RunConfig, say: Say) -> Compilation:
    """Compile a configuration for the plan's chips, which is said first."""
    say(
        f"compiling for {planned.target.name}, mesh {config.mesh.shape}: "
        f"{config.trainer.forward_size} sequences of {config.data.sequence_length} "
        "tokens"
    )
    devices = planned.target.devices or ()
    return compile_program(
        step_program(config, devices, bytes_per_device=planned.limit)
    )


def _measured(estimate: DeviceBytes, compilation: Compilation | None) -> DeviceBytes:
    """Return the parts of what the compiler needs.

    State is known to the byte. Of the rest the compiler tells the sum alone: the
    gradients are the estimate's, and activations and loss share what is left as they
    do there.
    """
    if compilation is None or compilation.total is None:
        return estimate
    work = max(compilation.total - estimate.state, 0)
    gradients = min(estimate.gradients, work)
    rest = work - gradients
    share = estimate.loss / max(estimate.loss + estimate.activations, 1)
    loss = round(rest * share)
    return dataclasses.replace(
        estimate, gradients=gradients, loss=loss, activations=rest - loss
    )


def _advice(planned: Planned, search: Search) -> list[Change]:
    """Return what to change, and where none of it is enough more of the chips."""
    found = search.changes()
    topology = planned.target.topology
    if topology is None or any(change.fits for change in found):
        return found
    for larger in larger_topologies(topology):
        for shape in auto_shapes(larger.devices):
            divides = planned.memory.microbatch_size % shape[0] == 0
            if divides and search.fits(planned.memory, shape):
                words = f"plan.topology={larger} mesh={shape[0]}x{shape[1]}"
                return [*found, Change(words, search.total(search.plan, shape), True)]
    return found


def _work_ratio(estimate: DeviceBytes, needed: DeviceBytes) -> float:
    estimated = estimate.total - estimate.state
    return (needed.total - needed.state) / estimated if estimated else 1.0


def _largest(
    planned: Planned, search: Search, *, confirm: bool, is_compiled: bool, say: Say
) -> Largest:
    """Return the largest steps; with `confirm`, those that the compiler takes too.

    Args:
        planned: The configuration asked for.
        search: The estimate around it.
        confirm: Compile what is found.
        is_compiled: The step asked for compiled and fits.
        say: Shows a line before each compilation.
    """
    search = dataclasses.replace(search, plan=planned.least)
    if not confirm or planned.target.devices is None:
        return Largest(
            microbatch_size=search.largest_microbatch(),
            sequence_length=search.largest_sequence(),
        )
    memory = planned.least
    microbatch, is_one = confirmed(
        _sizes(planned, is_length=False, say=say),
        search,
        asked=memory.microbatch_size if is_compiled else 0,
    )
    length, is_other = confirmed(
        _sizes(planned, is_length=True, say=say),
        search,
        asked=memory.sequence_length if is_compiled else 0,
    )
    source = "compiled" if is_one and is_other else "estimated"
    return Largest(microbatch_size=microbatch, sequence_length=length, source=source)


def _sizes(planned: Planned, *, is_length: bool, say: Say) -> Sizes:
    """Return what is looked for: sequences of other lengths, or of other numbers."""
    memory = planned.least

    def step(size: int) -> tuple[int, int]:
        if is_length:
            return memory.microbatch_size, size
        return size, memory.sequence_length

    def estimated(size: int) -> int:
        microbatch, length = step(size)
        return dataclasses.replace(
            memory, microbatch_size=microbatch, sequence_length=length
        ).bytes_per_device(planned.shape)

    def compiled(size: int) -> Compilation:
        microbatch, length = step(size)
        config = planned.with_step(microbatch_size=microbatch, sequence_length=length)
        return _compile(planned, config, say)

    return Sizes(
        unit=SEQUENCE_STEP if is_length else planned.shape[0],
        largest=Search.largest_sequence if is_length else Search.largest_microbatch,
        state=memory.estimate(planned.shape).state,
        estimated=estimated,
        compile=compiled,
    )


def _collectives(planned: Planned, compilation: Compilation | None) -> list[Collective]:
    if compilation is None or not compilation.fits:
        return estimated_collectives(planned.memory, planned.shape)
    return compilation.collectives


def _source(target: PlannedChips, compilation: Compilation | None) -> str:
    """Return how the bytes were found, in words."""
    if compilation is None:
        return f"estimated: {target.reason}"
    took = f"{compilation.compiler} in {compilation.seconds:.0f} s"
    if compilation.fits:
        return f"compiled by {took}"
    if compilation.total is None:
        return f"estimated: refused by {took}, which does not tell how much it needs"
    return f"refused by {took}"


def _flops(planned: Planned) -> int:
    """Return what a step must compute when every position is a token with loss."""
    config = planned.config
    lengths = [config.data.sequence_length] * config.trainer.global_batch_size
    return StepFlops(
        config=planned.preset.config,
        lora=planned.lora,
        trains_embedding=planned.memory.train_embedding,
    ).of(lengths=lengths, loss_tokens=sum(lengths))


def _subject(planned: Planned) -> dict[str, str]:
    config, lora = planned.config, planned.lora
    trainer, data = config.trainer, config.data
    trained = "all weights"
    if lora is not None:
        trained = f"LoRA rank {lora.rank} on {', '.join(lora.targets)}"
        trained += " and the embedding" if planned.memory.train_embedding else ""
    bits = config.preset.quantize
    forwards = trainer.global_batch_size // trainer.forward_size
    return {
        "preset": f"{config.preset.name}, {planned.preset.config.parameter_count:,} "
        f"parameters, computed in {config.preset.dtype}"
        + (f", base in {bits}" if bits != "none" else ""),
        "trained": f"{trained}, by {config.optimizer.name}",
        "chips": f"{planned.target.name}, mesh {config.mesh.shape} (batch x model)",
        "step": f"{trainer.global_batch_size} sequences of {data.sequence_length} "
        f"tokens"
        + (f" in {forwards} microbatches" if forwards > 1 else "")
        + f", remat {planned.memory.remat}, attention {planned.memory.attention}",
    }
