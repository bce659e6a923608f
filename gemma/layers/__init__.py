"""The layers of a Gemma block, named and shaped as KerasHub's."""

from gemma.backend import select_jax

select_jax()
