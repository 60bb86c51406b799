// What a person does with a page: by mouse, by keys, with hostile keys and values, in the dark, on a telephone.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");

const { Browser, caskfile, directory } = require("./browser.js");
const { goldenFile, read, shown } = require("./expected.js");

let browser;
test.before(async () => (browser = await Browser.launch()));
test.after(() => browser.close());

// Opens a page for one test. At the end, it must have caused no error and asked the network for nothing.
async function open(t, store, options) {
    const view = await browser.open(store, options);
    t.after(async () => {
        assert.deepEqual(view.complaints, []);
        await view.close();
    });
    return view;
}

function range(from, to) {
    return Array.from({ length: to - from }, (_, n) => from + n);
}

test("a record that is clicked is shown in the hex pane, in the table of fields and among the keys", async (t) => {
    const view = await open(t, goldenFile("example").file);
    await view.clickRow("records", 4);
    // The put of `b` in docs/FORMAT.md's worked example.
    assert.deepEqual(await view.hex(), { chosen: 0x98, marked: range(0x98, 0xb8) });
    assert.equal(await view.text("#detail-title"), "Record 4: put b");
    const fields = await view.fields();
    assert.deepEqual([fields.key, fields.value, fields.seq, fields.flags], ["b", "22", "1,048,579", "SYNCED MORE"]);
    assert.deepEqual([fields.header_crc, fields.body_crc], ["✓ holds", "✓ holds"]);
    assert.deepEqual(
        (await view.rows("keys")).map(({ key, isChosen }) => [key, isChosen]),
        [
            ["b", true],
            ["c", false],
        ],
    );
});

test("a key that is clicked leads to the record that has set it", async (t) => {
    const view = await open(t, goldenFile("example").file);
    await view.clickRow("keys", 1);
    assert.equal(await view.chosenRecord(), 5);
    assert.equal((await view.hex()).chosen, 0xb8);
    assert.equal((await view.fields()).bucket, "x");
});

test("a byte or a field that is clicked is chosen in both panes, and its record in the list", async (t) => {
    const view = await open(t, goldenFile("example").file);
    await view.tab.click('#hex .hex-bytes [data-offset="114"]');
    assert.match(await view.text("#byte"), /^0x72 31 · value of put a$/);
    assert.equal(await view.chosenRecord(), 2);
    const field = await view.tab.evaluateHandle(() =>
        [...document.querySelectorAll("#detail .link")].find((link) => link.textContent === "seq"),
    );
    await field.click();
    assert.equal((await view.hex()).chosen, 0x68);
});

test("the records on one key lead to each other", async (t) => {
    const view = await open(t, goldenFile("example").file);
    await view.clickRow("records", 2);
    await view.tab.click("#detail p .link");
    assert.equal(await view.text("#detail-title"), "Record 3: delete a");
});

test("the slider is moved by keys, and the log's later records are set apart", async (t) => {
    const view = await open(t, goldenFile("example").file);
    const moment = () => view.text("#moment-text");
    assert.equal(await moment(), "After record 6 of 6: mark · 2 keys");
    await view.press("#moment", "Home");
    assert.equal(await moment(), "Before the first of 6 records");
    assert.deepEqual(await view.keySpace(), []);
    await view.press("#moment", "ArrowRight", "ArrowRight");
    assert.equal(await moment(), "After record 2 of 6: put a · 1 key");
    assert.deepEqual(await view.keySpace(), [{ bucket: "", key: "a", value: "1", last_index: "1048577" }]);
    assert.equal((await view.hex()).chosen, 0x58);
    assert.deepEqual(
        (await view.rows("records")).map(({ isLater }) => isLater),
        [false, false, false, true, true, true, true, false],
    );
    await view.press("#moment", "ArrowRight", "ArrowRight");
    assert.equal(
        await moment(),
        "After record 4 of 6: put b · 0 keys · 1 record of a batch, which counts when its last one is there",
    );
    assert.equal(await view.tab.$eval("#moment", (slider) => slider.getAttribute("aria-valuetext")), await moment());
    await view.press("#moment", "End");
    assert.equal((await view.keySpace()).length, 2);
});

