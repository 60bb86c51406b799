#!/usr/bin/env python3
"""kaitai.py GOLDEN: parses the golden files with what kaitai_compile.js has made of docs/caskfile.ksy, and compares
records, keys and values with what stands in GOLDEN/*.json."""
import io, json, pathlib, sys

from caskfile import Caskfile
from kaitaistruct import KaitaiStream, KaitaiStructError

KIND = {Caskfile.Kind.synced_to: "SYNCED_TO", Caskfile.Kind.moved: "MOVED", Caskfile.Kind.image: "IMAGE",
        Caskfile.Kind.snapshot: "SNAPSHOT", Caskfile.Kind.put_with: "put-with",
        Caskfile.Kind.put_owned: "put-owned"}


def parse(path):
    """As much of the file as can be parsed: the description knows no checksums, so a torn tail is where it gets stuck."""
    parsed = Caskfile(KaitaiStream(io.BytesIO(path.read_bytes())))
    try:
        parsed._read()
    except (EOFError, KaitaiStructError):
        pass
    return parsed


def described(offset, record):
    header = record.header
    kind = header.kind
    return {"offset": offset, "seq": header.seq, "key_len": header.key_len, "value_len": header.value_len,
            "kind": KIND.get(kind) or getattr(kind, "name", None) or "0x%02x" % kind,
            "flags": [name for name in ("SYNCED", "MORE") if getattr(header.flags, name.lower())]}


def text(pair, name):
    return bytes.fromhex(pair[name + "_hex"]) if name + "_hex" in pair else pair[name].encode()


def main(golden):
    files = records = pairs = snapshots = wrong = 0
    for path in sorted(golden.glob("*.json")):
        expected = json.loads(path.read_text())
        if not expected["readable"]:
            continue
        parsed = parse(path.with_suffix(".cask"))
        offset, found, store, sessions = 216 if hasattr(parsed, "roots") else 64, [], {}, set()
        root = max(parsed.roots.slots, key=lambda slot: slot.generation) if hasattr(parsed, "roots") else None
        for record in getattr(parsed, "records", None) or []:
            if offset >= expected["end"] or not hasattr(record, "padding"):
                break                                              # the log's end, or where the parser got stuck
            found.append(described(offset, record))
            if root and root.snapshot == offset:
                # A file with a damaged snapshot opens too.
                value = record.value
                if not expected["snapshot"]["differs"] and len(value.parts) - 2**value.part_bits not in range(1 if value.version == 1 else 4097):
                    print(f"{path}: {len(value.parts)} parts", file=sys.stderr)
                    wrong += 1
                snapshots += 1
            offset += (24 + record.header.key_len + record.header.value_len + 7) // 8 * 8
            if record.header.kind == Caskfile.Kind.put:
                store[record.full_key.bucket, record.full_key.key] = record.value, record.header.seq, None
            elif record.header.kind in (Caskfile.Kind.put_with, Caskfile.Kind.put_owned):
                over = 0 < record.value.deadline <= expected.get("now", 0)
                session = record.value.session if record.header.kind == Caskfile.Kind.put_owned else None
                store[record.full_key.bucket, record.full_key.key] = None if over else record.value.value, record.header.seq, session
            elif record.header.kind == Caskfile.Kind.session:
                (sessions.add if record.value.deadline else sessions.discard)(record.value.session)
            elif record.header.kind == Caskfile.Kind.delete:
                store.pop((record.full_key.bucket, record.full_key.key), None)
        store = {name: pair[:2] for name, pair in store.items()                        # without the hidden ones
                 if pair[0] is not None and (pair[2] is None or pair[2] in sessions)}
        if sessions != {says["session"] for says in expected.get("sessions", [])}:
            print(f"{path}: {sessions}", file=sys.stderr)
            wrong += 1
        wanted = {(text(pair, "bucket"), text(pair, "key")): (text(pair, "value"), pair["last_index"])
                  for pair in expected["pairs"]}
        if found != expected["records"] or store != wanted:
            print(f"{path}: {found}, {store}", file=sys.stderr)
            wrong += 1
        files, records, pairs = files + 1, records + len(found), pairs + len(store)
    print(f"Kaitai Struct: {files} golden files, {records} records, {pairs} pairs, {snapshots} snapshots, "
          f"{wrong} disagreements")
    return wrong > 0 or not files or not snapshots


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
