"""Benchmarks: medians, ratios, tables and time lines, on figures made by hand."""

import json
import pathlib
import sys

import pytest

from gemma.presets import open_preset

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import child  # noqa: E402
import default_job  # noqa: E402
import generation  # noqa: E402
import peers  # noqa: E402
from comparison import (  # noqa: E402
    markdown_table,
    ratio_to_best,
    ratios,
    summary,
    summary_cells,
)
from generation_workload import GenerationWorkload  # noqa: E402
from subjects.random_preset import random_preset  # noqa: E402
from timeline import Mark, Watcher, phase_of_line, seconds_by_phase  # noqa: E402
from workload import Workload  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402

TOKENS = 1000


def result(step_seconds, peak_bytes=10**9):
    return {
        "versions": "jax 0",
        "step_seconds": step_seconds,
        "step_processor_seconds": [2 * seconds for seconds in step_seconds],
        "peak_bytes": peak_bytes,
        "seconds_to_first_step": 3.0,
        "import_seconds": 1.0,
        "other_cores": 0.25,
    }


def test_a_subject_is_summed_up_by_medians_over_steps_and_rounds():
    rounds = [result([1.0, 2.0, 9.0]), result([4.0]), result([1.0])]
    values = summary(rounds, TOKENS)
    assert values["tokens_per_second"] == 500.0
    assert values["tokens_per_second_range"] == [250.0, 1000.0]
    assert summary_cells(values) == [
        "500",
        "250 to 1,000",
        "1.00 GB",
        "3.0 s",
        "1.0 s",
    ]


def test_a_subject_that_failed_once_says_why_and_has_no_figures():
    values = summary([result([1.0]), {"failed": "no such module"}], TOKENS)
    assert values == {"failed": "no such module"}
    assert summary_cells(values)[0] == "did not run: no such module"


def test_ratios_are_taken_within_a_round_against_its_best_peer():
    # rounds: 2 / 1, 4 / 4, 9 / 3
    assert ratio_to_best([2, 4, 9], [[1, 4, 3], [1, 2, 1]], max) == 2.0
    assert ratio_to_best([2, 4, 9], [[1, 4, 3], [1, 2, 1]], min) == 2.0


def test_peers_that_failed_are_left_out_of_the_ratios():
    measured = {
        "ours": [result([1.0], peak_bytes=10)],
        "slow": [result([2.0], peak_bytes=40)],
        "gone": [{"failed": "why"}],
    }
    found = ratios(measured, TOKENS, ours="ours")
    assert found == {"tokens_per_second": 2.0, "peak_bytes": 0.25}
    assert ratios({"ours": measured["ours"]}, TOKENS, ours="ours") == {}


def test_tables_align_figures_to_the_right():
    assert (
        markdown_table(["a", "b"], [["x", "1"]])
        == "| a | b |\n| --- | --: |\n| x | 1 |"
    )


def test_the_least_work_of_a_step_is_counted_by_hand():
    # a layer: 512 x (16 + 8 heads x 64 + 3 x 1024) = 2,359,296 weights; four of them
    # and 512 x 32,000 give 25,821,184; 4 operations on each for 1,024 tokens
    assert Workload(vocabulary_size=32_000).gigaflops_per_step == pytest.approx(
        105.76, abs=0.01
    )


def test_all_subjects_get_the_same_batches_with_the_next_token_as_label():
    workload = Workload(vocabulary_size=100)
    inputs, labels = next(workload.batches())
    again, _ = next(workload.batches())
    assert inputs.shape == labels.shape == (4, 256)
    assert (inputs[:, 1:] == labels[:, :-1]).all()
    assert (inputs == again).all()


def test_random_weights_read_alike_whole_and_in_slices():
    config = open_preset("gemma2_tiny_en").config
    path = "decoder_block_0/ffw_gating/kernel"
    with random_preset(config).weights() as source:
        whole = source.read(path)
        part = source.read(path, (slice(3, 5), slice(None)))
    assert whole.shape == source.shape(path) == config.parameter_shapes()[path]
    assert (part == whole[3:5]).all()


def test_the_page_of_peers_names_shape_machine_and_ratios():
    slow = {"tunix": [result([2.0])], "transformers_peft": [result([4.0])]}
    measured = {256_000: {"ours": [result([1.0])], **slow}}
    page = peers.report(MACHINE, measured, {"remat": "none"})
    assert "2026-01-02, a processor, 2 cores" in page
    assert "## Vocabulary 256,000" in page
    best, peft = "- over the best peer: 2.00 times", "- over transformers with peft: 4"
    assert best in page and peft in page
    assert "`trainer.remat=none`" in page
    assert "- Tunix `PeftTrainer`: jax 0" in page
    assert "Other processes used 0.25 cores" in page


def test_a_peer_without_an_interpreter_is_reported_and_not_raised():
    found = peers.run_child(
        "tunix", Workload(vocabulary_size=9), python="/nowhere", steps=1, options={}
    )
    assert found == {"failed": "its interpreter is missing; see --python"}


