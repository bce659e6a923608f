"""All experiments, in the order of the table."""

from tests.chaos.damage import DAMAGE
from tests.chaos.long_run import LONG_RUN
from tests.chaos.mesh_pairs import MESH_PAIRS
from tests.chaos.planted_nonfinite import PLANTED
from tests.chaos.process_counts import PROCESS_COUNTS
from tests.chaos.resume_everywhere import RESUME
from tests.chaos.save_cost import SAVE_COST
from tests.chaos.sigkill import SIGKILL
from tests.chaos.sigkill_pair import SIGKILL_PAIR
from tests.chaos.sigterm_phases import SIGTERM_PHASES
from tests.chaos.two_in_one_directory import TWO_IN_ONE

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        SIGKILL,
        SIGKILL_PAIR,
        SIGTERM_PHASES,
        RESUME,
        MESH_PAIRS,
        PROCESS_COUNTS,
        DAMAGE,
        PLANTED,
        TWO_IN_ONE,
        LONG_RUN,
        SAVE_COST,
    )
}
