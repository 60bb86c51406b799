// The fields of a piece, with the names of docs/FORMAT.md.

// How much of a value is shown as text. The bytes are all in the hex pane.
const LONGEST_SHOWN = 1 << 16;

// The fields of piece `n` in the file's order: name, offset, length, the role that colours them, their text.
function fieldsOf(pieces, n) {
    const fields = new FieldList(pieces.bytes, pieces.offset(n), pieces.end(n));
    const record = pieces.record(n);
    if (record) {
        addRecord(fields, pieces, n, record);
    } else if (pieces.className(n) === "file_header") {
        addFileHeader(fields, pieces.has(n, HEADER_HOLDS));
    } else {
        const { role, says } = OTHER_PIECES.get(pieces.className(n));
        fields.addRest(pieces.label(n), role, says);
    }
    return fields.list;
}

const OTHER_PIECES = new Map([
    // A file that ends in it has no header of a record there.
    ["roots", { role: "meta", says: "the beginning of it: the file ends here" }],
    ["end_mark", { role: "zero", says: "8 zero bytes in place of a record: the log ends here" }],
    ["zeros", { role: "zero", says: "the file is longer than its log: writers extend it ahead" }],
    ["torn", { role: "torn", says: "no whole record or batch: the next writer cuts it off" }],
    ["corrupt", { role: "corrupt", says: "had been stored, and is damaged" }],
    ["unread", { role: "torn", says: "of a later version, or of a file that cannot be identified" }],
    ["omitted", { role: "zero", says: "the file is too long for one page" }],
]);

class FieldList {
    constructor(bytes, offset, end) {
        this.bytes = bytes;
        this.at = offset;
        this.end = end;
        this.list = [];
    }

    // Adds the next field, cut off where the piece ends; `say` gets its bytes and its number.
    add(name, length, role, say) {
        const offset = this.at;
        length = Math.min(length, this.end - offset);
        if (length > 0) {
            const says =
                typeof say === "string"
                    ? say
                    : () => say(this.bytes.slice(offset, length), () => this.bytes.number(offset, length));
            this.list.push({ name, offset, length, role, says });
        }
        this.at += length;
    }

    addRest(name, role, say) {
        this.add(name, this.end - this.at, role, say);
    }
}

function addFileHeader(fields, holds) {
    fields.add("magic", 8, "meta", "a caskfile");
    fields.add("major", 2, "meta", (_, number) => number().toString());
    fields.add("minor", 2, "meta", (_, number) => number().toString());
    fields.add("features", 4, "meta", (_, number) => (Number(number()) % 2 ? "has roots" : "none"));
    fields.add("file_id", 16, "check", "random, and not in this page: with it, one can forge records inside values");
    fields.add("base_seq", 8, "seq", (_, number) => grouped(number()));
    fields.add("created", 8, "meta", (_, number) => dateText(number()));
    fields.add("complete_after", 8, "seq", (_, number) => floorText(number()));
    fields.add("reserved", 4, "zero", "zeros");
    fields.add("crc", 4, "check", crcText(holds));
}

function floorText(completeAfter) {
    return completeAfter === 0n ? "every event above base_seq is here" : "every event above " + grouped(completeAfter - 1n) + " is here";
}

function dateText(seconds) {
    const date = new Date(Number(seconds) * 1000);
    return Number.isNaN(date.getTime())
        ? grouped(seconds) + " s"
        : date.toISOString().replace("T", " ").replace(".000Z", " UTC");
}

// A moment in milliseconds since 1970.
function momentText(milliseconds) {
    const date = new Date(Number(milliseconds));
    return Number.isNaN(date.getTime()) ? grouped(milliseconds) + " ms" : date.toISOString().replace("T", " ").replace("Z", " UTC");
}

function addRecord(fields, pieces, n, record) {
    fields.add("header_crc", 4, "check", crcText(pieces.has(n, HEADER_HOLDS)));
    fields.add(
        "body_crc",
        4,
        "check",
        pieces.has(n, BODY_UNKNOWN) ? "unknown" : crcText(pieces.has(n, BODY_HOLDS)),
    );
    fields.add("flags", 1, "meta", flagsText(record.flags) || "none");
    fields.add("kind", 1, "meta", kindText(record.kind));
    fields.add("key_len", 2, "length", grouped(record.keyLength));
    fields.add("value_len", 4, "length", grouped(record.valueLength));
    fields.add("seq", 8, "seq", grouped(record.seq));
    addKey(fields, pieces, record);
    if (pieces.className(n) === "roots") {
        [0, 1].forEach((slot) => addSlot(fields, pieces.slotText(n, slot)));
        return;
    }
    if (record.kind === SNAPSHOT && isSnapshotLength(record)) {
        addSnapshot(fields, record);
    } else if (hasSessionForm(record)) {
        addSession(fields);
    } else {
        const before = expiryLength(record);
        if (before > 0) {
            addExpiry(fields);
        }
        fields.add("value", record.valueLength - before, "value", (bytes, number) => valueText(record, bytes, number));
    }
    fields.addRest("padding", "zero", "up to a multiple of 8");
}

