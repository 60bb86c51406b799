//! The escapes of keys and values in lines of text, wherever lines are written or read.
//!
//! Bytes that are not UTF-8, control characters, the backslash and U+FEFF are escaped; a file that begins with U+FEFF
//! seems to have a byte order mark. So an escaped text is valid UTF-8 on one line and does nothing to a terminal, and any
//! bytes come back from it.

use std::io::{self, Write};

/// U+FEFF in UTF-8, with which some programs begin a file.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Writes the escaped bytes to `out`. `separator` is escaped, too.
///
/// A value may be four times as large with escapes, so it is written while it is escaped.
pub fn escape_into(bytes: &[u8], separator: Option<u8>, out: &mut impl Write) -> io::Result<()> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape_text(text, separator, out);
    }
    for chunk in bytes.utf8_chunks() {
        escape_text(chunk.valid(), separator, out)?;
        for &byte in chunk.invalid() {
            write_hex(byte, out)?;
        }
    }
    Ok(())
}

fn escape_text(text: &str, separator: Option<u8>, out: &mut impl Write) -> io::Result<()> {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // U+0080 to U+009F are control characters, too; in UTF-8 they begin with 0xc2.
        let control = byte < b' ' || byte == 0x7f || (byte == 0xc2 && bytes[at + 1] < 0xa0);
        let mark = byte == BYTE_ORDER_MARK[0] && bytes[at..].starts_with(BYTE_ORDER_MARK);
        if !control && !mark && byte != b'\\' && Some(byte) != separator {
            continue;
        }
        out.write_all(&bytes[copied..at])?;
        copied = at + 1;
        match byte {
            b'\\' => out.write_all(br"\\")?,
            b'\t' => out.write_all(br"\t")?,
            b'\n' => out.write_all(br"\n")?,
            b'\r' => out.write_all(br"\r")?,
            0xc2 => {
                write_hex(byte, out)?;
                write_hex(bytes[at + 1], out)?;
                copied = at + 2;
            }
            _ if mark => {
                BYTE_ORDER_MARK.iter().try_for_each(|&byte| write_hex(byte, out))?;
                copied = at + BYTE_ORDER_MARK.len();
            }
            _ => write_hex(byte, out)?,
        }
    }
    out.write_all(&bytes[copied..])
}

fn write_hex(byte: u8, out: &mut impl Write) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.write_all(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
}

/// The escaped bytes as a string, for messages.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = escape_into(bytes, None, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends the bytes of an escaped text to `out`. Only a backslash has a meaning: other bytes need no escape, and may have
/// one.
pub fn unescape_into(text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = match &rest[at + 1..] {
            [b'\\', ..] => (b'\\', 2),
            [b't', ..] => (b'\t', 2),
            [b'n', ..] => (b'\n', 2),
            [b'r', ..] => (b'\r', 2),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(*high) << 4 | hex_digit(*low), 4)
            }
            other => {
                let shown = escaped(&other[..other.len().min(3)]);
                return Err(format!(
                    r"a backslash followed by `{shown}`; known are \\ \t \n \r and \x with two digits"
                ));
            }
        };
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The bytes as text, if they are valid UTF-8 without control characters other than tab, newline and carriage return.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let harmless = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().all(harmless).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(bytes: &[u8], separator: Option<u8>) -> String {
        let mut text = Vec::new();
        escape_into(bytes, separator, &mut text).unwrap();
        let mut back = Vec::new();
        unescape_into(&text, &mut back).unwrap();
        assert_eq!(back, bytes);
        String::from_utf8(text).expect("an escaped text is valid UTF-8")
    }

    #[test]
    fn every_pair_of_bytes_comes_back_and_is_one_harmless_line() {
        for first in 0..=255 {
            for second in 0..=255 {
                let text = there_and_back(&[first, second], Some(b';'));
                assert!(!text.contains(|c: char| c.is_control() || c == ';'), "{first:#x} {second:#x} gave {text:?}");
            }
        }
    }

    #[test]
    fn text_stands_for_itself_and_the_rest_is_spelt_out() {
        assert_eq!(there_and_back("größer; 日本".as_bytes(), None), "größer; 日本");
        assert_eq!(there_and_back(b"a\tb\nc\rd\\e", None), r"a\tb\nc\rd\\e");
        assert_eq!(there_and_back(b"\0\x1b[31m\xff\xc3", None), r"\x00\x1b[31m\xff\xc3");
        assert_eq!(there_and_back("\u{85}".as_bytes(), None), r"\xc2\x85");
        assert_eq!(there_and_back("\u{feff}a\u{feff}".as_bytes(), None), r"\xef\xbb\xbfa\xef\xbb\xbf");
        assert_eq!(there_and_back(b"a;b", Some(b';')), r"a\x3bb");
    }

    #[test]
    fn a_backslash_without_a_meaning_is_refused() {
        for text in [r"\", r"a\", r"\q", r"\x", r"\x1", r"\xg0", r"C:\dir"] {
            let error = unescape_into(text.as_bytes(), &mut Vec::new()).unwrap_err();
            assert!(error.contains("backslash"), "{text}: {error}");
        }
    }

    #[test]
    fn text_is_what_a_terminal_can_show() {
        assert_eq!(as_text("two\nlines\t and ü".as_bytes()), Some("two\nlines\t and ü"));
        for bytes in [&b"\x1b[2J"[..], b"\0", b"\xff", "\u{9b}2J".as_bytes()] {
            assert_eq!(as_text(bytes), None, "{bytes:?}");
        }
    }
}
