// The page as a whole. It keeps all panes at the same choice and the same moment.

const PLAY_STEP = 400;

function byId(id) {
    return document.getElementById(id);
}

class Page {
    constructor(facts, pieces, replay) {
        Object.assign(this, { facts, pieces, replay, timer: undefined });
        const choose = (offset) => this.choose(offset);
        const choosePiece = (n) => this.choose(pieces.offset(n), n);
        const chooseStep = (step) => choosePiece(pieces.steps[step]);
        this.records = new PieceList(byId("records"), pieces, replay, choosePiece);
        this.keys = new KeyList(byId("keys"), pieces, replay, chooseStep);
        this.hex = new HexPane(byId("hex"), pieces, choose);
        this.detail = new Detail(byId("detail-title"), byId("detail"), pieces, replay, { choose, chooseStep });
        this.strip = new Strip(byId("strip"), pieces, choose);
    }

    start() {
        this.fillHeader();
        fillLegend(byId("legend"), this.facts.classes);
        this.wireReplay();
        this.moveTo(this.replay.length, false);
        this.choose(this.facts.places[0]?.offset ?? this.pieces.offset(this.pieces.steps[0] ?? 0));
    }

    fillHeader() {
        const { facts, pieces } = this;
        const name = escaped(Uint8Array.from(facts.name));
        document.title = name + " · caskfile";
        byId("file-name").append(element("bdi", "", name));
        byId("verdict").append(element("strong", "verdict-" + facts.verdict, facts.verdict), " ", facts.says);
        byId("figures").textContent = facts.figures.join(" · ");
        byId("records-title").textContent = "Log: " + plural(pieces.recordCount, "record");
        byId("sample").textContent = facts.sample;
        byId("sample").hidden = facts.sample === "";
        this.fillPlaces();
    }

    // Buttons that lead to damage and other unusual places.
    fillPlaces() {
        const places = byId("places");
        places.hidden = this.facts.places.length === 0;
        for (const { offset, text } of this.facts.places) {
            const button = element("button", "place-to-go", element("bdi", "", text));
            button.type = "button";
            button.addEventListener("click", () => this.choose(offset));
            places.append(button);
        }
        const more = this.facts.unlisted_places;
        places.append(more > 0 ? `and ${plural(more, "place")} more` : "");
    }

    wireReplay() {
        const slider = byId("moment");
        slider.max = this.replay.length;
        slider.addEventListener("input", () => {
            this.stop();
            this.moveTo(Number(slider.value), true);
        });
        const goes = {
            first: () => 0,
            back: () => this.replay.moment - 1,
            forward: () => this.replay.moment + 1,
            last: () => this.replay.length,
        };
        for (const [id, moment] of Object.entries(goes)) {
            byId(id).addEventListener("click", () => {
                this.stop();
                this.moveTo(moment(), true);
            });
        }
        byId("play").addEventListener("click", () => (this.timer === undefined ? this.play() : this.stop()));
    }

    play() {
        if (this.replay.moment === this.replay.length) {
            this.moveTo(0, true);
        }
        this.timer = setInterval(
            () => (this.replay.moment < this.replay.length ? this.moveTo(this.replay.moment + 1, true) : this.stop()),
            PLAY_STEP,
        );
        byId("play").setAttribute("aria-pressed", "true");
    }

    stop() {
        clearInterval(this.timer);
        this.timer = undefined;
        byId("play").setAttribute("aria-pressed", "false");
    }

    // Shows the key space after `moment` records; `follow` chooses the last of them.
    moveTo(moment, follow) {
        this.replay.moveTo(Math.min(Math.max(0, moment), this.replay.length));
        const text = this.momentText();
        const slider = byId("moment");
        slider.value = this.replay.moment;
        slider.setAttribute("aria-valuetext", text);
        byId("moment-text").textContent = text;
        byId("keys-title").textContent = "Key space: " + plural(this.replay.liveCount, "key");
        this.keys.refresh();
        this.records.list.draw();
        if (follow) {
            const n = this.replay.moment > 0 ? this.pieces.steps[this.replay.moment - 1] : 0;
            this.choose(this.pieces.offset(n), n);
        }
    }

    momentText() {
        const { pieces } = this;
        const { moment, liveCount } = this.replay;
        if (moment === 0) {
            return `Before the first of ${plural(pieces.recordCount, "record")}`;
        }
        const waiting = this.replay.waiting();
        const batch =
            waiting > 0 ? ` · ${plural(waiting, "record")} of a batch, which counts when its last one is there` : "";
        const place = `After record ${grouped(pieces.numbers[moment - 1])} of ${grouped(pieces.recordCount)}`;
        return `${place}: ${titleOf(pieces, pieces.steps[moment - 1])} · ${plural(liveCount, "key")}${batch}`;
    }

    // Chooses the byte at `offset`: all panes show what it is part of. (A piece may have no bytes, and is then named.)
    choose(offset, n = this.pieces.at(offset)) {
        this.records.list.setChosen(n);
        this.hex.show(offset, this.pieces.offset(n), this.pieces.end(n));
        this.detail.show(n, offset);
        this.keys.chooseStep(this.pieces.stepOf(n));
        const next = this.pieces.steps[this.replay.moment];
        this.strip.show(offset, next === undefined ? this.pieces.bytes.length : this.pieces.offset(next));
        byId("byte").textContent = this.byteText(n, offset);
    }

    byteText(n, offset) {
        const field = this.hex.fieldAt(offset);
        const byte = this.pieces.bytes.at(offset);
        const title = titleOf(this.pieces, n);
        const part = field && field.name !== title ? `${field.name} of ${title}` : title;
        return `${offsetText(offset)} ${byte === undefined ? "" : hex(byte, 2)} · ${part}`;
    }
}

function start() {
    const facts = JSON.parse(byId("facts").textContent);
    const bytes = new FileBytes(facts.length, facts.windows, fromBase64(byId("bytes").textContent));
    const classNames = facts.classes.map(([name]) => name);
    const pieces = new Pieces(fromBase64(byId("pieces").textContent), classNames, bytes);
    new Page(facts, pieces, new Replay(pieces)).start();
}

start();
