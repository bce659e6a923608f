"""What the loss over a large vocabulary costs, by the share of positions that have it.

Turns hidden states and a table into time and memory of the loss and its gradients:
with all logits at once, as the cross-entropy of a library computes them, and in tiles
of the vocabulary over what has loss, as this project does. Programs run in turns and
the cheapest run of each counts; memory is what a program reserves beside arguments and
results.

    python tests/benchmarks/loss.py [--rounds 5] [--out DIRECTORY]
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = pathlib.Path(__file__).parent
for place in (FOLDER, FOLDER.parents[1]):
    sys.path.insert(0, str(place))

from comparison import markdown_table  # noqa: E402
from in_turns import Cost, Program, compiled, measure  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402

from trainer.config.trainer_schema import TrainerConfig  # noqa: E402
from trainer.model.loss import summed_loss  # noqa: E402
from trainer.model.loss_form import CPU_PIECES, LossForm  # noqa: E402
from trainer.model.loss_terms import LossTerms  # noqa: E402

RESULTS = FOLDER / "results"
TOKENS, DIM, VOCABULARY, SOFT_CAP = 1024, 512, 256_000, 30.0  # the shape of peers.md
SHARES = (1.0, 0.5, 0.25, 0.05, 0.0)
TABLES = {"frozen": (0,), "trained": (0, 1)}  # arguments that get a gradient


def all_logits(
    hidden: jax.Array, table: jax.Array, labels: jax.Array, mask: jax.Array
) -> jax.Array:
    """Return the summed loss from logits of the whole batch, [tokens, vocabulary]."""
    raw = jnp.einsum("btd,vd->btv", hidden, table)
    logits = SOFT_CAP * jnp.tanh(raw / SOFT_CAP)
    losses = jax.nn.logsumexp(logits, -1)
    losses -= jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jnp.where(mask, losses, 0.0).sum()


def in_tiles(
    hidden: jax.Array,
    table: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    *,
    is_trained: bool,
) -> jax.Array:
    """Return the same as training computes it on a CPU."""
    form = LossForm(
        soft_cap=SOFT_CAP,
        shards=1,
        chunk_tokens=TrainerConfig().loss_chunk_tokens,
        table_shards=1,
        piece_tokens=CPU_PIECES,
    )
    terms = LossTerms(vocabulary_size=VOCABULARY)
    sums = summed_loss(
        hidden, table, labels, mask, form=form, terms=terms, table_is_trained=is_trained
    )
    return sums.minimised


def programs(table: str) -> dict[str, Program]:
    """Return value and gradients of both losses, ours for each share."""
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (1, TOKENS, DIM))
    weights = 0.02 * jax.random.normal(keys[1], (VOCABULARY, DIM))
    labels = jax.random.randint(keys[2], (1, TOKENS), 0, VOCABULARY)
    wanted, is_trained = TABLES[table], table == "trained"

    def ours(*arguments: jax.Array) -> jax.Array:
        return in_tiles(*arguments, is_trained=is_trained)

    dense = jax.value_and_grad(all_logits, argnums=wanted)
    tiled = jax.value_and_grad(ours, argnums=wanted)
    given = (hidden, weights, labels)
    run, _ = compiled(tiled, *given, masked(1.0))
    made = {"all logits at once": compiled(dense, *given, masked(1.0))}
    return made | {name_of(share): (run, (*given, masked(share))) for share in SHARES}


def masked(share: float) -> jax.Array:
    """Return where a loss counts: a share of the positions, anywhere."""
    order = np.random.default_rng(0).permutation(TOKENS)
    return jnp.asarray(order < round(share * TOKENS))[None]


def name_of(share: float) -> str:
    """Return how a share is called in the table."""
    return f"in tiles, loss on {share:.0%} of the positions"


def page(facts: dict[str, Any], measured: dict[str, dict[str, Cost]]) -> str:
    """Return the result as Markdown."""
    parts = ["# The loss over a large vocabulary", sentence(facts), _ABOUT]
    for table, costs in measured.items():
        whole = costs[name_of(1.0)].wall_ms
        rows = [
            [
                name,
                f"{cost.wall_ms:,.0f} ms",
                f"{cost.wall_ms / whole:.2f}",
                f"{cost.mib:,.0f} MiB",
            ]
            for name, cost in costs.items()
        ]
        header = ["loss and gradients", "time", "over all in tiles", "memory"]
        parts += [f"## The table is {table}", markdown_table(header, rows)]
    return "\n\n".join([*parts, "    python tests/benchmarks/loss.py\n"])


_ABOUT = f"""{TOKENS} positions of {DIM} against {VOCABULARY:,} entries, soft cap,
float32. `all logits at once` is `logsumexp` over a product of the whole batch,
differentiated by JAX; its time does not depend on where a loss counts. Least of the
rounds, in turns; memory is what a program reserves beside arguments and results, and
ours is one program for every share."""


def main() -> None:
    """Measure, and write the page and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    words = parser.parse_args()
    facts = machine_facts()
    measured = {table: measure(programs(table), words.rounds) for table in TABLES}
    raw = {
        table: {name: cost._asdict() for name, cost in costs.items()}
        for table, costs in measured.items()
    }
    (words.out / "loss.json").write_text(
        json.dumps({"machine": facts, "measured": raw}, indent=1) + "\n"
    )
    (words.out / "loss.md").write_text(page(facts, measured))
    print(page(facts, measured))


if __name__ == "__main__":
    main()
