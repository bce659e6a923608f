"""Two processes save one checkpoint together, and notice when they cannot."""

import re
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
process, address, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, 2, process)
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from trainer.checkpoint import Store
from trainer.config.errors import StorageError
from trainer.distribution.exchange import wait_for_all
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("batch", "model"))
split = NamedSharding(mesh, PartitionSpec("batch", "model"))
rows = np.arange(32, dtype=np.float32).reshape(4, 8)
array = jax.make_array_from_callback(rows.shape, split, lambda index: rows[index])
like = {"kernel": jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=split)}
try:
    with Store(directory, keep_last=2) as store:
        store.save(1, {"kernel": array}, {"step": 1})
        store.save(2, {"kernel": array + 1}, {"step": 2})
        store.wait()
        arrays, metadata = store.restore(None, like)
    same = all(
        (np.asarray(shard.data) == rows[shard.index] + 1).all()
        for shard in arrays["kernel"].addressable_shards
    )
    print("restored", metadata, same, flush=True)
    if rule := sys.argv[4]:
        if process == 0:
            os.remove(os.path.join(directory, "2", "arrays", "_METADATA"))
        wait_for_all("the damage")
        with Store(directory, keep_last=2, on_corrupt=rule) as store:
            _, metadata = store.restore(None, like)
            store.save(2, {"kernel": array}, {"step": 2})
        print("instead", metadata, [one.step for one in store.left_out], flush=True)
except StorageError as error:
    print("refused", error.received, flush=True)
jax.distributed.shutdown()
"""


def in_two_processes(*directories, damaged=""):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                str(index),
                address,
                str(directory),
                damaged,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, directory in enumerate(directories)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()  # after SIGTERM a distributed process would go on
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [output.strip().splitlines()[-1] for output, _ in outputs]


@pytest.mark.timeout(180)
def test_two_processes_save_and_restore_one_checkpoint(tmp_path):
    said = in_two_processes(tmp_path / "run", tmp_path / "run")
    assert said == ["restored {'step': 2} True"] * 2
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["1", "2"]


@pytest.mark.timeout(180)
def test_two_processes_leave_out_the_same_damaged_checkpoint(tmp_path):
    run = tmp_path / "run"
    said = in_two_processes(run, run, damaged="previous")
    assert said == ["instead {'step': 1} [2]"] * 2
    assert sorted(path.name for path in run.iterdir()) == ["1", "2"]
    aside = tmp_path / "run-damaged"
    assert [path.name for path in aside.iterdir()] == ["2"]


@pytest.mark.timeout(180)
def test_two_processes_are_told_of_the_same_damage(tmp_path):
    said = in_two_processes(tmp_path / "run", tmp_path / "run", damaged="stop")
    assert said[0].startswith("refused arrays/_METADATA is gone (process 0 on ")
    assert said[1] == said[0]


@pytest.mark.timeout(180)
def test_directories_that_are_not_shared_are_refused_in_every_process(tmp_path):
    said = in_two_processes(tmp_path / "a", tmp_path / "b")
    assert [re.search(r"another one for process (\d)", line)[1] for line in said] == [
        "1",
        "1",
    ]
