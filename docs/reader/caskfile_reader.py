#!/usr/bin/env python3
"""caskfile_reader.py [--records] [--now MS] FILE...   reads caskfile stores, and prints each as a line of JSON

A companion to FORMAT.md, version 1.0, in its order: H1, W1, S1, U1 ... are the page's checks. The exit code is 0 if every
file is readable, 1 if one is not, 2 for wrong usage. In memory are the live keys, the records of one batch, one
value at a time, and 8 bytes for each record. It reads the whole log, and holds the root's snapshot against that. It looks at no
clock: it prints all pairs of the log with their deadlines and sessions, and the sessions that have not ended. With --now it hides
the pairs that are over at this moment, in milliseconds since 1970, and those of ended sessions (O1). It compares no session's
deadline (O2)."""
import array, errno, json, os, re, stat, struct, sys, zlib
CHUNK = 1 << 20                                                    # how much is read at once; a multiple of 8

class Refused(Exception): "Nothing is read: (error in the page's terms, the check that fails, offset, damaged ranges)"

# ---- Records, and "Limits"
SYNCED, MORE = 0x01, 0x02
PUT, DELETE, PUT_WITH, SESSION, PUT_OWNED, MARK, SYNCED_TO, MOVED = 0x01, 0x02, 0x04, 0x05, 0x06, 0x80, 0x81, 0x82
ROOTS, IMAGE, SNAPSHOT, LOOSE, PUTS = 0xc0, 0xc1, 0xc2, range(0xc0, 0x100), (PUT, PUT_WITH, PUT_OWNED)
KINDS = {PUT: "put", DELETE: "delete", PUT_WITH: "put-with", SESSION: "session", PUT_OWNED: "put-owned",
         MARK: "mark", SYNCED_TO: "SYNCED_TO", MOVED: "MOVED"}     # of witnesses
NAMES = {**KINDS, ROOTS: "ROOTS", IMAGE: "IMAGE", SNAPSHOT: "SNAPSHOT"}
MARKED, NO_MARK, UNFINISHED = "W1: 8 zero bytes", "W1: fewer than 8 bytes", "W1: the end of the log, inside a batch"
IN_BATCH, LOOSE_IN_BATCH = "W8: SYNCED inside a batch", "W8: a loose record inside a batch"
SEQ_MAX, SEQ_STEP, VALUE_MAX, OFFSET_MAX, EXPIRY, OWNER_MAX = 2**62 - 1, 2**48, 2**30, 2**43, 24, 2**61 - 1

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
        self.sessions = {}                                         # session -> its last record, if that is no END

    def read(self, at, length):                                    # fewer bytes only where the file ends
        return os.pread(self.fd, length, at)
    def pieces(self, begin, end):
        return (self.read(at, min(CHUNK, end - at)) for at in range(begin, end, CHUNK))
    def full_key(self, r):
        return self.read(r.offset + 24, r.key_len)
    def expiry(self, r):                                           # Deadlines, Sessions: deadline, session, acquired; 0 for none
        deadline, *owner = struct.unpack("<QQQ", self.read(r.value_at, EXPIRY)) if r.kind in (PUT_WITH, PUT_OWNED) else (0, 0, 0)
        return (deadline, *owner) if r.kind == PUT_OWNED else (deadline, 0, 0)
    def session(self, r):                                          # Sessions
        names, value = "session owner nonce ttl deadline boot base_seq".split(), self.read(r.value_at, 64)
        says = dict(zip(names, struct.unpack("<QQQQQ16sQ", value)))
        return {"seq": r.seq, **says, "boot": says["boot"].hex()}
    def value(self, r):
        expiry = EXPIRY if r.kind in (PUT_WITH, PUT_OWNED) else 0
        return self.read(r.value_at + expiry, r.value_len - expiry)
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
        magic, major, minor, features, file_id, base, created, floor, z, crc = struct.unpack("<8sHHI16sQQQ4sI", raw.ljust(64))
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
        self.floor = floor - 1 if 0 < floor <= base + 1 else base      # Following the log
        return (dict(major=major, minor=minor, features=features, reserved=z.hex(), base_seq=base, created=created, floor=self.floor),
                file_id, 216 if features & 1 else 64)

    def crc_at(self, offset, data):
        return zlib.crc32(self.file_id + struct.pack("<Q", offset) + data)

    # ---- Roots
    def read_slots(self):                                          # (generation, S, snapshot) of the root
        roots, slots = [(0, self.start, 0)], self.read(88, 128) if self.start == 216 else b""
        for at in range(0, len(slots) - 63, 64):
            generation, s, snapshot = struct.unpack("<QQQ", slots[at:at + 24])
            crc = int.from_bytes(slots[at + 60:at + 64], "little")
            if crc == self.crc_at(88 + at, slots[at:at + 60]) and 0 < generation < 2**64 - 1 and 216 <= s <= OFFSET_MAX:
                roots.append((generation, s, snapshot))
        return max(roots)
    def read_root(self):                                           # S; the start of the log if nothing states it
        return self.read_slots()[1]

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
        if r.kind == SESSION:
            s = self.session(r) if (r.key_len, r.value_len) == (0, 64) else None
            return bool(s and 0 < s["session"] <= r.seq > s["base_seq"] and s["owner"] <= OWNER_MAX and s["ttl"])
        if r.kind in (DELETE, *PUTS):
            fits = r.kind == PUT or (r.value_len == 0 if r.kind == DELETE else r.value_len >= EXPIRY)
            if fits and r.kind == PUT_OWNED:
                _, session, acquired = self.expiry(r)
                fits = 0 < session < r.seq and (acquired == 0 or session < acquired <= r.seq)
            return split(self.full_key(r)) is not None and fits
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
                if r.kind in PUTS:
                    self.pairs[self.full_key(r)] = r
                elif r.kind == DELETE:
                    self.pairs.pop(self.full_key(r), None)
                elif r.kind == SESSION:
                    says = self.session(r)
                    self.sessions[says["session"]] = says
                    if says["deadline"] == 0:                      # END
                        del self.sessions[says["session"]]
            self.e, self.before, self.last, self.unit = o, previous, r, []

    # ---- The end
    def data_end(self):
        ends = (at + len(data.rstrip(b"\0")) for at, data in self.data_chunks(self.e) if any(data))
        return max(ends, default=self.e)

    def witnesses(self, start):                                    # S1, from `start` on
        for at, data in self.data_chunks(start, overlap=16):
            for match in re.finditer(rb"[\x01\x02\x04-\x06\x80-\x82]", data[9::8]):     # the kinds: zeros never pass
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

