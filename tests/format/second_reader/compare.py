#!/usr/bin/env python3
"""compare.py GOLDEN CORPUS: docs/reader/caskfile_reader.py against what stands in GOLDEN/*.json and in
CORPUS/verdicts.ndjson, which are the library's verdicts."""
import collections, io, json, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "docs/reader"))
sys.dont_write_bytecode = True
import caskfile_reader

RECORD = "offset seq kind flags key_len value_len".split()


def answer(path, with_records=False, now=None):
    out = io.StringIO()
    caskfile_reader.print_store(str(path), with_records, out, now)
    return json.loads(out.getvalue())


def disagreements(expected, found):
    """The reader has to say all that the library says; about how it says which check has failed, see `fails`."""
    for name, value in expected.items():
        if name == "fails":
            check = found.get("reason", "").split(":")[0]
            if check not in value:
                yield name, value, check
        elif name == "records":
            records = [{name: record[name] for name in RECORD} for record in found[name] if record["counts"]]
            if records != value:
                yield name, value, records
        elif name == "snapshot":
            # The library says the same whichever check of the snapshot fails.
            reader = found.get(name) or {}
            if any(reader.get(field) != wanted for field, wanted in value.items()):
                yield name, value, reader
        elif name not in ("story", "file", "now") and found.get(name) != value:
            yield name, value, found.get(name)


def main(golden, corpus):
    verdicts, wrong = collections.Counter(), 0

    def check(path, expected, with_records):
        nonlocal wrong
        found = answer(path, with_records, expected.get("now"))
        verdicts[found["verdict"]] += 1
        for name, library, reader in disagreements(expected, found):
            wrong += 1
            if wrong <= 20:
                print(f"{path} ({expected['story']}): {name}\n  library {library}\n  reader  {reader}", file=sys.stderr)

    files = sorted(golden.glob("*.json"))
    for path in files:
        check(path.with_suffix(".cask"), json.loads(path.read_text()), True)
    lines = (corpus / "verdicts.ndjson").read_text().splitlines()
    for expected in map(json.loads, lines):
        check(corpus / expected["file"], expected, False)
    print(f"{len(files)} golden files and {len(lines)} generated ones: {dict(verdicts)}, {wrong} disagreements")
    return wrong > 0 or not files or not lines


if __name__ == "__main__":
    sys.exit(main(*map(pathlib.Path, sys.argv[1:])))
