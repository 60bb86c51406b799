// The whole file, drawn to scale, and the legend of its colours.

const STRIP_HEIGHT = 28;

class Strip {
    constructor(canvas, pieces, choose) {
        Object.assign(this, { canvas, pieces, chosen: 0, moment: 0 });
        canvas.addEventListener("click", (event) => {
            const box = canvas.getBoundingClientRect();
            const offset = Math.floor(((event.clientX - box.left) / box.width) * pieces.bytes.length);
            choose(Math.min(offset, pieces.bytes.length - 1));
        });
        new ResizeObserver(() => this.draw()).observe(canvas);
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    }

    // `chosen` and `moment` are offsets: of the chosen byte, and of the end of the replay so far.
    show(chosen, moment) {
        Object.assign(this, { chosen, moment });
        this.draw();
    }

    draw() {
        const { canvas, pieces } = this;
        const scale = window.devicePixelRatio || 1;
        const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(STRIP_HEIGHT * scale)];
        if (width === 0) {
            return;
        }
        Object.assign(canvas, { width, height });
        const context = canvas.getContext("2d");
        const style = getComputedStyle(canvas);
        const colour = (name) => style.getPropertyValue("--" + name).trim();
        const at = (offset) => (offset / pieces.bytes.length) * width;
        const fill = (name) => (BROKEN.includes(name) ? hatched(context, colour(name), scale) : colour(name));
        const fills = new Map(Array.from(LABELS.keys(), (name) => [name, fill(name)]));
        if (this.width !== width) {
            [this.width, this.columns] = [width, columns(pieces, width)];
        }
        for (const [from, to, name] of this.columns) {
            context.fillStyle = fills.get(name);
            context.fillRect(from, 0, to - from, height);
        }
        context.fillStyle = colour("later");
        context.fillRect(at(this.moment), 0, width - at(this.moment), height / 3);
        context.fillStyle = colour("text");
        context.fillRect(Math.min(at(this.chosen), width - 2 * scale), 0, 2 * scale, height);
    }
}

// Broken pieces have a texture besides their colour.
function hatched(context, colour, scale) {
    const size = Math.round(6 * scale);
    const tile = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const drawing = tile.getContext("2d");
    drawing.fillStyle = colour;
    drawing.fillRect(0, 0, size, size);
    drawing.strokeStyle = "#1b1b1b";
    for (const shift of [-size, 0, size]) {
        drawing.moveTo(shift, size);
        drawing.lineTo(shift + size, 0);
    }
    drawing.stroke();
    return context.createPattern(tile, "repeat");
}

// The coloured ranges, later ones on top: [from, to, class] in pixels. A pixel that several pieces share gets the class of
// the most alarming one, so that a damaged record in a long file stays visible.
function columns(pieces, width) {
    const drawn = [];
    const perPixel = pieces.bytes.length / width;
    let [end, alarm] = [0, -1];
    for (let n = 0; n < pieces.count; n++) {
        const name = pieces.className(n);
        const itsAlarm = ALARM.indexOf(name);
        const [from, to] = [Math.floor(pieces.offset(n) / perPixel), Math.ceil(pieces.end(n) / perPixel)];
        const isOnTop = from >= end || itsAlarm > alarm;
        if (to > end || isOnTop) {
            drawn.push([isOnTop ? from : end, to, name]);
            alarm = isOnTop || to > end ? itsAlarm : alarm;
            end = Math.max(end, to);
        }
    }
    return drawn;
}

const ALARM = [
    "omitted",
    "zeros",
    "padding",
    "end_mark",
    "file_header",
    "roots",
    "live",
    "dead",
    "snapshot",
    "statement",
    "tombstone",
    "unread",
    "torn",
    "corrupt",
];

// `classes` has the name and the bytes of each, in all of the file.
function fillLegend(list, classes) {
    for (const [name, bytes] of classes.filter(([, bytes]) => bytes > 0)) {
        list.append(
            element("li", "", element("span", "swatch class-" + name), `${LABELS.get(name)} ${sizeText(bytes)}`),
        );
    }
}
