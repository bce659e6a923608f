"""The commands of docs/pods.md: each composes, and shows what it would run."""

import re

import pytest

from launch.start import start
from trainer.__main__ import compose
from trainer.config.overrides import normalise_overrides

PLACEHOLDERS = {
    "ENTITY/PROJECT/ID": "me/gemma/ab12",
    " ...": "",
    "launch.submit=true": "",
}
BUCKET = "run.root=gs://BUCKET/runs"


def commands(page):
    """Return the words of every command, those that begin with `launch=` included."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^    (?:\$ )?python -m trainer (.*)$", text, re.MULTILINE)
    found += [
        f"{BUCKET} {m}" for m in re.findall(r"^    (launch=.*)$", text, re.MULTILINE)
    ]
    for placeholder, value in PLACEHOLDERS.items():
        found = [line.replace(placeholder, value) for line in found]
    return [line.split() for line in found]


def test_every_command_of_the_page_means_something(repository, capfd):
    lines = commands(repository / "docs/pods.md")
    launches = [words for words in lines if any(w.startswith("launch=") for w in words)]
    assert len(launches) >= 8
    for words in lines:
        config = compose(words)
        if config.launch.name not in ("none", "local"):
            assert start(config, normalise_overrides(words)) == 0, words
            assert "would write this and run" in capfd.readouterr().err


@pytest.mark.parametrize("code", [*range(10), 83, 130])
def test_the_page_says_what_to_do_for_every_exit_code(repository, code):
    text = (repository / "docs/pods.md").read_text()
    assert re.search(rf"^\| {code} \| \w", text, re.MULTILINE)
