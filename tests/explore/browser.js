// A headless Chromium for pages of `caskfile explore`, and what a person sees of them.

const assert = require("node:assert/strict");
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const puppeteer = require("puppeteer-core");

const ROOT = path.join(__dirname, "../..");
const CASKFILE = process.env.CASKFILE ?? path.join(ROOT, "target/debug/caskfile");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

const WIDE = { width: 1500, height: 900 };

// The sandbox needs what containers and CI machines, where all processes are root, do not have.
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];

function caskfile(...words) {
    const { input, ...options } = typeof words.at(-1) === "object" ? words.pop() : {};
    return execFileSync(CASKFILE, words, {
        encoding: "utf8",
        maxBuffer: 1 << 28,
        stdio: ["pipe", "pipe", "pipe"],
        input,
        ...options,
    });
}

// A directory of its own, gone at the end of the test.
function directory(test) {
    const made = fs.mkdtempSync(path.join(os.tmpdir(), "caskfile-explore-"));
    test.after(() => fs.rmSync(made, { recursive: true }));
    return made;
}

class Browser {
    static async launch() {
        const browser = new Browser();
        browser.chromium = await puppeteer.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
        return browser;
    }

    close() {
        return this.chromium.close();
    }

    // Opens the page of a store. `complaints` collects what a page must not do: errors and network requests.
    async open(store, { viewport = WIDE, scheme = "light", options = [] } = {}) {
        const pages = fs.mkdtempSync(path.join(os.tmpdir(), "caskfile-page-"));
        const file = path.join(pages, "page.html");
        // Damage, and a later version, end with exit codes of their own when the page was written.
        const { status, stderr } = spawnSync(CASKFILE, ["explore", store, "-o", file, ...options], {
            encoding: "utf8",
        });
        assert.ok([0, 5, 6].includes(status) && fs.existsSync(file), stderr);
        const tab = await this.chromium.newPage();
        const complaints = [];
        const address = pathToFileURL(file).href;
        tab.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
        tab.on("pageerror", (error) => complaints.push(error.stack));
        tab.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
        tab.on(
            "request",
            (request) => [address, "data:,"].includes(request.url()) || complaints.push("asked for " + request.url()),
        );
        await tab.setViewport(viewport);
        await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
        await tab.goto(address);
        return new View(tab, complaints, pages, file);
    }
}

// What a person sees of a page.
class View {
    constructor(tab, complaints, pages, file) {
        Object.assign(this, { tab, complaints, pages, file });
    }

    async close() {
        await this.tab.close();
        fs.rmSync(this.pages, { recursive: true });
    }

    text(selector) {
        return this.tab.$eval(selector, (found) => found.textContent);
    }

    // All rows of a list, from the first to the last: scrolled through, since only those in sight are there.
    rows(list) {
        return this.tab.$eval("#" + list, (scroller) => {
            const found = new Map();
            const collect = () => {
                for (const row of scroller.querySelectorAll(".row")) {
                    const cell = (name) => row.querySelector("." + name)?.textContent ?? null;
                    const cells = {
                        bucket: cell("bucket"),
                        key: cell("key"),
                        value: cell("value"),
                        what: cell("what"),
                        seq: cell("seq"),
                        place: cell("place"),
                        fate: cell("fate"),
                    };
                    found.set(Number(row.dataset.row), {
                        ...cells,
                        isChosen: row.getAttribute("aria-selected") === "true",
                        isLater: row.classList.contains("is-later"),
                    });
                }
            };
            const before = scroller.scrollTop;
            for (let top = 0; top <= scroller.scrollHeight; top += scroller.clientHeight / 2) {
                scroller.scrollTop = top;
                scroller.dispatchEvent(new Event("scroll"));
                collect();
            }
            scroller.scrollTop = before;
            scroller.dispatchEvent(new Event("scroll"));
            return [...found].sort(([a], [b]) => a - b).map(([, row]) => row);
        });
    }

    // The key space as the page shows it, in the form of the golden files' pairs.
    async keySpace() {
        const rows = await this.rows("keys");
        return rows.map(({ bucket, key, value, seq }) => ({
            bucket: bucket ?? "",
            key,
            value,
            last_index: seq.replace("last_index ", ""),
        }));
    }

    async chosenRecord() {
        return (await this.rows("records")).findIndex(({ isChosen }) => isChosen);
    }

    // The offset of the byte that the hex pane has chosen, and of all those that it highlights.
    hex() {
        return this.tab.$eval("#hex", (pane) => {
            const offsets = (selector) => [
                ...new Set(
                    Array.from(pane.querySelectorAll(`.hex-bytes ${selector}`), (cell) => Number(cell.dataset.offset)),
                ),
            ];
            return { chosen: offsets(".is-chosen")[0], marked: offsets(".is-marked") };
        });
    }

    fields() {
        return this.tab.$$eval("#detail tbody tr", (rows) =>
            Object.fromEntries(rows.map((row) => [row.cells[0].textContent, row.cells[3].textContent])),
        );
    }

    // Clicks the row of a list, which must be in sight.
    async clickRow(list, row) {
        await (await this.tab.waitForSelector(`#${list}-${row}`)).click();
    }

    async press(selector, ...keys) {
        await this.tab.focus(selector);
        for (const key of keys) {
            await this.tab.keyboard.press(key);
        }
    }
}

module.exports = { Browser, ROOT, caskfile, directory };
