"""A configuration with everything that its plan depends on, before it is planned.

Turns a `RunConfig` and chips into a mesh, an estimate and the search around it. It
refuses to compile.
"""

from __future__ import annotations

import dataclasses

from gemma.lora import LoraSettings
from gemma.presets import Preset
from trainer.config.limits import CHOICES
from trainer.config.mesh_shape import check_batch, check_slices, parse_shape
from trainer.config.schema import LoraConfig, RunConfig
from trainer.distribution.mesh import candidate_shapes
from trainer.model.adapters import adapter_settings
from trainer.model.memory import MemoryPlan
from trainer.model.remat import LEAST, check_remat_on, choose_remat
from trainer.tasks.planning.chips import PlannedChips
from trainer.tasks.planning.memory_plan import memory_plan
from trainer.tasks.planning.search import Search
from trainer.tasks.session import check_length, open_preset_of, with_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A configuration with everything filled in that a plan depends on."""

    config: RunConfig
    preset: Preset
    lora: LoraSettings | None
    target: PlannedChips
    memory: MemoryPlan
    shape: tuple[int, int]

    @property
    def limit(self) -> int | None:
        """Bytes that a program may use of a device."""
        return self.target.bytes_per_device

    @property
    def least(self) -> MemoryPlan:
        """The estimate where `trainer.remat=auto` would keep less to fit more."""
        if self.config.trainer.remat != "auto":
            return self.memory
        return dataclasses.replace(self.memory, remat=LEAST)

    def with_step(self, *, microbatch_size: int, sequence_length: int) -> RunConfig:
        """Return the configuration with another step of one forward, or of two."""
        forwards = min(self.memory.microbatches, 2)
        trainer = dataclasses.replace(
            self.config.trainer,
            microbatch_size=microbatch_size,
            global_batch_size=forwards * microbatch_size,
        )
        data = dataclasses.replace(self.config.data, sequence_length=sequence_length)
        return dataclasses.replace(self.config, trainer=trainer, data=data)


def prepare(
    config: RunConfig, target: PlannedChips, *, saved: LoraSettings | None = None
) -> Planned:
    """Open the preset's facts and choose the mesh; nothing is built.

    Args:
        config: What would be trained.
        target: On what.
        saved: Adapters of a run's checkpoints; their `lora.path` is not read.

    Raises:
        PresetError: There is no such preset.
        ConfigError: Length, mesh, adapters, attention or remat are impossible.
    """
    check_remat_on(config.trainer.remat, target.platform)
    preset = open_preset_of(config.preset.name)
    check_length(config.data.sequence_length, preset)
    lora = saved or adapter_settings(config.lora, preset)[0]
    config = with_dtype(config, target.platform)
    memory = memory_plan(
        config,
        preset.config,
        lora,
        platform=target.platform,
        largest_fused_head_dim=target.largest_fused_head_dim,
    )
    shape = _shape(config, memory, target)
    remat = choose_remat(
        config.trainer.remat, memory, shape, bytes_per_device=target.bytes_per_device
    )
    mesh = dataclasses.replace(config.mesh, shape=f"{shape[0]}x{shape[1]}")
    return Planned(
        config=dataclasses.replace(config, mesh=mesh, lora=_without_file(config, lora)),
        preset=preset,
        lora=lora,
        target=target,
        memory=dataclasses.replace(memory, remat=remat),
        shape=shape,
    )


def search_of(planned: Planned, *, limit: int, work_ratio: float = 1.0) -> Search:
    """Return the search around a configuration.

    Args:
        planned: The configuration.
        limit: Bytes that a program may use of a device.
        work_ratio: What a compiler needs beside the state, per estimated byte.
    """
    return Search(
        plan=planned.memory,
        shape=planned.shape,
        limit=limit,
        global_batch_size=planned.config.trainer.global_batch_size,
        slices=planned.config.mesh.slices or 1,
        remats=_remats(planned.target.platform),
        others=_others(planned),
        work_ratio=work_ratio,
    )


def _others(planned: Planned) -> dict[str, MemoryPlan]:
    """Return what takes less for each trained weight, where all weights are trained."""
    config, target = planned.config, planned.target
    if not planned.memory.is_full:
        return {}
    adafactor = dataclasses.replace(config.optimizer, name="adafactor")
    choices = {
        "optimizer=adafactor": dataclasses.replace(config, optimizer=adafactor),
        "lora=rank8": dataclasses.replace(config, lora=LoraConfig()),
    }
    return {
        words: memory_plan(
            other,
            planned.preset.config,
            adapter_settings(other.lora, planned.preset)[0],
            platform=target.platform,
            largest_fused_head_dim=target.largest_fused_head_dim,
        )
        for words, other in choices.items()
    }


def _remats(platform: str) -> tuple[str, ...]:
    """Return what `trainer.remat` can be there; a CPU has no host to offload to."""
    quickest_first = ("attention", "block", "offload")
    there = [word for word in quickest_first if word in CHOICES["trainer.remat"]]
    return tuple(w for w in there if w != "offload" or platform != "cpu")


def _without_file(config: RunConfig, lora: LoraSettings | None) -> LoraConfig:
    """Return `lora.*` with what its file says in place of the file."""
    if lora is None:
        return config.lora
    return dataclasses.replace(
        config.lora,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=list(lora.targets),
        factorisation=lora.factorisation,
        path=None,
    )


def _shape(
    config: RunConfig, memory: MemoryPlan, target: PlannedChips
) -> tuple[int, int]:
    """Return the mesh asked for; `auto` takes the first that fits, or the smallest."""
    slices = config.mesh.slices or 1
    if config.mesh.shape != "auto":
        shape = parse_shape(config.mesh.shape)
        check_slices(shape, slices)
        check_batch(shape, memory.microbatch_size)
        return shape
    shapes = candidate_shapes(target.num_devices, memory.microbatch_size, slices=slices)
    limit = target.bytes_per_device
    fitting = (
        s for s in shapes if limit is None or memory.bytes_per_device(s) <= limit
    )
    return next(fitting, min(shapes, key=memory.bytes_per_device))
