"""A wheel holds everything that a run reads, and works away from the repository."""

import os
import subprocess
import sys
import tomllib
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(repository)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def outside(installed, tmp_path, *command):
    """Run a command that finds our packages only in the wheel."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )


def tracked(repository, *folders):
    done = subprocess.run(
        ["git", "ls-files", "-z", *folders],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    names = done.stdout.split("\0")
    return [name for name in names if name and (repository / name).exists()]


def test_the_wheel_holds_what_a_run_reads(repository, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = [f"trainer/{name}" for name in tracked(repository, "conf")]
    code = tracked(repository, "trainer", "gemma", "launch")
    assert sorted({*conf, *code} - names) == []
    assert "trainer/conf/config.yaml" in names
    assert "gemma/presets/gemma2_tiny_en/assets/tokenizer/vocabulary.spm" in names
    assert any(name.startswith("trainer/data/wordnet/") for name in names)


def test_the_wheel_holds_no_tests_and_stays_small(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if "." not in top} == {"trainer", "gemma", "launch"}
    assert wheel.stat().st_size < 16 << 20


def test_the_command_composes_away_from_the_repository(installed, tmp_path):
    done = outside(installed, tmp_path, "-m", "trainer", "mesh=1x8", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "shape: 1x8" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_away_from_the_repository_ends_with_its_artifacts(installed, tmp_path):
    few = ["trainer.num_train_steps=2", "data.eval_rows=8", "trainer.sample_prompts=0"]
    done = outside(installed, tmp_path, "-m", "trainer", *few, "run.name=x")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/x/artifacts/lora/adapter.lora.h5").exists()
    assert (tmp_path / "outputs/x/report.html").exists()


def test_the_packages_come_from_the_wheel(installed, tmp_path):
    code = (
        "import trainer, gemma, launch;from trainer.config import choices;"
        "print(trainer.__file__, gemma.__file__, launch.__file__,"
        " choices.conf_directory(), sep='\\n')"
    )
    done = outside(installed, tmp_path, "-c", code)
    places = done.stdout.split()
    assert len(places) == 4, done.stderr
    assert [place for place in places if not place.startswith(str(installed))] == []


def test_a_console_script_named_trainer_calls_main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        text = archive.read(entry).decode()
    assert "trainer = trainer.__main__:main" in text


def test_every_dependency_is_pinned(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = {
        line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line
    }
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {
        word.split(">")[0].split("=")[0].split("[")[0].lower().replace("_", "-")
        for word in wanted
    }
    assert names - pins == set()
    assert not [line for line in lines if line and line[0] != "#" and "==" not in line]
    assert "tensorflow" not in pins
