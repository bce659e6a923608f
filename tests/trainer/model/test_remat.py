"""A remat that a device cannot run is refused before anything is allocated."""

import jax
import pytest

from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.tasks.session import assemble


def assembled(*words):
    config = compose(["mesh=1x1", *words])
    return assemble(config, jax.devices()[:1], bytes_per_device=None)


def test_a_cpu_has_no_host_to_offload_to():
    with pytest.raises(ConfigError) as refused:
        assembled("trainer.remat=offload")
    assert refused.value.key == "trainer.remat"
    assert "no memory beside pinned_host" in str(refused.value)
    assert refused.value.fix == "trainer.remat=block"


def test_without_a_backward_pass_every_choice_works():
    assert assembled("trainer.remat=offload", "task=evaluate").mesh.size == 1