test("the slider is moved by the mouse", async (t) => {
    const view = await open(t, goldenFile("example").file);
    const { x, y, width, height } = await (await view.tab.$("#moment")).boundingBox();
    await view.tab.mouse.click(x + width / 2, y + height / 2);
    assert.equal(await view.text("#moment-text"), "After record 3 of 6: delete a · 0 keys");
    await view.tab.mouse.move(x + width / 2, y + height / 2);
    await view.tab.mouse.down();
    await view.tab.mouse.move(x + width * 0.83, y + height / 2, { steps: 5 });
    await view.tab.mouse.up();
    assert.equal(await view.text("#moment-text"), "After record 5 of 6: put c · 2 keys");
});

test("playing goes on by itself to the end", async (t) => {
    const view = await open(t, goldenFile("example").file);
    await view.tab.click("#play");
    await view.tab.waitForFunction(() => document.getElementById("moment-text").textContent.startsWith("After record 2"));
    await view.tab.waitForFunction(() => document.getElementById("moment-text").textContent.startsWith("After record 6"));
    await view.tab.waitForSelector('#play[aria-pressed="false"]');
});

test("the lists and the bytes are walked with keys", async (t) => {
    const view = await open(t, goldenFile("every-kind").file);
    await view.press("#records", "Home", "ArrowDown", "ArrowDown");
    assert.equal(await view.chosenRecord(), 2);
    assert.equal(
        await view.tab.$eval(
            "#records",
            (list) => document.getElementById(list.getAttribute("aria-activedescendant")).ariaSelected,
        ),
        "true",
    );
    await view.press("#records", "End");
    assert.equal(await view.chosenRecord(), 15);
    await view.press("#keys", "Home", "ArrowDown");
    assert.equal((await view.fields()).key, "\\xff\\x00");
    const { chosen } = await view.hex();
    await view.press("#hex", "ArrowDown", "ArrowRight");
    assert.equal((await view.hex()).chosen, chosen + 17);
    await view.press("#hex", "Home", "ArrowDown", "ArrowDown");
    assert.equal((await view.hex()).chosen, 32, "past file_id, which is not there");
});

test("all that can be used can be reached with Tab, and has a name", async (t) => {
    const view = await open(t, goldenFile("damaged-twice").file);
    const reached = [];
    for (let presses = 0; presses < 40; presses++) {
        await view.tab.keyboard.press("Tab");
        reached.push(await view.tab.evaluate(() => document.activeElement.id || document.activeElement.textContent));
    }
    for (const id of ["first", "back", "play", "forward", "last", "moment", "records", "hex", "detail", "keys"]) {
        assert.ok(reached.includes(id), `${id} is not among ${reached}`);
    }
    const used = ["button", "slider", "listbox", "option", "region", "group"];
    const visit = (node) => {
        assert.ok(!used.includes(node.role) || node.name, JSON.stringify(node));
        node.children?.forEach(visit);
    };
    visit(await view.tab.accessibility.snapshot({ interestingOnly: false }));
});

const HOSTILE = [
    "</script><script>window.harmed = 1</script>",
    "<!--<script>",
    "]]><img src=x onerror='window.harmed = 1'>",
    "\"'&amp;&lt;`${window.harmed = 1}",
    "{{script}}{{bytes}}",
    "javascript:window.harmed=1",
    "__proto__",
    "constructor",
    "\u202egnp.exe\u2066",
    "\u0000\u001b[2J\r\n\t\\",
    "\ufeffbyte order mark",
    "\u2028line\u2029 ends",
    "e\u0301 한글 🦀",
];

test("hostile keys, values, buckets and file names stay text", async (t) => {
    const store = path.join(directory(t), "<img src=x onerror='window.harmed = 1'>\u202e<script>.cask");
    const lines = HOSTILE.flatMap((text) => [
        { key: text, value: text },
        { bucket: text, key: text, value: text },
    ]);
    caskfile("import", store, { input: lines.map((line) => JSON.stringify(escapedForImport(line))).join("\n") });
    const view = await open(t, store);
    const expected = read(store).pairs.map(shown).map(withoutTheUnseen);
    assert.deepEqual(await view.keySpace(), expected);
    for (let row = 0; row < expected.length; row++) {
        await view.press("#records", "ArrowDown");
        const [seen] = await view.tab.$$eval("#detail .says", (cells) => [
            cells.map((cell) => cell.textContent).join(""),
        ]);
        assert.doesNotMatch(seen, /[\u202a-\u202e\u2066-\u2069]/);
    }
    assert.equal(await view.tab.evaluate(() => window.harmed), undefined);
    assert.equal(await view.tab.$$eval("img, iframe, object, a", (found) => found.length), 0);
    assert.equal(await view.tab.$$eval("script", (found) => found.length), 4);
    assert.match(await view.text("h1"), /^<img src=x onerror='window.harmed = 1'>\\xe2\\x80\\xae<script>\.cask$/);
});

