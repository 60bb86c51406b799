// The fields of the chosen piece, as a table.

class Detail {
    // `choose(offset)` is called with the first byte of the chosen field, `chooseStep(step)` with the chosen step.
    constructor(title, body, pieces, replay, { choose, chooseStep }) {
        Object.assign(this, { title, body, pieces, replay, choose, chooseStep });
    }

    show(n, offset) {
        const { pieces } = this;
        const step = pieces.stepOf(n);
        this.title.textContent = (step >= 0 ? `Record ${grouped(pieces.numbers[step])}: ` : "") + titleOf(pieces, n);
        const place = `${offsetText(pieces.offset(n))}, ${plural(pieces.length(n), "byte")}`;
        this.body.replaceChildren(element("p", "small", place, ...this.history(step)), this.table(n, offset));
    }

    // Links to the records with the same key.
    history(step) {
        const { before, after } = step < 0 ? {} : this.replay.keys.neighbours(step);
        const ways = [
            ["this key before: ", before],
            ["this key afterwards: ", after],
        ].filter(([, to]) => to !== undefined);
        return ways.flatMap(([text, to]) => [
            " · ",
            text,
            this.link("record " + grouped(this.pieces.numbers[to]), () => this.chooseStep(to)),
        ]);
    }

    table(n, offset) {
        const body = element("tbody");
        for (const field of fieldsOf(this.pieces, n)) {
            body.append(this.row(field, offset));
        }
        const heads = ["field", "at", "bytes", "says"].map((text) => {
            const head = element("th", "", text);
            head.scope = "col";
            return head;
        });
        return element("table", "", element("thead", "", element("tr", "", ...heads)), body);
    }

    row(field, offset) {
        const isChosen = offset >= field.offset && offset < field.offset + field.length;
        const name = element(
            "th",
            "role-" + field.role,
            this.link(field.name, () => this.choose(field.offset)),
        );
        name.scope = "row";
        const says = typeof field.says === "string" ? field.says : field.says();
        const row = element(
            "tr",
            isChosen ? "is-chosen" : "",
            name,
            element("td", "number", offsetText(field.offset)),
            element("td", "number", grouped(field.length)),
            element("td", "says", element("bdi", "", says)),
        );
        row.classList.toggle("is-broken", says.startsWith("✗"));
        return row;
    }

    link(text, act) {
        const link = element("button", "link", text);
        link.type = "button";
        link.addEventListener("click", act);
        return link;
    }
}
