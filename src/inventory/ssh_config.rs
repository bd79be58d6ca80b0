//! The aliases of the user's ssh config, and of the files it includes, that match a glob. Nothing but `Host` and `Include` is read here:
//! what the config says *of* a host is asked of ssh when it is connected to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::InventoryError;
use super::{Found, file};
use crate::config::glob;
use crate::config::listed::Listed;

/// How deep ssh itself follows `Include` (`READCONF_MAX_DEPTH` in its readconf.c).
const DEEPEST: usize = 16;
/// Files that are read in all.
const MOST_FILES: usize = 1000;

/// A line that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Host(Vec<String>),
    Include(Vec<String>),
}

/// Finds the hosts. `config` is the file that `deploy.toml` or a flag names instead of the user's own.
pub(super) fn find(pattern: &str, config: Option<&Path>) -> Result<Vec<Found>, InventoryError> {
    let home = etcetera::home_dir().unwrap_or_default();
    let user = home.join(".ssh");
    let mut search = Search { pattern, home: &home, found: Vec::new(), seen: BTreeSet::new(), wildcards: Vec::new(), files: Vec::new() };
    match config {
        Some(none) if none == Path::new("none") => return Err(InventoryError::NoSshConfig),
        Some(path) => {
            let path = search.home_path(&path.to_string_lossy());
            let bytes = file::read(&path)?;
            search.read(&path, &bytes, &user, 0);
        }
        None => {
            search.file(&user.join("config"), &user, 0);
            search.file(Path::new("/etc/ssh/ssh_config"), Path::new("/etc/ssh"), 0);
        }
    }
    if search.found.is_empty() {
        return Err(InventoryError::NoAlias { wildcards: search.wildcards, files: search.files });
    }
    Ok(search.found)
}

struct Search<'a> {
    pattern: &'a str,
    home: &'a Path,
    found: Vec<Found>,
    /// An alias may stand in several `Host` lines.
    seen: BTreeSet<String>,
    /// Patterns that could stand for what is looked for.
    wildcards: Vec<String>,
    files: Vec<PathBuf>,
}

impl Search<'_> {
    /// A file that is not there, or not readable, is passed over, as ssh does.
    fn file(&mut self, path: &Path, base: &Path, depth: usize) {
        if let Ok(bytes) = file::read(path) {
            self.read(path, &bytes, base, depth);
        }
    }

    fn read(&mut self, path: &Path, bytes: &[u8], base: &Path, depth: usize) {
        if self.files.len() == MOST_FILES {
            return;
        }
        self.files.push(path.to_owned());
        for (number, line) in parse(&String::from_utf8_lossy(bytes)) {
            match line {
                Line::Host(patterns) => patterns.into_iter().for_each(|pattern| self.host(pattern, path, number)),
                Line::Include(_) if depth == DEEPEST => {}
                Line::Include(names) => {
                    for name in names {
                        let included = base.join(self.home_path(&name));
                        for path in expand(&included) {
                            self.file(&path, base, depth + 1);
                        }
                    }
                }
            }
        }
    }

    fn host(&mut self, alias: String, path: &Path, number: usize) {
        let matches = |pattern: &str, name: &str| glob(pattern.as_bytes(), name.as_bytes());
        let place = format!("{}:{number}", path.display());
        if alias.starts_with('!') {
            return;
        }
        if alias.contains(['*', '?']) {
            // `Host *` is in every config, and stands for nobody.
            if !alias.trim_matches('*').is_empty() && (matches(&alias, self.pattern) || matches(self.pattern, &alias)) {
                self.wildcards.push(format!("{place} | Host {alias}"));
            }
        } else if matches(self.pattern, &alias) && self.seen.insert(alias.clone()) {
            self.found.push(Found { place, said: format!("Host {alias}"), host: Listed { name: alias, ..Listed::default() } });
        }
    }

    fn home_path(&self, text: &str) -> PathBuf {
        text.strip_prefix("~/").map_or_else(|| PathBuf::from(text), |rest| self.home.join(rest))
    }
}