# ---- Snapshots
def sip_hash(key, message):                                        # SipHash-1-3
    k0, k1, wrap = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"), 2**64 - 1
    v0, v1, v2, v3 = (k ^ c for k, c in ((k0, 0x736f6d6570736575), (k1, 0x646f72616e646f6d),
                                         (k0, 0x6c7967656e657261), (k1, 0x7465646279746573)))
    def left(x, bits):
        return (x << bits | x >> 64 - bits) & wrap
    def round(v0, v1, v2, v3):
        v0 = v0 + v1 & wrap; v1 = left(v1, 13) ^ v0; v0 = left(v0, 32)
        v2 = v2 + v3 & wrap; v3 = left(v3, 16) ^ v2
        v0 = v0 + v3 & wrap; v3 = left(v3, 21) ^ v0
        v2 = v2 + v1 & wrap; v1 = left(v1, 17) ^ v2
        return v0, v1, left(v2, 32), v3
    message += bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for at in range(0, len(message), 8):
        m = int.from_bytes(message[at:at + 8], "little")
        v0, v1, v2, v3 = round(v0, v1, v2, v3 ^ m)
        v0 ^= m
    v2 ^= 0xff
    for _ in range(3):
        v0, v1, v2, v3 = round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3

class Unusable(Exception): "The check that fails, with what it says"

def need(holds, check):
    if not holds:
        raise Unusable(check)

