"""Models without arrays stay so, whatever runs after they were built."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from gemma import GemmaBackbone
from gemma.abstract import build_abstract, is_abstract
from gemma.stacked import Stacked


@pytest.fixture
def abstract(arguments):
    def build():
        backbone = GemmaBackbone(**arguments("gemma2", num_layers=3, dropout=0.1))
        backbone.enable_lora(2, dropout=0.1)
        return backbone

    return build_abstract(build)


def test_a_built_model_has_paths_and_shapes_but_no_values(abstract):
    assert is_abstract(abstract.variables)
    paths = {v.path for v in abstract.weights}
    assert set(abstract.gemma_config.parameter_shapes()) <= paths


def test_keras_has_forgotten_the_empty_variables(abstract):
    """Else the end of any default scope fills all of them (Keras 3.15)."""
    assert not global_state.get_global_attribute("uninitialized_variables")


def test_keras_has_forgotten_the_empty_variables_of_a_build_that_failed():
    def build():
        keras.Variable(initializer="zeros", shape=(2,))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_abstract(build)
    assert not global_state.get_global_attribute("uninitialized_variables")


def test_a_default_scope_leaves_the_variables_empty(abstract):
    with keras.StatelessScope():
        pass
    assert is_abstract(abstract.variables)


def test_after_a_training_step_every_variable_is_still_empty(abstract, batch):
    stacked = Stacked(abstract)
    draw = np.random.default_rng(0).normal
    weights = {p: jnp.asarray(draw(size=v.shape)) for p, v in stacked.tree.items()}

    @jax.jit
    def step(weights, key):
        loss = lambda w: jnp.square(  # noqa: E731
            stacked.hidden(w, **batch, dropout_key=key, remat="block")
        ).mean()
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights))

    after = step(weights, jax.random.key(0))
    assert is_abstract(abstract.variables)
    changed = [p for p, w in after.items() if not np.array_equal(w, weights[p])]
    assert len(changed) == len(weights)


def test_running_the_model_leaves_the_empty_variables_of_others_empty(abstract, batch):
    """Ours are forgotten by Keras; others' are not, and a default scope fills them."""
    with keras.StatelessScope(initialize_variables=False):
        foreign = keras.Variable(initializer="zeros", shape=(2,))
    stacked = Stacked(abstract)
    weights = {p: jnp.zeros(v.shape, v.dtype) for p, v in stacked.tree.items()}
    stacked.hidden(weights, batch["token_ids"])
    assert foreign._value is None
    global_state.set_global_attribute("uninitialized_variables", [])


def test_building_27b_takes_no_memory(arguments):
    from gemma.presets import BUILT_IN

    config = BUILT_IN["gemma2_27b_en"].config
    backbone = build_abstract(lambda: GemmaBackbone(**config.to_mapping()))
    assert is_abstract(backbone.variables)
    assert backbone.count_params() == 27_227_128_320


def test_random_weights_of_a_published_preset_need_no_download(monkeypatch):
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://127.0.0.1:9")  # nobody answers
    backbone = build_abstract(
        lambda: GemmaBackbone.from_preset("gemma_2b_en", load_weights=False)
    )
    assert backbone.count_params() == 2_506_172_416
    assert backbone.vocabulary is None
