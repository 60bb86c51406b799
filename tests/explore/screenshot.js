// Takes the picture in docs/CLI.md: `NODE_PATH=target/explore/node_modules node tests/explore/screenshot.js`.

const path = require("node:path");

const { Browser, ROOT } = require("./browser.js");
const { goldenFile } = require("./expected.js");

async function main() {
    const browser = await Browser.launch();
    const view = await browser.open(goldenFile("every-kind").file, { viewport: { width: 1240, height: 800 } });
    await view.press("#moment", "Home", ...Array(10).fill("ArrowRight"));
    await view.clickRow("keys", 0);
    await view.tab.screenshot({ path: path.join(ROOT, "docs/explore.webp"), type: "webp", quality: 80 });
    await browser.close();
}

main();
