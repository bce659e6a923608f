"""Notes a call and succeeds: for tools that only take what they are given."""

import json
import os
import sys
from pathlib import Path

place = Path(os.environ["RECORDER"])
name, *words = sys.argv[1:]
with open(place / f"{name}.jsonl", "a") as file:
    file.write(json.dumps(words) + "\n")
answer = place / f"{name}.answer"
if answer.exists():
    text = answer.read_text()
    print(text, file=sys.stderr)
    sys.exit(1)
for word in words:
    if word.endswith(".yaml"):
        (place / "given.yaml").write_text(Path(word).read_text())
if name == "scontrol":
    (place / "requeued").touch()
