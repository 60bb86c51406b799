#!/usr/bin/env python3
"""Tests of caskfile_reader.py, with files that are built by FORMAT.md's tables. What the reader says of a file that lies
still is compared with the library elsewhere (tests/format/second_reader.rs); here is what becomes of files that change while
they are read, of large ones, and of paths that name no file; and the page's example."""
import io, json, os, struct, subprocess, sys, tempfile, unittest, warnings, zlib

sys.dont_write_bytecode = True
import caskfile_reader

HERE = os.path.dirname(os.path.abspath(__file__))
READER = os.path.join(HERE, "caskfile_reader.py")
FILE_ID = bytes(range(16))
PUT, DELETE, PUT_WITH, SESSION, PUT_OWNED, MARK, SYNCED_TO, MOVED, ROOTS = 1, 2, 4, 5, 6, 0x80, 0x81, 0x82, 0xc0
SYNCED, MORE = 1, 2
BLOCK = 1 << 20
END = bytes(8)


def file_header(base_seq=0, features=0):
    head = bytes.fromhex("ca534b460d0a1a0a") + struct.pack("<HHI", 1, 0, features) + FILE_ID
    head += struct.pack("<QQ", base_seq, 1_800_000_000) + bytes(12)
    return head + struct.pack("<I", zlib.crc32(head))


def crc_at(offset, data):
    return struct.pack("<I", zlib.crc32(FILE_ID + struct.pack("<Q", offset) + data))


def roots(*slots):
    """ROOTS; each slot is a generation and an offset that it states, or None."""
    rest = struct.pack("<IBBHIQ", 0, 0, ROOTS, 0, 128, 1)
    data = crc_at(64, rest) + rest
    for at, slot in zip((88, 152), slots):
        stated = struct.pack("<QQ", *slot) + bytes(44) if slot else bytes(60)
        data += stated + (crc_at(at, stated) if slot else bytes(4))
    return data


def full_key(key, bucket=b""):
    return bytes([len(bucket)]) + bucket + key


def record(offset, kind, seq, key=b"", value=b"", flags=0):
    tail = struct.pack("<BHIQ", kind, len(key), len(value), seq)
    rest = struct.pack("<IB", zlib.crc32(tail + key + value), flags) + tail
    head = struct.pack("<I", zlib.crc32(FILE_ID + struct.pack("<Q", offset) + rest) or 1) + rest
    return head + key + value + bytes(-(len(head) + len(key) + len(value)) % 8)


class Builder:
    """A file that grows record by record; sequence numbers count up from the first of block 1."""

    def __init__(self, base_seq=0, slots=()):
        self.data, self.seq, self.at = file_header(base_seq, 1 if slots else 0), BLOCK - 1, []
        if slots:
            self.data += roots(*slots)

    def add(self, kind, key=b"", value=b"", flags=0, seq=None):
        self.seq = self.seq + 1 if seq is None else seq
        self.at.append(len(self.data))
        return self.raw(record(len(self.data), kind, self.seq, key, value, flags))

    def put(self, key, value, flags=0, bucket=b""):
        return self.add(PUT, full_key(key, bucket), value, flags)

    def raw(self, data):
        self.data += data
        return self


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def example():
    with open(os.path.join(HERE, "../FORMAT.md")) as page:
        dump = page.read().split("```hexdump\n")[1].split("```")[0]
    return b"".join(bytes.fromhex(line.split(None, 1)[1].split(";")[0]) for line in dump.splitlines() if line)


class Case(unittest.TestCase):
    def setUp(self):
        warnings.simplefilter("ignore", ResourceWarning)           # the reader closes a file when it lets go of it
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "store")

    def write(self, data):
        with open(self.path, "wb") as f:
            f.write(data)

    def open(self, path=None, records=False, now=None):
        out = io.StringIO()
        readable = caskfile_reader.print_store(path or self.path, records, out, now)
        answer = json.loads(out.getvalue())
        self.assertEqual(answer["readable"], readable)
        return answer

    def read(self, data, **options):
        self.write(data)
        return self.open(**options)

    def values(self, answer):
        return {pair["key"]: pair["value"] for pair in answer["pairs"]}

    def after_each(self, name, *steps):
        """Runs the steps one after the other, each after a call of a method of the reader."""
        real, left = getattr(caskfile_reader.Store, name), list(steps)

        def method(store, *arguments):
            found = real(store, *arguments)
            if left:
                left.pop(0)()
            return found
        setattr(caskfile_reader.Store, name, method)
        self.addCleanup(setattr, caskfile_reader.Store, name, real)
        return left


