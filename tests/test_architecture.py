"""The layers of DESIGN, the places of the outside libraries, and the size of files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("trainer", "gemma", "launch")
LONGEST_FILE, LONGEST_FUNCTION = 300, 80  # lines
ONLY_IN = {
    "hydra": "trainer/__main__.py",
    "wandb": "trainer/tracking",
    "orbax": "trainer/checkpoint",
    "grain": "trainer/data",
    "tensorflow_datasets": "trainer/data",
    "tensorflow": "nowhere",
    "pickle": "nowhere",
    "optax": "nowhere",
}


def python_files(repository: Path) -> list[Path]:
    return [f for name in PACKAGES for f in sorted((repository / name).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
    return names


def test_imports_point_downwards(repository):
    # in a process of its own: it closes the stream that it prints to
    code = (
        "import sys; from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_one_place(repository, library):
    users = [
        str(file.relative_to(repository))
        for file in python_files(repository)
        if library in imported(ast.parse(file.read_text()))
    ]
    assert [user for user in users if not user.startswith(ONLY_IN[library])] == []


def test_files_and_functions_stay_short(repository):
    long = []
    for file in python_files(repository):
        text = file.read_text()
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{file.relative_to(repository)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{file.name}: {node.name} has {lines} lines")
    assert long == []


def test_every_file_says_what_it_is_about(repository):
    silent = [
        str(file.relative_to(repository))
        for file in python_files(repository)
        if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []


def test_the_command_line_imports_neither_jax_nor_keras(repository):
    code = (
        "import sys, trainer.__main__ as m;"
        "m.compose(['+preset=gemma2_9b_en', 'mesh=1x8']);"
        "print([n for n in ('jax', 'keras', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
