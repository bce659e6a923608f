"""What the step is made of, read off its program: size, dtypes, largest arrays."""

import dataclasses
import math
import re

import jax
import pytest
from jax.extend.core import jaxprs_in_params

from gemma.presets import open_preset
from trainer.__main__ import compose
from trainer.model.assemble import build_model
from trainer.tasks.program import StepProgram, build_step
from trainer.tasks.session import assemble
from trainer.tasks.state import build_optimizer

BATCH = ("trainer.global_batch_size=2", "data.sequence_length=32", "mesh=1x1")


@pytest.fixture(scope="module")
def program(repository):
    """Return the step of the golden Gemma 2 with other dimensions and settings."""
    name = repository / "tests/golden/keras_hub/gemma2"

    def build(*words, **dimensions):
        config = compose([f"preset.name={name}", *BATCH, *words])
        parts = assemble(config, jax.devices()[:1], bytes_per_device=None)
        preset = open_preset(str(name))
        preset = dataclasses.replace(
            preset, config=dataclasses.replace(preset.config, **dimensions)
        )
        quantize = parts.model.quantization
        model = build_model(
            preset,
            parts.mesh,
            dtype=parts.config.preset.dtype,
            lora=parts.model.lora,
            quantize=quantize,
        )
        parts = dataclasses.replace(parts, model=model)
        optimizer = build_optimizer(parts)
        step = build_step(parts, optimizer)
        return StepProgram(parts=parts, optimizer=optimizer, step=step)

    return build


@pytest.mark.parametrize("lora", ["lora=rank8", "lora=none"])
def test_more_layers_make_no_larger_program(program, lora):
    few, many = (program(lora, num_layers=n).lower().as_text() for n in (12, 48))
    assert few.count("\n") == many.count("\n") > 1000
    assert "tensor<48x" in many


def equations(jaxpr):
    """Yield the equations of a program, those of its loops and functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.fixture(scope="module", params=["lora=rank8", "lora=none"])
def half(request, program):
    """The step in bfloat16 over a bfloat16 base, and over float32 weights."""
    made = program(request.param, "preset.dtype=bfloat16")
    jaxpr = jax.make_jaxpr(made.step)(*made.arguments()).jaxpr
    return made, list(equations(jaxpr))


def test_products_are_bfloat16_and_sums_of_the_softmax_and_norms_float32(half):
    _, found = half
    dtypes = {}
    for equation in found:
        name = equation.primitive.name
        dtypes.setdefault(name, set()).update(
            v.aval.dtype.name for v in equation.invars if v.aval.ndim
        )
    assert dtypes["dot_general"] == {"bfloat16"}
    for name in ("exp", "log", "rsqrt"):
        assert dtypes[name] == {"float32"}, name


def test_what_is_trained_and_its_slots_are_float32(half):
    made, _ = half
    state, frozen, _ = made.arguments()
    slots = {x.dtype.name for name, x in state.slots.items() if name != "iteration"}
    assert {x.dtype.name for x in state.trainable.values()} == slots == {"float32"}
    assert {x.dtype.name for x in frozen.values()} <= {"bfloat16"}


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_a_quantized_base_never_stands_in_floats(program, bits):
    """Not even two layers of its largest kernel do, [64, 512] each."""
    text = (
        program(
            f"preset.quantize={bits}",
            "trainer.global_batch_size=1",
            num_layers=8,
            hidden_dim=64,
            intermediate_dim=1024,
            vocabulary_size=256,
        )
        .lower()
        .compile()
        .as_text()
    )
    floats = re.findall(r"\b(?:f32|bf16)\[([\d,]+)\]", text)
    largest = max(math.prod(map(int, shape.split(","))) for shape in floats)
    assert largest == 64 * 512
    assert re.search(r"\b[su]8\[8,(64|32),512\]", text)