class WorkedExample(Case):
    def test_the_page_s_dump(self):
        answer = self.read(example(), records=True)
        self.assertEqual((answer["verdict"], answer["end"], answer["highest_seq"]), ("whole", 392, 1048581))
        self.assertEqual(answer["pairs"], [
            {"bucket": "", "key": "b", "value": "22", "last_index": 1048579},
            {"bucket": "x", "key": "c", "value": "333", "last_index": 1048580}])
        kinds = [(r["offset"], r["kind"], r["flags"]) for r in answer["records"]]
        self.assertEqual(kinds, [(0xd8, "mark", []), (0xf0, "put", ["SYNCED"]), (0x110, "delete", ["SYNCED"]),
                                 (0x130, "put", ["SYNCED", "MORE"]), (0x150, "put", []), (0x170, "mark", ["SYNCED"])])

    def test_who_reads_the_output_does_not_learn_the_file_id(self):
        answer = json.dumps(self.read(example(), records=True))
        self.assertNotIn("file_id", answer)
        self.assertNotIn(FILE_ID.hex(), answer)

    def test_the_tables_make_the_same_bytes(self):
        b = Builder(slots=((1, 0x170), None)).add(MARK).put(b"a", b"1", SYNCED).add(DELETE, full_key(b"a"), flags=SYNCED)
        b.put(b"b", b"22", SYNCED | MORE).put(b"c", b"333", bucket=b"x").add(MARK, flags=SYNCED).raw(END)
        self.assertEqual(b.data, example())


class Roots(Case):
    def test_every_cut_below_the_root_is_refused(self):
        data = example()
        for length in range(64, len(data)):
            expected = "Truncated" if length < 0x178 else "torn" if length < 0x188 else "whole, but for its end mark"
            self.assertEqual(self.read(data[:length])["verdict"], expected, length)

    def test_a_root_that_is_written_during_the_walk_is_no_loss(self):
        begun = Builder(slots=(None, None)).put(b"a", b"1")
        end = len(begun.data)
        self.write(begun.data + END)
        whole = Builder(slots=((1, end + 32), None)).put(b"a", b"1").put(b"b", b"2").raw(END).data
        # The walk has stopped at the end mark, and then the writer appends, syncs and writes the root.
        self.after_each("walk", lambda: self.write(whole))
        self.assertEqual(self.values(self.open()), {"a": "1", "b": "2"})


class Paths(Case):
    def test_what_is_no_regular_file_is_an_io_error(self):
        fifo = os.path.join(self.dir.name, "fifo")
        os.mkfifo(fifo)
        for path in (self.dir.name, fifo, "/dev/null", os.path.join(self.dir.name, "none"), "a\0b"):
            self.assertEqual(self.open(path)["verdict"], "Io", path)

    def test_symlinks_are_followed(self):
        self.write(example())
        link = os.path.join(self.dir.name, "link")
        os.symlink(self.path, link)
        self.assertEqual(self.open(link)["verdict"], "whole")


