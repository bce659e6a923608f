"""Nothing breaks out of a rendered file: shells and YAML read back what was put in."""

import random
import string
import subprocess

import jinja2
import pytest
import yaml

from launch.rendering import quote, quote_line, quote_yaml, render

HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "a; touch pwned",
    "it's",
    'say "no"',
    "two\nlines",
    "end'\n- name: pwned\n",
    "tab\tand\\n",
    "${HOME}",
    "{{ config }}",
    "*",
    "~",
    "",
    " ",
    "#",
    "-rf",
    "é\u2028\u0085\U0001f600",
    "\x7f\x01",
]
LETTERS = string.printable + "é\u0085\u2028\U0001f600$`'\"\\"


def fuzzed(count):
    draw = random.Random(0)
    return ["".join(draw.choices(LETTERS, k=draw.randint(0, 20))) for _ in range(count)]


def test_bash_reads_back_every_word(tmp_path):
    words = [*HOSTILE, *fuzzed(1000)]
    script = f"printf '%s\\0' {quote_line(words)}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, cwd=tmp_path, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == words
    assert list(tmp_path.iterdir()) == []


def test_yaml_reads_back_every_word():
    words = [*HOSTILE, *fuzzed(1000)]
    assert yaml.safe_load(quote_yaml(words)) == words
    assert yaml.safe_load("\n".join(f"- {quote_yaml(w)}" for w in words)) == words


def test_a_quoted_word_stays_on_its_line():
    words = [*HOSTILE, *fuzzed(1000)]
    assert [w for w in words if len(quote(w).splitlines()) != 1] == []
    assert [w for w in words if len(quote_yaml(w).splitlines()) != 1] == []


def test_a_template_without_one_of_its_values_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'job' is undefined"):
        render("worker.sh")
