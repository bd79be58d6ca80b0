//! Whether an interpreter of a host can use the wheels of a cache: what their names say they are for, against what the host has.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

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
    /// `3.9.18`; none where only the minor version is known.
    pub version: Option<String>,
    pub machine: String,
    /// None where it is another library, or is not known.
    pub libc: Option<Libc>,
}

/// A C library that there are wheels for, with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    Glibc(u32, u32),
    Musl(u32, u32),
}

impl Libc {
    /// Reads `glibc 2.36` or `musl libc (x86_64) Version 1.2.5`.
    fn read(text: &str) -> Option<Self> {
        if let Some(version) = text.strip_prefix("glibc ") {
            return two_numbers(version, '.').map(|(major, minor)| Self::Glibc(major, minor));
        }
        let (_, version) = text.strip_prefix("musl ")?.split_once("Version ")?;
        two_numbers(version, '.').map(|(major, minor)| Self::Musl(major, minor))
    }

    /// What the names of its wheels start with, and its version.
    const fn tag(self) -> (&'static str, u32, u32) {
        match self {
            Self::Glibc(major, minor) => ("manylinux", major, minor),
            Self::Musl(major, minor) => ("musllinux", major, minor),
        }
    }
}

/// The numbers of `2.36` or `2_36`; what stands behind them is left out.
fn two_numbers(text: &str, between: char) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once(between)?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Says how a kind of host is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write it as the name of a wheel does: `cp39-manylinux_2_28_x86_64`, with the C library's version, or `cp312-musllinux_1_2_aarch64`"
)]
pub struct NotAKind;

impl FromStr for Python {
    type Err = NotAKind;

    /// Reads `cp39-manylinux_2_28_x86_64`.
    fn from_str(text: &str) -> Result<Self, NotAKind> {
        let read = || {
            let (python, platform) = text.split_once('-')?;
            let minor = python.strip_prefix("cp3")?.parse().ok()?;
            let (name, rest) = platform.split_once('_')?;
            let mut parts = rest.splitn(3, '_');
            let (major, least, machine) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            let libc = match name {
                "manylinux" => Libc::Glibc(major, least),
                "musllinux" => Libc::Musl(major, least),
                _ => return None,
            };
            let is_plain = !machine.is_empty() && machine.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_plain.then(|| Self { minor, version: None, machine: machine.to_owned(), libc: Some(libc) })
        };
        read().ok_or(NotAKind)
    }
}

impl Python {
    /// Reads what a host says of itself: `cpython-311 cpython-311-x86_64-linux-gnu`, `glibc 2.36`, `x86_64-linux`. None where it is
    /// another kind of Python, or there is none.
    #[must_use]
    pub fn read(interpreter: &str, libc: &str, platform: &str) -> Option<Self> {
        let minor = interpreter.split_whitespace().next()?.strip_prefix("cpython-3")?.parse().ok()?;
        Some(Self { minor, version: None, machine: platform.split('-').next()?.to_owned(), libc: Libc::read(libc) })
    }

    /// What the host calls its platform.
    #[must_use]
    pub fn platform(&self) -> String {
        format!("{}-linux", self.machine)
    }

    /// What a resolver must know to choose for it, as JSON.
    #[must_use]
    pub fn described(&self) -> String {
        let version = self.version.clone().unwrap_or_else(|| format!("3.{}", self.minor));
        serde_json::json!({ "version": version, "machine": self.machine, "libc": self.libc.map(Libc::tag) }).to_string()
    }

    /// Names a wheel among these paths that this interpreter cannot use, where nothing else among them stands for that version.
    #[must_use]
    pub fn cannot_use<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut versions: BTreeMap<String, (bool, &str)> = BTreeMap::new();
        for name in paths.into_iter().filter_map(|path| path.rsplit('/').next()) {
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
        let (is_musl, needed) = match rest {
            "linux" => return true,
            "manylinux1" => (false, (2, 5)),
            "manylinux2010" => (false, (2, 12)),
            "manylinux2014" => (false, (2, 17)),
            other => {
                let Some((name, version)) = other.split_once('_') else { return false };
                let is_musl = match name {
                    "manylinux" => false,
                    "musllinux" => true,
                    _ => return false,
                };
                let Some(version) = two_numbers(version, '_') else { return false };
                (is_musl, version)
            }
        };
        match self.libc {
            Some(Libc::Glibc(major, minor)) => !is_musl && (major, minor) >= needed,
            Some(Libc::Musl(major, minor)) => is_musl && (major, minor) >= needed,
            // Of a library that is not known nothing is claimed.
            None => true,
        }
    }
}

