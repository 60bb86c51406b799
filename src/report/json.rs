//! A [`Report`] as JSON.

use std::fmt::Write;

use super::{Loss, LostKey, Report, WrongSnapshot};

/// The report as one JSON object on one line.
pub(super) fn of(report: &Report) -> String {
    let Report { file_len, log_end, keys, records, torn_bytes, has_roots, truncated, cut_off, unlisted_keys, .. } =
        report;
    let losses = list(&report.losses, Loss::to_json);
    let wrong_snapshot = report.wrong_snapshot.as_ref().map_or_else(|| "null".to_owned(), WrongSnapshot::to_json);
    let unreadable = list(&report.unreadable, |at| format!(r#"{{"start":{},"end":{}}}"#, at.start, at.end));
    format!(
        r#"{{"file_len":{file_len},"log_end":{log_end},"keys":{keys},"records":{records},"torn_bytes":{torn_bytes},"synced_to":{},"has_roots":{has_roots},"truncated":{truncated},"cut_off":{cut_off},"sound":{},"losses":{losses},"unreadable":{unreadable},"unlisted_keys":{unlisted_keys},"wrong_snapshot":{wrong_snapshot}}}"#,
        number(report.synced_to),
        report.is_sound(),
    )
}

impl Loss {
    fn to_json(&self) -> String {
        let Loss { start, end, damage, torn, whole_records, .. } = self;
        format!(
            r#"{{"start":{start},"end":{end},"damage":"{}","detail":{},"torn":{torn},"batch":{},"whole_records":{whole_records},"keys":{}}}"#,
            damage.name(),
            text(&damage.to_string()),
            number(self.batch),
            list(&self.keys, LostKey::to_json),
        )
    }
}

impl WrongSnapshot {
    fn to_json(&self) -> String {
        format!(r#"{{"offset":{},"detail":{}}}"#, self.offset, text(&self.detail))
    }
}

impl LostKey {
    fn to_json(&self) -> String {
        let LostKey { offset, last_index, deleted, .. } = self;
        format!(
            r#"{{"offset":{offset},{},{},"last_index":{last_index},"deleted":{deleted},"kept":{}}}"#,
            bytes("bucket", &self.bucket),
            bytes("key", &self.key),
            number(self.kept),
        )
    }
}

fn list<T>(items: &[T], to_json: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = items.iter().map(to_json).collect();
    format!("[{}]", items.join(","))
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn bytes(name: &str, bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(plain) => format!(r#""{name}":{}"#, text(plain)),
        Err(_) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            format!(r#""{name}_hex":"{hex}""#)
        }
    }
}

/// A JSON string.
fn text(plain: &str) -> String {
    let mut json = String::from('"');
    for char in plain.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(char));
            }
            _ => json.push(char),
        }
    }
    json.push('"');
    json
}
