//! Durations as people write them: `800ms`, `10s`, `2m`.

use std::time::Duration;

/// Reads a whole number with the unit `ms`, `s` or `m`, nothing before, between or after. `None` for
/// anything else and for more than 2^32 − 1 of a unit.
#[must_use]
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(u64::from(number) * milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(parse_duration("800ms"), Some(Duration::from_millis(800)));
        assert_eq!(parse_duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for text in ["", "10", "ms", "-1s", "+1s", "1.5s", "10 s", "4294967296ms", "1h", "٣s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
