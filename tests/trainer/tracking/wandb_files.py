"""Reads the log that W&B writes offline: LevelDB's format with protobuf records.

W&B ships no reader for Python. Source: wandb 0.31, core/pkg/leveldb; a header of seven
bytes, then blocks of 32 KiB with chunks of (checksum 4, length 2, kind 1, data).
"""

import json
import struct

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, FULL, LAST = 32768, 7, 1, 4


def records(path):
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    place, parts = HEADER, []
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if kind == 0:
            break
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def history(path):
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            yield {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }


def summary(path):
    found = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                key = item.key or "/".join(item.nested_key)
                found[key] = json.loads(item.value_json)
    return found


def settings(path):
    found = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        update = record.run.config.update if kind == "run" else ()
        found |= {item.key: json.loads(item.value_json) for item in update}
    return found


def artifacts(path):
    for record in records(path):
        if record.WhichOneof("record_type") == "artifact":
            yield record.artifact
