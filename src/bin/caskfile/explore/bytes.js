// The bytes of the file that this page holds.

const HEADER_LENGTH = 64;

function fromBase64(text) {
    const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
    const bytes = new Uint8Array((text.length / 4) * 3 - padding);
    // In parts, so that a long file is not in memory a second time as one string.
    const part = 1 << 20;
    for (let from = 0, to = 0; from < text.length; from += part) {
        const decoded = atob(text.slice(from, from + part));
        for (let at = 0; at < decoded.length; at++) {
            bytes[to++] = decoded.charCodeAt(at);
        }
    }
    return bytes;
}

class FileBytes {
    // `windows` are the ranges of the file that are held, [offset, length] in the file's order; `data` has their bytes,
    // one range after the other.
    constructor(length, windows, data) {
        this.length = length;
        this.data = data;
        this.view = new DataView(data.buffer);
        this.windows = [];
        let position = 0;
        for (const [offset, windowLength] of windows) {
            this.windows.push({ offset, end: offset + windowLength, position });
            position += windowLength;
        }
    }

    // The window that `offset` lies in, if it is held.
    windowAt(offset) {
        const found = lastAtOrBefore(this.windows.length, (n) => this.windows[n].offset <= offset);
        return found >= 0 && offset < this.windows[found].end ? this.windows[found] : undefined;
    }

    // Where in `data` the byte at `offset` is; undefined if it is not held.
    positionOf(offset) {
        const window = this.windowAt(offset);
        return window && window.position + offset - window.offset;
    }

    at(offset) {
        return this.data[this.positionOf(offset)];
    }

    // The bytes from `offset` on, `length` of them, or fewer if the page does not hold them all.
    slice(offset, length) {
        const window = this.windowAt(offset);
        if (!window) {
            return this.data.subarray(0, 0);
        }
        const position = window.position + offset - window.offset;
        return this.data.subarray(position, position + Math.min(length, window.end - offset));
    }

    // A little-endian number of `length` bytes, as a BigInt, since sequence numbers go up to 2^62.
    number(offset, length) {
        return this.slice(offset, length).reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
    }
}

// The last n below `count` for which `holds`, or -1. It must hold for the first ones, and for no others.
function lastAtOrBefore(count, holds) {
    let [low, high] = [0, count];
    while (low < high) {
        const middle = (low + high) >> 1;
        [low, high] = holds(middle) ? [middle + 1, high] : [low, middle];
    }
    return low - 1;
}
