// The file as consecutive pieces: every byte is part of exactly one. `table.rs` writes the table.

const ROW_LENGTH = 16;

// The label of each class of pieces. The names are the library's, and one for parts that are left out.
const LABELS = new Map([
    ["file_header", "file header"],
    ["roots", "roots"],
    ["live", "live"],
    ["dead", "dead"],
    ["tombstone", "tombstone"],
    ["statement", "statement"],
    ["snapshot", "snapshot"],
    ["padding", "padding"],
    ["end_mark", "end mark"],
    ["torn", "torn"],
    ["corrupt", "corrupt"],
    ["unread", "unread"],
    ["zeros", "zeros"],
    ["omitted", "not in this page"],
]);

// The classes of pieces that are no part of the store.
const BROKEN = ["torn", "corrupt", "unread"];

// The classes of records that count.
const COUNTED = ["live", "dead", "tombstone", "statement", "snapshot"];

// The table's flags of a piece.
const IS_RECORD = 1;
const HEADER_HOLDS = 2;
const BODY_HOLDS = 4;
const BODY_UNKNOWN = 8;

// What a slot of `ROOTS` is, by the table's numbers.
const SLOTS = ["empty", "✓ holds: the root", "✓ holds: an earlier root", "✗ does not hold"];

const RECORD_HEADER_LENGTH = 24;
const SYNCED = 1;
const MORE = 2;
const PUT = 1;
const DELETE = 2;
const PUT_WITH = 4;
const SESSION = 5;
const PUT_OWNED = 6;
const EXPIRY_LENGTH = 24;
const SESSION_LENGTH = 64;
const SNAPSHOT = 0xc2;
const KINDS = new Map([
    [PUT, "put"],
    [DELETE, "delete"],
    [PUT_WITH, "put-with"],
    [SESSION, "session"],
    [PUT_OWNED, "put-owned"],
    [0x80, "mark"],
    [0x81, "SYNCED_TO"],
    [0x82, "MOVED"],
    [0xc0, "ROOTS"],
    [0xc1, "IMAGE"],
    [SNAPSHOT, "SNAPSHOT"],
]);

class Pieces {
    // `classNames` has the name of each class at the place of its number.
    constructor(table, classNames, bytes) {
        this.table = new DataView(table.buffer);
        this.count = table.length / ROW_LENGTH;
        this.bytes = bytes;
        this.classNames = classNames;
        // Looked up all the time, so not decoded each time.
        this.offsets = new Float64Array(this.count);
        for (let n = 0; n < this.count; n++) {
            this.offsets[n] = Number(this.table.getBigUint64(n * ROW_LENGTH, true));
        }
        this.findSteps();
    }

    // The replay goes in steps. A record that counts is one step; so are all records together that are left out in one
    // place. `steps` has the piece of each step, `numbers` the number of its last record in the file, from 1 on.
    findSteps() {
        this.steps = new Uint32Array(this.count);
        this.numbers = new Float64Array(this.count);
        let [step, number] = [0, 0];
        for (let n = 0; n < this.count; n++) {
            const records = COUNTED.includes(this.className(n)) ? 1 : this.recordsOmitted(n);
            if (records > 0) {
                number += records;
                [this.steps[step], this.numbers[step]] = [n, number];
                step++;
            }
        }
        this.steps = this.steps.subarray(0, step);
        this.recordCount = number;
    }

    offset(n) {
        return this.offsets[n];
    }

    end(n) {
        return n + 1 < this.count ? this.offsets[n + 1] : this.bytes.length;
    }

    length(n) {
        return this.end(n) - this.offset(n);
    }

    className(n) {
        return this.classNames[this.table.getUint8(n * ROW_LENGTH + 8)];
    }

    has(n, bits) {
        return (this.table.getUint8(n * ROW_LENGTH + 9) & bits) === bits;
    }

    label(n) {
        return LABELS.get(this.className(n));
    }

    hasAny(n, bits) {
        return (this.table.getUint8(n * ROW_LENGTH + 9) & bits) !== 0;
    }

