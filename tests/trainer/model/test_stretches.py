"""Stretches of alike layers as scans on a mesh, as they are compiled for TPUs."""

import dataclasses

import numpy as np

from gemma.stacked import Stacked
from tests.trainer.model.gradients import full_model, gradients

SAME = 2e-5  # relative to the largest; float32 sums over devices in another order


def with_stretches(model):
    old = model.stacked
    stacked = Stacked(old.backbone, old.constraints, old.attend, scans_stretches=True)
    return dataclasses.replace(model, stacked=stacked)


def test_stretches_on_a_mesh_change_no_gradient(repository):
    layers = {"family": "gemma3", "num_layers": 14}  # two whole periods and two more
    apart, _ = gradients(full_model(repository, (1, 1), **layers))
    scanned, text = gradients(with_stretches(full_model(repository, (2, 4), **layers)))
    for path, gradient in apart.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(
            scanned[path], gradient, atol=SAME * scale, err_msg=path
        )
    assert "f32[2,5,2,8,48]" in text  # kept inputs: half the batch, a quarter
    assert "f32[2,5,2,32,48]" not in text  # ... and not the whole sequence
