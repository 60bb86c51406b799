// The hex pane: all bytes that the page holds, coloured by what they are part of.

const HEX_ROW_HEIGHT = 20;

// Where the file header has its `file_id`.
const FILE_ID = 16;

// Bytes a row, if there is room for them.
const WIDE = 16;
const NARROW = 8;
const WIDE_FROM = 560;

class HexPane {
    // `choose(offset)` is called with the chosen byte.
    constructor(scroller, pieces, choose) {
        Object.assign(this, { scroller, pieces, choose, bytes: pieces.bytes, width: 0, offset: 0, begin: 0, end: 0 });
        this.list = new VirtualList(scroller, HEX_ROW_HEIGHT, (row) => this.drawRow(row));
        scroller.setAttribute("role", "group");
        scroller.tabIndex = 0;
        scroller.addEventListener("click", (event) => this.clicked(event));
        scroller.addEventListener("keydown", (event) => this.pressed(event));
        new ResizeObserver(() => this.layOut()).observe(scroller);
        this.layOut();
    }

    layOut() {
        const width = this.scroller.clientWidth >= WIDE_FROM ? WIDE : NARROW;
        if (width !== this.width) {
            this.width = width;
            this.stretches = stretchesOf(this.bytes, width);
            const last = this.stretches.at(-1);
            this.list.setCount(last ? last.row + last.rows : 0);
            this.list.reveal(this.rowOf(this.offset));
        }
    }

    // Chooses the byte at `offset`, and highlights its range.
    show(offset, begin, end) {
        Object.assign(this, { offset, begin, end });
        this.list.reveal(this.rowOf(offset));
    }

    // The part of the file at `offset`.
    stretchAt(offset) {
        return this.stretches[lastAtOrBefore(this.stretches.length, (n) => this.stretches[n].offset <= offset)];
    }

    stretchInRow(row) {
        return this.stretches[lastAtOrBefore(this.stretches.length, (n) => this.stretches[n].row <= row)];
    }

    rowOf(offset) {
        const stretch = this.stretchAt(offset);
        return stretch.row + (stretch.isHeld ? Math.floor((offset - stretch.offset) / this.width) : 0);
    }

    drawRow(row) {
        const stretch = this.stretchInRow(row);
        if (!stretch.isHeld) {
            return this.drawGap(stretch);
        }
        const offset = stretch.offset + (row - stretch.row) * this.width;
        const drawn = element("div", "hex-row", element("span", "offset", hex(offset, 8)));
        const [bytes, text] = [element("span", "hex-bytes"), element("span", "hex-text")];
        for (let at = offset; at < offset + this.width; at++) {
            this.drawByte(at, at < stretch.end, bytes, text);
        }
        drawn.append(bytes, text);
        return drawn;
    }

    drawByte(offset, isHeld, bytes, text) {
        const [cell, character] = [element("span", "", "  "), element("span", "", " ")];
        if (isHeld) {
            const byte = this.bytes.at(offset);
            cell.textContent = hex(byte, 2);
            character.textContent = byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·";
            cell.className = character.className = this.classesOf(offset);
            cell.dataset.offset = character.dataset.offset = offset;
        }
        bytes.append(cell);
        text.append(character);
    }

    classesOf(offset) {
        const field = this.fieldAt(offset);
        const classes = ["byte", "role-" + (field?.role ?? "zero")];
        const n = this.pieceAt;
        if (BROKEN.includes(this.pieces.className(n))) {
            classes.push("is-" + this.pieces.className(n));
        }
        if (offset >= this.begin && offset < this.end) {
            classes.push("is-marked");
        }
        if (offset === this.offset) {
            classes.push("is-chosen");
        }
        return classes.join(" ");
    }

    // The field that the byte at `offset` is part of. Neighbours mostly ask for the same piece.
    fieldAt(offset) {
        const { pieces, pieceAt } = this;
        if (pieceAt === undefined || offset < pieces.offset(pieceAt) || offset >= pieces.end(pieceAt)) {
            this.pieceAt = pieces.at(offset);
            this.fields = fieldsOf(pieces, this.pieceAt);
        }
        return this.fields[lastAtOrBefore(this.fields.length, (n) => this.fields[n].offset <= offset)];
    }

    drawGap(stretch) {
        const what = element("span", "byte", this.gapText(stretch));
        what.dataset.offset = stretch.offset;
        const drawn = element("div", "hex-row gap", element("span", "offset", hex(stretch.offset, 8)), what);
        drawn.classList.toggle("is-chosen", this.offset >= stretch.offset && this.offset < stretch.end);
        return drawn;
    }

    gapText(stretch) {
        const length = plural(stretch.end - stretch.offset, "byte");
        if (this.isZeros(stretch)) {
            return length + " of zeros";
        }
        return (stretch.offset === FILE_ID ? "file_id: " : "") + length + " that are not in this page";
    }

    isZeros(stretch) {
        const piece = this.pieces.at(stretch.offset);
        return this.pieces.className(piece) === "zeros" && stretch.end <= this.pieces.end(piece);
    }

    clicked(event) {
        const cell = event.target.closest("[data-offset]");
        if (cell) {
            this.choose(Number(cell.dataset.offset));
        }
    }

    pressed(event) {
        const page = this.width * Math.max(1, Math.floor(this.list.rowsInSight) - 1);
        const ways = {
            ArrowLeft: -1,
            ArrowRight: 1,
            ArrowUp: -this.width,
            ArrowDown: this.width,
            PageUp: -page,
            PageDown: page,
            Home: -Infinity,
            End: Infinity,
        };
        const way = ways[event.key];
        if (way !== undefined && !event.ctrlKey && !event.altKey && !event.metaKey) {
            event.preventDefault();
            this.choose(this.step(way));
        }
    }

    // The byte `way` bytes from the chosen one, skipping the bytes that are not held.
    step(way) {
        const wanted = Math.min(Math.max(0, this.offset + way), this.bytes.length - 1);
        const stretch = this.stretchAt(wanted);
        if (stretch.isHeld || this.offset < stretch.offset || this.offset >= stretch.end) {
            return wanted;
        }
        return way > 0 ? Math.min(stretch.end, this.bytes.length - 1) : Math.max(0, stretch.offset - 1);
    }
}

// The parts of the file that the page holds or lacks, in order. A part that it lacks is one row.
function stretchesOf(bytes, width) {
    const stretches = [];
    let [row, at] = [0, 0];
    const add = (offset, end, isHeld) => {
        if (end > offset) {
            const rows = isHeld ? Math.ceil((end - offset) / width) : 1;
            stretches.push({ offset, end, isHeld, row, rows });
            row += rows;
        }
    };
    for (const { offset, end } of bytes.windows) {
        add(at, offset, false);
        add(offset, end, true);
        at = end;
    }
    add(at, bytes.length, false);
    return stretches;
}
