//! The schema of NDJSON, one JSON object a line, for `export`, `import`, `list --json`, `get --json` and `batch`: how lines
//! are read. `json_line` writes them.
//!
//! Bytes that are text are a string (`"key"`), others are base64 in a field of another name (`"key_base64"`).

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caskfile::PutOptions;
use serde::Deserialize;

use crate::format::until;

/// A line of an import.
pub struct Record<'a> {
    /// `None` if the line names no bucket.
    pub bucket: Option<Cow<'a, [u8]>>,
    pub key: Cow<'a, [u8]>,
    pub value: Cow<'a, [u8]>,
    /// When the pair expires, in milliseconds since 1970; `None` if it stays.
    pub expires_at: Option<u64>,
}

/// A line of a batch.
pub struct Operation<'a> {
    pub bucket: Option<Cow<'a, [u8]>>,
    pub key: Cow<'a, [u8]>,
    pub condition: Option<Condition>,
    pub change: Change<'a>,
}

pub enum Condition {
    Index(u64),
    Absent,
}

pub enum Change<'a> {
    Put(Cow<'a, [u8]>, Option<PutOptions>),
    Delete,
    Nothing,
}

/// Every field that a line may have. Others are refused, since a misspelt condition must not be ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow)]
    bucket: Option<Text<'a>>,
    #[serde(borrow)]
    bucket_base64: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    key_base64: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    value_base64: Option<Text<'a>>,
    /// Written by `export`. An import ignores it, and the store assigns a new one.
    last_index: Option<u64>,
    if_last_index: Option<u64>,
    if_absent: Option<bool>,
    expires_at: Option<u64>,
    ttl_ms: Option<u64>,
}

/// Inside an `Option`, serde borrows a string only through a type of its own.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Record<'a> {
    pub fn parse(line: &'a [u8]) -> Result<Record<'a>, String> {
        let fields = Fields::parse(line)?;
        if fields.op.is_some() || fields.if_last_index.is_some() || fields.if_absent.is_some() {
            return Err("`op`, `if_last_index` and `if_absent` belong to `caskfile batch`; an import only puts".into());
        }
        if fields.ttl_ms.is_some() {
            return Err("`ttl_ms` belongs to `caskfile batch`; an import takes `expires_at`".into());
        }
        Ok(Record {
            bucket: bytes("bucket", fields.bucket, fields.bucket_base64)?,
            key: required("key", fields.key, fields.key_base64)?,
            value: required("value", fields.value, fields.value_base64)?,
            expires_at: fields.expires_at,
        })
    }
}