function addExpiry(fields) {
    fields.add("deadline", 8, "value", (_, number) => (number() === 0n ? "none" : "hidden from " + momentText(number()) + " on"));
    fields.add("session", 8, "meta", (_, number) => (number() === 0n ? "none" : grouped(number())));
    fields.add("acquired", 8, "meta", (_, number) => (number() === 0n ? "none" : grouped(number())));
}

function addSession(fields) {
    fields.add("session", 8, "seq", (_, number) => "its first record is " + grouped(number()));
    fields.add("owner", 8, "meta", (_, number) => grouped(number()));
    fields.add("nonce", 8, "meta", (_, number) => grouped(number()));
    fields.add("ttl", 8, "length", (_, number) => grouped(number()) + " ms");
    fields.add("deadline", 8, "value", (_, number) =>
        number() === 0n ? "END: the session is over" : grouped(number()) + " ms of the clock of its owner's machine",
    );
    fields.add("boot", 16, "meta", "which boot of that machine");
    fields.add("base_seq", 8, "seq", (_, number) => "of the file that it was written in: " + grouped(number()));
}

function addSlot(fields, what) {
    fields.add("generation", 8, "seq", (_, number) => grouped(number()));
    fields.add("synced_to", 8, "value", (_, number) => "on stable storage up to " + offsetText(Number(number())));
    fields.add("snapshot", 8, "value", (_, number) => snapshotText(Number(number())));
    fields.add("reserved", 36, "zero", "zeros");
    fields.add("crc", 4, "check", what);
}

function snapshotText(offset) {
    return offset === 0 ? "none" : "of the index: " + offsetText(offset);
}

const SNAPSHOT_HEAD_LENGTH = 80;
const PART_ENTRY_LENGTH = 16;

// As in `Record::has_snapshot_form`.
function isSnapshotLength(record) {
    const length = record.valueLength - SNAPSHOT_HEAD_LENGTH;
    return record.keyLength === 0 && length >= 0 && length % PART_ENTRY_LENGTH === 0 && length >> 4 <= 8192;
}

function addSnapshot(fields, record) {
    fields.add("version", 4, "meta", (_, number) => number().toString());
    fields.add("hash", 4, "meta", (_, number) => (number() === 1n ? "SipHash-1-3" : number().toString()));
    fields.add("check", 8, "check", "the hash of a known text");
    fields.add("covered_to", 8, "value", (_, number) => "of the log up to " + offsetText(Number(number())));
    fields.add("covered_seq", 8, "seq", (_, number) => grouped(number()));
    fields.add("records", 8, "length", (_, number) => grouped(number()));
    fields.add("keys", 8, "length", (_, number) => grouped(number()));
    fields.add("live_bytes", 8, "length", (_, number) => grouped(number()));
    fields.add("part_bits", 4, "meta", (_, number) => plural(2 ** Number(number()), "part"));
    fields.add("leaves", 4, "meta", (_, number) => (number() === 0n ? "no order" : "leaves of the order: " + grouped(number())));
    fields.add("directory", 8, "value", (_, number) => (number() === 0n ? "" : "of the order: " + offsetText(Number(number()))));
    fields.add("directory_crc", 4, "check", "of the directory");
    fields.add("since_event", 4, "seq", (_, number) => (number() === 0n ? "" : "the last event is " + grouped(number() - 1n) + " below covered_seq"));
    for (let part = 0; part < (record.valueLength - SNAPSHOT_HEAD_LENGTH) / PART_ENTRY_LENGTH; part++) {
        fields.add("offset", 8, "value", (_, number) => "part " + part + ": " + offsetText(Number(number())));
        fields.add("count", 4, "length", (_, number) => plural(Number(number()), "key"));
        fields.add("crc", 4, "check", "of this part");
    }
}

function crcText(holds) {
    return holds ? "✓ holds" : "✗ does not hold";
}

function addKey(fields, pieces, record) {
    if (!isAboutKeys(record.kind)) {
        fields.add("full key", record.keyLength, "key", (bytes) => preview(bytes, LONGEST_SHOWN));
        return;
    }
    const { bucket, key } = splitFullKey(pieces.key(record));
    fields.add("bucket_len", 1, "length", grouped(bucket.length));
    fields.add("bucket", bucket.length, "key", (bytes) => preview(bytes, LONGEST_SHOWN));
    fields.add("key", record.keyLength - 1 - bucket.length, "key", () => preview(key, LONGEST_SHOWN));
}

function valueText(record, bytes, number) {
    return record.kind === 0x81 && record.valueLength === 8
        ? "proven up to " + offsetText(Number(number()))
        : preview(bytes, LONGEST_SHOWN);
}

function omittedText(pieces, n) {
    const count = pieces.recordsOmitted(n);
    return count > 0 ? ": " + plural(count, "record") : "";
}

// A one-line title of a piece.
function titleOf(pieces, n) {
    const record = pieces.record(n);
    if (!record) {
        return pieces.label(n) + omittedText(pieces, n);
    }
    const name = isAboutKeys(record.kind) ? " " + preview(splitFullKey(pieces.key(record)).key, 40) : "";
    return kindText(record.kind) + name;
}
