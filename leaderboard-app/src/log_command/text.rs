//! Text for people: what a terminal must not obey, how long a line may be, how large something is.

use std::borrow::Cow;
use std::fmt::Write as _;

use rustix::termios::tcgetwinsize;

/// The columns of the terminal that standard output is.
pub(super) fn terminal_columns() -> Option<usize> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns >= 20)
}

/// The same text, with whatever is no visible character written as an escape: files may hold anything,
/// and be called anything.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    Cow::Owned(shown)
}

/// A name as one word: quoted if it could be taken for several, or for something else.
pub(super) fn word(name: &str) -> String {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@' | '/' | '+');
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { format!("{name:?}") }
}

/// At most so many characters; the last one shows that there are more.
pub(super) fn cut(line: &str, width: usize) -> Cow<'_, str> {
    if line.len() <= width || line.chars().count() <= width {
        return Cow::Borrowed(line);
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    Cow::Owned(kept + "…")
}

/// Text in lines of at most `width` characters, longer words aside, all but the first indented.
pub(super) fn wrap(first: &str, indent: usize, text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = format!("{first:<indent$}");
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(line);
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

/// `412 B`, `8 KiB`, `1.5 GiB`: at most eight characters.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // The unit that leaves 1 to 1023.
    let power = (63 - bytes.leading_zeros()) / 10;
    let unit = UNITS[power as usize - 1];
    let (whole, rest) = (bytes >> (10 * power), bytes & ((1 << (10 * power)) - 1));
    let tenth = (u128::from(rest) * 10) >> (10 * power);
    if whole >= 100 || tenth == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

/// `1 record`, `2 records`.
pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Milliseconds since 1970 as `2026-11-27T08:07:05.123Z`; as a number if no calendar goes that far.
pub(super) fn time(milliseconds: u64) -> String {
    const DAY: u64 = 86_400_000;
    const END_OF_YEAR_9999: u64 = 253_402_300_799_999;
    if milliseconds > END_OF_YEAR_9999 {
        return format!("{milliseconds}ms");
    }
    let (mut day, rest) = (milliseconds / DAY, milliseconds % DAY);
    let mut year = 1970;
    // Whole Gregorian cycles of 400 years first.
    year += 400 * (day / 146_097);
    day %= 146_097;
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (second, millisecond) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z",
        day + 1
    )
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(printable("a \"b\" \\ 'c'"), "a \"b\" \\ 'c'");
        assert_eq!(printable("zoë 🎲"), "zoë 🎲");
        assert_eq!(printable("\u{1b}[31mred\r\n"), "\\u{1b}[31mred\\r\\n");
        assert_eq!(printable("\u{9b}1m \u{202e}gnp \u{200b}"), "\\u{9b}1m \\u{202e}gnp \\u{200b}");
        assert_eq!(word("alice"), "alice");
        assert_eq!(word("al ice"), "\"al ice\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(word("x=\"\u{202e}"), "\"x=\\\"\\u{202e}\"");
    }

    #[test]
    fn sizes_take_at_most_eight_characters() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (16 << 20, "16 MiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        for power in 0..64 {
            assert!(size((1_u64 << power).wrapping_mul(1023)).len() <= 8);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (milliseconds, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "18446744073709551615ms"),
        ] {
            assert_eq!(time(milliseconds), shown);
        }
    }

    #[test]
    fn lines_are_cut_and_wrapped_by_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        let lines = wrap("a", 3, "bb cc dd", 8);
        assert_eq!(lines, ["a  bb cc", "   dd"]);
        assert_eq!(wrap("", 2, "a_very_long_word b", 6), ["  a_very_long_word", "  b"]);
    }
}
