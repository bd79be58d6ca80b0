//! The files that an ssh configuration is made of, found as ssh finds them. Their digest tells whether what ssh said before still holds.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// ssh itself refuses more (`READCONF_MAX_DEPTH`).
const DEEPEST: usize = 16;
/// What ssh takes `Match` to mean without looking at anything but names.
const PURE: [&str; 6] = ["all", "host", "originalhost", "user", "localuser", "tagged"];

/// One line that says something, its words without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub keyword: String,
    pub words: Vec<String>,
    /// Everything after the keyword, as written.
    pub rest: String,
    pub place: String,
}

/// Where ssh looks for its configuration: the file that was named, or the user's and the system's.
pub(super) fn roots(file: Option<&Path>, home: &Path) -> Vec<PathBuf> {
    match file {
        Some(none) if none == Path::new("none") => Vec::new(),
        Some(file) => vec![file.to_owned()],
        None => vec![home.join(".ssh/config"), PathBuf::from("/etc/ssh/ssh_config")],
    }
}

/// Reads one file into lines. A file that does not exist says nothing.
pub(super) fn lines(path: &Path) -> Result<Vec<Line>, String> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("`{}` cannot be read: {error}", path.display())),
    };
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{number}", path.display());
        let end = line.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(line.len());
        let rest = line[end..].trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let words = words(rest).ok_or_else(|| format!("{place}: a quote is not closed"))?;
        lines.push(Line { keyword: line[..end].to_ascii_lowercase(), words, rest: rest.to_owned(), place });
    }
    Ok(lines)
}

fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

/// The files that an `Include` names. None where that cannot be told from the names alone.
pub(super) fn included(line: &Line, from_system: bool, home: &Path) -> Option<Vec<PathBuf>> {
    let mut found = Vec::new();
    for word in &line.words {
        let path = match word.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None if word.starts_with('/') => PathBuf::from(word),
            None if from_system => Path::new("/etc/ssh").join(word),
            None => home.join(".ssh").join(word),
        };
        let directory = path.parent()?;
        let name = path.file_name()?.to_str()?;
        if word.contains(['%', '$', '[', '{', '\\']) || directory.to_str()?.contains(['*', '?', '~']) {
            return None;
        }
        if name.contains(['*', '?']) {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
            names.retain(|entry| !entry.starts_with('.') && super::super::known_hosts::glob(name.as_bytes(), entry.as_bytes()));
            names.sort();
            found.extend(names.into_iter().map(|name| directory.join(name)));
        } else {
            found.push(path);
        }
    }
    Some(found)
}

/// Digests everything that ssh would read. None where its answer may change though no file does: `Match exec` and its like, variables of
/// the environment, and files whose names cannot be told.
pub(super) fn digest(file: Option<&Path>, home: &Path) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for root in roots(file, home) {
        let system = file.is_none() && root.starts_with("/etc");
        add(&mut hash, &root, system, home, 0)?;
    }
    Some(hash.finalize().into())
}

fn add(hash: &mut Sha256, path: &Path, system: bool, home: &Path, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    hash.update(path.as_os_str().as_encoded_bytes());
    hash.update([0]);
    for line in lines(path).ok()? {
        if line.rest.contains("${") {
            return None;
        }
        hash.update(line.keyword.as_bytes());
        hash.update([b' ']);
        hash.update(line.rest.as_bytes());
        hash.update([b'\n']);
        match line.keyword.as_str() {
            "match" if !pure(&line.words) => return None,
            // Names are looked up, and who answers may change his mind.
            "canonicalizehostname" => return None,
            "include" => {
                for path in included(&line, system, home)? {
                    add(hash, &path, system, home, depth + 1)?;
                }
            }
            _ => {}
        }
    }
    Some(())
}

fn pure(words: &[String]) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = word.to_ascii_lowercase();
        let criterion = word.trim_start_matches('!');
        let (criterion, argument) = criterion.split_once('=').map_or((criterion, false), |(criterion, _)| (criterion, true));
        if !PURE.contains(&criterion) {
            return false;
        }
        if criterion != "all" && !argument {
            words.next();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_follows_every_file_and_is_none_where_files_do_not_say_it_all() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let main = at("config");
        let digest = || digest(Some(&main), directory.path());
        std::fs::write(&main, format!("Include {}/conf.d/*.conf\nHost a\nPort 1\n", directory.path().display())).unwrap();
        let without = digest().unwrap();
        std::fs::create_dir(at("conf.d")).unwrap();
        std::fs::write(at("conf.d/a.conf"), "Host b\nPort 2\n").unwrap();
        let with = digest().unwrap();
        assert_ne!(without, with);
        std::fs::write(at("conf.d/a.conf"), "Host b\nPort 3\n").unwrap();
        assert_ne!(with, digest().unwrap());
        for unsafe_text in [
            "Match exec true\nPort 3\n",
            "match host a exec \"true\"\n",
            "Match final\n",
            "IdentityFile ${HOME}/x\n",
            "CanonicalizeHostname=yes\n",
            "Include /x/*/y\n",
        ] {
            std::fs::write(&main, unsafe_text).unwrap();
            assert_eq!(digest(), None, "{unsafe_text}");
        }
        std::fs::write(&main, "Match host a user b\nPort 3\nMatch all\n").unwrap();
        assert!(digest().is_some());
    }
}
