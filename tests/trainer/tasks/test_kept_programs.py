"""Programs that are kept before they are compiled: found, traced, and the same."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import quantize
from trainer.__main__ import compose
from trainer.distribution.facts import code_hash
from trainer.tasks import kept_programs
from trainer.tasks.compiled_programs import keep_compiled_programs
from trainer.tasks.kept_programs import Program, Shelf, shelf_of
from trainer.tasks.program import step_program

X = np.arange(6.0, dtype="float32").reshape(2, 3)


class Starts:
    """Starts of one program: each has a function of its own, as each process has."""

    def __init__(self, place):
        self.place, self.traced = place, 0

    def program(self, made_from="the same", factor=2.0, **more):
        def double(x, *, power=1):
            self.traced += 1
            return {"doubled": jnp.sin(x * factor) ** power}

        function = jax.jit(double, static_argnames="power")
        shelf = Shelf(self.place, made_from)
        return Program(function, shelf, varies=lambda x, **_: x.shape, **more)

    def files(self):
        return sorted(self.place.glob("*.stablehlo"))


@pytest.fixture
def starts(tmp_path):
    return Starts(tmp_path / "traced")


def test_a_second_start_traces_nothing_and_computes_the_same(starts):
    first = starts.program()(X)["doubled"]
    assert starts.traced == 1 and len(starts.files()) == 1
    second = starts.program()
    second.prepare(jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert (second(X)["doubled"] == first).all()
    assert (second(X + 1)["doubled"] == jnp.sin((X + 1) * 2.0)).all()
    assert starts.traced == 1


@pytest.mark.parametrize(
    "x", [X[:1], X.astype("int32"), X.astype("float16")], ids=["shape", "int", "half"]
)
def test_other_arguments_are_another_program(starts, x):
    starts.program()(X)
    want = jax.jit(lambda x: jnp.sin(x * 2.0))(x)
    assert (starts.program()(x)["doubled"] == want).all()
    assert starts.traced == 2


def test_arguments_that_lie_elsewhere_are_another_program(starts):
    mesh = jax.make_mesh((2,), ("batch",))
    split = jax.NamedSharding(mesh, jax.P("batch"))
    starts.program()(X)
    got = starts.program()(jax.device_put(X, split))["doubled"]
    assert starts.traced == 2
    np.testing.assert_allclose(got, np.sin(X * 2), rtol=1e-6)


def test_what_it_was_made_from_tells_programs_apart(starts):
    starts.program("one thing")(X)
    got = starts.program("another", factor=3.0)(X)["doubled"]
    assert (got == jnp.sin(X * 3.0)).all()


def test_arguments_that_are_part_of_a_program_are_not_passed_to_it(starts):
    settings = {"static": ("power",)}
    for _ in range(2):
        got = starts.program(**settings)(X, power=2)["doubled"]
        np.testing.assert_allclose(got, np.sin(X * 2) ** 2, rtol=1e-6)
    starts.program(**settings)(X, power=3)
    assert starts.traced == 2


def test_what_is_donated_is_gone(starts):
    for _ in range(2):
        x = jnp.asarray(X)
        starts.program(donated=(0,))(x)
        assert x.is_deleted()


def test_nothing_half_written_stays(starts, monkeypatch):
    def fails(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", fails)
    starts.program()(X)
    assert [p for p in starts.place.parent.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("harm", ["torn", "flipped", "empty", "other bytes"])
def test_a_damaged_program_is_traced_again_and_mended(starts, harm):
    want = starts.program()(X)["doubled"]
    (file,) = starts.files()
    whole = file.read_bytes()
    flipped = bytes([whole[-1] ^ 1])
    file.write_bytes(
        {
            "torn": whole[:-40],
            "flipped": whole[:-1] + flipped,
            "empty": b"",
            "other bytes": b"x" * len(whole),
        }[harm]
    )
    assert (starts.program()(X)["doubled"] == want).all()
    starts.program()(X)
    assert starts.traced == 2


def test_a_place_that_cannot_be_written_is_traced_every_time(tmp_path):
    (tmp_path / "file").write_text("")
    starts = Starts(tmp_path / "file" / "traced")
    for count in (1, 2):
        starts.program()(X)
        assert starts.traced == count


def test_what_cannot_be_exported_runs_as_ever(tmp_path):
    def told(x):
        jax.debug.callback(lambda: None)
        return x + 1

    shelf = Shelf(tmp_path, "it")
    program = Program(jax.jit(told), shelf, varies=lambda x: x.shape)
    program.prepare(X)
    assert (program(X) == X + 1).all()
    assert list(tmp_path.iterdir()) == []


def test_only_so_many_are_kept(starts, monkeypatch):
    monkeypatch.setattr(kept_programs, "MOST_KEPT", 3)
    for count in range(1, 6):
        starts.program()(np.zeros(count, "float32"))
    assert len(starts.files()) == 3
    starts.program()(np.zeros(5, "float32"))
    assert starts.traced == 5  # the newest stayed


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_weight_is_an_argument_as_any(tmp_path, quantization):
    parts = map(jnp.asarray, quantize(np.ones((64, 8), "float32"), quantization, -2))
    weight = QuantizedArray(*parts, quantization, -2)
    kept_programs._register_trees()
    traced = []

    def total(weight):
        traced.append(1)
        return weight.astype("float32").sum()

    for _ in range(2):
        shelf = Shelf(tmp_path, "it")
        program = Program(jax.jit(total), shelf, varies=lambda weight: weight.shape)
        assert program(weight) == pytest.approx(512.0, rel=1e-3)
    assert traced == [1]


def assembly(*words):
    """Return what a step of the tiny preset is made from."""
    config = compose(["preset=gemma2_tiny_en", "mesh=1x1", *words])
    return step_program(config, jax.devices()[:1]).parts


LOWERED = """
import sys
from trainer.__main__ import compose
from trainer.tasks.compiled_programs import keep_compiled_programs
from trainer.tasks.program import kept_step, step_program
import jax
keep_compiled_programs(sys.argv[1], print)
program = step_program(compose(["preset=gemma2_tiny_en"]), jax.devices()[:1])
step = kept_step(program.parts, program.optimizer)
function = step._for(program.arguments(), {})
print(function.lower(*program.arguments()).as_text())
"""


def test_another_process_finds_what_one_has_kept(tmp_path):
    command = [sys.executable, "-c", LOWERED, tmp_path]
    first = subprocess.run(command, check=True, capture_output=True, text=True)
    (kept,) = tmp_path.rglob("*.stablehlo")
    written = kept.stat()
    second = subprocess.run(command, check=True, capture_output=True, text=True)
    assert second.stdout == first.stdout != ""
    assert list(tmp_path.rglob("*.stablehlo")) == [kept]
    assert kept.stat().st_ino == written.st_ino  # what is written replaces the file
    assert kept.stat().st_mtime_ns > written.st_mtime_ns  # what is read was in use


class TestWhatDecides:
    """Whether two starts ask for the same programs."""

    @pytest.fixture(autouse=True)
    def kept(self, tmp_path, own_cache):
        keep_compiled_programs(str(tmp_path), print)

    @staticmethod
    def asked(*words, more=("step",)):
        return shelf_of(assembly(*words), *more)._made_from

    @pytest.mark.parametrize(
        "word",
        [
            "optimizer.learning_rate=0.5",
            "trainer.num_train_steps=7",
            "trainer.remat=none",
            "trainer.loss_chunk_tokens=64",
            "lora.rank=4",
            "preset.dtype=bfloat16",
            "seed=3",
        ],
    )
    def test_what_changes_numbers_asks_for_another(self, word):
        assert self.asked(word) != self.asked()

    def test_what_changes_none_asks_for_the_same(self):
        words = ("run.name=other", "tracker=wandb", "debug=true", "plan.confirm=true")
        assert self.asked(*words) == self.asked()

    def test_so_do_other_options_of_jax_and_other_facts(self):
        one = self.asked()
        assert self.asked(more=("step", 7)) != one
        with jax.default_matmul_precision("highest"):
            assert self.asked() != one
        jax.config.update("jax_use_direct_linearize", False)
        try:
            assert self.asked() != one
        finally:
            jax.config.update("jax_use_direct_linearize", True)
        assert self.asked() == one
        assert code_hash() in one

    def test_another_model_of_the_same_name_is_another(self):
        parts = assembly()
        preset = parts.model.preset
        wider = dataclasses.replace(preset.config, final_logit_soft_cap=5.0)
        preset = dataclasses.replace(preset, config=wider)
        model = dataclasses.replace(parts.model, preset=preset)
        changed = dataclasses.replace(parts, model=model)
        assert shelf_of(changed)._made_from != shelf_of(parts)._made_from

    def test_several_processes_trace_as_ever(self, monkeypatch):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        assert shelf_of(assembly()) is None

    def test_without_a_directory_nothing_is_kept(self):
        parts = assembly()
        keep_compiled_programs("none", print)
        assert shelf_of(parts) is None
