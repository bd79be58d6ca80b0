//! The versions that a buildout pins: read from its configs, as far as those lie in the tree.

use std::collections::BTreeMap;

/// Options by section, in the way buildout reads them.
pub type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// What a virtual environment for buildout holds.
const WANTED: [&str; 3] = ["zc.buildout", "setuptools", "wheel"];

/// Names what the virtual environment of a buildout must hold as requirements: with the version that `config` pins, where it does.
/// `read` gives the text of a file of the tree; without any, nothing is pinned.
#[must_use]
pub fn pinned(config: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut sections = Sections::new();
    gather(config, read, &mut Vec::new(), &mut sections);
    let named = sections.get("buildout").and_then(|buildout| buildout.get("versions")).map_or("versions", String::as_str);
    let versions = sections.get(named.trim());
    let pinned = |name: &str| versions.and_then(|versions| versions.get(name)).filter(|version| is_version(version));
    WANTED.iter().map(|name| pinned(name).map_or_else(|| (*name).to_owned(), |version| format!("{name}=={version}"))).collect()
}

/// What goes on to a host as a part of an argument is a version and nothing else.
fn is_version(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+!-".contains(c)) && !text.starts_with('-')
}

/// Reads a config over what it extends. What lies elsewhere (a URL) is not read.
fn gather(path: &str, read: &dyn Fn(&str) -> Option<String>, seen: &mut Vec<String>, into: &mut Sections) {
    if seen.iter().any(|other| other == path) {
        return;
    }
    seen.push(path.to_owned());
    let Some(text) = read(path) else { return };
    let own = parse(&text);
    let extends = own.get("buildout").and_then(|buildout| buildout.get("extends")).cloned().unwrap_or_default();
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    for base in extends.split_whitespace().filter(|base| !base.contains("://")) {
        let base = if directory.is_empty() { base.to_owned() } else { format!("{directory}/{base}") };
        gather(&base, read, seen, into);
    }
    for (section, options) in own {
        into.entry(section).or_default().extend(options);
    }
}

/// Reads one config.
pub fn parse(text: &str) -> Sections {
    let mut sections = Sections::new();
    let (mut section, mut option) = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split([']', ':']).next()) {
            name.trim().clone_into(&mut section);
            option.clear();
        } else if line.starts_with(char::is_whitespace) {
            if let Some(value) = sections.get_mut(&section).and_then(|options| options.get_mut(&option)) {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once('=') {
            name.trim_end_matches(['+', '-', ' ', '\t']).trim().clone_into(&mut option);
            sections.entry(section.clone()).or_default().insert(option.clone(), value.trim().to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_through_what_a_config_extends_and_nothing_else_becomes_an_argument() {
        let files = BTreeMap::from([
            ("etc/offline.cfg", "[buildout]\nextends =\n  base.cfg\n  https://example.net/more.cfg\n[versions]\nwheel = 0.48.0\n"),
            (
                "etc/base.cfg",
                "[buildout]\nextends = offline.cfg\nversions = versions\n# zc.buildout = 1\n[versions:python3]\nzc.buildout = 6.0.1\nwheel = 0.1\nsetuptools = --index-url\n",
            ),
        ]);
        let read = |path: &str| files.get(path).map(|text| (*text).to_owned());
        assert_eq!(pinned("etc/offline.cfg", &read), ["zc.buildout==6.0.1", "setuptools", "wheel==0.48.0"]);
        assert_eq!(pinned("nothing.cfg", &read), ["zc.buildout", "setuptools", "wheel"]);
    }
}
