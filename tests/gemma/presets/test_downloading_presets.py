"""Handles go through the publishers' clients, to a server on this machine only."""

import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from gemma.presets import PresetFileError, open_preset
from gemma.presets.table import BUILT_IN

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
ROOT = pathlib.Path(__file__).parents[3]
COMMIT = "0" * 39 + "1"
KAGGLE_HANDLE = "kaggle://someone/tiny/keras/tiny_en/1"
OPEN = """
import sys
from gemma.presets import PresetFileError, open_preset
try:
    preset = open_preset(sys.argv[1])
    with preset.weights() as weights:
        path = "decoder_block_0/attention/query/kernel"
        print("OPENED", preset.form, preset.handle, weights.read(path).shape)
except PresetFileError as error:
    print("REFUSED", error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as Hugging Face does for one model, or with one status for all."""

    status = 200
    folder = GOLDEN / "hf/gemma2"

    def do_GET(self):
        if self.status != 200:
            return self.answer(self.status, b"{}")
        if "/resolve/" in self.path:
            content = (self.folder / self.path.rsplit("/", 1)[1]).read_bytes()
            return self.answer(200, content, {"ETag": f'"{len(content)}"'})
        names = ["config.json", "model.safetensors", "pytorch_model.bin"]
        siblings = [{"rfilename": name} for name in names]
        facts = {"id": "someone/tiny", "sha": COMMIT, "siblings": siblings}
        if "/tree/" in self.path:
            facts = [
                {"type": "file", "path": n, "oid": "1" * 40, "size": 1} for n in names
            ]
        return self.answer(200, json.dumps(facts).encode())

    do_HEAD = do_POST = do_GET

    def answer(self, status, content, headers=None):
        with contextlib.suppress(ConnectionError):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (Hub,), {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def opened(preset, url, cache):
    """Open a preset in a process of its own: the clients read their settings once."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "KAGGLE", "HUGGING"))
        and "proxy" not in name.lower()
    }
    environment |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",  # http://localhost, by way of a proxy
        "KAGGLEHUB_CACHE": str(cache / "kaggle"),
        "KAGGLE_CONFIG_DIR": str(cache),
        "HOME": str(cache),
        "HTTP_PROXY": url,
        "http_proxy": url,
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", OPEN, preset],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_a_hugging_face_handle_opens_its_snapshot_without_pickled_files(hub, tmp_path):
    line = opened("hf://someone/tiny@main", url_of(hub), tmp_path)
    assert line == "OPENED hf hf://someone/tiny@main (4, 64, 16)"
    names = {path.name for path in tmp_path.rglob("*")}
    assert "model.safetensors" in names
    assert "pytorch_model.bin" not in names


@pytest.mark.parametrize(
    ("handle", "page"),
    [
        ("hf://someone/tiny", "https://huggingface.co/someone/tiny"),
        (KAGGLE_HANDLE, "https://www.kaggle.com/models/someone/tiny"),
        ("gemma2_2b_en", "https://www.kaggle.com/models/keras/gemma2"),
    ],
)
@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_says_where_to_go(hub, tmp_path, handle, page, status):
    hub.RequestHandlerClass.status = status
    line = opened(handle, url_of(hub), tmp_path)
    assert line.startswith("REFUSED ")
    assert str(status) in line
    wanted = "accept the licence at" if status == 403 else "see"
    assert f"{wanted} {page}" in line
    assert "HF_TOKEN" in line or "KAGGLE_KEY" in line


@pytest.mark.parametrize("handle", ["hf://someone/tiny", KAGGLE_HANDLE])
def test_no_network_names_the_way_without_one(tmp_path, handle):
    line = opened(handle, "http://127.0.0.1:9", tmp_path)
    assert line.startswith(f"REFUSED {handle}: expected a download, received ")
    assert line.endswith("pass a directory that was downloaded before")


def cached(tmp_path, name, handle):
    """Put a golden directory where kagglehub keeps a finished download."""
    owner, model, framework, variation, version = handle.split("//")[1].split("/")
    folder = tmp_path / "kaggle/models" / owner / model / framework / variation
    folder.mkdir(parents=True)
    (folder / version).symlink_to(GOLDEN / name, target_is_directory=True)
    (folder / f"{version}.complete").touch()


def test_a_downloaded_kaggle_handle_needs_no_network(tmp_path):
    cached(tmp_path, "keras_hub/gemma2", KAGGLE_HANDLE)
    line = opened(KAGGLE_HANDLE, "http://127.0.0.1:9", tmp_path)
    assert line == f"OPENED keras {KAGGLE_HANDLE} (4, 48, 16)"


def test_a_download_that_is_another_model_is_refused(tmp_path):
    cached(tmp_path, "keras_hub/gemma2", BUILT_IN["gemma2_2b_en"].handle)
    line = opened("gemma2_2b_en", "http://127.0.0.1:9", tmp_path)
    assert "expected the dimensions of gemma2_2b_en: GemmaConfig(" in line


@pytest.mark.parametrize(
    ("handle", "form"),
    [
        ("kaggle://keras/gemma2", "kaggle://owner/model/keras/variation"),
        ("hf://gemma", "hf://owner/model"),
        ("hf://a/../b", "hf://owner/model"),
    ],
)
def test_a_misspelt_handle_is_refused_before_any_client(handle, form):
    with pytest.raises(PresetFileError, match=f"expected {form}, received {handle}"):
        open_preset(handle)
