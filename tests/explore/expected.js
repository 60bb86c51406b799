// What a page must show, from sources that do not share its code: the golden JSON, the reader in Python, the library.

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const { ROOT, caskfile } = require("./browser.js");

const GOLDEN = path.join(ROOT, "tests/golden");
const READER = path.join(ROOT, "docs/reader/caskfile_reader.py");

// How much of a key and a value a list shows.
const SHOWN = { bucket: 80, key: 80, value: 120 };

// The golden stores, by name, with their JSON.
function goldenFiles() {
    const names = fs.readdirSync(GOLDEN).filter((name) => name.endsWith(".cask"));
    const files = names.map((name) => {
        const file = path.join(GOLDEN, name);
        return { name, file, expected: parse(fs.readFileSync(file.replace(/cask$/, "json"), "utf8")) };
    });
    return files.filter(({ expected }) => expected.verdict !== "NotCaskfile");
}

function goldenFile(name) {
    return goldenFiles().find((golden) => golden.name === name + ".cask");
}

// A pair of the golden files or the Python reader as the key space has it.
function shown(pair) {
    const field = (name) =>
        cut(name, name + "_hex" in pair ? Buffer.from(pair[name + "_hex"], "hex") : Buffer.from(pair[name]));
    return { bucket: field("bucket"), key: field("key"), value: field("value"), last_index: pair.last_index };
}

function cut(name, bytes) {
    return bytes.length <= SHOWN[name] ? escaped(bytes) : escaped(bytes.subarray(0, SHOWN[name])) + "…";
}

// The escapes of docs/CLI.md.
function escaped(bytes) {
    const isText = Buffer.from(bytes.toString("utf8")).equals(bytes);
    if (!isText) {
        return Array.from(bytes, (byte) =>
            byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "\\x" + byte.toString(16).padStart(2, "0"),
        ).join("");
    }
    const escape = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };
    return bytes
        .toString("utf8")
        .replace(
            /[\\\u0000-\u001f\u007f]/g,
            (found) => escape[found] ?? "\\x" + found.charCodeAt(0).toString(16).padStart(2, "0"),
        );
}

// What the Python reader says of a file.
function read(file) {
    return parse(spawn("python3", ["-B", READER, "--records", file]));
}

// JSON with the sequence numbers as strings, since JavaScript's numbers are not exact enough for them.
function parse(text) {
    return JSON.parse(text.replace(/("(?:seq|last_index)": )(\d+)/g, '$1"$2"'));
}

// The reader ends with 1 for a file that is refused, and prints its answer anyway.
function spawn(command, words) {
    try {
        return execFileSync(command, words, { encoding: "utf8", maxBuffer: 1 << 28 });
    } catch (error) {
        return error.stdout;
    }
}

// The key space after each record of a store that the Python reader can read: the sequence numbers of the puts that count.
function moments(file) {
    const now = new Map();
    const found = [[]];
    let batch = [];
    for (const record of read(file).records.filter(({ counts }) => counts)) {
        batch.push(record);
        if (!record.flags.includes("MORE")) {
            batch.forEach((each) => apply(now, each));
            batch = [];
        }
        found.push([...now.values()].sort());
    }
    return found;
}

function apply(now, { kind, bucket, bucket_hex, key, key_hex, seq }) {
    const name = JSON.stringify([bucket, bucket_hex, key, key_hex]);
    if (kind === "put" || kind === "put-with" || kind === "put-owned") {
        now.set(name, seq);
    } else if (kind === "delete") {
        now.delete(name);
    }
}

// The pairs of the log, with those that are over: a page has no clock.
function pairs({ file, expected }) {
    return ("now" in expected ? read(file) : expected).pairs.map(shown);
}

// The pairs that salvage copies of a damaged store.
function salvaged(file, directory) {
    const copy = path.join(directory, "salvaged.cask");
    caskfile("salvage", file, copy);
    const { pairs } = read(copy);
    fs.rmSync(copy);
    return pairs.map(shown);
}

module.exports = { goldenFile, goldenFiles, moments, pairs, read, salvaged, shown };