/// Reads the lines that matter, with their numbers. `Host=a b`, quotes and remarks are as `man ssh_config` has them.
fn parse(text: &str) -> Vec<(usize, Line)> {
    let line = |(index, line): (usize, &str)| {
        let line = line.trim();
        let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
        let (keyword, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let arguments = words(rest.strip_prefix('=').unwrap_or(rest));
        match keyword.to_ascii_lowercase().as_str() {
            "host" => Some((index + 1, Line::Host(arguments))),
            "include" => Some((index + 1, Line::Include(arguments))),
            _ => None,
        }
    };
    text.lines().enumerate().filter_map(line).collect()
}

/// Splits at blanks outside quotes; a `#` where a word would begin ends the line.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

/// The files that a path with `*` and `?` in its names stands for, sorted, as glob(7) does it: no name that begins with a dot.
fn expand(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in path.components() {
        let name = component.as_os_str().to_string_lossy();
        if name.contains(['*', '?']) {
            found = found.iter().flat_map(|directory| children(directory, &name)).collect();
        } else {
            for path in &mut found {
                path.push(component);
            }
        }
    }
    found
}

fn children(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| (pattern.starts_with('.') || !name.starts_with('.')) && glob(pattern.as_bytes(), name.as_bytes())).collect();
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn only_hosts_and_includes_are_read_however_they_are_written() {
        let lines = parse(
            "# Host no\nHost a b # the first\n  HostName 10.0.0.1\nhost=c\nHOST = \"d e\" f\nInclude ~/x \"y z/*\"\nHost\nMatch host g\n",
        );
        assert_eq!(
            lines,
            [
                (2, Line::Host(text(&["a", "b"]))),
                (4, Line::Host(text(&["c"]))),
                (5, Line::Host(text(&["d e", "f"]))),
                (6, Line::Include(text(&["~/x", "y z/*"]))),
            ]
        );
    }

    #[test]
    fn aliases_come_from_the_file_and_what_it_includes_and_each_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("config.d")).unwrap();
        let include = path("config.d/*.conf");
        let main = format!("Host boskel-1 boskel-2 other\nInclude {}\nHost boskel-2\nHost boskel-* !boskel-9\nHost *\n", include.display());
        fs::write(path("config"), main).unwrap();
        fs::write(path("config.d/b.conf"), format!("Host boskel-b\nInclude {}\n", path("config").display())).unwrap();
        fs::write(path("config.d/a.conf"), "Host boskel-a\n").unwrap();
        fs::write(path("config.d/.c.conf"), "Host boskel-c\n").unwrap();
        fs::write(path("config.d/d.off"), "Host boskel-d\n").unwrap();
        let found = find("boskel-*", Some(&path("config"))).unwrap();
        assert_eq!(
            found.iter().map(|found| found.host.name.as_str()).collect::<Vec<_>>(),
            ["boskel-1", "boskel-2", "boskel-a", "boskel-b"]
        );
        assert_eq!(found[3].place, format!("{}:1", path("config.d/b.conf").display()));
    }

    #[test]
    fn patterns_cannot_be_listed_and_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        fs::write(&config, "Host *\nHost boskel-prod-?\nHost db-*\n").unwrap();
        let InventoryError::NoAlias { wildcards, files } = find("boskel-prod-*", Some(&config)).unwrap_err() else { panic!() };
        assert_eq!(wildcards, [format!("{}:2 | Host boskel-prod-?", config.display())]);
        assert_eq!(files, [config]);
        assert!(matches!(find("*", Some(Path::new("none"))), Err(InventoryError::NoSshConfig)));
        assert!(matches!(find("*", Some(Path::new("/nonexistent"))), Err(InventoryError::Unreadable { .. })));
    }
}
