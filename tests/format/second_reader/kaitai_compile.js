// node kaitai_compile.js FORMAT.ksy DIRECTORY: makes a parser in Python from a Kaitai Struct description. The parser reads
// in a call of its own, and keeps what it has read if it gets stuck.
const fs = require('fs');
const path = require('path');
const compiler = require('kaitai-struct-compiler');
const yaml = require('js-yaml');

const [source, directory] = process.argv.slice(2);
const debug = true;
compiler.compile('python', yaml.load(fs.readFileSync(source, 'utf8')), null, debug).then(
  (files) => Object.entries(files).forEach(([name, text]) => fs.writeFileSync(path.join(directory, name), text)),
  (error) => { console.error(String(error)); process.exit(1); },
);
