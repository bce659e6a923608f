"""The pages of docs/ and their code: every block of Python runs as written."""

import os
import re
import subprocess
import sys

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`((?:tests|gemma|trainer|conf|docs)/[\w./]+\w)`")
ELSEWHERE = ("transformers", "DIRECTORY", "hf://", "kaggle://")
"""What a block names that needs a peer, a network or weights under a licence."""


def blocks(page):
    found = BLOCK.findall(page.read_text())
    return [code for code in found if not any(word in code for word in ELSEWHERE)]


@pytest.mark.slow
def test_the_page_of_the_library_runs_from_top_to_bottom(repository, tmp_path):
    codes = blocks(repository / "docs/model.md")
    assert len(codes) > 10
    (tmp_path / "tests").symlink_to(repository / "tests")
    program = "\n".join(f"# block {i}\n{code}" for i, code in enumerate(codes))
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(repository), *sys.path]),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_pages_link_to_what_is_there(repository):
    for page in [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_paths_in_the_pages_exist(repository):
    for page in [repository / "README.md", *repository.glob("docs/*.md")]:
        for name in re.findall(PATH, page.read_text()):
            assert (repository / name).exists() or "mine" in name, f"{page}: {name}"
