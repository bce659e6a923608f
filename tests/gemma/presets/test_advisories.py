"""What published advisories about model files describe does not happen here.

Each case opens a preset in a process of its own, under an audit hook.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/keras_hub/gemma2"
REPOSITORY = pathlib.Path(__file__).parents[3]


@pytest.fixture
def keras(tmp_path):
    target = tmp_path / "preset"
    shutil.copytree(GOLDEN, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def dimensions(keras, **changes):
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values["config"] |= changes
    path.write_text(json.dumps(values))


WATCHED = """
import json, pathlib, sys
directory = sys.argv[1]
from gemma.presets import PresetFileError, open_preset
import gemma.tokenizers, h5py, encodings.idna
seen = []
def hook(event, args):
    if event == "import" and args[0] in ("antigravity", "os_evil", "keras", "torch"):
        seen.append(["import", args[0]])
    if event in ("exec", "subprocess.Popen", "os.system", "socket.connect"):
        seen.append([event, str(args[0])[:80]])
    if event == "open" and isinstance(args[0], str):
        if not args[0].startswith((directory, sys.prefix, sys.base_prefix, "/proc")):
            seen.append(["open", args[0]])
sys.addaudithook(hook)
message = None
try:
    preset = open_preset(directory)
    preset.vocabulary()
    with preset.weights() as weights:
        for path in weights.paths():
            weights.read(path)
except PresetFileError as error:
    message = str(error)
open("/dev/null").close()  # proves that the hook sees
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0])  # ru_maxrss counts the parent's
print(json.dumps({"message": message, "seen": seen, "peak_mb": peak / 1024}))
"""


def watch(directory):
    """Open a preset in a process of its own and tell what it touched."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(directory)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def lambda_layer(keras):
    # CVE-2024-3660, CVE-2026-12481
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values |= {"class_name": "Lambda", "module": "keras.layers"}
    values["config"] |= {"function": {"class_name": "__lambda__"}}
    path.write_text(json.dumps(values))


def foreign_module(keras):
    # CVE-2025-1550: a module of the attacker's choice is not imported
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values |= {"module": "antigravity", "registered_name": "os>system"}
    path.write_text(json.dumps(values))


def gadget(keras):
    # CVE-2025-8747, CVE-2025-9906: functions of Keras itself named in a config
    dimensions(keras, dtype={"module": "keras.utils", "class_name": "get_file"})


def unsafe_switch(keras):
    # CVE-2025-9906
    path = keras / "config.json"
    values = {"module": "keras.config", "class_name": "enable_unsafe_deserialization"}
    path.write_text(json.dumps(values | {"config": {}}))


def foreign_vocabulary(keras):
    # CVE-2025-12058: a path in the tokenizer's config is not opened
    path = keras / "tokenizer.json"
    values = json.loads(path.read_text())
    values["config"]["proto"] = "/etc/hostname"
    path.write_text(json.dumps(values))


def foreign_task(keras):
    # CVE-2025-49655, CVE-2026-1462: other files' classes are never looked at
    task = {"module": "antigravity", "class_name": "TorchModuleWrapper", "config": {}}
    for name in ("task.json", "preprocessor.json"):
        (keras / name).write_text(json.dumps(task))


PROOF = {
    lambda_layer: "class_name: expected GemmaBackbone or Gemma3Backbone",
    foreign_module: None,
    gadget: "config.dtype: expected float32",
    unsafe_switch: "class_name: expected GemmaBackbone or Gemma3Backbone",
    foreign_vocabulary: None,
    foreign_task: None,
}


@pytest.mark.parametrize("change", PROOF, ids=lambda change: change.__name__)
def test_nothing_is_imported_run_or_read_outside_the_preset(keras, change):
    change(keras)
    found = watch(keras)
    assert found["seen"] == [["open", "/dev/null"]]
    assert found["peak_mb"] < 500
    if PROOF[change] is None:
        assert found["message"] is None
    else:
        assert PROOF[change] in found["message"]
