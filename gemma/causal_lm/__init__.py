"""Backbones with their tied head, which train on text and continue it."""

from gemma.backend import select_jax

select_jax()

from gemma.causal_lm.model import (  # noqa: E402  the backend is chosen first
    CausalLM,
    Gemma3CausalLM,
    GemmaCausalLM,
)

__all__ = ["CausalLM", "Gemma3CausalLM", "GemmaCausalLM"]
