// Every golden file is shown as the golden JSON, the second reader and salvage describe it.

const assert = require("node:assert/strict");
const test = require("node:test");

const { Browser, directory } = require("./browser.js");
const { goldenFile, goldenFiles, moments, pairs, salvaged } = require("./expected.js");

let browser;
test.before(async () => (browser = await Browser.launch()));
test.after(() => browser.close());

test("every readable golden file ends with the pairs of its JSON, and shows its state", async () => {
    for (const { name, file, expected } of goldenFiles().filter(({ expected }) => expected.readable)) {
        const view = await browser.open(file);
        assert.deepEqual(await view.keySpace(), pairs({ file, expected }), name);
        const verdict = expected.snapshot?.differs ? "damaged" : expected.verdict.split(",")[0];
        assert.equal(await view.text("#verdict strong"), verdict, name);
        const records = (await view.rows("records")).filter(
            ({ fate }) => fate !== null && !["torn", "unread"].includes(fate),
        );
        // `ROOTS` is no record of the log, which starts after it.
        const log = records.filter(({ place }) => Number(place) !== 64 || expected.records[0]?.offset === 64);
        assert.deepEqual(
            log.map(({ place, seq }) => [Number(place), seq]),
            expected.records.map(({ offset, seq }) => [offset, "seq " + seq]),
            name,
        );
        assert.deepEqual(view.complaints, [], name);
        await view.close();
    }
});

test("a damaged golden file ends with what salvage copies, and has a button for each damaged place", async (t) => {
    const made = directory(t);
    const damaged = goldenFiles().filter(
        ({ expected, name }) => expected.verdict === "Corrupt" && name !== "base-seq-beyond.cask",
    );
    assert.ok(damaged.length > 8);
    for (const { name, file, expected } of damaged) {
        const view = await browser.open(file);
        assert.deepEqual(await view.keySpace(), salvaged(file, made), name);
        assert.equal(await view.text("#verdict strong"), "damaged", name);
        for (const [start] of expected.damage ?? [[expected.at]]) {
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
        assert.deepEqual(view.complaints, [], name);
        await view.close();
    }
});

test("a truncated golden file shows what is left of it, and says that its end is missing", async (t) => {
    const made = directory(t);
    const truncated = goldenFiles().filter(({ expected }) => expected.verdict === "Truncated");
    assert.ok(truncated.length > 4);
    for (const { name, file } of truncated) {
        const view = await browser.open(file);
        assert.deepEqual(await view.keySpace(), salvaged(file, made), name);
        assert.equal(await view.text("#verdict strong"), "truncated", name);
        assert.deepEqual(view.complaints, [], name);
        await view.close();
    }
});

test("files that this version cannot read are shown up to where it can", async () => {
    for (const { name, file, expected } of goldenFiles().filter(({ expected }) => /^Unsupported/.test(expected.verdict))) {
        const view = await browser.open(file);
        assert.equal(await view.text("#verdict strong"), "unread", name);
        assert.match(await view.text("#verdict"), /newer caskfile/, name);
        assert.deepEqual(view.complaints, [], name);
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
        "put-with",
        "session",
        "session-ended",
    ]) {
        const { file } = goldenFile(name);
        const steps = moments(file);
        const view = await browser.open(file);
        const lastIndexes = async () => (await view.keySpace()).map(({ last_index }) => last_index).sort();
        await view.tab.click("#first");
        for (let moment = 0; moment < steps.length; moment++) {
            assert.deepEqual(await lastIndexes(), steps[moment], `${name}, after record ${moment}`);
            await view.tab.click("#forward");
        }
        for (let moment = steps.length - 1; moment >= 0; moment--) {
            assert.deepEqual(await lastIndexes(), steps[moment], `${name}, back to record ${moment}`);
            await view.tab.click("#back");
        }
        assert.deepEqual(view.complaints, [], name);
        await view.close();
    }
});