// Import takes control characters in base64 only.
function escapedForImport(line) {
    const field = ([name, text]) =>
        /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(text)
            ? [name + "_base64", Buffer.from(text).toString("base64")]
            : [name, text];
    return Object.fromEntries(Object.entries(line).map(field));
}

// The page escapes what is not to be seen as well.
function withoutTheUnseen(pair) {
    const bytes = (found) => Array.from(Buffer.from(found), (byte) => "\\x" + byte.toString(16)).join("");
    return Object.fromEntries(
        Object.entries(pair).map(([name, text]) => [name, text.replace(/[\p{Cf}\p{Zl}\p{Zp}]/gu, bytes)]),
    );
}

test("a script that enters the page is not run and cannot reach the network", async (t) => {
    const view = await browser.open(goldenFile("example").file);
    t.after(() => view.close());
    await view.tab.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "window.harmed = 1";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<svg onload='window.harmed = 1'></svg>");
        return fetch("https://example.org/").catch(() => {});
    });
    assert.equal(await view.tab.evaluate(() => window.harmed), undefined);
    assert.ok(view.complaints.length > 0 && view.complaints.every((text) => !text.startsWith("asked for")), view.complaints.join("\n"));
});

test("all that is written can be read, in the light and in the dark", async (t) => {
    const backs = {};
    for (const scheme of ["light", "dark"]) {
        const view = await open(t, goldenFile("damaged-twice").file, { scheme });
        const colours = await view.tab.evaluate(colourVariables);
        backs[scheme] = colours["--pane"];
        const roles = Object.keys(colours).filter(
            (name) => name.startsWith("--role-") || ["--text", "--quiet"].includes(name),
        );
        assert.ok(roles.length > 10);
        for (const role of roles) {
            for (const back of ["--page", "--pane", "--chosen", "--marked", "--torn-back", "--corrupt-back"]) {
                const contrast = contrastOf(colours[role], colours[back]);
                assert.ok(contrast >= 4.5, `${scheme}: ${role} on ${back} is ${contrast.toFixed(2)}`);
            }
        }
        assert.ok(contrastOf(colours["--pane"], colours["--accent"]) >= 4.5, "the chosen byte");
    }
    assert.notDeepEqual(backs.light, backs.dark);
});

// In the browser: the style's colours, as red, green and blue.
function colourVariables() {
    const names = new Set(
        [...document.styleSheets]
            .flatMap((sheet) => [...sheet.cssRules[0].style])
            .filter((name) => name.startsWith("--")),
    );
    const probe = document.body.appendChild(document.createElement("i"));
    const colour = (name) => {
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe)
            .color.match(/[\d.]+/g)
            .slice(0, 3)
            .map(Number);
    };
    return Object.fromEntries([...names].map((name) => [name, colour(name)]));
}

// As WCAG 2 defines it.
function contrastOf(one, other) {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (colour) =>
        colour.map((part) => linear(part / 255)).reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
}

test("nothing is cut off or wider than the window, from a telephone's to a desk's", async (t) => {
    for (const width of [360, 700, 909, 910, 1229, 1230, 1500, 2400]) {
        const view = await open(t, goldenFile("damaged-twice").file, { viewport: { width, height: 800 } });
        const tooWide = await view.tab.evaluate(() =>
            ["html", "#hex", "#detail", "#records", "#replay"].filter((name) => {
                const found = document.querySelector(name);
                return found.scrollWidth > found.clientWidth;
            }),
        );
        assert.deepEqual(tooWide, [], `at ${width} pixels`);
        const bytes = await view.tab.$$eval("#hex .hex-text", (texts) =>
            Math.max(
                ...texts.map(
                    (text) => text.getBoundingClientRect().right - text.closest("#hex").getBoundingClientRect().right,
                ),
            ),
        );
        assert.ok(bytes <= 0, `at ${width} pixels the hex pane's text is ${bytes} pixels too wide`);
    }
});

