"""What a person sees of a run: a plan, a bar, a few samples, and where things are.

Turns facts into a terminal's screen; where there is no terminal, into plain lines.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trainer.distribution.processes import is_primary
from trainer.tracking import Sample

LOG_COLUMNS = 160
PLAIN_LINE_EVERY = 0.1  # of the steps, where no bar can be drawn


class Screen:
    """The primary process's screen; the other processes' stay dark."""

    def __init__(self) -> None:
        # a log has no width: paths must not be folded in it
        width = None if sys.stdout.isatty() else LOG_COLUMNS
        self.console = Console(highlight=False, quiet=not is_primary(), width=width)

    def facts(self, title: str, rows: Mapping[str, object]) -> None:
        """Show a heading and facts below each other."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", justify="right")
        table.add_column(overflow="fold")
        for label, value in rows.items():
            table.add_row(label, str(value))
        self.console.print(f"\n[bold]{title}[/bold]")
        self.console.print(table)

    def line(self, text: str) -> None:
        """Show one line."""
        self.console.print(text, markup=False)

    def samples(self, samples: Sequence[Sample]) -> None:
        """Show prompts with the answers before and after training."""
        for sample in samples:
            rows = {"prompt": sample.prompt, "reference": sample.reference}
            rows["before"] = sample.before
            if sample.after is not None:
                rows["after"] = sample.after
            table = Table.grid(padding=(0, 2))
            table.add_column(style="cyan", justify="right")
            table.add_column(overflow="fold")
            for label, text in rows.items():
                table.add_row(label, text.strip().replace("[", "\\["))
            self.console.print(table)
            self.console.print()


class Bar:
    """Progress over steps with loss, tokens a second and time left."""

    def __init__(
        self, screen: Screen, *, first_step: int, num_train_steps: int
    ) -> None:
        self._screen, self._total = screen, num_train_steps
        self._plain_every = max(1, round(num_train_steps * PLAIN_LINE_EVERY))
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=screen.console,
            disable=not screen.console.is_terminal,
        )
        self._task = self._progress.add_task(
            "training", total=num_train_steps, completed=first_step, shown="starting"
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers of a step."""
        if "eval/loss" in values:
            text = (
                f"step {step}: held-out loss {values['eval/loss']:.4f}, "
                f"content alone {values['eval/content_loss']:.4f}"
            )
            self._progress.console.print(text, markup=False)
        if "train/loss" not in values:
            return
        shown = (
            f"loss {values['train/loss']:.3f}  "
            f"{values['train/tokens_per_second']:,.0f} tokens/s"
        )
        if "train/mfu" in values:
            shown += f"  MFU {values['train/mfu']:.0%}"
        self._progress.update(self._task, completed=step, shown=shown)
        is_due = step % self._plain_every == 0 or step in (1, self._total)
        if not self._screen.console.is_terminal and is_due:
            self._screen.line(f"step {step}/{self._total}  {shown}")
