"""The page of the loss: what its rows say, on figures made by hand."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import loss  # noqa: E402
from in_turns import Cost  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402


def test_a_share_with_loss_stands_beside_all_positions():
    costs = {
        "all logits at once": Cost(0.0, 3000.0, 2000.0),
        loss.name_of(1.0): Cost(0.0, 1500.0, 20.0),
        loss.name_of(0.05): Cost(0.0, 75.0, 20.0),
    }
    text = loss.page(MACHINE, {"frozen": costs})
    assert "| all logits at once | 3,000 ms | 2.00 | 2,000 MiB |" in text
    assert "loss on 5% of the positions | 75 ms | 0.05 | 20 MiB |" in text


def test_a_share_of_the_positions_has_loss_wherever_they_stand():
    mask = loss.masked(0.25)
    assert mask.shape == (1, loss.TOKENS)
    assert mask.sum() == loss.TOKENS // 4
    assert mask[0, loss.TOKENS // 2 :].any()
