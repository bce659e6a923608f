"""Templates filled in: text for shells and YAML in which nothing can break out.

Turns a template of `launch/templates` and values into text. A value goes through `sh`
or `yaml`, or was checked to be a plain name; what the text does is not known here.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Sequence

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("launch"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # no HTML: `sh` and `yaml` quote
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sh": quote, "sh_line": quote_line, "yaml": quote_yaml}
    return environment


def render(template: str, **values: object) -> str:
    """Return the text of a template, for which every value has to be given."""
    return _environment().get_template(template).render(**values)


def quote(word: str) -> str:
    """Return a word as bash reads it back, on one line whatever it holds."""
    if word.isprintable():
        return shlex.quote(word)
    letters = "".join(
        f"\\{letter}" if letter in "\\'" else letter if letter.isprintable() else code
        for letter in word
        for code in ["".join(f"\\x{byte:02x}" for byte in letter.encode())]
    )
    return f"$'{letters}'"


def quote_line(words: Sequence[str]) -> str:
    """Return words as bash reads them back, with spaces between."""
    return " ".join(quote(word) for word in words)


def quote_yaml(value: object) -> str:
    """Return a value as YAML reads it back: JSON, in letters of ASCII.

    JSON's own escapes would not do: it writes letters beyond 16 bits as two.
    """
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\U{ord(found[0]):08x}", text)