impl fmt::Display for Python {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CPython 3.{} ({}", self.minor, self.machine)?;
        match self.libc {
            Some(Libc::Glibc(major, minor)) => write!(out, ", glibc {major}.{minor})"),
            Some(Libc::Musl(major, minor)) => write!(out, ", musl {major}.{minor})"),
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
            let found: Vec<u32> = [6, 9, 11, 13].into_iter().filter(|minor| python(*minor).cannot_use([name]).is_none()).collect();
            assert_eq!(found, fits, "{name}");
        }
    }

    #[test]
    fn a_version_is_usable_if_one_of_its_files_is() {
        let (old, new) = ("Some_Lib-1.0-cp39-cp39-linux_x86_64.whl", "some.lib-1.0-cp311-cp311-linux_x86_64.whl");
        assert_eq!(python(9).cannot_use([new, "other-2.tar.gz"]), Some(new));
        assert_eq!(python(9).cannot_use([new, old]), None);
        assert_eq!(python(9).cannot_use([new, "some-lib-1.0.tar.gz"]), None);
        assert_eq!(python(9).cannot_use([new, "some-lib-1.1.tar.gz", "notes.txt"]), Some(new));
    }

    #[test]
    fn what_is_no_cpython_is_not_judged_and_what_is_names_itself() {
        for interpreter in ["", "sh: venv/bin/python: not found", "pypy39 pypy39-pp73", "cpython-27 x"] {
            assert_eq!(Python::read(interpreter, "glibc 2.36", "x86_64-linux"), None, "{interpreter}");
        }
        assert_eq!(python(9).to_string(), "CPython 3.9 (x86_64, glibc 2.31)");
        assert_eq!(Python::read("cpython-39 x", "", "x86_64-linux").unwrap().to_string(), "CPython 3.9 (x86_64)");
        let musl = Python::read("cpython-312 x", "musl libc (x86_64) Version 1.2.5", "x86_64-linux").unwrap();
        assert_eq!(musl.to_string(), "CPython 3.12 (x86_64, musl 1.2)");
        assert_eq!(musl.cannot_use(["a-1-cp312-cp312-musllinux_1_2_x86_64.whl"]), None);
        for other in ["a-1-cp312-cp312-musllinux_1_3_x86_64.whl", "a-1-cp312-cp312-manylinux1_x86_64.whl"] {
            assert_eq!(musl.cannot_use([other]), Some(other));
        }
    }

    #[test]
    fn a_kind_is_written_as_wheels_are_named() {
        let read = |text: &str| text.parse::<Python>();
        assert_eq!(read("cp39-manylinux_2_28_x86_64").unwrap().to_string(), "CPython 3.9 (x86_64, glibc 2.28)");
        let musl = read("cp312-musllinux_1_2_aarch64").unwrap();
        assert_eq!((musl.to_string().as_str(), musl.platform().as_str()), ("CPython 3.12 (aarch64, musl 1.2)", "aarch64-linux"));
        assert_eq!(musl.described(), r#"{"libc":["musllinux",1,2],"machine":"aarch64","version":"3.12"}"#);
        for text in [
            "",
            "3.9",
            "cp39",
            "cp27-manylinux_2_28_x86_64",
            "cp39-manylinux2014_x86_64",
            "cp39-macosx_11_0_arm64",
            "cp39-manylinux_2_28_",
            "cp39-manylinux_2_28_x;86",
        ] {
            assert_eq!(read(text), Err(NotAKind), "{text}");
        }
    }
}
