"""Where compiled programs are kept, what harms that, and that they compute the same."""

import os
import subprocess
import sys
import time

import jax
import jax.monitoring
import jax.numpy as jnp
import pytest

from trainer.tasks import compiled_programs
from trainer.tasks.compiled_programs import (
    PROJECT,
    fingerprint,
    keep_compiled_programs,
)

pytestmark = pytest.mark.usefixtures("own_cache")

TWO_AT_ONCE = """
import sys, jax, jax.numpy as jnp
from trainer.tasks.compiled_programs import keep_compiled_programs
keep_compiled_programs(sys.argv[1], print)
print([float(jax.jit(lambda x: (x * n).sum())(jnp.ones(9))) for n in range(4)])
"""


@pytest.fixture
def misses():
    """What JAX had to compile since no directory held it, counted from here on."""
    found = []

    def listen(event, **_):
        found.extend([event] * event.endswith("compilation_cache/cache_misses"))

    jax.monitoring.register_event_listener(listen)
    yield found
    jax.monitoring.unregister_event_listener(listen)


def kept_in(choice):
    """Keep programs where `choice` says; return the lines that were told."""
    told = []
    keep_compiled_programs(str(choice), told.append)
    return told


def test_below_jaxs_own_directory_it_is_one_of_this_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE", raising=False)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    wanted = str(tmp_path / PROJECT / fingerprint())
    assert keep_compiled_programs("auto", print) == wanted
    assert jax.config.jax_compilation_cache_dir == wanted
    assert jax.config.jax_compilation_cache_max_size == compiled_programs.MAX_BYTES
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 7.0


@pytest.mark.parametrize("own", ["", "gs://bucket/programs"])
def test_jax_decides_where_it_has_no_directory_here(monkeypatch, own):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", own)
    before = jax.config.jax_compilation_cache_dir
    assert keep_compiled_programs("auto", print) == own
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize("xdg", ["absolute", "relative", None])
def test_auto_is_the_users_cache_directory(monkeypatch, tmp_path, xdg):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg:
        place = tmp_path / "xdg" if xdg == "absolute" else "xdg"
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    root = tmp_path / "xdg" if xdg == "absolute" else tmp_path / "home/.cache"
    wanted = root / "gemma-trainer/compiled" / fingerprint()
    assert keep_compiled_programs("auto", print) == str(wanted)
    assert wanted.stat().st_mode & 0o777 == 0o700  # what is in it runs as the user


def test_none_compiles_afresh(tmp_path):
    kept_in(tmp_path)
    assert keep_compiled_programs("none", print) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_another_processor_has_another_directory(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    names = set()
    for flags in ("fpu sse avx2", "fpu sse avx2 avx512f"):
        for model in ("1", "2"):
            cpuinfo.write_text(f"model\t: {model}\nflags\t: {flags}\n\nmodel\t: 9\n")
            names.add(fingerprint(cpuinfo))
    assert len(names) == 4
    cpuinfo.write_text("model\t: 1\nflags\t: fpu sse avx2\ncpu MHz\t: 2600.1\n")
    assert fingerprint(cpuinfo) in names  # a clock is no feature
    monkeypatch.setenv("NPROC", "64")
    assert fingerprint(cpuinfo) not in names
    assert fingerprint(tmp_path / "no-such-file") not in names


@pytest.mark.parametrize("place", ["a file", "a system that cannot be written"])
def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, place):
    (tmp_path / "file").write_text("")
    choice = tmp_path / "file" if place == "a file" else "/proc/compiled"
    told = kept_in(choice)
    assert len(told) == 1 and told[0].startswith("compiled programs are not kept: ")
    assert str(choice) in told[0]
    assert jax.config.jax_compilation_cache_dir is None
    assert float(jax.jit(lambda x: x + 5)(1)) == 6.0