class BesideAWriter(Case):
    def test_a_batch_that_changed_while_it_was_read_is_read_anew(self):
        self.write(Builder().put(b"a", b"1", MORE).put(b"b", b"2").raw(END).data)
        new = Builder().add(DELETE, full_key(b"a"), flags=MORE).put(b"b", b"2").raw(END).data
        self.after_each("body_is_right", lambda: None, lambda: self.write(new))
        self.assertEqual(self.values(self.open()), {"b": "2"})

    def test_damage_is_looked_at_until_it_is_twice_the_same(self):
        good = Builder().put(b"a", b"1").put(b"b", b"2").put(b"c", b"3").put(b"d", b"4", SYNCED).raw(END)
        bad = [flip(good.data, at + 5) for at in good.at[:3]]
        self.write(bad[0])
        left = self.after_each("proof", *(lambda data=data: self.write(data) for data in (bad[1], bad[2], good.data)))
        self.assertEqual(self.open()["verdict"], "whole")
        self.assertEqual(left, [])
        self.write(bad[0])
        left = self.after_each("proof", *(lambda data=data: self.write(data) for data in (bad[1], bad[1], good.data)))
        answer = self.open()
        self.assertEqual((answer["verdict"], answer["at"], len(left)), ("Corrupt", good.at[1], 0))

    def test_a_moved_is_followed_whatever_stands_behind_the_end(self):
        other = os.path.join(self.dir.name, "tmp")
        for tail in (END, b"torn" * 3):
            self.write(Builder(BLOCK + 9).put(b"a", b"new").add(MARK, flags=SYNCED, seq=BLOCK + 10).raw(END).data)
            os.rename(self.path, other)
            self.write(Builder().put(b"a", b"1").add(MOVED).raw(tail).data)
            self.after_each("find_end", lambda: os.rename(other, self.path))
            self.assertEqual(self.values(self.open()), {"a": "new"})

    def test_a_moved_means_nothing_while_the_path_names_the_same_file_or_none(self):
        data = Builder().put(b"a", b"1").add(MOVED).raw(END).data
        self.assertEqual(self.values(self.read(data)), {"a": "1"})
        self.after_each("find_end", lambda: os.remove(self.path))
        self.assertEqual(self.values(self.open()), {"a": "1"})


