"""What memory allows: a sum over as many bytes as the weights of the workload have.

XLA:CPU adds floats as fast as two cores can read them, which makes its sum a measure
of memory: every decoding step must read all weights at least once.
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from generation_workload import GenerationWorkload


def build(workload: GenerationWorkload) -> Callable[[Any, int], float]:
    """Return a function that reads the weights' bytes once, whatever it is given."""
    weights = jnp.ones((workload.weight_count // 1024, 1024), workload.dtype)
    add = jax.jit(jnp.sum)

    def step(prompts: Any, new_tokens: int) -> float:
        return float(add(weights))

    return step


def versions() -> str:
    """Return what was measured."""
    return f"jax {importlib.metadata.version('jax')}"
