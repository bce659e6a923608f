"""Generation: prompts continued token by token, as one compiled program."""

from gemma.decoding.decoder import STATIC, Decoder
from gemma.decoding.sampling import GREEDY, SAMPLERS, Sampler, sampler_named

__all__ = ["GREEDY", "SAMPLERS", "STATIC", "Decoder", "Sampler", "sampler_named"]
