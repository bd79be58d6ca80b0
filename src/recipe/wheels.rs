//! Whether an interpreter of a host can use the wheels of a cache: what their names say they are for, against what the host has.

use std::collections::BTreeMap;
use std::fmt;

use crate::tree::Manifest;

/// What is neither a wheel nor a part of one.
const SOURCES: [&str; 5] = [".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz"];

/// Whether what a list holds may serve one interpreter and not another.
#[must_use]
pub fn is_particular(files: &Manifest) -> bool {
    files.entries().iter().any(|entry| {
        let path = entry.path.as_bytes();
        path.ends_with(b".whl") && !path.ends_with(b"py3-none-any.whl")
    })
}

/// The Python of a host, as far as wheels depend on it; of the usual kind, for which all of them are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    pub minor: u32,
    pub machine: String,
    /// `2.36`; none where it is another library, or is not known.
    pub glibc: Option<(u32, u32)>,
}

impl Python {
    /// Reads what a host says of itself: `cpython-311 cpython-311-x86_64-linux-gnu`, `glibc 2.36`, `x86_64-linux`. None where it is
    /// another kind of Python, or there is none.
    #[must_use]
    pub fn read(interpreter: &str, libc: &str, platform: &str) -> Option<Self> {
        let minor = interpreter.split_whitespace().next()?.strip_prefix("cpython-3")?.parse().ok()?;
        let numbers = libc.strip_prefix("glibc ").and_then(|version| {
            let (major, rest) = version.split_once('.')?;
            Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
        });
        Some(Self { minor, machine: platform.split('-').next()?.to_owned(), glibc: numbers })
    }

    /// Names a wheel of the list that this interpreter cannot use, where nothing else in the list stands for that version.
    #[must_use]
    pub fn cannot_use<'a>(&self, files: &'a Manifest) -> Option<&'a str> {
        let mut versions: BTreeMap<String, (bool, &str)> = BTreeMap::new();
        let names = files.entries().iter().filter_map(|entry| std::str::from_utf8(entry.path.as_bytes()).ok());
        for name in names.filter_map(|path| path.rsplit('/').next()) {
            let Some((version, usable)) = self.judge(name) else { continue };
            let found = versions.entry(version).or_insert((usable, name));
            found.0 |= usable;
        }
        versions.into_values().find(|(usable, _)| !usable).map(|(_, name)| name)
    }

    /// The version that a file is of, and whether it can be used; none where its name says neither.
    fn judge(&self, name: &str) -> Option<(String, bool)> {
        if let Some(stem) = SOURCES.iter().find_map(|end| name.strip_suffix(end)) {
            let (project, version) = stem.rsplit_once('-')?;
            return Some((version_of(project, version), true));
        }
        let parts: Vec<&str> = name.strip_suffix(".whl")?.split('-').collect();
        let [project, version, .., python, abi, platform] = parts[..] else { return None };
        let any = |tags: &str, fits: &dyn Fn(&str) -> bool| tags.split('.').any(fits);
        let usable = any(platform, &|platform| self.runs_on(platform)) && any(abi, &|abi| any(python, &|python| self.speaks(python, abi)));
        Some((version_of(project, version), usable))
    }

    fn speaks(&self, python: &str, abi: &str) -> bool {
        let own = format!("cp3{}", self.minor);
        let minor_of = |start: &str| python.strip_prefix(start).and_then(|minor| minor.parse::<u32>().ok());
        match abi {
            "none" => python == "py3" || python == own || minor_of("py3").is_some_and(|minor| minor <= self.minor),
            "abi3" => minor_of("cp3").is_some_and(|minor| minor <= self.minor),
            other => python == own && (other == own || (self.minor < 8 && other == format!("{own}m"))),
        }
    }

    fn runs_on(&self, platform: &str) -> bool {
        if platform == "any" {
            return true;
        }
        let Some(rest) = platform.strip_suffix(&self.machine).and_then(|rest| rest.strip_suffix('_')) else { return false };
        let needed = match rest {
            "linux" => return true,
            "manylinux1" => (2, 5),
            "manylinux2010" => (2, 12),
            "manylinux2014" => (2, 17),
            other => {
                // What is for another C library is of no use where glibc is.
                if other.starts_with("musllinux") {
                    return self.glibc.is_none();
                }
                let numbers = other.strip_prefix("manylinux_").and_then(|version| version.split_once('_'));
                match numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))) {
                    Some(version) => version,
                    None => return false,
                }
            }
        };
        // Of a library that is not known nothing is claimed.
        self.glibc.is_none_or(|version| version >= needed)
    }
}

