"""Rows to train on, each different from every other one."""

import json
from pathlib import Path


def write_rows(path: Path, count: int) -> Path:
    """Write numbered rows as JSONL and return where."""
    rows = [
        {"prompt": f"Row {n}?", "response": f"{n * n} it is."} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
