//! Figures for people: bytes, counts, durations and ages, each in one form everywhere.

use std::time::Duration;

/// Writes bytes in decimal units: `512 B`, `18.3 MB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];
    if count < 1_000 {
        return format!("{count} B");
    }
    let tenths = |unit: u64| u64::try_from((u128::from(count) * 10 + u128::from(unit) / 2) / u128::from(unit)).unwrap_or(u64::MAX);
    // The unit is chosen after rounding: 999,960 bytes are 1.0 MB, not 1000.0 kB.
    let (name, unit) = UNITS.into_iter().find(|(_, unit)| tenths(*unit) < 10_000).unwrap_or(UNITS[3]);
    format!("{}.{} {name}", tenths(unit) / 10, tenths(unit) % 10)
}

/// Writes a number with thousands separators: `1,204`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number with its noun: `1 host`, `12 hosts`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Writes how long something took: `0.4s`, `24.1s`, `1:32`, `1:02:03`.
#[must_use]
pub fn duration(secs: f64) -> String {
    let tenths = tenths(secs);
    if tenths < 600 { format!("{}.{}s", tenths / 10, tenths % 10) } else { clock(secs.max(60.0)) }
}

/// Writes a running clock: `0:22`, `1:32`, `1:02:03`.
#[must_use]
pub fn clock(secs: f64) -> String {
    let whole = exact(secs).as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours == 0 { format!("{minutes}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

/// Writes the time of a log line: `0:27.4`.
#[must_use]
pub fn stamp(secs: f64) -> String {
    let tenths = exact(secs).as_millis() / 100;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

/// Writes how old something is: `4 s`, `12 min`, `2 h`, `4 d`.
#[must_use]
pub fn age(secs: i64) -> String {
    match secs.max(0) {
        secs @ 0..60 => format!("{secs} s"),
        secs @ 60..3_600 => format!("{} min", secs / 60),
        secs @ 3_600..86_400 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

fn exact(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}

fn tenths(secs: f64) -> u128 {
    (exact(secs).as_millis() + 50) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_decimal_and_change_unit_after_rounding() {
        let shown = [0, 999, 1_000, 999_949, 999_950, 18_340_000, 2_147_483_648, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "18.3 MB", "2.1 GB", "18446744.1 TB"]);
    }

    #[test]
    fn counts_have_separators_and_nouns_their_plural() {
        assert_eq!([7, 999, 1_204, 1_000_000].map(count), ["7", "999", "1,204", "1,000,000"]);
        assert_eq!([0, 1, 2].map(|n| counted(n, "host")), ["0 hosts", "1 host", "2 hosts"]);
    }

    #[test]
    fn durations_change_form_at_a_minute_and_survive_nonsense() {
        assert_eq!([0.36, 24.1, 59.94, 59.96, 92.0, 3723.0].map(duration), ["0.4s", "24.1s", "59.9s", "1:00", "1:32", "1:02:03"]);
        assert_eq!([f64::NAN, -4.0, f64::INFINITY].map(duration), ["0.0s", "0.0s", "0.0s"]);
        assert_eq!([0.4, 27.44, 61.4].map(stamp), ["0:00.4", "0:27.4", "1:01.4"]);
    }

    #[test]
    fn ages_are_rounded_down_and_a_clock_that_is_ahead_is_now() {
        assert_eq!([-5, 4, 60, 7_200, 345_600].map(age), ["0 s", "4 s", "1 min", "2 h", "4 d"]);
    }
}
