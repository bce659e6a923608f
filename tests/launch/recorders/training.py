"""Stands where training begins on a worker: notes its words, and ends as planned."""

import json
import os
import signal
import sys
import time
from pathlib import Path

place = Path(os.environ["RECORDER"])
plan = json.loads((place / "plan.json").read_text())
with open(place / "trained.jsonl", "a") as file:
    secret = os.environ.get("WANDB_API_KEY")
    note = {"life": plan["life"], "words": sys.argv[1:], "secret": secret}
    file.write(json.dumps(note | {"home": os.environ["HOME"]}) + "\n")
print("step 1/250", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(83))
codes = plan["lives"][plan["life"]]["codes"]
mine = Path.home() / "starts"
starts = int(mine.read_text()) if mine.exists() else 0
mine.write_text(str(starts + 1))
code = codes[min(starts, len(codes) - 1)]
if code == "runs":
    time.sleep(60)
sys.exit(code)
