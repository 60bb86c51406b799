// Every golden file, whatever its state, is shown as the golden JSON, the second reader and salvage say that it is.

const assert = require("node:assert/strict");
const test = require("node:test");

const { Browser, directory } = require("./browser.js");
const { goldenFile, goldenFiles, moments, salvaged, shown } = require("./expected.js");

let browser;
test.before(async () => (browser = await Browser.launch()));
test.after(() => browser.close());

test("every readable golden file ends with the pairs that are written beside it, and says what state it is in", async () => {
    for (const { name, file, told } of goldenFiles().filter(({ told }) => told.readable)) {
        const view = await browser.open(file);
        assert.deepEqual(await view.keySpace(), told.pairs.map(shown), name);
        assert.equal(await view.text("#verdict strong"), told.verdict.split(",")[0], name);
        const records = (await view.rows("records")).filter(
            ({ fate }) => fate !== null && !["torn", "unread"].includes(fate),
        );
        assert.deepEqual(
            records.map(({ place, seq }) => [Number(place), seq]),
            told.records.map(({ offset, seq }) => [offset, "seq " + seq]),
            name,
        );
        assert.deepEqual(view.told, [], name);
        await view.close();
    }
});

test("of every damaged golden file the last moment has what salvage copies, and a button leads to each damaged place", async (t) => {
    const made = directory(t);
    const damaged = goldenFiles().filter(
        ({ told, name }) => told.verdict === "Corrupt" && name !== "base-seq-beyond.cask",
    );
    assert.ok(damaged.length > 8);
    for (const { name, file, told } of damaged) {
        const view = await browser.open(file);
        assert.deepEqual(await view.keySpace(), salvaged(file, made), name);
        assert.equal(await view.text("#verdict strong"), "damaged", name);
        for (const [start] of told.damage ?? [[0, 64]]) {
            const button = await view.tab.evaluateHandle(
                (text) =>
                    [...document.querySelectorAll("#places button")].find((button) =>
                        button.textContent.startsWith(text),
                    ),
                `0x${start.toString(16)} `,
            );
            await button.click();
            assert.equal((await view.hex()).chosen, start, name);
        }
        assert.deepEqual(view.told, [], name);
        await view.close();
    }
});

test("files that this version cannot read are shown up to where it can", async () => {
    for (const { name, file, told } of goldenFiles().filter(({ told }) => /^Unsupported/.test(told.verdict))) {
        const view = await browser.open(file);
        assert.equal(await view.text("#verdict strong"), "unread", name);
        assert.match(await view.text("#verdict"), /newer caskfile/, name);
        assert.deepEqual(view.told, [], name);
        await view.close();
    }
});

test("step by step, forwards and backwards, the keys are those that the second reader has there", async () => {
    for (const name of [
        "example",
        "every-kind",
        "batch",
        "deleted",
        "alternating",
        "batch-unfinished",
        "torn",
        "moved",
    ]) {
        const { file } = goldenFile(name);
        const expected = moments(file);
        const view = await browser.open(file);
        const lastIndexes = async () => (await view.keySpace()).map(({ last_index }) => last_index).sort();
        await view.tab.click("#first");
        for (let moment = 0; moment < expected.length; moment++) {
            assert.deepEqual(await lastIndexes(), expected[moment], `${name}, after record ${moment}`);
            await view.tab.click("#forward");
        }
        for (let moment = expected.length - 1; moment >= 0; moment--) {
            assert.deepEqual(await lastIndexes(), expected[moment], `${name}, back to record ${moment}`);
            await view.tab.click("#back");
        }
        assert.deepEqual(view.told, [], name);
        await view.close();
    }
});
