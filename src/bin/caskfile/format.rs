//! [`Format`]: how pairs are written and read as text, and its options.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use caskfile::{Batch, MAX_BUCKET_LEN, MAX_EXPIRING_VALUE_LEN, MAX_VALUE_LEN, PairRef, PutOptions, max_key_len};

use crate::delimited::Delimited;
use crate::escape::BYTE_ORDER_MARK;
use crate::failure::{Failure, Result};
use crate::json_line::Line;
use crate::record::Record;

/// The format of an import or an export.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    Ndjson,
    Tsv(Delimited),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// One JSON object a line: {"bucket":…,"key":…,"value":…}, with key_base64 and the like for bytes that are not text
    Ndjson,
    /// Key, tab, value; with the escapes \n \t \r \\ \xHH
    Tsv,
    /// A BoltDB file, for `import` only
    Boltdb,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Format")]
pub struct FormatOptions {
    /// The form of the lines: ndjson or tsv. For `import` also boltdb: FILE is a BoltDB file
    #[arg(long, value_enum, default_value = "ndjson", hide_possible_values = true)]
    format: Name,

    /// With tsv: the byte between fields [default: a tab]
    #[arg(long, value_name = "BYTE", value_parser = parse_separator)]
    separator: Option<u8>,

    /// With tsv: no escapes; a key or a value with a newline cannot be written then
    #[arg(long)]
    no_escapes: bool,

    /// With tsv: the first field is the bucket's name
    #[arg(long)]
    pub bucket_column: bool,
}

impl FormatOptions {
    /// The chosen format. `key_field` counts from 1.
    pub fn format(&self, key_field: Option<usize>) -> Result<Format> {
        match self.format {
            Name::Ndjson => {
                self.refuse_options_of_tsv(key_field)?;
                Ok(Format::Ndjson)
            }
            Name::Tsv => Ok(Format::Tsv(Delimited {
                separator: self.separator.unwrap_or(b'\t'),
                escapes: !self.no_escapes,
                bucket_column: self.bucket_column,
                key_field: key_field.unwrap_or(1) - 1,
            })),
            Name::Boltdb => {
                Err(Failure::usage("only `import` knows --format boltdb").hint("export with --format ndjson or tsv"))
            }
        }
    }

    /// Whether the input is a BoltDB file.
    pub fn is_boltdb(&self, key_field: Option<usize>) -> Result<bool> {
        let is_boltdb = self.format == Name::Boltdb;
        if is_boltdb {
            self.refuse_options_of_tsv(key_field)?;
        }
        Ok(is_boltdb)
    }

    fn refuse_options_of_tsv(&self, key_field: Option<usize>) -> Result<()> {
        if self.separator.is_some() || self.no_escapes || self.bucket_column || key_field.is_some() {
            let options = "--separator, --no-escapes, --bucket-column and --key-field";
            return Err(Failure::usage(format!("{options} belong to --format tsv")).hint("add --format tsv"));
        }
        Ok(())
    }
}

fn parse_separator(text: &str) -> std::result::Result<u8, String> {
    match text.as_bytes() {
        br"\t" => Ok(b'\t'),
        // Characters of escapes and of line ends would be ambiguous.
        [byte] if !byte.is_ascii_alphanumeric() && !b"\n\r\\".contains(byte) => Ok(*byte),
        _ => Err(r"give one byte other than a letter, a digit or a backslash, such as ';', or \t for a tab".into()),
    }
}

