//! Durations, sizes and numbers of hosts as people write them: `90s`, `1h30m`, `10MB`, `25%`.

use std::fmt;
use std::time::Duration;

/// Says why a text is no duration or no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("no number before the unit")]
    NoNumber,
    #[error("the unit is missing")]
    NoUnit,
    #[error("unknown unit `{0}`")]
    Unit(String),
    #[error("too large")]
    Large,
}

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 7] =
    [("B", 1), ("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// A year: whatever is beyond is a slip, and a deadline computed from it must not overflow.
const LONGEST: u64 = 366 * 86_400_000;

/// Reads `90s`, `15m`, `1h30m`, `250ms`.
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    loop {
        let (part, after) = leading(rest, &DURATION_UNITS)?;
        total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or(QuantityError::Large)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(total));
        }
        rest = after;
    }
}

/// Reads `10MB`, `512KiB`.
pub fn size(text: &str) -> Result<u64, QuantityError> {
    match leading(text.trim(), &SIZE_UNITS)? {
        (bytes, "") => Ok(bytes),
        (_, rest) => Err(QuantityError::Unit(rest.to_owned())),
    }
}

fn leading<'a>(text: &'a str, units: &[(&str, u64)]) -> Result<(u64, &'a str), QuantityError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(QuantityError::NoNumber);
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::Large)?;
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(if rest.is_empty() { QuantityError::NoUnit } else { QuantityError::Unit(rest.to_owned()) });
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(|| QuantityError::Unit(unit.to_owned()))?;
    Ok((number.checked_mul(*factor).ok_or(QuantityError::Large)?, after))
}

/// Writes a duration so that `duration` reads it again.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, factor) in DURATION_UNITS.iter().rev().filter(|(unit, _)| *unit != "d") {
        if rest >= *factor {
            out += &(rest / factor).to_string();
            out += unit;
            rest %= factor;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// A number of hosts, absolute or as a share of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Hosts(usize),
    Percent(usize),
}

impl Amount {
    /// Reads `2` or `25%`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<usize>().ok() } else { None }
        };
        match text.strip_suffix('%') {
            Some(digits) => number(digits).filter(|percent| *percent <= 100).map(Self::Percent),
            None => number(text).map(Self::Hosts),
        }
    }

    /// Counts the hosts of `total`, a share rounded up: a wave of 1 % of 12 hosts is one host.
    #[must_use]
    pub const fn at_least(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) if hosts < total => hosts,
            Self::Hosts(_) => total,
            Self::Percent(percent) => (total * percent).div_ceil(100),
        }
    }

    /// Counts the hosts of `total`, a share rounded down: a budget of 10 % of 9 hosts is none.
    #[must_use]
    pub const fn at_most(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) if hosts < total => hosts,
            Self::Hosts(_) => total,
            Self::Percent(percent) => total * percent / 100,
        }
    }
}

/// As `parse` reads it.
impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => write!(out, "{hosts}"),
            Self::Percent(percent) => write!(out, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_hosts_or_percentages_and_are_written_as_they_are_read() {
        for (text, amount) in
            [("0", Amount::Hosts(0)), ("1", Amount::Hosts(1)), ("25%", Amount::Percent(25)), ("100%", Amount::Percent(100))]
        {
            assert_eq!(Amount::parse(text), Some(amount));
            assert_eq!(amount.to_string(), text);
        }
        for text in ["", "-1", "+1", "101%", "1.5", "%", "many", "1 %", "1234567"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_units_and_nothing_else() {
        for (text, millis) in [("90s", 90_000), ("15m", 900_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("2d", 172_800_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration(&show_duration(Duration::from_millis(millis))), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("90"), Err(QuantityError::NoUnit));
        assert_eq!(duration(""), Err(QuantityError::NoNumber));
        assert_eq!(duration("-5s"), Err(QuantityError::NoNumber));
        assert_eq!(duration("5 s"), Err(QuantityError::Unit(" s".to_owned())));
        assert_eq!(duration("5min"), Err(QuantityError::Unit("min".to_owned())));
        assert_eq!(duration("99999999999999999999s"), Err(QuantityError::Large));
        assert_eq!(duration("18446744073709551615d"), Err(QuantityError::Large));
        assert_eq!(duration("366d1ms"), Err(QuantityError::Large));
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("64MiB"), Ok(67_108_864));
        assert_eq!(size("10"), Err(QuantityError::NoUnit));
        assert_eq!(size("10mb"), Err(QuantityError::Unit("mb".to_owned())));
        assert_eq!(size("99999999999GB"), Err(QuantityError::Large));
    }
}