impl<'a> Operation<'a> {
    pub fn parse(line: &'a [u8]) -> Result<Operation<'a>, String> {
        let fields = Fields::parse(line)?;
        let condition = match (fields.if_last_index, fields.if_absent) {
            (None, None | Some(false)) => None,
            (Some(index), None | Some(false)) => Some(Condition::Index(index)),
            (None, Some(true)) => Some(Condition::Absent),
            (Some(_), Some(true)) => return Err("`if_last_index` and `if_absent` exclude each other".into()),
        };
        if fields.last_index.is_some() {
            return Err("`last_index` means nothing in a batch; a condition is `if_last_index`".into());
        }
        let bucket = bytes("bucket", fields.bucket, fields.bucket_base64)?;
        let key = required("key", fields.key, fields.key_base64)?;
        let value = bytes("value", fields.value, fields.value_base64)?;
        let op = fields.op.ok_or("`op` is missing: one of put, delete, check")?.0;
        let options = match (fields.expires_at, fields.ttl_ms) {
            (None, None) => None,
            (Some(_), _) | (_, Some(_)) if op != "put" => {
                return Err(format!("`{op}` takes no `expires_at` and no `ttl_ms`"));
            }
            (Some(_), Some(_)) => return Err("`expires_at` and `ttl_ms` exclude each other".into()),
            (_, Some(0)) => return Err("`ttl_ms` is more than 0".into()),
            (Some(expires_at), None) => Some(until(expires_at)),
            (None, Some(ttl)) => Some(PutOptions::new().ttl(Duration::from_millis(ttl))),
        };
        let change = match (&*op, value) {
            ("put", Some(value)) => Change::Put(value, options),
            ("put", None) => return Err("`value` is missing".into()),
            ("delete", None) => Change::Delete,
            ("check", None) if condition.is_some() => Change::Nothing,
            ("check", None) => return Err("a check needs `if_last_index` or `if_absent`".into()),
            ("delete" | "check", Some(_)) => return Err(format!("`{op}` takes no value")),
            _ => return Err(format!("`op` is {op:?}; it is one of put, delete, check")),
        };
        Ok(Operation { bucket, key, condition, change })
    }
}

impl<'a> Fields<'a> {
    fn parse(line: &'a [u8]) -> Result<Fields<'a>, String> {
        if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
            return Err("this is UTF-16; convert it to UTF-8, with `iconv -f UTF-16 -t UTF-8` for example".into());
        }
        // The error has a line number too, which counts inside this one line.
        serde_json::from_slice(line).map_err(|e| {
            let message = e.to_string();
            let (what, _) = message.rsplit_once(" at line ").unwrap_or((&message, ""));
            format!("column {}: {what}", e.column())
        })
    }
}

fn required<'a>(name: &str, text: Option<Text<'a>>, base64: Option<Text<'a>>) -> Result<Cow<'a, [u8]>, String> {
    bytes(name, text, base64)?.ok_or_else(|| format!("`{name}` (or `{name}_base64`) is missing"))
}

fn bytes<'a>(name: &str, text: Option<Text<'a>>, base64: Option<Text<'a>>) -> Result<Option<Cow<'a, [u8]>>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(Text(Cow::Borrowed(text))), None) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
        (Some(Text(Cow::Owned(text))), None) => Ok(Some(Cow::Owned(text.into_bytes()))),
        (None, Some(base64)) => {
            let decoded = STANDARD.decode(base64.0.as_bytes()).map_err(|e| format!("`{name}_base64`: {e}"))?;
            Ok(Some(Cow::Owned(decoded)))
        }
        (Some(_), Some(_)) => Err(format!("`{name}` and `{name}_base64` exclude each other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_line::Line;

    fn line(bucket: Option<&[u8]>, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out);
        if let Some(bucket) = bucket {
            line = line.bytes("bucket", bucket);
        }
        line.bytes("key", key).bytes("value", value).number("last_index", 7).end().unwrap();
        out
    }

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"", b"\0", b"\xff\xfe", "text \"quoted\" \\ und ü\n".as_bytes(), "\u{2028}".as_bytes()]
        {
            let line = line(Some(bytes), bytes, bytes);
            let record = Record::parse(&line).unwrap();
            assert_eq!(record.bucket.as_deref(), Some(bytes));
            assert_eq!((&*record.key, &*record.value), (bytes, bytes));
        }
    }

    #[test]
    fn a_line_looks_as_documented() {
        assert_eq!(
            String::from_utf8(line(Some(b"b"), "grün".as_bytes(), b"\x00\xff")).unwrap(),
            "{\"bucket\":\"b\",\"key\":\"grün\",\"value_base64\":\"AP8=\",\"last_index\":7}\n"
        );
        assert!(Record::parse(&line(None, b"k", b"v")).unwrap().bucket.is_none());
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let record = Record::parse(br#"{"key":"plain","value":"with \n escape"}"#).unwrap();
        assert!(matches!(record.key, Cow::Borrowed(_)));
        assert!(matches!(record.value, Cow::Owned(_)));
    }

    #[test]
    fn fields_out_of_the_schema_are_refused_with_a_reason() {
        for (line, reason) in [
            (r#"{"key":"a"}"#, "`value`"),
            (r#"{"value":"a"}"#, "`key`"),
            (r#"{"key":"a","value":"b","valeu":"c"}"#, "valeu"),
            (r#"{"key":"a","key":"b","value":""}"#, "duplicate"),
            (r#"{"key":"a","key_base64":"YQ==","value":""}"#, "exclude"),
            (r#"{"key_base64":"?","value":""}"#, "key_base64"),
            (r#"{"key":1,"value":""}"#, "column 8"),
            (r#"{"key":"a","value":"b"} x"#, "trailing"),
            (r#"{"key":"\ud800","value":""}"#, "column"),
            (r#"{"op":"put","key":"a","value":"b"}"#, "batch"),
            (r#"{"key":"a","value":"b","ttl_ms":1}"#, "batch"),
            (r#"{"key":"a","value":"b","expires_at":-1}"#, "column"),
            ("a\tb", "column 1"),
        ] {
            let error = Record::parse(line.as_bytes()).err().unwrap_or_else(|| panic!("{line} was taken"));
            assert!(error.contains(reason), "{line}: {error}");
        }
        for (line, reason) in [
            (r#"{"key":"a"}"#, "`op`"),
            (r#"{"op":"put","key":"a"}"#, "`value`"),
            (r#"{"op":"delete","key":"a","value":"b"}"#, "no value"),
            (r#"{"op":"check","key":"a"}"#, "if_last_index"),
            (r#"{"op":"get","key":"a"}"#, "get"),
            (r#"{"op":"delete","key":"a","if_idx":1}"#, "if_idx"),
            (r#"{"op":"delete","key":"a","if_last_index":1,"if_absent":true}"#, "exclude"),
            (r#"{"op":"delete","key":"a","if_last_index":-1}"#, "column"),
            (r#"{"op":"put","key":"a","value":"b","last_index":1}"#, "if_last_index"),
            (r#"{"op":"put","key":"a","value":"b","ttl_ms":0}"#, "more than 0"),
            (r#"{"op":"put","key":"a","value":"b","ttl_ms":1,"expires_at":1}"#, "exclude"),
            (r#"{"op":"delete","key":"a","expires_at":1}"#, "takes no"),
            (r#"{"op":"check","key":"a","if_absent":true,"ttl_ms":1}"#, "takes no"),
        ] {
            let error = Operation::parse(line.as_bytes()).err().unwrap_or_else(|| panic!("{line} was taken"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
