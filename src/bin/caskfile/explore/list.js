// Lists of any length. Only the rows in sight are in the document.

// Browsers do not lay out elements that are higher than some millions of pixels. A longer list has a scroll bar of this
// height, on which a pixel stands for several rows; wheel and keys still move it by rows.
const HIGHEST = 4_000_000;

class VirtualList {
    // `drawRow(row)` makes the element of a row, counted from 0. All rows are equally high.
    constructor(scroller, rowHeight, drawRow) {
        Object.assign(this, { scroller, rowHeight, drawRow, count: 0, top: 0 });
        this.view = element("div", "view");
        this.space = element("div", "space", this.view);
        this.view.setAttribute("role", "presentation");
        this.space.setAttribute("role", "presentation");
        scroller.append(this.space);
        scroller.addEventListener("scroll", () => this.scrolled());
        scroller.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
        new ResizeObserver(() => this.resized()).observe(scroller);
    }

    setCount(count) {
        this.count = count;
        this.resized();
    }

    get rowsInSight() {
        return this.scroller.clientHeight / this.rowHeight;
    }

    get lastTop() {
        return Math.max(0, this.count - this.rowsInSight);
    }

    get isCompressed() {
        return this.count * this.rowHeight > HIGHEST;
    }

    // Pixels of the scroll bar for each row.
    get pixelsPerRow() {
        const way = Math.min(this.count * this.rowHeight, HIGHEST) - this.scroller.clientHeight;
        return this.isCompressed ? way / this.lastTop : this.rowHeight;
    }

    resized() {
        this.space.style.height = Math.min(this.count * this.rowHeight, HIGHEST) + "px";
        this.view.style.height = this.scroller.clientHeight + "px";
        this.scrollTo(this.top);
    }

    scrollTo(top) {
        this.top = Math.min(Math.max(0, top), this.lastTop);
        this.scroller.scrollTop = this.top * this.pixelsPerRow;
        this.placed = this.scroller.scrollTop;
        this.draw();
    }

    scrolled() {
        // A position set by `scrollTo` comes back as a rounded event: `top` is more exact.
        if (Math.abs(this.scroller.scrollTop - this.placed) >= 1) {
            this.placed = this.scroller.scrollTop;
            this.top = Math.min(this.placed / this.pixelsPerRow, this.lastTop);
            this.draw();
        }
    }

    wheeled(event) {
        if (this.isCompressed && !event.ctrlKey) {
            event.preventDefault();
            const unit = [1, this.rowHeight, this.scroller.clientHeight][event.deltaMode];
            this.scrollTo(this.top + (event.deltaY * unit) / this.rowHeight);
        }
    }

    // Scrolls no farther than it takes to see the row.
    show(row) {
        const sight = Math.max(1, Math.floor(this.rowsInSight));
        if (row < this.top) {
            this.scrollTo(row);
        } else if (row + 1 > this.top + sight) {
            this.scrollTo(row + 1 - sight);
        } else {
            this.draw();
        }
    }

    // Brings the row to the upper third, if it is out of sight.
    reveal(row) {
        const isInSight = row >= this.top && row + 1 <= this.top + this.rowsInSight;
        this.scrollTo(isInSight ? this.top : row - this.rowsInSight / 3);
    }

    draw() {
        const first = Math.floor(this.top);
        const last = Math.min(this.count, Math.ceil(this.top + this.rowsInSight) + 1);
        const rows = [];
        for (let row = first; row < last; row++) {
            const drawn = this.drawRow(row);
            drawn.style.transform = `translateY(${(row - this.top) * this.rowHeight}px)`;
            rows.push(drawn);
        }
        this.view.replaceChildren(...rows);
    }
}

// A list with one chosen row, by mouse or by keys, as in ARIA's listbox.
class ListBox extends VirtualList {
    // `fillRow(element, row)` fills a row, and `choose(row)` is called with the chosen one.
    constructor(scroller, rowHeight, fillRow, choose) {
        super(scroller, rowHeight, (row) => this.option(row));
        Object.assign(this, { fillRow, choose, chosen: -1 });
        scroller.setAttribute("role", "listbox");
        scroller.tabIndex = 0;
        scroller.addEventListener("keydown", (event) => this.pressed(event));
        scroller.addEventListener("click", (event) => this.clicked(event));
    }

    setChosen(row) {
        this.chosen = row;
        if (row >= 0 && row < this.count) {
            this.reveal(row);
            this.scroller.setAttribute("aria-activedescendant", this.idOf(row));
        } else {
            this.draw();
            this.scroller.removeAttribute("aria-activedescendant");
        }
    }

    idOf(row) {
        return this.scroller.id + "-" + row;
    }

    option(row) {
        const option = element("div", "row");
        option.id = this.idOf(row);
        option.dataset.row = row;
        const attributes = {
            role: "option",
            "aria-selected": row === this.chosen,
            "aria-setsize": this.count,
            "aria-posinset": row + 1,
        };
        for (const [name, value] of Object.entries(attributes)) {
            option.setAttribute(name, value);
        }
        this.fillRow(option, row);
        return option;
    }

    clicked(event) {
        const option = event.target.closest(".row");
        if (option) {
            this.choose(Number(option.dataset.row));
        }
    }

    pressed(event) {
        const page = Math.max(1, Math.floor(this.rowsInSight) - 1);
        const ways = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
        const way = ways[event.key];
        if (way !== undefined && this.count > 0 && !event.ctrlKey && !event.altKey && !event.metaKey) {
            event.preventDefault();
            this.choose(Math.min(Math.max(0, this.chosen + way), this.count - 1));
        }
    }
}
