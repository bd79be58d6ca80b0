//! Which hosts of an environment are meant: `-H` with names, globs, ranges, roles, labels and `!`, and `-R`.
//!
//! Names and roles of `-H` add up; labels narrow what they picked, and so does `-R`. What `!` names is left out in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::environment::{Environment, Target};
use super::fault::closest;
use super::ranges;
use crate::error::Error;
use crate::exit::Exit;
use crate::tree::path::Shown;

/// Narrows the environment to what every given kind of selector lets through. The order stays that of the file.
pub fn select(environment: &mut Environment, hosts: &[String], roles: &[String]) -> Result<(), Error> {
    let names: Vec<String> = environment.targets.iter().map(|target| target.name.clone()).collect();
    let short = ranges::shorten(&names);
    let all: Vec<(&Target, &str)> = environment.targets.iter().zip(short.iter().map(String::as_str)).collect();
    let mut chosen = vec![true; all.len()];
    for role in roles {
        with_role(&all, role, &environment.name)?;
    }
    if !roles.is_empty() {
        narrow(&mut chosen, |index| all[index].0.roles.iter().any(|has| roles.contains(has)));
    }
    if let Some(empty) = hosts.iter().find(|text| split(text).is_empty()) {
        let what = format!("`-H '{}'` names no host", Shown(empty.as_bytes()));
        return Err(Error::new(Exit::Usage, "no-hosts", what).hint("leave `-H` out for all hosts"));
    }
    if !hosts.is_empty() {
        let typed: Vec<&str> = hosts.iter().flat_map(|text| split(text)).collect();
        let picked = picked(&all, &typed, &environment.name)?;
        narrow(&mut chosen, |index| picked[index]);
    }
    if !chosen.contains(&true) {
        let typed: Vec<String> =
            hosts.iter().map(|host| format!("-H {host}")).chain(roles.iter().map(|role| format!("-R {role}"))).collect();
        let what = format!("no host of `{}` is left by `{}`", environment.name, Shown(typed.join(" ").as_bytes()));
        return Err(Error::new(Exit::Config, "no-hosts", what).hint(format!("its hosts are {}", ranges::fold(&names))));
    }
    let (kept, left): (Vec<_>, Vec<_>) =
        std::mem::take(&mut environment.targets).into_iter().zip(chosen).partition(|(_, is_chosen)| *is_chosen);
    let targets = |pairs: Vec<(Target, bool)>| pairs.into_iter().map(|(target, _)| target).collect();
    (environment.targets, environment.left_out) = (targets(kept), targets(left));
    Ok(())
}

fn narrow(chosen: &mut [bool], matches: impl Fn(usize) -> bool) {
    chosen.iter_mut().enumerate().for_each(|(index, chosen)| *chosen &= matches(index));
}

/// What all patterns together pick: the union of the names and roles, or everything, of which each label leaves some, less those with `!`.
fn picked(all: &[(&Target, &str)], patterns: &[&str], environment: &str) -> Result<Vec<bool>, Error> {
    let (without, with): (Vec<&str>, Vec<&str>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
    let (labels, names): (Vec<&str>, Vec<&str>) = with.iter().partition(|pattern| pattern.contains('='));
    let mut picked = vec![names.is_empty(); all.len()];
    for pattern in names {
        matching(all, pattern, environment)?.into_iter().for_each(|index| picked[index] = true);
    }
    // Two values of one label are alternatives; two labels must both hold.
    let mut by_label: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for pattern in labels {
        let label = pattern.split('=').next().unwrap_or_default();
        by_label.entry(label).or_default().extend(matching(all, pattern, environment)?);
    }
    for holders in by_label.values() {
        narrow(&mut picked, |index| holders.contains(&index));
    }
    for pattern in without {
        matching(all, &pattern[1..], environment)?.into_iter().for_each(|index| picked[index] = false);
    }
    Ok(picked)
}

/// Splits at commas outside brackets: `web1,app[01,03]` are two patterns.
#[must_use]
pub fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let outside = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(outside).map(str::trim).filter(|pattern| !pattern.is_empty()).collect()
}

fn matching(all: &[(&Target, &str)], pattern: &str, environment: &str) -> Result<Vec<usize>, Error> {
    if let Some(role) = pattern.strip_prefix('@') {
        return with_role(all, role, environment);
    }
    if let Some((label, value)) = pattern.split_once('=') {
        return with_label(all, label, value, environment);
    }
    let expanded = ranges::expand(pattern).map_err(|error| {
        let what = format!("`{}` is not a range of hosts", Shown(pattern.as_bytes()));
        Error::new(Exit::Config, "bad-range", what).caused_by(error).hint("ranges look like `app[01-04]`")
    })?;
    let mut found = Vec::new();
    for name in &expanded {
        let before = found.len();
        found.extend((0..all.len()).filter(|index| answers_to(all[*index], name)));
        if found.len() == before {
            return Err(unknown(all, name, environment));
        }
    }
    Ok(found)
}