impl Format {
    /// Reads one line, given without its newline; `None` for a blank line of JSON.
    pub fn parse<'a>(&self, line: &'a [u8]) -> std::result::Result<Option<Record<'a>>, String> {
        match self {
            Format::Ndjson if line.trim_ascii().is_empty() => Ok(None),
            Format::Ndjson => Record::parse(line).map(Some),
            Format::Tsv(delimited) => delimited.parse(line).map(Some),
        }
    }

    /// The beginning of an input without its byte order mark. With escapes, a mark is no data: an export escapes it.
    /// Without escapes, every byte is data.
    pub fn without_mark<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Format::Tsv(Delimited { escapes: false, .. }) => input,
            _ => input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input),
        }
    }

    /// Whether each line has the name of its bucket.
    pub fn names_buckets(&self) -> bool {
        match self {
            Format::Ndjson => true,
            Format::Tsv(delimited) => delimited.bucket_column,
        }
    }

    /// Whether a line says when its pair expires.
    pub fn has_expiry(&self) -> bool {
        matches!(self, Format::Ndjson)
    }

    /// Whether one line can hold this pair.
    pub fn check(&self, bucket: Option<&[u8]>, key: &[u8], value: &[u8]) -> std::result::Result<(), String> {
        match self {
            Format::Ndjson => Ok(()),
            Format::Tsv(delimited) if delimited.bucket_column => {
                delimited.check(&[bucket.unwrap_or_default(), key, value])
            }
            Format::Tsv(delimited) => delimited.check(&[key, value]),
        }
    }

    /// Writes one line, which was [checked](Format::check). The line names no bucket if `bucket` is `None`, nor, in JSON, the
    /// default bucket. JSON alone says when the pair expires.
    pub fn write(
        &self,
        bucket: Option<&[u8]>,
        PairRef { key, value, last_index, expires_at, .. }: PairRef<'_>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match self {
            Format::Ndjson => {
                let mut line = Line::begin(out);
                if let Some(bucket) = bucket.filter(|name| !name.is_empty()) {
                    line = line.bytes("bucket", bucket);
                }
                line.bytes("key", key).bytes("value", value).number("last_index", last_index).expiry(expires_at).end()
            }
            Format::Tsv(delimited) if delimited.bucket_column => {
                delimited.write(&[bucket.unwrap_or_default(), key, value], out)
            }
            Format::Tsv(delimited) => delimited.write(&[key, value], out),
        }
    }
}

/// A batch that is filled line by line. Each line names its bucket and is checked alone, so that an error has the number of
/// its line.
pub struct Filling {
    pub batch: Batch,
    /// The bucket of lines without one.
    default_bucket: Vec<u8>,
    bucket: Vec<u8>,
}

impl Filling {
    pub fn new(default_bucket: &[u8]) -> Filling {
        let mut batch = Batch::new();
        batch.bucket(default_bucket);
        Filling { batch, default_bucket: default_bucket.to_vec(), bucket: default_bucket.to_vec() }
    }

    /// Changes to the bucket of a line, and checks its key.
    pub fn go_to(&mut self, bucket: Option<&[u8]>, key: &[u8]) -> std::result::Result<(), String> {
        let bucket = bucket.unwrap_or(&self.default_bucket);
        if bucket.len() > MAX_BUCKET_LEN {
            return Err(format!("a bucket's name has at most {MAX_BUCKET_LEN} bytes, this one has {}", bucket.len()));
        }
        let max = max_key_len(bucket.len());
        if key.is_empty() || key.len() > max {
            return Err(format!("a key has 1 to {max} bytes, this one has {}", key.len()));
        }
        if bucket != self.bucket {
            self.batch.bucket(bucket);
            self.bucket = bucket.to_vec();
        }
        Ok(())
    }

    pub fn put(&mut self, key: &[u8], value: &[u8], options: Option<&PutOptions>) -> std::result::Result<(), String> {
        check_value(value, options.is_some())?;
        match options {
            Some(options) => self.batch.put_with(key, value, options),
            None => self.batch.put(key, value),
        };
        Ok(())
    }
}

/// Refuses a value over the limit, before a store is created for it.
pub fn check_value(value: &[u8], expires: bool) -> std::result::Result<(), String> {
    let (most, which) = if expires { (MAX_EXPIRING_VALUE_LEN, " that expires") } else { (MAX_VALUE_LEN, "") };
    if value.len() > most {
        return Err(format!("a value{which} has at most {most} bytes, this one has {}", value.len()));
    }
    Ok(())
}

/// The options of a put whose pair expires at this moment, in milliseconds since 1970.
pub fn until(expires_at: u64) -> PutOptions {
    PutOptions::new().expires_at(UNIX_EPOCH + Duration::from_millis(expires_at))
}
