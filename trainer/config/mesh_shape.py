"""The mesh as people type it, and what follows from its two numbers alone.

Turns `2x4` into (2, 4) and says which shapes a number of devices allows. It knows no
devices, so that a wrong mesh is told before JAX is imported.
"""

from __future__ import annotations

from trainer.config.errors import ConfigError


def parse_shape(text: str) -> tuple[int, int]:
    """Turn `2x4` into (2, 4): batch x model.

    Raises:
        ConfigError: It is not two positive numbers with an x between them.
    """
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise ConfigError(
        key="mesh.shape",
        expected="auto, or batch x model such as 1x8",
        received=text,
        fix=_suggestion(text),
    )


def auto_shapes(num_devices: int) -> list[tuple[int, int]]:
    """Return the shapes of all devices with a power of two on `model`, from 1 up."""
    shapes, model = [], 1
    while num_devices % model == 0:
        shapes.append((num_devices // model, model))
        model *= 2
    return shapes


def check_devices(
    shape: tuple[int, int], num_devices: int, *, processes: int = 1
) -> None:
    """Refuse a shape that needs other devices than there are in all processes.

    Raises:
        ConfigError: With the shapes that would fit and the simulation switch.
    """
    needed = shape[0] * shape[1]
    if needed == num_devices:
        return
    fitting = " or ".join(f"mesh={b}x{m}" for b, m in auto_shapes(num_devices))
    raise ConfigError(
        key="mesh.shape",
        expected=f"2 numbers whose product is the number of devices, {num_devices}",
        received=f"{shape[0]}x{shape[1]}, which needs {needed}",
        fix=f"{fitting}{_simulation(needed, processes)}",
    )


def _simulation(needed: int, processes: int) -> str:
    """Return how to get so many devices on CPUs, where processes can share them."""
    if needed % processes:
        return ""
    each = needed // processes
    what = f"{needed} of one" if processes == 1 else f"{each} in each of {processes}"
    return f"; on a CPU device.simulated={each} makes {what}"


def check_batch(
    shape: tuple[int, int], microbatch_size: int, global_batch_size: int = 0
) -> None:
    """Refuse a batch that the `batch` axis cannot share out evenly.

    Args:
        shape: Batch x model.
        microbatch_size: Sequences of a forward pass.
        global_batch_size: Sequences of a step; 0 for those of one forward pass.

    Raises:
        ConfigError: With the next larger batch that would do.
    """
    whole = global_batch_size or microbatch_size
    key, size = "trainer.global_batch_size", whole
    fitting = -(-whole // shape[0]) * shape[0]
    if whole % shape[0] == 0:
        key, size = "trainer.microbatch_size", microbatch_size
        parts = (n for n in range(size, whole) if n % shape[0] == whole % n == 0)
        fitting = next(parts, whole)
    if size % shape[0]:
        raise ConfigError(
            key=key,
            expected=f"a multiple of the mesh's batch axis ({shape[0]})",
            received=size,
            fix=f"{key}={fitting}, or another mesh",
        )


def check_slices(shape: tuple[int, int], slices: int) -> None:
    """Refuse a shape whose `model` axis would run across slices.

    Raises:
        ConfigError: With the shape nearest to it that stays inside.
    """
    if shape[0] % slices == 0:
        return
    fits = (shape[0] * shape[1]) % slices == 0
    raise ConfigError(
        key="mesh.shape",
        expected=f"a batch axis that {slices} slices share evenly, so that model stays "
        "inside a slice",
        received=f"{shape[0]}x{shape[1]}",
        fix=f"mesh={slices}x{shape[0] * shape[1] // slices}" if fits else "mesh=auto",
    )


def _suggestion(text: str) -> str:
    """Return the mesh that `text` may mean: `2*4`, `2,4`, `[2, 4]`, `8`."""
    numbers = [
        int(word) for word in "".join(c if c.isdecimal() else " " for c in text).split()
    ]
    if len(numbers) == 2 and min(numbers) > 0:
        return f"mesh={numbers[0]}x{numbers[1]}"
    if len(numbers) == 1 and numbers[0] > 0:
        return f"mesh=1x{numbers[0]} or mesh={numbers[0]}x1"
    return "mesh=auto"
