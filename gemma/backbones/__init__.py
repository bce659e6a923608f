"""Backbones: whole Keras models from token ids to hidden states."""

from gemma.backend import select_jax

select_jax()