    // What a slot of `ROOTS` is: the first one has the number 0.
    slotText(n, slot) {
        return SLOTS[this.table.getUint8(n * ROW_LENGTH + 10 + slot)];
    }

    // How many omitted records a piece stands for.
    recordsOmitted(n) {
        return this.className(n) === "omitted" ? this.table.getUint32(n * ROW_LENGTH + 12, true) : 0;
    }

    // The omitted piece that holds the record by which this one was replaced; 0 if there is none.
    endsIn(n) {
        return this.className(n) === "omitted" ? 0 : this.table.getUint32(n * ROW_LENGTH + 12, true);
    }

    // The piece that the byte at `offset` belongs to.
    at(offset) {
        return Math.max(
            0,
            lastAtOrBefore(this.count, (n) => this.offsets[n] <= offset),
        );
    }

    // The step of the replay that a piece is; -1 if it is none.
    stepOf(n) {
        const found = lastAtOrBefore(this.steps.length, (step) => this.steps[step] <= n);
        return this.steps[found] === n ? found : -1;
    }

    // The record header at the beginning of a piece; undefined if there is none.
    record(n) {
        if (!this.has(n, IS_RECORD)) {
            return undefined;
        }
        const { view } = this.bytes;
        const offset = this.offset(n);
        const at = this.bytes.positionOf(offset);
        return {
            offset,
            end: this.end(n),
            flags: view.getUint8(at + 8),
            kind: view.getUint8(at + 9),
            keyLength: view.getUint16(at + 10, true),
            valueLength: view.getUint32(at + 12, true),
            seq: view.getBigUint64(at + 16, true),
        };
    }

    key(record) {
        return this.part(record, RECORD_HEADER_LENGTH, record.keyLength);
    }

    // The value of the pair: in a put-with and a put-owned it follows the expiry.
    value(record) {
        const before = expiryLength(record);
        return this.part(record, RECORD_HEADER_LENGTH + record.keyLength + before, record.valueLength - before);
    }

    // The deadline in milliseconds since 1970; 0 if there is none.
    deadline(record) {
        return this.numberOfExpiry(record, 0);
    }

    // The session to which a put-owned belongs; 0 for other records.
    session(record) {
        return record.kind === PUT_OWNED ? this.numberOfExpiry(record, 8) : 0n;
    }

    numberOfExpiry(record, at) {
        const bytes = this.part(record, RECORD_HEADER_LENGTH + record.keyLength + at, expiryLength(record) > 0 ? 8 : 0);
        return bytes.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
    }

    // A part of a record, as far as the record goes: the lengths of one that is damaged may say anything.
    part(record, at, length) {
        const offset = record.offset + at;
        return this.bytes.slice(offset, Math.max(0, Math.min(length, record.end - offset)));
    }
}

function kindText(kind) {
    return KINDS.get(kind) ?? "kind 0x" + hex(kind, 2);
}

function flagsText(flags) {
    const unknown = flags & ~(SYNCED | MORE);
    return [flags & SYNCED ? "SYNCED" : "", flags & MORE ? "MORE" : "", unknown ? "0x" + hex(unknown, 2) : ""]
        .filter(Boolean)
        .join(" ");
}

function isAboutKeys(kind) {
    return isPut(kind) || kind === DELETE;
}

function isPut(kind) {
    return kind === PUT || kind === PUT_WITH || kind === PUT_OWNED;
}

// The length of the expiry of a put-with or put-owned, if it has room for one.
function expiryLength(record) {
    const hasExpiry = record.kind === PUT_WITH || record.kind === PUT_OWNED;
    return hasExpiry && record.valueLength >= EXPIRY_LENGTH ? EXPIRY_LENGTH : 0;
}

// As in `Record::has_session_form`.
function hasSessionForm(record) {
    return record.kind === SESSION && record.keyLength === 0 && record.valueLength === SESSION_LENGTH;
}

// A full key is the length of the bucket's name, the name, and the key.
function splitFullKey(fullKey) {
    const bucketEnd = 1 + (fullKey[0] ?? 0);
    return { bucket: fullKey.subarray(1, bucketEnd), key: fullKey.subarray(bucketEnd) };
}