/// A host answers to its name, to the short name that screens show, and to its name without a domain.
fn answers_to((target, short): (&Target, &str), pattern: &str) -> bool {
    let label = if target.name.parse::<IpAddr>().is_ok() { &target.name } else { target.name.split('.').next().unwrap_or(&target.name) };
    [&target.name, short, label].iter().any(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

/// Tells whether `pattern`, in which `*` and `?` stand for others, matches the whole of `name`. Remembers the last `*` only, so that no pattern takes more than pattern times name.
#[must_use]
pub fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn with_role(all: &[(&Target, &str)], role: &str, environment: &str) -> Result<Vec<usize>, Error> {
    let found: Vec<usize> = (0..all.len()).filter(|index| all[*index].0.roles.iter().any(|has| has == role)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<&str> = all.iter().flat_map(|(target, _)| target.roles.iter().map(String::as_str)).collect();
    known.sort_unstable();
    known.dedup();
    let error = Error::new(Exit::Config, "unknown-role", format!("no host of `{environment}` has the role `{}`", Shown(role.as_bytes())));
    Err(match (closest(role, known.iter().copied()), known.is_empty()) {
        (Some(meant), _) => error.hint(format!("did you mean `{meant}`?")),
        (None, false) => error.hint(format!("its roles are `{}`", known.join("`, `"))),
        (None, true) => error.hint(format!("it has no roles; add `roles = {{ NAME = [\"HOST\"] }}` to [env.{environment}]")),
    })
}

fn with_label(all: &[(&Target, &str)], label: &str, value: &str, environment: &str) -> Result<Vec<usize>, Error> {
    let holds = |target: &Target| target.labels.get(label).is_some_and(|has| glob(value.as_bytes(), has.as_bytes()));
    let found: Vec<usize> = (0..all.len()).filter(|index| holds(all[*index].0)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let labels: BTreeSet<&str> = all.iter().flat_map(|(target, _)| target.labels.keys().map(String::as_str)).collect();
    if !labels.contains(label) {
        let what = format!("no host of `{environment}` has the label `{}`", Shown(label.as_bytes()));
        let error = Error::new(Exit::Config, "unknown-label", what);
        return Err(match (closest(label, labels.iter().copied()), labels.is_empty()) {
            (Some(meant), _) => error.hint(format!("did you mean `{meant}={}`?", Shown(value.as_bytes()))),
            (None, false) => error.hint(format!("its labels are {}", listed(&labels))),
            (None, true) => error.hint("it has no labels; add `labels = { NAME = \"VALUE\" }` to a host, or to the inventory"),
        });
    }
    let values: BTreeSet<&str> = all.iter().filter_map(|(target, _)| target.labels.get(label).map(String::as_str)).collect();
    let what = format!("no host of `{environment}` has `{}={}`", Shown(label.as_bytes()), Shown(value.as_bytes()));
    let error = Error::new(Exit::Config, "unknown-label", what);
    let error = match closest(value, values.iter().copied()) {
        Some(meant) => error.hint(format!("did you mean `{}={meant}`?", Shown(label.as_bytes()))),
        None => error,
    };
    Err(error.hint(format!("there, `{}` is {}", Shown(label.as_bytes()), listed(&values))))
}

/// Writes some of the words; many would hide the hint.
fn listed(words: &BTreeSet<&str>) -> String {
    const SOME: usize = 12;
    let shown: Vec<String> = words.iter().take(SOME).map(|word| format!("`{word}`")).collect();
    let more = if words.len() > SOME { format!(" and {} more", words.len() - SOME) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn unknown(all: &[(&Target, &str)], name: &str, environment: &str) -> Error {
    let names: Vec<String> = all.iter().map(|(target, _)| target.name.clone()).collect();
    let shown = Shown(name.as_bytes());
    let what = if name.contains(['*', '?']) {
        format!("no host of `{environment}` matches `{shown}`")
    } else {
        format!("unknown host `{shown}` in `{environment}`")
    };
    let known = all.iter().flat_map(|(target, short)| [target.name.as_str(), *short]);
    let error = Error::new(Exit::Config, "unknown-host", what);
    let error = match closest(name, known) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => error,
    };
    error.hint(format!("its hosts are {}", ranges::fold(&names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, matches) in [
            ("app*", "app01", true),
            ("*", "", true),
            ("app?1", "app01", true),
            ("app", "app01", false),
            ("*01", "app0101", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXcXb", false),
            ("?", "", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} {name}");
        }
        assert!(!glob("*a".repeat(50).as_bytes(), "a".repeat(49).as_bytes()));
    }

    #[test]
    fn commas_in_brackets_do_not_split() {
        assert_eq!(split("web1, app[01,03],!db,"), ["web1", "app[01,03]", "!db"]);
    }
}