class LargeFiles(Case):
    def test_a_witness_across_the_pieces_that_are_read_at_once(self):
        for shift in range(-40, 48, 8):
            b = Builder().put(b"a", b"1").raw(b"damage!!")
            length = 96 + caskfile_reader.CHUNK + 8 + shift
            b.raw(bytes([0x81, 3] * 4) * ((length - len(b.data)) // 8))
            b.add(MARK, flags=SYNCED, seq=BLOCK + 1).raw(END)
            answer = self.read(b.data)
            self.assertEqual((answer["verdict"], answer["damage"]), ("Corrupt", [[96, length]]))

    def test_holes_cost_nothing(self):
        self.write(Builder().put(b"a", b"1").raw(END).data)
        os.truncate(self.path, 1 << 40)
        real, read = caskfile_reader.Store.read, []
        caskfile_reader.Store.read = lambda store, at, length: read.append(real(store, at, length)) or read[-1]
        self.addCleanup(setattr, caskfile_reader.Store, "read", real)
        self.assertEqual(self.open()["verdict"], "whole")
        with open(self.path, "r+b") as f:
            f.seek((1 << 39) + 5)
            f.write(b"x")
        answer = self.open()
        self.assertEqual((answer["verdict"], answer["torn_bytes"]), ("torn", (1 << 39) + 6 - 96))
        self.assertLess(sum(map(len, read)), 1 << 20)

    def test_no_record_ends_behind_2_to_the_43(self):
        self.write(Builder().put(b"a", b"1").raw(END).data)
        at = 2**43 - 24
        for offset, verdict in ((at, "Corrupt"), (at + 8, "torn")):
            with open(self.path, "r+b") as f:
                try:
                    f.seek(offset)
                    f.write(record(offset, MARK, BLOCK + 5, flags=SYNCED) + END)
                except OSError:
                    self.skipTest("no files of 2^43 bytes here")
            self.assertEqual(self.open()["verdict"], verdict)
            os.truncate(self.path, 104)


class CommandLine(Case):
    def run_it(self, *arguments):
        r = subprocess.run([sys.executable, READER, *arguments], capture_output=True, text=True)
        self.assertNotIn("Traceback", r.stderr)
        return r.returncode, [json.loads(line) for line in r.stdout.splitlines()]

    def test_exit_codes(self):
        self.write(example())
        bad = os.path.join(self.dir.name, "bad")
        with open(bad, "wb") as f:
            f.write(b"no store")
        self.assertEqual(self.run_it(self.path)[0], 0)
        self.assertEqual(self.run_it(bad)[0], 1)
        code, lines = self.run_it(self.path, bad, self.path)
        self.assertEqual((code, [line["verdict"] for line in lines]), (1, ["whole", "NotCaskfile", "whole"]))
        self.assertEqual(self.run_it()[0], 2)
        self.assertEqual(self.run_it("--what", self.path)[0], 2)

    def test_pairs_are_hidden_from_their_deadline_on_at_the_moment_that_is_asked_for(self):
        b = Builder().put(b"a", b"1")
        for key, deadline in ((b"b", 1000), (b"c", 2000), (b"d", 0)):
            b.add(PUT_WITH, full_key(key), struct.pack("<QQQ", deadline, 0, 0) + b"2")
        self.write(b.raw(END).data)
        all_pairs = self.open()["pairs"]
        self.assertEqual([pair.get("deadline") for pair in all_pairs], [None, 1000, 2000, None])
        self.assertEqual([pair["value"] for pair in all_pairs], ["1", "2", "2", "2"])
        for now, keys in ((999, "abcd"), (1000, "acd"), (1999, "acd"), (2000, "ad"), (2**64, "ad")):
            self.assertEqual("".join(pair["key"] for pair in self.open(now=now)["pairs"]), keys, now)
        out = subprocess.run([sys.executable, READER, "--records", "--now", "1500", self.path], capture_output=True, check=True)
        answer = json.loads(out.stdout)
        self.assertEqual("".join(pair["key"] for pair in answer["pairs"]), "acd")
        self.assertEqual([r["kind"] for r in answer["records"]], ["put"] + 3 * ["put-with"])

    def test_pairs_of_ended_sessions_are_hidden(self):
        b = Builder()
        says = lambda session, deadline: struct.pack("<QQQQQ16sQ", session, 1, 2, 3, deadline, bytes(16), 0)
        owned = lambda key, session, acquired: b.add(PUT_OWNED, full_key(key), struct.pack("<QQQ", 0, session, acquired) + b"v")
        first = b.add(SESSION, value=says(BLOCK, 10)).seq
        second = b.add(SESSION, value=says(BLOCK + 1, 20)).seq
        owned(b"a", first, b.seq + 1)
        owned(b"b", second, 0)
        owned(b"c", first - 1, 0)
        self.write(b.raw(END).data)
        answer = self.open(now=0)
        self.assertEqual([(pair["key"], pair["session"], pair.get("acquired")) for pair in answer["pairs"]],
                         [("a", first, BLOCK + 2), ("b", second, None)])
        self.assertEqual([(says["session"], says["deadline"]) for says in answer["sessions"]], [(first, 10), (second, 20)])
        self.assertEqual("".join(pair["key"] for pair in self.open()["pairs"]), "abc")
        b.data = b.data[:-8]
        b.add(SESSION, value=says(first, 0)).add(SESSION, value=says(second, 30))
        self.write(b.raw(END).data)
        answer = self.open(now=0)
        self.assertEqual("".join(pair["key"] for pair in answer["pairs"]), "b")
        self.assertEqual([(says["seq"], says["session"], says["deadline"]) for says in answer["sessions"]], [(b.seq, second, 30)])

    def test_records_of_an_unfinished_batch_do_not_count(self):
        b = Builder().put(b"a", b"1").put(b"b", b"2", MORE).add(0x90, b"\xff", b"xyz", MORE).raw(END)
        self.write(b.data)
        records = self.run_it("--records", self.path)[1][0]["records"]
        self.assertEqual([(r["kind"], r["key"], r["key_len"], r["value_len"], r["counts"]) for r in records],
                         [("put", "a", 2, 1, True), ("put", "b", 2, 1, False), ("0x90", None, 1, 3, False)])


if __name__ == "__main__":
    unittest.main()
