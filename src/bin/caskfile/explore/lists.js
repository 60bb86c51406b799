// The two lists beside the bytes: the log's records, and the keys.

const ROW_HEIGHT = 46;

// How much of a key and a value a row shows; the row cuts it off where it ends.
const SHOWN_KEY = 80;
const SHOWN_VALUE = 120;

// What became of a record, where its kind does not say it.
const FATES = ["live", "dead", ...BROKEN];

class PieceList {
    constructor(scroller, pieces, replay, choose) {
        Object.assign(this, { pieces, replay });
        this.list = new ListBox(scroller, ROW_HEIGHT, (row, n) => this.fill(row, n), choose);
        this.list.setCount(pieces.count);
    }

    fill(row, n) {
        const { pieces } = this;
        const [step, record] = [pieces.stepOf(n), pieces.record(n)];
        row.classList.add("class-" + pieces.className(n));
        row.classList.toggle("is-later", step >= this.replay.moment);
        row.classList.toggle("is-now", step >= 0 && step === this.replay.moment - 1);
        const first = element("div", "line", element("span", "what", record ? kindText(record.kind) : ""));
        if (record) {
            this.fillRecord(first, n, record);
        } else {
            first.firstChild.textContent = titleOf(pieces, n);
        }
        const second = element("div", "line small", element("span", "place", offsetText(pieces.offset(n))));
        second.append(element("span", "seq", record ? "seq " + record.seq : sizeText(pieces.length(n))));
        if (record) {
            first.append(element("span", "fate", FATES.includes(pieces.className(n)) ? pieces.label(n) : ""));
            second.append(element("span", "flags", flagsText(record.flags)));
        }
        second.append(element("span", "broken", this.brokenText(n)));
        row.append(first, second);
    }

    fillRecord(line, n, record) {
        if (isAboutKeys(record.kind)) {
            appendKey(line, this.pieces.key(record));
        }
        if (isPut(record.kind)) {
            line.append(element("bdi", "value", preview(this.pieces.value(record), SHOWN_VALUE)));
        }
    }

    // The checksums that do not hold.
    brokenText(n) {
        const ofRecords = [
            [HEADER_HOLDS, "✗ header_crc"],
            [BODY_HOLDS | BODY_UNKNOWN, "✗ body_crc"],
        ];
        const ofTheFile = [[HEADER_HOLDS, "✗ crc"]];
        const isHeader = this.pieces.className(n) === "file_header";
        return [...(this.pieces.has(n, IS_RECORD) ? ofRecords : []), ...(isHeader ? ofTheFile : [])]
            .filter(([bits]) => !this.pieces.hasAny(n, bits))
            .map(([, text]) => text)
            .join(" ");
    }
}

class KeyList {
    constructor(scroller, pieces, replay, choose) {
        Object.assign(this, { pieces, replay, live: new Uint32Array(0) });
        this.list = new ListBox(
            scroller,
            ROW_HEIGHT,
            (row, n) => this.fill(row, n),
            (row) => choose(this.stepOf(row)),
        );
    }

    // The step that the value in this row comes from.
    stepOf(row) {
        return this.replay.setBy[this.live[row]];
    }

    refresh() {
        this.live = this.replay.liveKeys();
        this.list.setCount(this.live.length);
    }

    // Chooses the row of the key that this step is about, if it has a value; -1 is no step.
    chooseStep(step) {
        const key = step < 0 ? NONE : this.replay.keys.keyOf[step];
        const row = lastAtOrBefore(this.live.length, (n) => this.live[n] <= key);
        this.list.setChosen(key !== NONE && this.live[row] === key ? row : -1);
    }

    fill(row, n) {
        const step = this.stepOf(n);
        const record = this.pieces.record(this.pieces.steps[step]);
        row.classList.toggle("is-now", step === this.replay.moment - 1);
        const first = element("div", "line");
        appendKey(first, this.pieces.key(record));
        first.append(element("bdi", "value", preview(this.pieces.value(record), SHOWN_VALUE)));
        const second = element("div", "line small");
        second.append(
            element("span", "place", offsetText(record.offset)),
            element("span", "seq", "last_index " + record.seq),
        );
        const deadline = this.pieces.deadline(record);
        if (deadline > 0n) {
            // The page does not know what a clock shows now.
            second.append(element("span", "until", "until " + momentText(deadline)));
        }
        const session = this.pieces.session(record);
        if (session > 0n) {
            // Whether the session is over by now depends on clocks too.
            second.append(element("span", "until", "of session " + session));
        }
        row.append(first, second);
    }
}

function appendKey(line, fullKey) {
    const { bucket, key } = splitFullKey(fullKey);
    if (bucket.length > 0) {
        line.append(element("bdi", "bucket", preview(bucket, SHOWN_KEY)));
    }
    line.append(element("bdi", "key", preview(key, SHOWN_KEY)));
}
