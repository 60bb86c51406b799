#!/usr/bin/env python3
"""caskfile_reader.py [--records] FILE...   reads caskfile stores, and prints each as a line of JSON

A companion to FORMAT.md, version 1.0, in its order: H1, W1, S1 ... are the page's checks. The exit code is 0 if every
file is readable, 1 if one is not, 2 for wrong usage. In memory are the live keys, the records of one batch, one
value at a time, and 8 bytes for each record."""
import array, errno, json, os, re, stat, struct, sys, zlib
CHUNK = 1 << 20                                                    # how much is read at once; a multiple of 8

class Refused(Exception): "Nothing is read: (error in the page's terms, the check that fails, offset, damaged ranges)"

# ---- Records, and "Limits"
SYNCED, MORE = 0x01, 0x02
PUT, DELETE, MARK, SYNCED_TO, MOVED, ROOTS, LOOSE = 0x01, 0x02, 0x80, 0x81, 0x82, 0xc0, range(0xc0, 0x100)
KINDS = {PUT: "put", DELETE: "delete", MARK: "mark", SYNCED_TO: "SYNCED_TO", MOVED: "MOVED"}    # those of witnesses
NAMES = {**KINDS, ROOTS: "ROOTS"}
MARKED, NO_MARK, UNFINISHED = "W1: 8 zero bytes", "W1: fewer than 8 bytes", "W1: the end of the log, inside a batch"
IN_BATCH, LOOSE_IN_BATCH = "W8: SYNCED inside a batch", "W8: a loose record inside a batch"
SEQ_MAX, SEQ_STEP, VALUE_MAX, OFFSET_MAX = 2**62 - 1, 2**48, 2**30, 2**43

class Record:
    __slots__ = "header_crc body_crc flags kind key_len value_len seq offset raw value_at end next".split()
    def __init__(self, offset, raw):
        (self.header_crc, self.body_crc, self.flags, self.kind,
         self.key_len, self.value_len, self.seq) = struct.unpack("<IIBBHIQ", raw)
        self.offset, self.raw = offset, raw
        self.value_at = offset + 24 + self.key_len
        self.end = self.value_at + self.value_len
        self.next = (self.end + 7) // 8 * 8                        # padding is not looked at

def split(full_key):                                               # (bucket, key), or None if this is no full key
    if full_key and len(full_key) > 1 + full_key[0]:
        return full_key[1:1 + full_key[0]], full_key[1 + full_key[0]:]

