//! Ranges of host names: `app[01-12].example.net` as people write many names, and the same notation back for screens.

use std::net::IpAddr;

/// The most names one text may stand for.
pub const MOST: usize = 10_000;

/// Says why a text is not a range of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("`[` is never closed")]
    Open,
    #[error("`]` closes nothing")]
    Close,
    #[error("the brackets hold nothing")]
    Empty,
    #[error("`{0}` is neither a name nor a range of numbers like `01-12`")]
    Item(String),
    #[error("`{0}` counts down")]
    Descending(String),
    #[error("it stands for more than {MOST} names")]
    Many,
}

/// Lists the names a text stands for, in its order: `stg[1-3]`, `app[01-12,a]`, `r[1-2]n[1-8]`.
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find(['[', ']']) {
        if rest[open..].starts_with(']') {
            return Err(RangeError::Close);
        }
        let inside = &rest[open + 1..];
        let close = inside.find(']').ok_or(RangeError::Open)?;
        let choices = choices(&inside[..close], MOST / names.len())?;
        let literal = &rest[..open];
        names = names.iter().flat_map(|name| choices.iter().map(move |choice| format!("{name}{literal}{choice}"))).collect();
        rest = &inside[close + 1..];
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn choices(inside: &str, most: usize) -> Result<Vec<String>, RangeError> {
    let mut found = Vec::new();
    for item in inside.split(',').map(str::trim) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        match item.split_once('-') {
            _ if item.is_empty() => return Err(RangeError::Empty),
            None if item.chars().all(plain) => found.push(item.to_owned()),
            None => return Err(RangeError::Item(item.to_owned())),
            Some((first, last)) => {
                let (from, to) = number(first).zip(number(last)).ok_or_else(|| RangeError::Item(item.to_owned()))?;
                let count = to.checked_sub(from).ok_or_else(|| RangeError::Descending(item.to_owned()))? as usize;
                if count >= most {
                    return Err(RangeError::Many);
                }
                let width = width(first);
                found.extend((from..=to).map(|number| format!("{number:0width$}")));
            }
        }
        if found.len() > most {
            return Err(RangeError::Many);
        }
    }
    Ok(found)
}

fn number(text: &str) -> Option<u32> {
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Zero padding is what was written: `01` is two wide, `1` is as wide as it needs.
fn width(text: &str) -> usize {
    if text.starts_with('0') { text.len() } else { 1 }
}

/// A name split around the number that tells it from its neighbours.
struct Parts<'a> {
    before: &'a str,
    digits: &'a str,
    after: &'a str,
}

fn parts(name: &str) -> Option<Parts<'_>> {
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    // The number that counts is in the host's own label: `app07.dc2.example.net`.
    let label = name.find('.').unwrap_or(name.len());
    let end = name[..label].rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    number(&name[start..end]).map(|_| Parts { before: &name[..start], digits: &name[start..end], after: &name[end..] })
}

/// Folds names for people: `app[01-06,08-12]`, several groups with a comma between them, as `-H` takes them.
#[must_use]
pub fn fold<S: AsRef<str>>(names: &[S]) -> String {
    let mut groups: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        let Parts { before, digits, after } = parts(name).unwrap_or(Parts { before: name, digits: "", after: "" });
        match groups.iter_mut().find(|group| group.0 == before && group.1 == after && group.2[0].is_empty() == digits.is_empty()) {
            Some(group) => group.2.push(digits),
            None => groups.push((before, after, vec![digits])),
        }
    }
    let folded: Vec<String> = groups.into_iter().map(|(before, after, digits)| fold_group(before, digits, after)).collect();
    folded.join(",")
}

fn fold_group(before: &str, mut digits: Vec<&str>, after: &str) -> String {
    digits.sort_by_key(|digits| (number(digits), digits.len()));
    digits.dedup();
    if let [only] = digits[..] {
        return format!("{before}{only}{after}");
    }
    let mut runs: Vec<(&str, &str)> = Vec::new();
    for next in digits {
        match runs.last_mut() {
            Some((first, last)) if follows(first, last, next) => *last = next,
            _ => runs.push((next, next)),
        }
    }
    let shown: Vec<String> =
        runs.iter().map(|(first, last)| if first == last { (*first).to_owned() } else { format!("{first}-{last}") }).collect();
    format!("{before}[{}]{after}", shown.join(","))
}

/// Tells whether `next` is what `expand` would make after `last` in a range that begins with `first`.
fn follows(first: &str, last: &str, next: &str) -> bool {
    let width = width(first);
    number(last).is_some_and(|last| format!("{:0width$}", last + 1) == next)
}

