"""An object store on loopback, as Google's answers over HTTP, for several processes.

    python tests/object_server.py PORT

Objects live in memory. It speaks the part of the JSON API that TensorStore uses, and
`GoogleStore` is a file system of fsspec over the same, in place of gcsfs.
"""

import http.server
import io
import json
import os
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import fsspec

ENDPOINT = "TENSORSTORE_GCS_HTTP_URL"  # TensorStore's own variable


class _Objects:
    """Name to (generation, content); a generation is never used twice."""

    def __init__(self):
        self.lock, self.kept, self.generation = threading.Lock(), {}, 0

    def put(self, name, content, match):
        """Return the new generation, None where the present one is not `match`."""
        with self.lock:
            if match is not None and self.kept.get(name, (0,))[0] != match:
                return None
            self.generation += 1
            self.kept[name] = (self.generation, content)
            return self.generation

    def delete(self, name, match):
        with self.lock:
            if name not in self.kept:
                return 404
            if match is not None and self.kept[name][0] != match:
                return 412
            del self.kept[name]
            return 204


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def parts(self):
        """Return bucket, object ("" of none, None of the bucket itself) and query."""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        pieces = [*url.path.split("/b/", 1)[1].split("/", 2), "", ""]
        name = urllib.parse.unquote(pieces[2]) if pieces[1] else None
        return urllib.parse.unquote(pieces[0]), name, query

    def reply(self, code, content=b"", **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def reply_json(self, value):
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self):
        bucket, _, query = self.parts()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = query.get("ifGenerationMatch")
        name = query["name"]
        made = self.server.objects.put(
            f"{bucket}/{name}", content, None if match is None else int(match)
        )
        if made is None:
            self.reply(412)
        else:
            self.reply_json(described(bucket, name, made, content))

    def do_DELETE(self):
        bucket, name, query = self.parts()
        match = query.get("ifGenerationMatch")
        match = None if match is None else int(match)
        self.reply(self.server.objects.delete(f"{bucket}/{name}", match))

    def do_GET(self):
        bucket, name, query = self.parts()
        if name is None:
            return self.reply_json({"kind": "storage#bucket", "name": bucket})
        if not name:
            return self.list(bucket, query)
        found = self.server.objects.kept.get(f"{bucket}/{name}")
        if found is None:
            return self.reply(404)
        generation, content = found
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.reply(304)
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            return self.reply(412)
        if query.get("alt") != "media":
            return self.reply_json(described(bucket, name, generation, content))
        headers = {"x_goog_generation": generation}
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.reply(200, content, **headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        first = int(first) if first else len(content) - int(last)
        last = min(int(last or len(content) - 1), len(content) - 1)
        headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.reply(206, content[first : last + 1], **headers)

    def list(self, bucket, query):
        start, prefix = query.get("startOffset", ""), query.get("prefix", "")
        end = query.get("endOffset")
        with self.server.objects.lock:
            kept = sorted(self.server.objects.kept.items())
        items = []
        for path, (generation, content) in kept:
            owner, name = path.split("/", 1)
            fits = name.startswith(prefix) and name >= start
            if owner == bucket and fits and (not end or name < end):
                items.append(described(bucket, name, generation, content))
        self.reply_json({"items": items})

    def log_message(self, *_):
        """Say nothing."""


def described(bucket, name, generation, content):
    return {
        "bucket": bucket,
        "name": name,
        "generation": str(generation),
        "size": str(len(content)),
        "timeCreated": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z",
    }


class GoogleStore(fsspec.AbstractFileSystem):
    """gs:// over HTTP, as far as a run needs it."""

    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, finalize_on_close=True, **options):
        super().__init__(**options)

    def _call(self, method, path, content=None, **query):
        url = f"{os.environ[ENDPOINT]}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, data=content, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(path) from error
            if error.code == 412:
                raise FileExistsError(path) from error
            raise

    def _place(self, path):
        bucket, _, name = self._strip_protocol(path).partition("/")
        return bucket, name

    def _object(self, path):
        bucket, name = self._place(path)
        return f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"

    def _below(self, path):
        bucket, name = self._place(path)
        prefix = f"{name}/" if name else ""
        said = self._call("GET", f"/storage/v1/b/{bucket}/o", prefix=prefix)
        return json.loads(said)["items"]

    def info(self, path, **_):
        name = self._strip_protocol(path)
        try:
            found = json.loads(self._call("GET", self._object(path)))
        except FileNotFoundError:
            if self._place(path)[1] and not self._below(path):
                raise
            return {"name": name, "size": 0, "type": "directory"}
        return {"name": name, "size": int(found["size"]), "type": "file"}

    def ls(self, path, detail=True, **_):
        name = self._strip_protocol(path)
        entries = {}
        for found in self._below(path):
            full = f"{found['bucket']}/{found['name']}"
            first, _, deeper = full.removeprefix(f"{name}/").partition("/")
            kind = "directory" if deeper else "file"
            size = 0 if deeper else int(found["size"])
            entries[first] = {"name": f"{name}/{first}", "size": size, "type": kind}
        if not entries:
            entries = {"": self.info(path)}  # a file, or nothing at all
        listed = list(entries.values())
        return listed if detail else [entry["name"] for entry in listed]

    def cat_file(self, path, start=None, end=None, **_):
        return self._call("GET", self._object(path), alt="media")[start:end]

    def pipe_file(self, path, value, mode="overwrite", **_):
        bucket, name = self._place(path)
        only_new = {"ifGenerationMatch": 0} if mode == "create" else {}
        place = f"/upload/storage/v1/b/{bucket}/o"
        self._call("POST", place, value, uploadType="media", name=name, **only_new)

    def rm_file(self, path):
        self._call("DELETE", self._object(path))

    def rm(self, path, recursive=False, maxdepth=None):
        below = self._below(path) if recursive else []
        for found in below:
            self.rm_file(f"{found['bucket']}/{found['name']}")
        if not below:
            self.rm_file(path)

    def cp_file(self, source, target, **_):
        self.pipe_file(target, self.cat_file(source))

    def mkdir(self, path, create_parents=True, **_):
        """Do nothing: a store has no empty folders."""

    def makedirs(self, path, exist_ok=False):
        """Do nothing: a store has no empty folders."""

    def rmdir(self, path):
        """Do nothing: a store has no empty folders."""

    def _open(self, path, mode="rb", **_):
        if "r" in mode:
            return io.BytesIO(self.cat_file(path))
        before = self.cat_file(path) if "a" in mode and self.exists(path) else b""
        return _Written(self, path, before)


class _Written(io.BytesIO):
    """A file that becomes an object when it is closed."""

    def __init__(self, store, path, before):
        super().__init__()
        self._store, self._path = store, path
        self.write(before)

    def close(self):
        if not self.closed:
            self._store.pipe_file(self._path, self.getvalue())
        super().close()


def serve(port):
    """Serve until the process ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.objects = _Objects()
    print("serving", server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
