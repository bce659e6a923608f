"""Which processes a run has: from keys, Slurm, Open MPI and a TPU's environment."""

import jax._src.clusters.cloud_tpu_cluster as cloud_tpu
import pytest

from trainer.config.distributed_schema import (
    DistributedConfig,
    distributed_problems,
    expected_processes,
    index_before_joining,
)
from trainer.config.errors import ConfigError
from trainer.distribution.detection import Rendezvous, find_rendezvous

SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_NODELIST": "tpu[07-10]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


def find(monkeypatch, environment, simulated=1, **keys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return find_rendezvous(DistributedConfig(**keys), simulated=simulated)


def test_a_process_that_nothing_names_is_alone(monkeypatch):
    assert find(monkeypatch, {}) is None


def test_keys_go_before_the_environment(monkeypatch):
    found = find(
        monkeypatch, SLURM, coordinator="a:1", num_processes=2, process_index=1
    )
    assert found == Rendezvous("a:1", 2, 1)


def test_one_process_by_keys_is_alone(monkeypatch):
    keys = {"coordinator": "a:1", "num_processes": 1, "process_index": 0}
    assert find(monkeypatch, {}, **keys) is None


def test_slurm_names_processes_of_a_step(monkeypatch):
    port = 65535 - 4096 + 1 + 1234
    assert find(monkeypatch, SLURM) == Rendezvous(f"tpu07:{port}", 4, 2, (0,))


def test_a_task_that_has_its_node_to_itself_has_all_devices(monkeypatch):
    found = find(monkeypatch, SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"})
    assert found.local_devices is None


def test_a_slurm_allocation_without_a_step_is_one_process(monkeypatch):
    batch = {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}
    assert find(monkeypatch, batch) is None


def test_a_slurm_step_of_one_task_is_alone(monkeypatch):
    assert find(monkeypatch, SLURM | {"SLURM_NTASKS": "1"}) is None


def test_open_mpi_names_processes(monkeypatch):
    found = find(monkeypatch, OPEN_MPI)
    assert (found.address.split(":")[0], found.count, found.index) == (
        "10.96.0.1",
        8,
        3,
    )


def test_a_gke_slice_names_processes(monkeypatch):
    monkeypatch.setattr(cloud_tpu, "running_in_cloud_tpu_vm", True)
    hosts = {"TPU_WORKER_HOSTNAMES": "localhost,b,c,d", "TPU_WORKER_ID": "1"}
    multislice = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    coordinator = {"MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080"}
    found = find(monkeypatch, hosts | multislice | coordinator, simulated=0)
    assert found == Rendezvous("localhost:8482", 8, 5)


def test_simulated_devices_look_for_no_tpu(monkeypatch):
    monkeypatch.setattr(cloud_tpu, "running_in_cloud_tpu_vm", True)
    hosts = {"TPU_WORKER_HOSTNAMES": "localhost,b", "TPU_WORKER_ID": "1"}
    assert find(monkeypatch, hosts, simulated=8) is None


def test_a_cluster_that_makes_no_sense_is_named(monkeypatch):
    with pytest.raises(ConfigError, match="slurm names in the environment") as caught:
        find(monkeypatch, SLURM | {"SLURM_PROCID": "first"})
    assert "distributed.coordinator=HOST:8476" in caught.value.fix


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"num_processes": 2}, "distributed.coordinator=HOST:8476"),
        (
            {"coordinator": "a:1", "num_processes": 2},
            "distributed.process_index=0",
        ),
        (
            {"coordinator": "host", "num_processes": 2, "process_index": 0},
            "distributed.coordinator=host:8476",
        ),
        (
            {"coordinator": "a:1", "num_processes": 2, "process_index": 2},
            "number the processes from 0",
        ),
    ],
)
def test_keys_that_name_no_process_say_which(keys, problem):
    found = list(distributed_problems(DistributedConfig(**keys)))
    assert [error.fix for error in found] == [problem]


def test_right_keys_are_no_problem():
    keys = DistributedConfig(coordinator="a:1", num_processes=2, process_index=1)
    assert list(distributed_problems(keys)) == []


@pytest.mark.parametrize(("environment", "count"), [({}, 1), (SLURM, 4), (OPEN_MPI, 8)])
def test_simulated_devices_are_counted_over_expected_processes(
    monkeypatch, environment, count
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert expected_processes(DistributedConfig()) == count


@pytest.mark.parametrize("environment", [{}, SLURM, OPEN_MPI])
@pytest.mark.parametrize(
    "keys", [{}, {"coordinator": "a:1", "num_processes": 2, "process_index": 1}]
)
def test_a_process_knows_its_number_before_jax_does(monkeypatch, environment, keys):
    found = find(monkeypatch, environment, **keys)
    index = index_before_joining(DistributedConfig(**keys), simulated=1)
    assert index == (0 if found is None else found.index)


def test_on_a_tpu_only_jax_knows_the_number(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert index_before_joining(DistributedConfig(), simulated=0) is None


def test_an_environment_that_makes_no_sense_tells_no_number(monkeypatch):
    for name, value in (SLURM | {"SLURM_PROCID": "first"}).items():
        monkeypatch.setenv(name, value)
    assert index_before_joining(DistributedConfig(), simulated=1) is None
