"""Attention among the tokens of a sequence: one function, a path for each device."""

from gemma.attention.attention import Attention, largest_block
from gemma.attention.choosing import CHOICES, Facts, Target, Unfit, choose
from gemma.attention.one_query import attend_one_query
from gemma.attention.scores import KEPT
from gemma.attention.sight import Sight, see

__all__ = [
    "CHOICES",
    "KEPT",
    "Attention",
    "Facts",
    "Sight",
    "Target",
    "Unfit",
    "attend_one_query",
    "choose",
    "largest_block",
    "see",
]
