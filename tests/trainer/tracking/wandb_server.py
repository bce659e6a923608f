"""A W&B server on this machine, as far as the client needs one.

Answers the GraphQL operations of wandb 0.31 for runs, artifacts and lineage, takes
uploads and the stream of history, and remembers what it was told.
"""

import gzip
import http.server
import json
import re
import sys
import threading

PROJECT = {
    "id": "project",
    "internalId": "project",
    "name": "gemma-finetuning",
    "entity": {"id": "entity", "name": "team"},
}
VIEWER = {
    "id": "user",
    "entity": "team",
    "username": "user",
    "email": "user@example.org",
    "flags": "{}",
    "teams": {"edges": []},
}


class WandbServer:
    """Remembers runs, their history, artifacts, uploads and what runs used."""

    def __init__(self):
        self.runs, self.history, self.artifacts = {}, {}, {}
        self.used, self.uploads, self.ends = [], {}, []
        self.resumed, self.preempted = [], []
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def answer(self, operation, variables):
        handler = getattr(self, f"_{operation}", None)
        return handler(variables.get("input") or variables) if handler else {}

    def stream(self, run, message):
        files = message.get("files") or {}
        lines = files.get("wandb-history.jsonl", {}).get("content", [])
        self.history.setdefault(run, []).extend(lines)
        if message.get("preempting"):
            self.preempted.append(run)
        if message.get("complete"):
            self.ends.append((run, message.get("exitcode")))

    def steps(self, run):
        return [json.loads(line).get("step") for line in self.history[run]]

    def _RunResumeStatus(self, variables):
        known = self.runs.get(variables["name"])
        if known is None:
            return {"model": {**PROJECT, "bucket": None}}
        self.resumed.append(variables["name"])
        lines = self.history.get(variables["name"], [])
        counts = {
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyLineCount": len(lines),
        }
        tail = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]"}
        rest = {"summaryMetrics": "{}", "tags": [], "notes": "", "wandbConfig": "{}"}
        return {"model": {**PROJECT, "bucket": {**known, **counts, **tail, **rest}}}

    def _UpsertBucket(self, variables):
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, {"id": f"run-{name}", "name": name})
        run |= {"displayName": variables.get("displayName") or run.get("displayName")}
        run |= {"config": variables.get("config") or run.get("config")}
        run |= {"description": "", "sweepName": "", "project": PROJECT}
        bucket = {**run, "historyLineCount": len(self.history.get(name, []))}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _Viewer(self, variables):
        return {"viewer": VIEWER}

    def _ServerFeaturesQuery(self, variables):
        return {"serverInfo": {"features": []}}

    def _ArtifactType(self, variables):
        return {"project": {"artifact": None}}

    def _CreateRunFiles(self, variables):
        files = [{"name": n, "uploadUrl": self._place(n)} for n in variables["files"]]
        made = {"runID": variables["run"], "uploadHeaders": [], "files": files}
        return {"createRunFiles": made}

    def _CreateArtifact(self, variables):
        identity = f"artifact-{len(self.artifacts)}"
        self.artifacts[identity] = {
            "name": variables["artifactCollectionName"],
            "type": variables["artifactTypeName"],
            "digest": variables["digest"],
            "metadata": variables.get("metadata"),
            "run": variables.get("runName"),
            "state": "PENDING",
        }
        sequence = {"latestArtifact": None}
        made = {"id": identity, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": made}}

    def _CreateArtifactManifest(self, variables):
        file = self._file("wandb_manifest.json")
        made = {"id": f"manifest-{variables['artifactID']}", "file": file}
        return {"createArtifactManifest": {"artifactManifest": made}}

    def _CreateArtifactFiles(self, variables):
        nodes = [
            {
                **self._file(file["name"]),
                "storagePath": file["name"],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in variables["artifactFiles"]
        ]
        edges = [{"node": node} for node in nodes]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, variables):
        artifact = self.artifacts[variables["artifactID"]]
        artifact["state"] = "COMMITTED"
        made = {"id": variables["artifactID"], "digest": artifact["digest"]}
        return {"commitArtifact": {"artifact": made}}

    def _UseArtifact(self, variables):
        artifact = self.artifacts[variables["artifactID"]]
        self.used.append((variables["runName"], artifact["type"], artifact["name"]))
        facts = {"digest": artifact["digest"], "state": "COMMITTED", "metadata": "{}"}
        made = {"id": variables["artifactID"], "description": "", **facts}
        return {
            "useArtifact": {"artifact": {**made, "createdAt": "2026-01-01T00:00:00"}}
        }

    def _ArtifactByID(self, variables):
        artifact = self.artifacts[variables["id"]]
        sequence = {"__typename": "ArtifactSequence", "project": PROJECT}
        facts = {
            "__typename": "Artifact",
            "id": variables["id"],
            "artifactSequence": {**sequence, "name": artifact["name"]},
            "artifactType": {"name": artifact["type"]},
            "metadata": artifact["metadata"],
            "state": artifact["state"],
            "digest": artifact["digest"],
            "createdAt": "2026-01-01T00:00:00",
        }
        zeros = dict.fromkeys(("versionIndex", "size", "fileCount"), 0)
        times = {"ttlDurationSeconds": -2, "ttlIsInherited": True, "updatedAt": None}
        nothing = dict.fromkeys(("description", "historyStep", "commitHash"))
        lists = {"tags": [], "aliases": []}
        return {"artifact": {**facts, **zeros, **times, **nothing, **lists}}

    def _file(self, name):
        place = {"uploadUrl": self._place(name), "uploadHeaders": []}
        return {"id": f"file-{name}", "name": name, "displayName": name, **place}

    def _place(self, name):
        return f"{self.url}/storage/{name}"


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state = None

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._send({})

    def do_PUT(self):
        name = self.path.removeprefix("/storage/")
        self.server_state.uploads[name] = self._body()
        self._send({})

    def do_POST(self):
        body = self._body()
        if self.path.endswith("/graphql"):
            message = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", message["query"])
            variables = message.get("variables") or {}
            self._send({"data": self.server_state.answer(found.group(1), variables)})
            return
        if self.path.endswith("/file_stream"):
            self.server_state.stream(self.path.split("/")[-2], json.loads(body))
        self._send({})

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            content = b"".join(parts)
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gzipped = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if gzipped else content

    def _send(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
