"""What a computation says when a process that took part in it is gone."""

import jax

from trainer.run import _peer_lost


def test_a_failed_computation_is_a_lost_process_with_the_library_s_words():
    error = jax.errors.JaxRuntimeError("UNKNOWN: Gloo: Connection closed by peer\nmore")
    lost = _peer_lost(error)
    assert lost.exit_code == 6
    assert lost.received.startswith("UNKNOWN: Gloo: Connection closed by peer; silent:")
    assert lost.fix == "the same command goes on from the last checkpoint"
