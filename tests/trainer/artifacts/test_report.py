"""The report is one readable file that holds what the run measured."""

import dataclasses
import html.parser
import math

from trainer import storage
from trainer.artifacts.report import Sample, write_report
from trainer.artifacts.text import shown
from trainer.config.schema import RunConfig

FORGED = Sample(
    prompt="What is <script>alert(1)</script>?",
    reference="water & wind",
    before="</td><td>",
    after=None,
)


def metrics(steps):
    lines = [{"step": 0, "eval/loss": 4.0, "eval/content_loss": 5.0}]
    for step in range(1, steps + 1):
        lines.append(
            {
                "step": step,
                "train/loss": 2.0 + 2.0 * math.exp(-step / 20),
                "train/tokens_per_second": 9000.0 if step > 1 else 10.0,
                "train/learning_rate": 1e-3,
                "train/grad_norm": 1.0,
                "train/rows_seen": 8 * step,
            }
        )
    lines[-1] |= {"eval/loss": 3.0, "eval/content_loss": 4.0}
    return lines


def report(path, *, steps=50, samples=(FORGED,), lines=None, facts=None):
    write_report(
        path,
        title="tiny-wordnet-1a2b3c4d",
        config=dataclasses.asdict(RunConfig()),
        metrics=metrics(steps) if lines is None else lines,
        samples=samples,
        facts={"wall time": "71 s", "Environment": {"jax": "0.10.2"}} | (facts or {}),
    )
    return storage.read_text(path)


class Page(html.parser.HTMLParser):
    """Collects what a page loads, and its tags."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            outside = name in ("src", "href", "xlink:href", "action", "data")
            if outside and not (value or "").startswith("#"):
                self.loaded.append(value)


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    text = report(tmp_path / "report.html")
    page = Page(text)
    assert page.loaded == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "@import" not in text and "url(http" not in text


def test_the_page_shows_numbers_samples_facts_and_configuration(tmp_path):
    text = report(tmp_path / "report.html", facts={"command": "python -m trainer"})
    for words in (
        "4 → 3",
        "-25.0 %",
        "5 → 4",
        "9,000",
        "rows seen",
        "wall time",
        "0.10.2",
        "<pre>python -m trainer</pre>",
        "num_train_steps",
        "gemma2_tiny_en",
    ):
        assert words in text
    assert Page(text).tags.count("svg") == 4


def test_text_of_the_data_cannot_become_part_of_the_page(tmp_path):
    text = report(tmp_path / "report.html")
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "(not trained to the end)" in text


def test_a_very_long_run_stays_below_two_megabytes(tmp_path):
    assert len(report(tmp_path / "report.html", steps=200_000)) < 400_000


def test_a_run_that_measured_nothing_has_a_page_too(tmp_path):
    text = report(tmp_path / "report.html", samples=(), lines=[])
    assert "<svg" not in text and "Configuration" in text


def test_values_that_are_not_finite_leave_a_gap(tmp_path):
    lines = [*metrics(20), {"step": 21, "train/loss": None}]
    assert "nan" not in report(tmp_path / "report.html", lines=lines).lower()


def test_the_same_run_gives_the_same_file(root):
    assert report(f"{root}/a.html") == report(f"{root}/b.html")


def test_values_are_shown_as_they_are_typed():
    values = [None, True, 7, 4_260_000, 1e-4, 0.25, 31234.5, ["query", "value"], "auto"]
    assert [shown(value) for value in values] == [
        "null",
        "true",
        "7",
        "4,260,000",
        "1e-4",
        "0.25",
        "31,234",
        "[query, value]",
        "auto",
    ]
