// The key space at any moment of the log.

const NONE = 0xffffffff;

// Moment n is the state after n steps. Steps and keys are numbered from 0, keys in their order. `setBy[key]` is the step
// that set the key's value at the shown moment, or NONE.
class Replay {
    constructor(pieces) {
        this.pieces = pieces;
        this.length = pieces.steps.length;
        this.moment = 0;
        this.keys = new KeyOrder(pieces);
        this.setBy = new Uint32Array(this.keys.count).fill(NONE);
        this.liveCount = 0;
        // The value of `setBy` that each step replaced: it undoes the step.
        this.found = new Uint32Array(this.length).fill(NONE);
        this.unitEnd = unitEnds(pieces);
        this.endings = endings(pieces);
    }

    // Forwards or backwards.
    moveTo(moment) {
        while (this.moment < moment) {
            this.stepForward();
        }
        while (this.moment > moment) {
            this.stepBack();
        }
    }

    // The records of a batch count together, when the last of them is there.
    stepForward() {
        const step = this.moment++;
        if (this.unitEnd[step] === step) {
            for (let n = this.unitBegin(step); n <= step; n++) {
                this.apply(n);
            }
        }
    }

    stepBack() {
        const step = --this.moment;
        if (this.unitEnd[step] === step) {
            for (let n = step; n >= this.unitBegin(step); n--) {
                this.takeBack(n);
            }
        }
    }

    unitBegin(step) {
        let begin = step;
        while (begin > 0 && this.unitEnd[begin - 1] === this.unitEnd[step]) {
            begin--;
        }
        return begin;
    }

    apply(step) {
        const key = this.keys.keyOf[step];
        if (key !== NONE) {
            this.found[step] = this.setBy[key];
            this.set(key, this.keys.isPut[step] ? step : NONE);
        }
        this.endings.get(step)?.forEach((ended) => this.set(this.keys.keyOf[ended], NONE));
    }

    takeBack(step) {
        const key = this.keys.keyOf[step];
        if (key !== NONE) {
            this.set(key, this.found[step]);
        }
        this.endings.get(step)?.forEach((ended) => this.set(this.keys.keyOf[ended], ended));
    }

    set(key, step) {
        this.liveCount += (step !== NONE) - (this.setBy[key] !== NONE);
        this.setBy[key] = step;
    }

    // The keys that have a value at this moment, in their order.
    liveKeys() {
        const live = new Uint32Array(this.liveCount);
        let count = 0;
        for (let key = 0; key < this.keys.count; key++) {
            if (this.setBy[key] !== NONE) {
                live[count++] = key;
            }
        }
        return live;
    }

    // How many records of a batch are waiting for its last one at this moment.
    waiting() {
        const last = this.moment - 1;
        return last >= 0 && this.unitEnd[last] > last ? this.moment - this.unitBegin(last) : 0;
    }
}

// For each step the last one of its batch, or itself. If damage has taken the end of a batch, the records that are left
// count by themselves.
function unitEnds(pieces) {
    const { steps } = pieces;
    const ends = new Uint32Array(steps.length);
    for (let n = steps.length - 1; n >= 0; n--) {
        const goesOn =
            pieces.record(steps[n])?.flags & MORE && steps[n + 1] === steps[n] + 1 && pieces.record(steps[n + 1]);
        ends[n] = goesOn ? ends[n + 1] : n;
    }
    return ends;
}

// For steps that stand for records outside of this page: the steps whose values those records replaced or deleted.
function endings(pieces) {
    const found = new Map();
    pieces.steps.forEach((piece, step) => {
        const endsIn = pieces.endsIn(piece);
        if (endsIn > 0) {
            const end = pieces.stepOf(endsIn);
            found.set(end, found.get(end) ?? []);
            found.get(end).push(step);
        }
    });
    return found;
}

// The keys of all records, sorted as the format sorts full keys: byte by byte.
class KeyOrder {
    constructor(pieces) {
        const { steps } = pieces;
        this.keyOf = new Uint32Array(steps.length).fill(NONE);
        this.isPut = new Uint8Array(steps.length);
        const numbers = new Map();
        steps.forEach((piece, step) => {
            const record = pieces.record(piece);
            if (record && isAboutKeys(record.kind)) {
                const name = byteString(pieces.key(record));
                this.isPut[step] = isPut(record.kind);
                this.keyOf[step] = numbers.get(name) ?? numbers.size;
                numbers.set(name, this.keyOf[step]);
            }
        });
        this.count = numbers.size;
        this.sort(numbers);
        this.listSteps();
    }

    // Renumbers the keys, which had the order of their records, in key order.
    sort(numbers) {
        const places = new Uint32Array(this.count);
        // Without a comparison of its own, `sort` compares strings by their units, which are bytes here.
        [...numbers.keys()].sort().forEach((name, place) => {
            places[numbers.get(name)] = place;
        });
        this.keyOf = this.keyOf.map((number) => (number === NONE ? NONE : places[number]));
    }

    // Lists the steps of each key, key by key; `begin[key]` is where its steps begin.
    listSteps() {
        this.begin = new Uint32Array(this.count + 1);
        const keyed = this.keyOf.filter((key) => key !== NONE);
        keyed.forEach((key) => this.begin[key + 1]++);
        for (let key = 0; key < this.count; key++) {
            this.begin[key + 1] += this.begin[key];
        }
        const next = this.begin.slice();
        this.list = new Uint32Array(keyed.length);
        this.keyOf.forEach((key, step) => {
            if (key !== NONE) {
                this.list[next[key]++] = step;
            }
        });
    }

    // The steps on the same key, the next before and the next after this one.
    neighbours(step) {
        const key = this.keyOf[step];
        if (key === NONE) {
            return {};
        }
        const list = this.list.subarray(this.begin[key], this.begin[key + 1]);
        const at = lastAtOrBefore(list.length, (n) => list[n] <= step);
        return { before: list[at - 1], after: list[at + 1] };
    }
}

// Bytes as a string of as many units, for what needs a string: maps and sorting.
function byteString(bytes) {
    return String.fromCharCode.apply(null, bytes);
}
