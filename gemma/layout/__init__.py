"""How every variable of a Gemma model is split over a mesh of devices.

Turns a mesh and the model's dimensions into one rule for each kind of variable:
KerasHub's specs wherever they divide, and where they do not the axis moves to another
dim of the same variable, or the dim stays whole. Adapters have rules too, where
KerasHub leaves them whole. Knows no values: a layout costs nothing.
"""

from gemma.layout.fitting import LARGE_BYTES, fit, fit_rules, most_devices
from gemma.layout.listing import LayoutTable, Row, table
from gemma.layout.maps import LearningLayoutMap, gemma_layout_map, teach_layout_map
from gemma.layout.rules import RULES, Rule, Spec, matching_rules, rule_of

__all__ = [
    "LARGE_BYTES",
    "RULES",
    "LayoutTable",
    "LearningLayoutMap",
    "Row",
    "Rule",
    "Spec",
    "fit",
    "fit_rules",
    "gemma_layout_map",
    "matching_rules",
    "most_devices",
    "rule_of",
    "table",
    "teach_layout_map",
]
