// How bytes and numbers are shown. Everything goes into the page as text, never as markup: keys and values may
// come from anywhere.

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// Control characters, invisible ones, and ones that change the writing direction: they could make one key look like
// another.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\\]/gu;

const ESCAPES = new Map([
    ["\\", "\\\\"],
    ["\t", "\\t"],
    ["\n", "\\n"],
    ["\r", "\\r"],
]);

// Bytes as text with the escapes of `caskfile list`: invalid UTF-8 and invisible characters become \xHH.
function escaped(bytes) {
    let text;
    try {
        text = utf8.decode(bytes);
    } catch {
        return Array.from(bytes, escapedByte).join("");
    }
    return text.replace(UNSEEN, (character) => ESCAPES.get(character) ?? escapedCharacter(character));
}

function escapedByte(byte) {
    const isPlain = byte >= 0x20 && byte < 0x7f && byte !== 0x5c;
    return isPlain ? String.fromCharCode(byte) : "\\x" + hex(byte, 2);
}

function escapedCharacter(character) {
    return Array.from(new TextEncoder().encode(character), (byte) => "\\x" + hex(byte, 2)).join("");
}

// The beginning of a long text, for a list. A character that is cut in two must not turn all of it into hexadecimal.
function preview(bytes, length) {
    if (bytes.length <= length) {
        return escaped(bytes);
    }
    let end = length;
    while (end > length - 4 && (bytes[end] & 0xc0) === 0x80) {
        end--;
    }
    return escaped(bytes.subarray(0, end)) + "…";
}

function hex(number, digits) {
    return number.toString(16).padStart(digits, "0");
}

function offsetText(offset) {
    return "0x" + hex(offset, 1);
}

// 1234567 as 1,234,567.
function grouped(number) {
    return number.toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

function plural(count, noun) {
    return grouped(count) + " " + noun + (count === 1 ? "" : "s");
}

function sizeText(bytes) {
    const units = ["KiB", "MiB", "GiB", "TiB"];
    let [size, unit] = [bytes, "bytes"];
    while (size >= 1024 && units.length > 0) {
        [size, unit] = [size / 1024, units.shift()];
    }
    return unit === "bytes" ? plural(bytes, "byte") : size.toFixed(1) + " " + unit;
}

// An element with its class and its children; strings among them become text.
function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) {
        made.className = className;
    }
    made.append(...children);
    return made;
}