test("a page of a file that is too long says so, and shows true keys at the beginning and at the end", async (t) => {
    const store = path.join(directory(t), "long.cask");
    const value = "v".repeat(150);
    const line = (key, n) => JSON.stringify({ key: "key " + String(key).padStart(5, "0"), value: value + n });
    caskfile("import", store, {
        input: range(0, 16_000)
            .map((n) => line((n * 7919) % 9000, n))
            .join("\n"),
    });
    caskfile("delete-prefix", store, "key 01");
    const view = await open(t, store, { options: ["--hold", "1"] });
    assert.match(await view.text("#sample"), /^This page holds .* of 17,0\d\d records/);
    const pairs = new Map(read(store).pairs.map((pair) => [pair.key, pair.last_index]));
    const shownPairs = await view.keySpace();
    assert.ok(shownPairs.length > 1000 && shownPairs.length < pairs.size);
    for (const { key, last_index } of shownPairs) {
        assert.equal(last_index, pairs.get(key), key);
    }
    assert.ok(fs.statSync(view.file).size < 2 << 20);
    await view.tab.click("#first");
    assert.deepEqual(await view.keySpace(), []);
    await view.tab.click("#last");
    assert.deepEqual(await view.keySpace(), shownPairs);
    await view.press("#records", "End");
    assert.equal(await view.text("#detail-title"), "end mark");
});

test("a list that is longer than a browser lays out is scrolled by rows, and from end to end", async (t) => {
    const store = path.join(directory(t), "hex.cask");
    const lines = range(0, 40).map((n) => JSON.stringify({ key: "key " + n, value: "v".repeat(120_000) }));
    caskfile("import", store, { input: lines.join("\n") });
    const { size } = fs.statSync(store);
    const view = await open(t, store);
    const offsets = () =>
        view.tab.$$eval("#hex .hex-row .offset", (found) => found.map((offset) => parseInt(offset.textContent, 16)));
    await view.press("#hex", "End");
    assert.equal((await view.hex()).chosen, size - 1);
    assert.equal((await offsets()).at(-1), Math.floor((size - 1) / 16) * 16);
    await view.press("#hex", "Home");
    const [first] = await offsets();
    assert.equal(first, 0);
    await view.tab.hover("#hex");
    await view.tab.mouse.wheel({ deltaY: 200 });
    // Ten rows of 20 pixels, of which that of `file_id` is one.
    await view.tab.waitForFunction(() => document.querySelector("#hex .offset").textContent === "000000a0");
    await view.tab.$eval("#hex", (pane) => (pane.scrollTop = pane.scrollHeight / 2));
    await view.tab.waitForFunction(() => parseInt(document.querySelector("#hex .offset").textContent, 16) > 0x1000);
    assert.ok(Math.abs((await offsets())[0] - size / 2) < 2000);
});

test("of long values the page has the beginning, and all keys", async (t) => {
    const store = path.join(directory(t), "values.cask");
    const lines = range(0, 20).map((n) => JSON.stringify({ key: "key " + n, value: String(n).repeat(100_000) }));
    caskfile("import", store, { input: lines.join("\n") });
    const view = await open(t, store, { options: ["--hold", "1"] });
    assert.match(await view.text("#sample"), /All records and keys are there/);
    assert.equal((await view.keySpace()).length, 20);
    assert.match(await view.text("#hex"), /bytes that are not in this page/);
});

test("each slot of ROOTS says whether it holds, and which one is the root", async (t) => {
    const crcs = async (store) => {
        const view = await open(t, store);
        await view.clickRow("records", 1);
        assert.equal(await view.text("#detail-title"), "ROOTS");
        const rows = await view.tab.$$eval("#detail tbody tr", (rows) =>
            rows.map((row) => [row.cells[0].textContent, row.cells[3].textContent]),
        );
        return rows.filter(([name]) => name === "crc").map(([, says]) => says);
    };
    const { file } = goldenFile("roots-twice");
    assert.deepEqual(await crcs(file), ["✓ holds: an earlier root", "✓ holds: the root"]);
    assert.deepEqual(await crcs(goldenFile("roots-empty").file), ["empty", "empty"]);
    for (const [damaged, expected] of [
        [100, ["✗ does not hold", "✓ holds: the root"]],
        [215, ["✓ holds: the root", "✗ does not hold"]],
    ]) {
        const bytes = fs.readFileSync(file);
        bytes[damaged] ^= 1;
        const store = path.join(directory(t), "damaged.cask");
        fs.writeFileSync(store, bytes);
        assert.deepEqual(await crcs(store), expected, `byte ${damaged}`);
    }
});
