"""KerasHub's own training step compiled for chips that are not here, as JSON.

Turns Gemma 2 9B, cut to some of its layers, with LoRA of rank 8 into the step that
`fit` runs under `ModelParallel` with `GemmaBackbone.get_layout_map`, and tells the
memory that the TPU's compiler counts. The model is built without arrays; the step and
every split are KerasHub's and Keras's own.

    python tests/benchmarks/subjects/tpu_keras_hub.py 2
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from typing import Any

sys.path[0] = str(pathlib.Path(__file__).parents[1])  # here, keras_hub is a subject
os.environ["KERAS_BACKEND"] = "jax"
CHIPS, SEQUENCES, TOKENS, RANK = 8, 8, 1024, 8
TOPOLOGY = "v5e:2x4"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={CHIPS}"

import jax  # noqa: E402
import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402
from keras.src.backend.common import global_state  # noqa: E402
from subjects.compiled_memory import bytes_a_chip  # noqa: E402

NINE_B = {  # by KerasHub's names and not from our table: a peer imports nothing of ours
    "vocabulary_size": 256_000,
    "num_query_heads": 16,
    "num_key_value_heads": 8,
    "hidden_dim": 3584,
    "intermediate_dim": 28_672,
    "head_dim": 256,
    "query_head_dim_normalize": True,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 50.0,
    "final_logit_soft_cap": 30.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4096,
    "dtype": "bfloat16",
}


def build(num_layers: int) -> keras.Model:
    """Return the compiled Keras model; only its optimizer and metrics hold arrays."""
    with keras.StatelessScope(initialize_variables=False):
        backbone = keras_hub.models.GemmaBackbone(num_layers=num_layers, **NINE_B)
        backbone.enable_lora(RANK)
    global_state.set_global_attribute("uninitialized_variables", [])
    model = keras_hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
    )
    model.optimizer.build(model.trainable_variables)
    return model


class Placement:
    """Where Keras puts each variable: KerasHub's map, on the absent chips."""

    def __init__(self) -> None:
        names = [f"cpu:{index}" for index in range(CHIPS)]
        mesh = keras.distribution.DeviceMesh((1, CHIPS), ("batch", "model"), names)
        self._map = keras_hub.models.GemmaBackbone.get_layout_map(mesh)
        chips = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY)
        devices = np.array(chips.devices).reshape(1, CHIPS)
        self._mesh = Mesh(devices, ("batch", "model"))

    def variables(self, variables: list[Any]) -> list[jax.ShapeDtypeStruct]:
        """Return variables as shapes that know where they lie."""
        return [self._shape(v.shape, v.dtype, self._axes(v.path)) for v in variables]

    def batch(self, dtype: str) -> jax.ShapeDtypeStruct:
        """Return an array of the batch; `batch` has one part."""
        return self._shape((SEQUENCES, TOKENS), dtype, ("batch", None))

    def _axes(self, path: str) -> tuple[str | None, ...]:
        layout = self._map[path]
        return () if layout is None else tuple(layout.axes)

    def _shape(
        self, shape: tuple[int, ...], dtype: str, axes: tuple[str | None, ...]
    ) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(self._mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def measure(num_layers: int) -> dict[str, Any]:
    """Compile the step; return bytes a chip, seconds and versions."""
    model, placement = build(num_layers), Placement()
    state = tuple(
        placement.variables(variables)
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    ids = placement.batch("int32")
    batch = ({"token_ids": ids, "padding_mask": ids}, ids, placement.batch("float32"))
    started = time.perf_counter()
    kept = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(model.train_step, donate_argnums=0, out_shardings=(None, kept))
    found: dict[str, Any] = {"num_layers": num_layers}
    try:
        compiled = step.lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found["refused"] = str(error)
    else:
        found |= bytes_a_chip(compiled.memory_analysis())
    names = ("keras-hub", "keras", "jax", "libtpu")
    return found | {
        "compile_seconds": time.perf_counter() - started,
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("num_layers", type=int)
    json.dump(measure(parser.parse_args().num_layers), sys.stdout)
    print(flush=True)