def test_a_subject_that_cannot_start_is_reported_by_its_last_line():
    found = peers.run_child(
        "nobody",
        Workload(vocabulary_size=9),
        python=sys.executable,
        steps=1,
        options={},
    )
    assert found == {"failed": "ModuleNotFoundError: No module named 'subjects.nobody'"}


def test_the_page_of_generation_compares_with_each_peer():
    measured = {
        generation.OURS: [result([2.0], peak_bytes=10)],
        "generate_keras_hub": [result([8.0], peak_bytes=40)],
        "generate_transformers": [{"failed": "why"}],
    }
    floor = {"step_seconds": [0.02, 0.01, 0.04]}
    page = generation.report(MACHINE, GenerationWorkload(), measured, floor)
    assert "| 512 | 512 to 512 |" in page  # 8 x 128 new tokens in 2 seconds
    assert "| 4.0 s |" in page
    assert "| did not run: why |" in page
    assert "- against KerasHub `Gemma3CausalLM`: 4.00 times the tokens/s, 0.25" in page
    assert page.count("- against") == 1
    assert "1.07 GB of weights" in page and "20.0 ms here (54 GB/s)" in page
    assert "memory would allow 400 tokens/s" in page


def test_a_subject_of_generation_counts_what_it_added(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER.parents[1])
    workload = GenerationWorkload(
        vocabulary_size=64,
        num_layers=2,
        hidden_dim=16,
        ffw_dim=32,
        head_dim=8,
        batch_size=2,
        prompt_length=5,
        new_tokens=3,
    )
    found = child.measure("generate_ours", workload, steps=1, options={})
    assert found["losses"] == [6.0, 6.0]  # 2 x 3 new tokens, the first call and one
    assert len(found["step_seconds"]) == 1
    read = child.measure("read_weights", workload, steps=1, options={})
    assert read["losses"][0] == workload.weight_count // 1024 * 1024


def test_time_between_two_marks_belongs_to_the_later_one():
    marks = [
        Mark("start", 2.0),
        Mark("steps", 7.0),
        Mark("save", 3.5),
        Mark("steps", 8),
    ]
    seconds = seconds_by_phase(marks)
    assert (seconds["start"], seconds["save"], seconds["steps"]) == (2.0, 1.5, 4.5)
    assert sum(seconds.values()) == 8.0


def test_a_run_that_tells_how_long_it_built_divides_start_from_build(tmp_path):
    now = iter([0.0, 1.0, 5.0, 9.0])
    watcher = Watcher(tmp_path, clock=lambda: next(now))
    run = tmp_path / "run"
    run.mkdir()
    (run / "LOCK").write_text("{}")
    watcher.look()
    (run / "events.jsonl").write_text('{"kind": "built", "seconds": 4.5}\n')
    watcher.look()
    watcher.marks.append(Mark("steps", 9.0))
    seconds = seconds_by_phase(watcher.marks)
    assert (seconds["start"], seconds["build"], seconds["steps"]) == (0.5, 4.5, 4.0)


def test_lines_of_a_run_tell_what_had_ended():
    metrics, events = "metrics.jsonl", "events.jsonl"
    assert phase_of_line(metrics, {"step": 0, "eval/loss": 1.0}) == "evaluation"
    assert phase_of_line(metrics, {"step": 1, "train/loss": 1.0}) == "first step"
    assert phase_of_line(metrics, {"step": 2, "train/loss": 1.0}) == "steps"
    assert phase_of_line(events, {"kind": "checkpoint", "step": 2}) == "save"
    assert phase_of_line(events, {"kind": "end"}) is None


def test_a_growing_directory_is_read_line_by_line(tmp_path):
    now = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    watcher = Watcher(tmp_path, clock=lambda: next(now))
    watcher.look()
    run = tmp_path / "run"
    run.mkdir()
    (run / "LOCK").write_text("{}")
    line = json.dumps({"step": 1, "train/loss": 1.0})
    (run / "metrics.jsonl").write_text(line + "\n" + line[:9])
    watcher.look()
    (run / "metrics.jsonl").write_text(line + "\n" + line.replace("1,", "2,") + "\n")
    watcher.end()
    assert watcher.marks == [
        Mark("start", 2.0),
        Mark("first step", 2.0),
        Mark("steps", 3.0),
        Mark("artifacts", 4.0),
    ]


def test_a_job_that_fails_ends_the_measurement_with_what_it_said():
    with pytest.raises(RuntimeError, match="exit code 2, expected 0") as error:
        default_job.run_once(["lora.rnk=8"])
    assert "lora.rank" in str(error.value)


def test_the_page_of_the_default_job_has_every_phase_and_the_whole():
    runs = [seconds_by_phase([Mark("start", 2.0), Mark("steps", 5.0)])]
    page = default_job.report(MACHINE, runs, {"`--help`": [0.5, 0.7, 0.6]}, [])
    assert "| start | 2.0 | interpreter, imports, configuration, preset" in page
    assert "| build |" not in page
    assert "| steps | 3.0 |" in page
    assert "| together | 5.0 |" in page
    assert "| `--help` | 0.60 | 0.50 to 0.70 |" in page
