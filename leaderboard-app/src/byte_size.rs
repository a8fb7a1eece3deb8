//! Sizes as people write them: `65536`, `512KiB`, `64MiB`, `2GiB`.

/// Reads a whole number of bytes, or of the unit behind it. `None` for anything else and for what does not fit.
#[must_use]
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_or_without_a_unit() {
        assert_eq!(parse_bytes("65536"), Some(65536));
        assert_eq!(parse_bytes("512KiB"), Some(512 << 10));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("2GiB"), Some(2 << 30));
        assert_eq!(parse_bytes("0"), Some(0));
        for text in ["", "MiB", "1 MiB", "1MB", "1.5MiB", "-1", "+1", "99999999999999999999"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        assert_eq!(parse_bytes("18446744073709551615GiB"), None);
    }
}