impl fmt::Display for Python {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CPython 3.{} ({}", self.minor, self.machine)?;
        match self.glibc {
            Some((major, minor)) => write!(out, ", glibc {major}.{minor})"),
            None => out.write_str(")"),
        }
    }
}

/// One spelling for all that mean the same version of the same project.
fn version_of(project: &str, version: &str) -> String {
    let normal = |c: char| if "-_.".contains(c) { '-' } else { c.to_ascii_lowercase() };
    format!("{} {version}", project.chars().map(normal).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Digest, Entry, Kind, TreePath};

    fn list(names: &[&str]) -> Manifest {
        let entry = |name: &&str| Entry {
            path: TreePath::new(format!("dist/{name}").into_bytes()).unwrap(),
            kind: Kind::File { mode: 0o644, size: 1, digest: Digest([0; 32]), mtime: 0 },
        };
        Manifest::from_unsorted(names.iter().map(entry).collect()).unwrap()
    }

    fn python(minor: u32) -> Python {
        Python::read(&format!("cpython-3{minor} x"), "glibc 2.31", "x86_64-linux").unwrap()
    }

    #[test]
    fn a_wheel_is_for_the_interpreters_that_its_name_says() {
        for (name, fits) in [
            ("a-1-py3-none-any.whl", &[6, 9, 11, 13][..]),
            ("a-1-py2.py3-none-any.whl", &[6, 9, 11, 13]),
            ("a-1-py2-none-any.whl", &[]),
            ("a-1-py310-none-any.whl", &[11, 13]),
            ("a-1-cp311-none-any.whl", &[11]),
            ("a-1-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", &[9, 11, 13]),
            ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", &[11]),
            ("a-1-7-cp311-cp311-linux_x86_64.whl", &[11]),
            ("a-1-cp36-cp36m-manylinux1_x86_64.whl", &[6]),
            ("a-1-cp313-cp313t-manylinux1_x86_64.whl", &[]),
            ("a-1-cp311-cp311-manylinux_2_34_x86_64.whl", &[]),
            ("a-1-cp311-cp311-manylinux2014_aarch64.whl", &[]),
            ("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", &[]),
            ("a-1-cp311-cp311-macosx_11_0_x86_64.whl", &[]),
            ("a-1-pp39-pypy39_pp73-manylinux2014_x86_64.whl", &[]),
        ] {
            let files = list(&[name]);
            let found: Vec<u32> = [6, 9, 11, 13].into_iter().filter(|minor| python(*minor).cannot_use(&files).is_none()).collect();
            assert_eq!(found, fits, "{name}");
        }
    }

    #[test]
    fn a_version_is_usable_if_one_of_its_files_is() {
        let (old, new) = ("Some_Lib-1.0-cp39-cp39-linux_x86_64.whl", "some.lib-1.0-cp311-cp311-linux_x86_64.whl");
        assert_eq!(python(9).cannot_use(&list(&[new, "other-2.tar.gz"])), Some(new));
        assert_eq!(python(9).cannot_use(&list(&[new, old])), None);
        assert_eq!(python(9).cannot_use(&list(&[new, "some-lib-1.0.tar.gz"])), None);
        assert_eq!(python(9).cannot_use(&list(&[new, "some-lib-1.1.tar.gz", "notes.txt"])), Some(new));
    }

    #[test]
    fn what_is_no_cpython_is_not_judged_and_what_is_names_itself() {
        for interpreter in ["", "sh: venv/bin/python: not found", "pypy39 pypy39-pp73", "cpython-27 x"] {
            assert_eq!(Python::read(interpreter, "glibc 2.36", "x86_64-linux"), None, "{interpreter}");
        }
        assert_eq!(python(9).to_string(), "CPython 3.9 (x86_64, glibc 2.31)");
        let musl = Python::read("cpython-312 x", "musl libc (x86_64) Version 1.2.5", "x86_64-linux").unwrap();
        assert_eq!(musl.to_string(), "CPython 3.12 (x86_64)");
        assert_eq!(musl.cannot_use(&list(&["a-1-cp312-cp312-musllinux_1_2_x86_64.whl"])), None);
    }
}
