"""Kaggle's and the Hub's interfaces on loopback, truthful until told otherwise.

Speaks what kagglehub and huggingface_hub ask for, Kaggle's as the proxy of
`http://localhost` because its client takes no port. A fault is used up by one answer.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
import time
import urllib.parse

GOLDEN = pathlib.Path(__file__).parents[3] / "golden"
KERAS, HUGGING_FACE = GOLDEN / "keras_hub/gemma2", GOLDEN / "hf/gemma2"
LOGIN_PAGE = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"
SIGNED_URL_ERROR = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"
COMMIT, OLD_COMMIT = "c" * 40, "0" * 40


class Loopback(http.server.ThreadingHTTPServer):
    """Serves folders as models; every test changes its own model's entry."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders = {}  # model -> {version or commit: folder}
        self.missing = {}  # model -> names that it lacks
        self.faults = {}  # (model, file) -> faults, the next one first
        self.status = {}  # model -> status of every answer
        self.hashes = True  # Kaggle's storage sends MD5
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def content(self, model, version, file):
        """Return a file's bytes, None where the model has no such file."""
        folders = self.folders.get(model) or {
            "1": KERAS,
            "2": KERAS,
            COMMIT: HUGGING_FACE,
        }
        path = folders.get(version, pathlib.Path("nowhere")) / file
        if file in self.missing.get(model, ()) or not path.is_file():
            return None
        return path.read_bytes()

    def fault(self, model, file, *, keep=False):
        """Return the next fault; asking for headers alone does not use it up."""
        faults = self.faults.get((model, file)) or [None]
        if not keep:
            return faults.pop(0)
        return None if isinstance(faults[0], int) else faults[0]

    def handle_error(self, request, client_address):
        """Keep quiet about clients that hang up."""

    def asked(self, text):
        return [line for line in self.requests if text in line]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urllib.parse.urlsplit(self.path)
        self.server.requests.append(
            f"{self.command} {url.netloc} {url.path} {body.decode()} "
            f"{self.headers.get('range', '')}"
        )
        parts = [urllib.parse.unquote(part) for part in url.path[1:].split("/")]
        with contextlib.suppress(ConnectionError):
            if "ModelApiService" in url.path:
                self.answer_kaggle(parts[-1], json.loads(body))
            elif parts[0] == "kaggle-jwt-handler":
                mounted = {"wasSuccessful": True, "result": {"mountSlug": "gemma2"}}
                self.send(200, json.dumps(mounted).encode())
            elif parts[0] == "gcs":
                model, version = "/".join(parts[1:3]), parts[3]
                self.send_file(model, version, "/".join(parts[4:]), hub=False)
            elif parts[:2] == ["api", "models"]:
                self.answer_hub(parts)
            elif len(parts) > 3 and parts[2] == "resolve":
                model, file = "/".join(parts[:2]), "/".join(parts[4:])
                self.send_file(model, parts[3], file, hub=True)
            else:
                self.send(404, b"{}")

    do_HEAD = do_POST = do_GET

    def answer_kaggle(self, call, request):
        model = f"{request['ownerSlug']}/{request['modelSlug']}"
        versions = self.server.folders.get(model) or {"1": KERAS, "2": KERAS}
        if status := self.server.status.get(model):
            message = json.dumps({"code": status, "message": "refused"}).encode()
            return self.send(status, message, **{"Content-Type": "application/json"})
        if call == "GetModelInstance":
            facts = {"id": 1, "versionNumber": max(int(v) for v in versions)}
            return self.send(
                200, json.dumps(facts).encode(), **{"Content-Type": "application/json"}
            )
        version, file = str(request["versionNumber"]), request.get("path")
        assert call == "DownloadModelInstanceVersion" and file, "asked for a list"
        if self.server.content(model, version, file) is None:
            message = json.dumps({"code": 404, "message": "not found"}).encode()
            return self.send(404, message, **{"Content-Type": "application/json"})
        where = f"{self.server.url}/gcs/{model}/{version}/{file}"
        return self.send(302, b"", Location=where)

    def answer_hub(self, parts):
        model = "/".join(parts[2:4])
        folders = self.server.folders.get(model) or {COMMIT: HUGGING_FACE}
        if status := self.server.status.get(model):
            headers = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}
            code = headers.get(status, "")
            return self.send(status, b"{}", **{"X-Error-Code": code})
        revision = parts[5] if len(parts) > 5 else "main"
        commit = {"main": COMMIT, "old": OLD_COMMIT}.get(revision, revision)
        if commit not in folders:
            error = {"X-Error-Code": "RevisionNotFound"}
            return self.send(404, b"{}", **error)
        folder = folders[commit]
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*")]
        names = [n for n in names if self.server.content(model, commit, n) is not None]
        names += ["pytorch_model.bin", *self.server.missing.get(model, ())]
        if len(parts) > 4 and parts[4] == "tree":
            tree = [
                {"type": "file", "path": n, "oid": "1" * 40, "size": 1} for n in names
            ]
            return self.send(200, json.dumps(tree).encode())
        siblings = [{"rfilename": name} for name in names]
        facts = {"id": model, "sha": commit, "siblings": siblings}
        return self.send(200, json.dumps(facts).encode())

    def send_file(self, model, version, file, *, hub):
        content = self.server.content(model, version, file)
        fault = self.server.fault(model, file, keep=self.command == "HEAD")
        if content is None:
            error = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": version}
            return self.send(404, b"", **error)
        headers = {"Accept-Ranges": "bytes"}
        if hub:
            headers |= hub_headers(content, version, lfs=file.endswith(".safetensors"))
        elif self.server.hashes:
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            headers["x-goog-hash"] = f"crc32c=AAAAAA==, md5={digest}"
        if fault == "page":
            content = LOGIN_PAGE
        elif fault == "cut":
            content = content[: len(content) // 2]
        elif fault == "flip":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if isinstance(fault, int):
            wait = {"Retry-After": "0", "Accept-Ranges": "bytes"}
            return self.send(fault, SIGNED_URL_ERROR, **wait)
        status, start = 200, 0
        asked = self.headers.get("range", "")
        if asked and fault != "whole":
            start = int(asked.removeprefix("bytes=").split("-")[0])
            total, status = len(content), 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        return self.send(status, content[start:], fault=fault, **headers)

    def send(self, status, content, fault=None, **headers):
        length = {"short": len(content) // 2}.get(fault, len(content))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault == "unsized":
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("drop", "unsized"):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), len(content) // 4 + 1):
                self.wfile.write(content[start : start + len(content) // 4 + 1])
                time.sleep(0.05)
        else:
            self.wfile.write(content[:length])

    def log_message(self, *arguments):
        pass


def hub_headers(content, commit, *, lfs):
    """Return the headers by which the Hub names a file's content."""
    blob = b"blob %d\0" % len(content) + content
    name = hashlib.sha256(content) if lfs else hashlib.sha1(blob)
    return {"ETag": f'"{name.hexdigest()}"', "X-Repo-Commit": commit}
