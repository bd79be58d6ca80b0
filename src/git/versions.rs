//! Tags as versions: which a pattern names, and which of them is the newest.

/// Matches `*` (any run) and `?` (any one character).
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(byte), _) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            (_, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// One part of a version, in the order of versions: an end beats a pre-release, a number beats an end, `rc` is before both.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Text(String),
    End,
    Number(u128),
}

/// Takes a tag apart, so that tags compare as versions.
pub fn version(tag: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let digits_of = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut rest = tag;
    while !rest.is_empty() {
        let digits = digits_of(rest);
        let length = if digits > 0 { digits } else { rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()) };
        let (part, after) = rest.split_at(length);
        if digits > 0 {
            parts.push(Part::Number(part.parse().unwrap_or(u128::MAX)));
        } else if part != "." {
            parts.push(Part::Text(part.to_owned()));
        }
        rest = after;
    }
    parts.push(Part::End);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_people_count_them() {
        let tags = [
            "v1.0.0-alpha",
            "v1.0.0-rc.1",
            "v1.0.0-rc.2",
            "v1.0.0-rc.10",
            "v1.0.0",
            "v1.0.1",
            "v1.2",
            "v1.10.0",
            "v2.0-beta",
            "v2.0",
            "v10",
        ];
        let mut sorted = tags;
        sorted.reverse();
        sorted.sort_by_key(|tag| version(tag));
        assert_eq!(sorted, tags);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("v*", "v1.0", true),
            ("v*", "rev1", false),
            ("v?.0", "v1.0", true),
            ("v?.0", "v10.0", false),
            ("*-rc*", "v1-rc2", true),
            ("v1.*.0", "v1.22.0", true),
            ("v1.*.0", "v1.22.1", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
