"""What a process may use: the least of machine, process limit and control group."""

import os
import resource
import subprocess
import sys

import pytest

from trainer.distribution.host_memory import host_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_without_limits_it_is_what_the_machine_has(tmp_path):
    assert host_bytes(tmp_path) == PHYSICAL
    (tmp_path / "memory.max").write_text("max\n")
    assert host_bytes(tmp_path) == PHYSICAL


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_what_its_control_group_may_use(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("1073741824\n")
    assert host_bytes(tmp_path) == 2**30
    (tmp_path / name).write_text(str(2 * PHYSICAL))
    assert host_bytes(tmp_path) == PHYSICAL


def test_a_limited_process_has_its_limit(tmp_path):
    limit = 2**30
    code = "import sys; from pathlib import Path; "
    code += "from trainer.distribution.host_memory import host_bytes; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(host_bytes(Path(sys.argv[1])))", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert int(done.stdout) == limit
