"""Models that the tests of `gemma` share: golden presets and small random ones."""

import functools
import pathlib

import numpy as np
import pytest

from gemma.backend import select_jax

select_jax()  # before a test module imports Keras

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FAMILIES = ("gemma", "gemma2", "gemma3")

SMALL = {
    "vocabulary_size": 96,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 96,
    "head_dim": 8,
}
GEMMA2 = {
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 5.0,
    "final_logit_soft_cap": 3.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
GEMMA3 = {
    "image_size": None,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
    "global_rope_scaling_factor": 8.0,
}
EXTRA = {"gemma": {}, "gemma2": GEMMA2, "gemma3": GEMMA3}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def keras_hub_golden(family):
    """Directory and arrays of a preset that KerasHub wrote."""
    directory = GOLDEN / "keras_hub" / family
    return directory, dict(np.load(directory / "golden.npz"))


@pytest.fixture(scope="session")
def arguments():
    """Return the constructor's arguments of a small model of one family."""

    def choose(family="gemma2", **changes):
        return SMALL | {"num_layers": 2} | EXTRA[family] | changes

    return choose


@pytest.fixture(scope="session")
def build(arguments):
    """Build a small model with weights large enough that every feature shows.

    Models are kept between tests: change one only after asking for `fresh=True`.
    """
    from gemma import Gemma3Backbone, GemmaBackbone

    def new(family="gemma2", num_layers=3, **changes):
        chosen = Gemma3Backbone if family == "gemma3" else GemmaBackbone
        backbone = chosen(**arguments(family, num_layers=num_layers, **changes))
        _randomise(backbone)
        return backbone

    kept = functools.cache(new)

    def choose(*args, fresh=False, **kwargs):
        return new(*args, **kwargs) if fresh else kept(*args, **kwargs)

    return choose


@pytest.fixture(scope="session")
def randomise():
    return _randomise


def _randomise(model, scale=0.3, seed=0):
    """Give every variable random values, adapters' B included."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            variable.assign(rng.normal(size=variable.shape) * scale)


@pytest.fixture(scope="session")
def batch():
    """Ids of three rows, the last two right-padded, as a backbone takes them."""
    lengths = np.array([12, 9, 5])
    mask = np.arange(12)[None] < lengths[:, None]
    ids = np.random.default_rng(1).integers(3, 96, size=(3, 12)) * mask
    return {"token_ids": ids.astype("int32"), "padding_mask": mask.astype("int32")}
