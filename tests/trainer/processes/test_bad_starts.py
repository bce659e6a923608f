"""What keeps processes from becoming one run: an end in time that says what to do."""

import os

import pytest

from trainer.tasks.lock import Lock


@pytest.fixture
def places(tmp_path):
    """A current directory for each of two processes, as on machines of their own."""
    places = {index: tmp_path / f"host-{index}" for index in range(2)}
    for place in places.values():
        place.mkdir()
    return places


@pytest.mark.timeout(120)
def test_directories_of_their_own_end_the_run_with_a_bucket_to_use(starter, places):
    words = ["run.name=apart", "run.root=runs", "mesh=2x1"]
    group = starter.start(words, processes=2, places=places)
    assert group.wait(60) == [7, 7], group.everything()
    for index in group.indices:
        assert "process 1 on" in group.said(index)
        assert "run.root=gs://BUCKET" in group.said(index)
    assert list((places[0] / "runs").iterdir()) == []


@pytest.mark.timeout(120)
def test_rows_that_one_process_misses_end_all_of_them_in_its_words(starter, places):
    (places[0] / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    words = ["run.name=rows", "mesh=2x1", "data=jsonl", "data.path=rows.jsonl"]
    group = starter.start(words, processes=2, places=places)
    assert group.wait(60) == [3, 3], group.everything()
    for index in group.indices:
        assert "(process 1 on" in group.said(index)


@pytest.mark.timeout(120)
def test_a_run_of_a_slurm_step_needs_no_keys(starter):
    environment = {
        index: {
            "SLURM_JOB_ID": "777",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
        }
        for index in range(2)
    }
    words = ["run.name=slurm", "mesh=2x1", "trainer.num_train_steps=2"]
    group = starter.start(words, processes=2, environment=environment)
    assert group.wait(60) == [0, 0], group.everything()
    assert list(starter.losses("slurm")) == [1, 2]


@pytest.mark.timeout(120)
def test_all_processes_are_told_who_has_their_directory(starter):
    lock = Lock(starter.root / "held/LOCK", instead="x")
    lock.take()
    group = starter.start(["run.name=held", "mesh=2x1"], processes=2)
    codes = group.wait(60)
    lock.release()
    assert codes == [9, 9], group.everything()
    for index in group.indices:
        assert f"process {os.getpid()} on" in group.said(index)
