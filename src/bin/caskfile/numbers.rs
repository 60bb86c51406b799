//! Numbers and sizes as people read them.

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in a rounded unit and in bytes: `1.50 KiB (1,536 bytes)`.
pub fn readable_bytes(bytes: u64) -> String {
    match indicatif::BinaryBytes(bytes) {
        _ if bytes < 1024 => format!("{bytes} bytes"),
        rounded => format!("{rounded} ({} bytes)", grouped(bytes)),
    }
}

/// `1 key`, `2 keys`.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