class Store:
    """An open file, and where a walk through it has come to in the page's words: e, at, before."""
    def __init__(self, path):
        if not stat.S_ISREG(os.stat(path).st_mode):                # asked before opening: to open a pipe would wait
            raise Refused("Io", "H1: not a regular file (InvalidInput)", None, [])
        self.file = open(path, "rb", buffering=0)
        self.fd = self.file.fileno()
        self.header, self.file_id, self.start = self.read_file_header()
        self.e, self.at, self.before, self.last = self.start, self.start, 0, None   # last: the last record before e
        self.unit, self.stopped, self.end = [], None, self.start   # unit: records from e on, of a batch not yet whole
        self.pairs, self.offsets = {}, array.array("Q")            # full key -> its put; of all records before e

    def read(self, at, length):                                    # fewer bytes only where the file ends
        return os.pread(self.fd, length, at)
    def pieces(self, begin, end):
        return (self.read(at, min(CHUNK, end - at)) for at in range(begin, end, CHUNK))
    def full_key(self, r):
        return self.read(r.offset + 24, r.key_len)
    def stated_offset(self, r):
        return int.from_bytes(self.read(r.value_at, 8), "little")

    def data_chunks(self, at, overlap=0):
        """(offset, bytes) of all that is no hole from `at` on, each with `overlap` bytes of what follows it."""
        while True:
            try:                                                   # "skip holes with SEEK_DATA"
                begin = os.lseek(self.fd, at, os.SEEK_DATA)
                end = os.lseek(self.fd, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return                                             # only a hole is left, or nothing
            for offset in range(begin // 8 * 8, end, CHUNK):
                yield offset, self.read(offset, min(CHUNK, end - offset) + overlap)
            at = (end + 7) // 8 * 8

    # ---- What a reader checks: the file header (H1 is above)
    def read_file_header(self):
        raw = self.read(0, 64)
        magic, major, minor, features, file_id, base, created, z, crc = struct.unpack("<8sHHI16sQQ12sI", raw.ljust(64))
        for check, holds, error, at in (
                ("H2: 64 bytes", len(raw) == 64, "NotCaskfile", None),
                ("H3: magic", magic == bytes.fromhex("ca 53 4b 46 0d 0a 1a 0a"), "NotCaskfile", None),
                ("H4: crc", crc == zlib.crc32(raw[:60]), "Corrupt", 0),
                ("H5: version %d.%d" % (major, minor), major == 1, "UnsupportedVersion", None),
                ("H6: base_seq", base <= SEQ_MAX, "Corrupt", 0)):
            if not holds:
                raise Refused(error, check, at, [] if at is None else [[0, 64]])
        if features & 1:                                           # the file has roots
            raw, self.file_id = self.read(64, 24), file_id
            if len(raw) < 24:
                raise Refused("Truncated", "H7: 24 bytes", 0, [])
            wanted = struct.pack("<IBBHIQ", 0, 0, ROOTS, 0, 128, 1)
            if raw != struct.pack("<I", self.crc_at(64, wanted) or 1) + wanted:
                raise Refused("Corrupt", "H7: the header of ROOTS", 64, [[64, 216]])
        return (dict(major=major, minor=minor, features=features, reserved=z.hex(), base_seq=base, created=created),
                file_id, 216 if features & 1 else 64)

    def crc_at(self, offset, data):
        return zlib.crc32(self.file_id + struct.pack("<Q", offset) + data)

    # ---- Roots
    def read_root(self):                                           # S; the start of the log if nothing states it
        roots, slots = [(0, self.start)], self.read(88, 128) if self.start == 216 else b""
        for at in range(0, len(slots) - 63, 64):
            generation, s = struct.unpack("<QQ", slots[at:at + 16])
            crc = int.from_bytes(slots[at + 60:at + 64], "little")
            if crc == self.crc_at(88 + at, slots[at:at + 60]) and 0 < generation < 2**64 - 1 and 216 <= s <= OFFSET_MAX:
                roots.append((generation, s))
        return max(roots)[1]

    def check_length(self):                                        # H8: the slots first, then the length
        s = self.read_root()
        if self.start == 216 and os.fstat(self.fd).st_size < s + 8:
            raise Refused("Truncated", "H8: the file has S + 8 bytes", 0, [])

    # ---- The walk
    def check_header(self, raw, o, previous):
        """W2 to W7: (record, None) if a true header stands at o, otherwise (_, the check that fails)."""
        if len(raw) < 24:
            return None, "W2: fewer than 24 bytes"
        r = Record(o, raw)
        crc = self.crc_at(o, raw[4:]) or 1
        highest = min(max(previous, self.header["base_seq"]) + SEQ_STEP, SEQ_MAX)
        checks = (("W3: header_crc", r.header_crc == crc),
                  ("W4: value_len", r.value_len <= VALUE_MAX),
                  ("W5: end of the record", r.end <= min(os.fstat(self.fd).st_size, OFFSET_MAX)),
                  ("W6: seq", previous < r.seq <= highest),
                  ("W7: flags or kind", r.flags <= SYNCED | MORE and (r.kind in KINDS or r.kind >= 0x80)))
        return r, next((check for check, holds in checks if not holds), None)

    def body_is_right(self, r):                                    # W9
        crc = zlib.crc32(r.raw[9:])
        for piece in self.pieces(r.offset + 24, r.end):
            crc = zlib.crc32(piece, crc)
        return crc == r.body_crc

    def form_is_right(self, r):                                    # W10. All other kinds have any body.
        if r.kind in LOOSE:
            return r.flags == 0
        if r.kind in (PUT, DELETE):
            return split(self.full_key(r)) is not None and (r.kind == PUT or r.value_len == 0)
        return r.kind != SYNCED_TO or (r.key_len == 0 and r.value_len == 8 and self.stated_offset(r) <= r.offset)

    def walk(self):                                                # from e on; self.stopped says why it stopped
        o, previous, self.unit = self.e, self.before, []
        while True:
            self.at, raw = o, self.read(o, 24)
            if not any(raw[:8]):
                self.stopped = UNFINISHED if self.unit else MARKED if len(raw) >= 8 else NO_MARK
                return
            r, self.stopped = self.check_header(raw, o, previous)
            if self.stopped == "W7: flags or kind":
                raise Refused("UnsupportedRecord", self.stopped, o, [])
            self.stopped = (self.stopped or (self.unit and r.kind in LOOSE and LOOSE_IN_BATCH)
                            or (self.unit and r.flags & SYNCED and IN_BATCH)
                            or (r.kind not in LOOSE and not self.body_is_right(r) and "W9: body_crc")
                            or (not self.form_is_right(r) and "W10: form"))
            if self.stopped:
                return
            self.unit.append(r)
            o, previous = r.next, r.seq
            if r.flags & MORE:                                     # "When a batch counts": not yet
                continue
            if len(self.unit) > 1 and any(self.read(r.offset, 24) != r.raw for r in self.unit):
                o, previous, self.unit = self.e, self.before, []   # "Beside a live writer": read the batch again
                continue
            for r in self.unit:                                    # "What the store holds"
                self.offsets.append(r.offset)
                if r.kind == PUT:
                    self.pairs[self.full_key(r)] = r
                elif r.kind == DELETE:
                    self.pairs.pop(self.full_key(r), None)
            self.e, self.before, self.last, self.unit = o, previous, r, []

    # ---- The end
    def data_end(self):
        ends = (at + len(data.rstrip(b"\0")) for at, data in self.data_chunks(self.e) if any(data))
        return max(ends, default=self.e)

    def witnesses(self, start):                                    # S1, from `start` on
        for at, data in self.data_chunks(start, overlap=16):
            for match in re.finditer(rb"[\x01\x02\x80-\x82]", data[9::8]):     # the kinds: zeros never pass
                i = 8 * match.start()
                if at + i >= start and data[i + 8] <= SYNCED | MORE:
                    r, failed = self.check_header(data[i:i + 24], at + i, self.before)
                    if not failed:
                        yield r

    def proof(self):                                               # P
        largest = self.read_root()                                 # S5
        for r in self.witnesses(self.e + 8):
            if r.flags & SYNCED:                                   # S2
                largest = max(largest, r.offset)
            if r.kind == SYNCED_TO and self.form_is_right(r) and self.body_is_right(r):    # S3
                largest = max(largest, self.stated_offset(r))
        return largest

    def is_whole(self):                                            # The table of "The end", its first two rows
        return self.stopped == NO_MARK or self.stopped == MARKED and self.data_end() == self.e

    def ends_inside_a_batch(self):
        cut = self.stopped[:2] in ("W2", "W5") or self.stopped == UNFINISHED and len(self.read(self.at, 8)) < 8
        return bool(self.unit) and cut

    def find_end(self, verdict):
        stop = None
        self.check_length()
        while True:
            self.walk()
            self.end = verdict["end"] = self.e
            verdict.update(highest_seq=max(self.before, self.header["base_seq"]))
            data_end, proven = self.data_end(), self.proof()
            if proven > self.e:
                if stop == (stop := (self.e, self.at, self.stopped)):   # "Beside a live writer": twice the same
                    if data_end > self.e:
                        raise Refused("Corrupt", self.stopped, self.at, self.damage(proven, data_end))
                    raise Refused("Truncated", "S5: the root states %d" % proven, self.e, [])
            elif 0 < self.header["base_seq"] >= self.before:
                raise Refused("Truncated", "W11: the closing mark", self.e, [])
            elif self.is_whole():
                return verdict.update(verdict="whole" + ", but for its end mark" * (self.stopped == NO_MARK))
            else:
                kept = any(self.body_is_right(r) for r in self.witnesses(self.at + 8)) or self.ends_inside_a_batch()  # S4
                return verdict.update(verdict="torn", torn_bytes=data_end - self.e, kept=kept, at=self.at, reason=self.stopped)

    def damage(self, proven, data_end):                            # "The list of damaged ranges"
        ranges = []
        while not self.is_whole() and (proven > self.e or (proven := self.proof()) > self.e):
            begin, self.before = self.at, self.unit[-1].seq if self.unit else self.before
            r, failed = self.check_header(self.read(begin, 24), begin, self.before)
            is_witness = not failed and r.kind in KINDS and self.stopped != IN_BATCH
            found = next(self.witnesses(r.next if is_witness else max(begin, self.e + 8)), None)
            if ranges and ranges[-1][1] == begin:
                begin = ranges.pop()[0]
            ranges.append([begin, found.offset if found else max(data_end, begin)])
            if not found:
                break
            self.e = found.offset
            try: self.walk()
            except Refused: break                                  # W7: a later version's record, so there is no list
        return ranges

# ---- Opening, and what is printed
def field(name, data):                                             # as text where they are UTF-8, otherwise in hexadecimal
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {name + "_hex": data.hex()}

def pairs(store):                                                  # in the order of their full keys
    for full_key, r in sorted(store.pairs.items()):
        bucket, key = split(full_key)
        yield {**field("bucket", bucket), **field("key", key),
               **field("value", store.read(r.value_at, r.value_len)), "last_index": r.seq}

def records(store):
    for r in (Record(o, store.read(o, 24)) for o in [*store.offsets, *(r.offset for r in store.unit)]):
        bucket, key = split(store.full_key(r)) if r.kind < 0x80 else (None, None)
        yield {"offset": r.offset, "seq": r.seq, "kind": NAMES.get(r.kind, "0x%02x" % r.kind),
               "flags": [name for name, flag in (("SYNCED", SYNCED), ("MORE", MORE)) if r.flags & flag],
               **field("bucket", bucket), **field("key", key),
               "key_len": r.key_len, "value_len": r.value_len, "counts": r.offset < store.end}

def print_store(path, with_records, out):                          # returns whether the store is readable
    try:
        for _ in range(100):                                       # a bound, should the path change for ever
            store, verdict = None, {"verdict": None, "readable": True, "damage": []}
            store = Store(path)
            store.find_end(verdict)
            if not (store.last and store.last.kind == MOVED and os.path.exists(path)
                    and not os.path.samestat(os.stat(path), os.fstat(store.fd))):
                break                                              # otherwise "open that one"
    except Refused as refused:
        verdict.update(zip(("verdict", "reason", "at", "damage"), refused.args), readable=False)
    except (OSError, ValueError, MemoryError) as error:
        verdict.update(verdict="Io", reason=str(error), readable=False)
    out.write(json.dumps({"path": path, "header": store and store.header, **verdict})[:-1])
    for name, items in [("records", records)] * with_records + [("pairs", pairs)]:
        out.write(', "%s": [' % name)
        for n, item in enumerate(items(store) if store and (verdict["readable"] or items is records) else ()):
            out.write(", " * (n > 0) + json.dumps(item))
        out.write("]")
    out.write("}\n")
    return verdict["readable"]

if __name__ == "__main__":
    paths = [argument for argument in sys.argv[1:] if argument != "--records"]
    if not paths or any(path.startswith("-") for path in paths):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(0 if all([print_store(path, "--records" in sys.argv, sys.stdout) for path in paths]) else 1)
    except Exception as error:                                     # of the output, or of a file changed meanwhile
        sys.exit("caskfile_reader: %s" % error)