class Snapshot:
    """What a SNAPSHOT says, if U1 to U8 hold, the words of each of the 4,096 sub-tables, if U10 to U12 do, and the order, if U14
    to U16 do."""
    def __init__(self, store):
        _, s, self.at = store.read_slots()
        need(store.start == 216 <= self.at and self.at + 24 <= s, "U1: the root")
        raw = store.read(self.at, 24)
        r = Record(self.at, raw) if len(raw) == 24 else None
        need(r and r.header_crc == (store.crc_at(self.at, raw[4:]) or 1) and (r.kind, r.flags, r.key_len) == (SNAPSHOT, 0, 0)
             and r.next <= s, "U2: the header")
        need(r.value_len <= 131152, "U3: value_len")
        value = store.read(r.value_at, r.value_len)
        need(len(value) == r.value_len and zlib.crc32(value, zlib.crc32(raw[9:])) == r.body_crc, "U3: body_crc")
        need(len(value) >= 80, "U5: value_len")
        (version, hash_number, check, self.covered_to, self.covered_seq, self.records, self.keys, self.live_bytes,
         self.part_bits, leaves, directory, directory_crc, self.since_event) = struct.unpack("<IIQQQQQQIIQII", value[:80])
        need(version in (1, 2) and hash_number == 1, "U4: version or hash")
        need(check == sip_hash(store.file_id, b"caskfile"), "U4: check")
        more = len(value) - 80 - 16 * 2**self.part_bits if self.part_bits <= 12 else -1
        need(more == 0 or version == 2 and more in range(0, 65537, 16), "U5: part_bits or value_len")
        c = self.covered_to
        need(c % 8 == 0 and store.start <= c <= self.at, "U6: covered_to")
        entries = list(struct.iter_unpack("<QII", value[80:]))
        parts, self.lifetimes = entries[:2**self.part_bits], entries[2**self.part_bits:]
        need(24 * self.records <= c - store.start and self.live_bytes <= c - store.start and self.keys <= self.records
             and sum(count for _, count, _ in parts) == self.keys, "U7: the totals")
        tables = 2**(12 - self.part_bits)
        length = lambda count: 4 * tables + 8 * count
        need(all(count == 0 or c <= offset and offset + length(count) <= self.at for offset, count, _ in parts), "U8: a part")
        need(leaves == 0 or leaves <= self.keys and c <= directory and directory + 40 * leaves <= self.at, "U8: the directory")
        offsets = [offset for offset, _, _ in self.lifetimes]
        need(offsets == sorted(set(offsets)) and all(o % 8 == 0 and store.start <= o < c for o in offsets), "U18: an offset")
        size = 0
        for offset, count, crc in self.lifetimes:
            raw = store.read(offset, 24)
            r = Record(offset, raw) if len(raw) == 24 else None
            need(r and count == 1 and r.header_crc == crc == (store.crc_at(offset, raw[4:]) or 1) and r.next <= c, "U18: the header")
            need(r.kind in (PUT_WITH, PUT_OWNED, SESSION) and store.body_is_right(r) and store.form_is_right(r), "U18: the record")
            need(r.kind != SESSION or store.session(r)["deadline"], "U18: a session that is over")
            size += r.next - offset
            need(size <= 1 << 20, "U18: their length")
        self.words = []
        for offset, count, crc in parts:
            data = store.read(offset, length(count)) if count else bytes(4 * tables)
            need(not count or crc == store.crc_at(offset, data), "U10: crc of a part")
            counts = struct.unpack("<%dI" % tables, data[:4 * tables])
            need(sum(counts) == count, "U11: the numbers of words")
            words = iter(struct.unpack("<%dQ" % count, data[4 * tables:]))
            for n in counts:
                table = [next(words) for _ in range(n)]
                need(table == sorted(set(table)), "U12: the order of words")
                need(all(store.start <= word % 2**40 * 8 < c for word in table), "U12: an offset")
                self.words.append(table)
        data = store.read(directory, 40 * leaves) if leaves else b""
        need(not leaves or directory_crc == store.crc_at(directory, data), "U14: crc of the directory")
        leaves = list(struct.iter_unpack("<QII24s", data))
        need(all(n and c <= at and at + 24 * n <= directory for at, n, _, _ in leaves), "U14: a leaf")
        need(not leaves or sum(n for _, n, _, _ in leaves) == self.keys, "U14: the counts")
        self.order = []
        for at, n, crc, first in leaves:
            data = store.read(at, 24 * n)
            need(crc == store.crc_at(at, data) and data[:24] == first, "U15: a leaf")
            self.order += [entry for entry, in struct.iter_unpack("24s", data)]
        shown = []
        for entry in self.order:
            number = int.from_bytes(entry[16:], "little")
            key, n = entry[:16] + (number >> 48).to_bytes(2, "big"), number >> 40 & 255
            need(n <= 19 and not any(key[n:]) and store.start <= number % 2**40 * 8 < c, "U16: an entry")
            shown.append((key, n))
        need(all(a < b or a == b and a[1] == 19 for a, b in zip(shown, shown[1:])), "U16: the order of entries")

    def compare(self, store):                                      # with what the walk has found before c
        live, previous, end, more, records, event, sessions = {}, 0, store.start, 0, 0, store.floor, {}
        for r in (Record(o, store.read(o, 24)) for o in store.offsets if o < self.covered_to):
            if r.kind in PUTS:
                live[store.full_key(r)] = r
            elif r.kind == DELETE:
                live.pop(store.full_key(r), None)
            elif r.kind == SESSION:
                sessions[store.session(r)["session"]] = r
            if r.kind in (DELETE, *PUTS):
                event = max(event, r.seq)
            previous, end, more, records = r.seq, r.next, r.flags & MORE, records + 1
        need(end == self.covered_to and not more, "compare: a unit ends at covered_to")
        found = previous, records, len(live), sum(r.next - r.offset for r in live.values())
        need((self.covered_seq, self.records, self.keys, self.live_bytes) == found, "compare: the totals")
        need(not 0 < self.since_event <= previous + 1 or previous + 1 - self.since_event == event, "compare: the last event")
        words = [[] for _ in range(4096)]
        for full_key, r in live.items():
            bits = sip_hash(store.file_id, full_key)
            words[bits >> 52].append((bits >> 28 & 0xffffff) << 40 | r.offset // 8)
        need(self.words == [sorted(table) for table in words], "compare: the words")
        order = [key[:16].ljust(16, b"\0") + ((int.from_bytes(key[16:18].ljust(2, b"\0"), "big") << 8 | min(len(key), 19)) << 40
                 | r.offset // 8).to_bytes(8, "little") for key, r in sorted(live.items())]
        need(self.order in ([], order), "compare: the order")
        lasting = [r for r in sessions.values() if store.session(r)["deadline"]]
        lasting += [r for r in live.values() if r.kind == PUT_OWNED or r.kind == PUT_WITH and store.expiry(r)[0]]
        lifetimes = sorted((r.offset, 1, r.header_crc) for r in lasting)
        need(self.lifetimes == lifetimes, "compare: the records with a lifetime")

def look_at_snapshot(store):
    """What is wrong with the root's snapshot; None if there is none. A later version's is not compared."""
    at = store.read_slots()[2]
    try:
        if at:
            Snapshot(store).compare(store)
    except Unusable as unusable:
        return {"at": at, "differs": unusable.args[0] != "U4: version or hash", "fails": unusable.args[0]}
    return {"at": at, "differs": False} if at else None

# ---- Opening, and what is printed
def field(name, data):                                             # as text where they are UTF-8, otherwise in hexadecimal
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {name + "_hex": data.hex()}

def pairs(store, now=None):                                        # in the order of their full keys
    for full_key, r in sorted(store.pairs.items()):
        bucket, key = split(full_key)
        deadline, session, acquired = store.expiry(r)
        if now is None or (now < deadline or not deadline) and (not session or session in store.sessions):   # otherwise it is over
            lifetime = {"deadline": deadline, "session": session, "acquired": acquired}
            yield {**field("bucket", bucket), **field("key", key), **field("value", store.value(r)), "last_index": r.seq,
                   **{name: number for name, number in lifetime.items() if number}}

def records(store):
    for r in (Record(o, store.read(o, 24)) for o in [*store.offsets, *(r.offset for r in store.unit)]):
        bucket, key = split(store.full_key(r)) if r.kind in (DELETE, *PUTS) else (None, None)
        yield {"offset": r.offset, "seq": r.seq, "kind": NAMES.get(r.kind, "0x%02x" % r.kind),
               "flags": [name for name, flag in (("SYNCED", SYNCED), ("MORE", MORE)) if r.flags & flag],
               **field("bucket", bucket), **field("key", key),
               "key_len": r.key_len, "value_len": r.value_len, "counts": r.offset < store.end}

def print_store(path, with_records, out, now=None):                # returns whether the store is readable
    try:
        for _ in range(100):                                       # a bound, should the path change for ever
            store, verdict = None, {"verdict": None, "readable": True, "damage": []}
            store = Store(path)
            store.find_end(verdict)
            verdict.update(snapshot=look_at_snapshot(store))
            if not (store.last and store.last.kind == MOVED and os.path.exists(path)
                    and not os.path.samestat(os.stat(path), os.fstat(store.fd))):
                break                                              # otherwise "open that one"
    except Refused as refused:
        verdict.update(zip(("verdict", "reason", "at", "damage"), refused.args), readable=False)
    except (OSError, ValueError, MemoryError) as error:
        verdict.update(verdict="Io", reason=str(error), readable=False)
    if verdict["readable"] and store.sessions:
        verdict.update(sessions=[says for _, says in sorted(store.sessions.items())])
    out.write(json.dumps({"path": path, "header": store and store.header, **verdict})[:-1])
    for name, items in [("records", records)] * with_records + [("pairs", lambda store: pairs(store, now))]:
        out.write(', "%s": [' % name)
        for n, item in enumerate(items(store) if store and (verdict["readable"] or items is records) else ()):
            out.write(", " * (n > 0) + json.dumps(item))
        out.write("]")
    out.write("}\n")
    return verdict["readable"]

if __name__ == "__main__":
    paths, now = [argument for argument in sys.argv[1:] if argument != "--records"], None
    if paths[:1] == ["--now"] and paths[1:2] and paths[1].isdecimal():
        now, paths = int(paths[1]), paths[2:]
    if not paths or any(path.startswith("-") for path in paths):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(0 if all([print_store(path, "--records" in sys.argv, sys.stdout, now) for path in paths]) else 1)
    except Exception as error:                                     # of the output, or of a file changed meanwhile
        sys.exit("caskfile_reader: %s" % error)
