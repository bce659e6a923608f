"""Notes a call and succeeds: for tools that only take what they are given."""

import json
import os
import sys
from pathlib import Path

place = Path(os.environ["RECORDER"])
name, *words = sys.argv[1:]
with open(place / f"{name}.jsonl", "a") as file:
    file.write(json.dumps(words) + "\n")
if name == "scontrol":
    (place / "requeued").touch()
