"""Experiments that end, stop and damage real runs, and the table of what came of them.

Turns names, a number of kills and a seed into trials, each kept as a line of JSON, and
all of them into a page. A rerun does what is missing; `--again` repeats what failed.

    python -m tests.chaos [--only NAME ...] [--kills N] [--seed S] [--out DIR]
"""

import argparse
import pathlib
import shutil
import sys
import time

import tests.conftest  # noqa: F401  # what JAX reads at its start, as in the tests
from tests.benchmarks.machine import machine_facts
from tests.chaos.catalogue import EXPERIMENTS
from tests.chaos.ledger import Ledger, count_of, shown
from tests.chaos.report import report
from tests.chaos.workplace import REPOSITORY, Workplace

RESULTS = pathlib.Path(__file__).parent / "results.md"
ALL_KILLS = 100


def main() -> int:
    """Carry out what is missing, write the page, and return 1 if a trial failed."""
    words = _words()
    scale, until = words.kills / ALL_KILLS, time.monotonic() + words.minutes * 60
    ledgers = {e: Ledger(words.out, e) for e in EXPERIMENTS.values()}
    counts = {name: count_of(e, scale) for name, e in EXPERIMENTS.items()}
    runs = words.out / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    with Workplace(runs, seed=words.seed, scale=scale, until=until) as place:
        for name in words.only:
            ledger = ledgers[EXPERIMENTS[name]]
            missing = ledger.missing(counts[name], failed_too=words.again)
            for trial in ledger.carry_out(place, missing):
                print(name, shown(trial), flush=True)
    found = {e: ledger.trials() for e, ledger in ledgers.items()}
    page = report(found, counts=counts, facts=machine_facts(), command=_command(words))
    (words.out / "results.md").write_text(page)
    if words.record:
        RESULTS.write_text(page)
    print(page)
    return int(
        any(not trial["passed"] for trials in found.values() for trial in trials)
    )


def _words() -> argparse.Namespace:
    """Return what was typed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__.splitlines()[0]
    )
    names = list(EXPERIMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--kills",
        type=int,
        default=ALL_KILLS,
        help="trials of the first experiment; the others are in proportion",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=REPOSITORY / ".cache" / "chaos",
        help="where trials are kept and runs stand meanwhile",
    )
    parser.add_argument(
        "--minutes", type=float, default=24 * 60.0, help="start no trial after them"
    )
    parser.add_argument("--again", action="store_true", help="repeat what failed")
    parser.add_argument(
        "--record", action="store_true", help=f"write {RESULTS.name} beside the script"
    )
    return parser.parse_args()


def _command(words: argparse.Namespace) -> str:
    return f"python -m tests.chaos --kills {words.kills} --seed {words.seed}"


if __name__ == "__main__":
    sys.exit(main())
