"""Backbones with their tied head, which train on text and continue it."""

from gemma.causal_lm.model import CausalLM, Gemma3CausalLM, GemmaCausalLM

__all__ = ["CausalLM", "Gemma3CausalLM", "GemmaCausalLM"]