/// Shortens names to what tells them apart: the domain they share is dropped. Addresses stay as they are.
#[must_use]
pub fn shorten(names: &[String]) -> Vec<String> {
    let is_address = |name: &String| name.parse::<IpAddr>().is_ok();
    if names.is_empty() || names.iter().any(is_address) {
        return names.to_vec();
    }
    let domain = |name: &String| -> Vec<String> { name.split('.').skip(1).map(str::to_owned).collect() };
    let mut common = domain(&names[0]);
    for name in &names[1..] {
        let labels = domain(name);
        let same = common.iter().rev().zip(labels.iter().rev()).take_while(|(a, b)| a == b).count();
        common.drain(..common.len() - same);
    }
    let suffix: String = common.iter().flat_map(|label| [".", label]).collect();
    names.iter().map(|name| name.strip_suffix(&suffix).unwrap_or(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_range_keeps_its_zeros_its_order_and_its_neighbours() {
        assert_eq!(expand("app1"), Ok(names("app1")));
        assert_eq!(expand("stg[1-3].example.net"), Ok(names("stg1.example.net stg2.example.net stg3.example.net")));
        assert_eq!(expand("app[08-11]"), Ok(names("app08 app09 app10 app11")));
        assert_eq!(expand("app[098-101]"), Ok(names("app098 app099 app100 app101")));
        assert_eq!(expand("app[9-10]"), Ok(names("app9 app10")));
        assert_eq!(expand("web-[b,a,7]"), Ok(names("web-b web-a web-7")));
        assert_eq!(expand("r[1-2]n[01,03-04]"), Ok(names("r1n01 r1n03 r1n04 r2n01 r2n03 r2n04")));
    }

    #[test]
    fn what_is_no_range_says_why() {
        assert_eq!(expand("app[1-3"), Err(RangeError::Open));
        assert_eq!(expand("app1-3]"), Err(RangeError::Close));
        assert_eq!(expand("app[]"), Err(RangeError::Empty));
        assert_eq!(expand("app[1,]"), Err(RangeError::Empty));
        assert_eq!(expand("app[3-1]"), Err(RangeError::Descending("3-1".into())));
        assert_eq!(expand("app[a-c]"), Err(RangeError::Item("a-c".into())));
        assert_eq!(expand("app[1-]"), Err(RangeError::Item("1-".into())));
        assert_eq!(expand("[[1-2]]"), Err(RangeError::Item("[1-2".into())));
        assert_eq!(expand("[::1]"), Err(RangeError::Item("::1".into())));
    }

    #[test]
    fn a_range_is_bounded_before_it_is_made() {
        assert_eq!(expand("app[1-10000]").map(|names| names.len()), Ok(10_000));
        assert_eq!(expand("app[1-10001]"), Err(RangeError::Many));
        assert_eq!(expand("app[0-999999999]"), Err(RangeError::Many));
        assert_eq!(expand("a[1-100]b[1-101]"), Err(RangeError::Many));
        assert_eq!(expand("a[1-100]b[1-100]").map(|names| names.len()), Ok(10_000));
    }

    #[test]
    fn names_fold_to_what_people_write() {
        assert_eq!(fold(&names("app01 app02 app03 app04 app05 app06 app08 app09 app10 app11 app12")), "app[01-06,08-12]");
        assert_eq!(fold(&names("app03 app11 app10 app09")), "app[03,09-11]");
        assert_eq!(fold(&names("app07")), "app07");
        assert_eq!(fold(&names("app9 app10 app11")), "app[9-11]");
        assert_eq!(fold(&names("db web1 web2 local")), "db,web[1-2],local");
        assert_eq!(fold(&names("app1.dc2.example.net app2.dc2.example.net")), "app[1-2].dc2.example.net");
        assert_eq!(fold(&names("10.0.0.1 10.0.0.2")), "10.0.0.1,10.0.0.2");
        assert_eq!(fold(&names("app app app1")), "app,app1");
        assert_eq!(fold(&names("ü1 ü2")), "ü[1-2]");
        assert_eq!(fold(&names("eu1-app3 eu1-app4")), "eu1-app[3-4]");
        assert_eq!(fold(&names("db app2 web-1 app1")), "db,app[1-2],web-1");
        assert_eq!(fold::<&str>(&[]), "");
    }

    #[test]
    fn a_shared_domain_is_dropped_and_nothing_else() {
        assert_eq!(shorten(&names("app1.example.net db.example.net")), names("app1 db"));
        assert_eq!(shorten(&names("app1.a.example.net app1.b.example.net")), names("app1.a app1.b"));
        assert_eq!(shorten(&names("web2.example.net")), names("web2"));
        assert_eq!(shorten(&names("app1.example.net local")), names("app1.example.net local"));
        assert_eq!(shorten(&names("10.0.0.1 10.0.1.1")), names("10.0.0.1 10.0.1.1"));
    }

    proptest! {
        #[test]
        fn folded_names_expand_to_themselves(numbers in prop::collection::btree_set(0u32..300, 1..60), padded: bool) {
            let all: Vec<String> = numbers.iter().map(|n| if padded { format!("app{n:03}.x") } else { format!("app{n}.x") }).collect();
            prop_assert_eq!(expand(&fold(&all)), Ok(all));
        }

        #[test]
        fn no_text_makes_the_range_panic(text in "[a\\[\\]0-9,-]{0,30}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(names.len() <= MOST);
                prop_assert!(!fold(&names).is_empty() || names == [""]);
            }
        }
    }
}
