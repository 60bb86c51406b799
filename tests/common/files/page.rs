//! The tables and dumps of docs/FORMAT.md.

use super::reader::{Contents, Name, Setting, Verdict};

const PAGE: &str = include_str!("../../../docs/FORMAT.md");

/// Whether the page has these words.
pub fn says(words: &str) -> bool {
    PAGE.contains(words)
}

/// The rows of the first table after a heading whose own head starts like this; cells lose their code marks.
pub fn table(heading: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let section = PAGE.split_once(&format!("\n## {heading}\n")).map(|(_, rest)| rest);
    let after = section.and_then(|section| section.split_once(&format!("\n{head}"))).map(|(_, rest)| rest);
    let rows = after.unwrap_or_else(|| panic!("the page has no table {head} after {heading}")).lines().skip(2);
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// A number as the page writes it: `65,535`, `0x80`, `2^62 - 1`, `2^30 + 2^20`.
pub fn number(text: &str) -> u64 {
    if let Some((a, b)) = text.split_once(" + ") {
        return number(a) + number(b);
    }
    if let Some((a, b)) = text.split_once(" - ") {
        return number(a) - number(b);
    }
    let parsed = if let Some((base, power)) = text.split_once('^') {
        base.parse().ok().zip(power.parse().ok()).map(|(base, power)| u64::pow(base, power))
    } else if let Some(digits) = text.strip_prefix("0x") {
        u64::from_str_radix(digits, 16).ok()
    } else {
        text.replace(',', "").parse().ok()
    };
    parsed.unwrap_or_else(|| panic!("{text:?} is no number"))
}

/// The bytes of the dump, and for each of its lines where it starts and what it says.
pub fn dump() -> (Vec<u8>, Vec<(usize, &'static str)>) {
    let block = PAGE.split("```hexdump\n").nth(1).and_then(|rest| rest.split("```").next());
    parse_dump(block.expect("the page has a dump"))
}

/// The dumps after the first: each is a part of a file, with the offset at which it begins.
pub fn fragments() -> Vec<(usize, Vec<u8>)> {
    let blocks = PAGE.split("```hexdump\n").skip(2).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks
        .map(|block| {
            let start = block.split("  ").next().and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let start = start.expect("an offset begins the dump");
            (start, parse_dump_from(start, block).0)
        })
        .collect()
}

/// The dump with this name, and the offset at which it begins.
pub fn dump_of(name: &str) -> (usize, Vec<u8>) {
    let block = PAGE.split(&format!("```hexdump {name}\n")).nth(1).and_then(|rest| rest.split("```").next());
    let block = block.unwrap_or_else(|| panic!("the page has no dump {name}"));
    let start = block.split("  ").next().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let start = start.expect("an offset begins the dump");
    (start, parse_dump_from(start, block).0)
}

/// Reads a dump of a whole file: in each line an offset, bytes, and after a semicolon a comment.
pub fn parse_dump(text: &str) -> (Vec<u8>, Vec<(usize, &str)>) {
    parse_dump_from(0, text)
}

fn parse_dump_from(start: usize, text: &str) -> (Vec<u8>, Vec<(usize, &str)>) {
    let (mut bytes, mut lines) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(';')) {
        let (row, comment) = line.split_once(';').unwrap_or((line, ""));
        let (offset, row) = row.split_once("  ").expect("an offset before the bytes");
        assert_eq!(usize::from_str_radix(offset, 16), Ok(start + bytes.len()), "the offset of {line:?}");
        lines.push((bytes.len(), comment.trim()));
        bytes.extend(row.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")));
    }
    (bytes, lines)
}

/// What the page says that the dump holds.
pub fn dump_holds() -> Vec<(Name, Setting)> {
    let row = |row: Vec<String>| {
        let [bucket, key, value, last_index] = row.try_into().expect("four columns");
        ((bucket.into_bytes(), key.into_bytes()), (value.into_bytes(), number(&last_index)))
    };
    table("A worked example", "| bucket | key |").into_iter().map(row).collect()
}

/// What a verdict is called on the page.
pub fn summary(verdict: &Verdict) -> String {
    let contents = match verdict {
        Verdict::NotCaskfile => return "not a caskfile".to_owned(),
        Verdict::UnsupportedVersion => return "unsupported version".to_owned(),
        Verdict::UnsupportedRecord { offset } => return format!("unsupported record at {offset}"),
        Verdict::Corrupt { offset } => return format!("corrupt at {offset}"),
        Verdict::Truncated { log_end, stated } => return format!("truncated at {log_end}, {stated} stated"),
        Verdict::Store(contents) => contents,
    };
    let kept = if contents.kept { " kept" } else { "" };
    let torn = if contents.torn == 0 { String::new() } else { format!(", torn {}{kept}", contents.torn) };
    pairs(contents) + &torn
}

fn pairs(contents: &Contents) -> String {
    if contents.pairs.is_empty() {
        return "empty".to_owned();
    }
    let pairs = contents.pairs.iter().map(|((bucket, key), (value, last_index))| {
        let slash = if bucket.is_empty() { "" } else { "/" };
        let (bucket, key, value) = (bucket.escape_ascii(), key.escape_ascii(), value.escape_ascii());
        format!("{bucket}{slash}{key}={value}@{last_index}")
    });
    pairs.collect::<Vec<_>>().join(" ")
}