def test_what_a_killed_process_left_is_swept(tmp_path):
    directory = tmp_path / PROJECT / fingerprint()
    directory.mkdir(parents=True)
    for name in ("torn-cache", "lone-atime", "whole-cache", "whole-atime"):
        (directory / name).write_bytes(b"")
    assert kept_in(tmp_path) == []
    left = {path.name for path in directory.iterdir()}
    assert left == {"whole-cache", "whole-atime", ".lockfile"}


def test_directories_that_nobody_used_for_a_month_go(tmp_path):
    root, long_ago = tmp_path / PROJECT, time.time() - 31 * 24 * 3600
    old, new = f"jax-0.1-{'0' * 16}", f"jax-0.2-{'f' * 16}"
    for name in (old, new):
        (root / name).mkdir(parents=True)
        (root / name / ".lockfile").touch()
    os.utime(root / old, (long_ago, long_ago))
    kept_in(tmp_path)
    assert {path.name for path in root.iterdir()} == {new, fingerprint()}


@pytest.mark.parametrize("place", [".", PROJECT])
def test_what_others_keep_beside_it_stays(tmp_path, place):
    root, long_ago = tmp_path / place, time.time() - 400 * 24 * 3600
    others = {"jax-privacy", "jax-0.1-old", f"jax-0.1-{'0' * 16}", "mine"}
    for name in others:
        (root / name).mkdir(parents=True)
        (root / name / "work.py").write_text("")
        os.utime(root / name, (long_ago, long_ago))
    lock = root / "jax-privacy/.lockfile"  # by its name alone it is not ours
    lock.touch()
    os.utime(lock.parent, (long_ago, long_ago))
    assert kept_in(tmp_path) == []
    assert all((root / name / "work.py").exists() for name in others)


def test_the_directory_stays_within_its_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled_programs, "MAX_BYTES", 20_000)
    kept_in(tmp_path)
    sizes = []
    for n in range(8):
        jax.jit(lambda x, n=n: jnp.sin(x * n).sum())(jnp.ones(16)).block_until_ready()
        programs = (tmp_path / PROJECT / fingerprint()).glob("*-cache")
        sizes.append(sum(path.stat().st_size for path in programs))
    assert 0 < max(sizes) <= 20_000


@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
def test_a_damaged_program_is_compiled_again(tmp_path, misses):
    kept_in(tmp_path)
    x = jnp.arange(5.0)
    want = jax.jit(lambda x: jnp.cos(x).sum())(x)
    for program in (tmp_path / PROJECT / fingerprint()).glob("*-cache"):
        program.write_bytes(program.read_bytes()[:-40])
    jax.clear_caches()
    misses.clear()
    assert jax.jit(lambda x: jnp.cos(x).sum())(x) == want
    assert len(misses) > 0


def test_two_processes_share_a_directory(repository, tmp_path):
    command = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path)]
    both = [
        subprocess.Popen(
            command,
            cwd=repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.strip() == "[0.0, 9.0, 18.0, 27.0]"
        assert "cache" not in errors


def test_a_run_from_the_cache_equals_one_compiled_afresh(runs, tmp_path, misses):
    compiled, kept = {}, {}
    for name in ("afresh", "again", "without"):
        jax.clear_caches()  # nothing but the directory remembers a program
        misses.clear()
        place = "none" if name == "without" else tmp_path / "cache"
        cache = f"trainer.compilation_cache={place}"
        words = ("trainer.num_train_steps=2", "artifacts.preset=false")
        assert runs.here(f"run.name={name}", cache, *words) == 0
        compiled[name] = len(misses)
        files = tmp_path.glob("cache/*/*/traced/*.stablehlo")
        kept[name] = {path.name: path.stat().st_ino for path in files}
    assert compiled["afresh"] > 10 and compiled["again"] == 0
    assert len(kept["afresh"]) >= 3 and kept["again"] == kept["afresh"]
    for name in ("again", "without"):
        assert runs.losses(name) == runs.losses("afresh")
        assert runs.evaluations(name) == runs.evaluations("afresh")
    first, second, third = (
        (runs.root / name / "artifacts/lora/adapter.lora.h5").read_bytes()
        for name in ("afresh", "again", "without")
    )
    assert first == second == third
