//! The sample project `boskel`: a repository whose every byte, author and date is fixed.
//!
//! Three commits on `master`: `v1`, `sizes`, which wants a package that the download cache lacks at first, and `v2`, which does without.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{IndexAddOption, Repository, RepositoryInitOptions, Signature, Time};

use super::{Result, doing};

/// How the sample project is built on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// With `venv/bin/buildout -c offline.cfg`: needs Python, and a package index to fill the cache.
    Buildout,
    /// With `sh build.sh`: needs nothing.
    Shell,
}

pub(super) const BUILDOUT_CFG: &str = include_str!("boskel/buildout.cfg");
const BUILD_SH: &str = include_str!("boskel/shell/build.sh");

/// What the commit between `v1` and `v2` asks for.
pub(super) const LATE_PIN: &str = "humanize = 4.9.0\n";
pub(super) const LATE_PART: &str = "sizes-1.0.sh";

/// The first of January 2026, and one day for each commit.
const FIRST_COMMIT: i64 = 1_767_225_600;
const DAY: i64 = 86_400;

impl Sample {
    fn first(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Buildout => vec![
                (".gitignore", include_str!("boskel/gitignore").to_owned()),
                ("buildout.cfg", BUILDOUT_CFG.to_owned()),
                ("offline.cfg", include_str!("boskel/offline.cfg").to_owned()),
                ("setup.py", include_str!("boskel/setup.py").to_owned()),
                ("src/boskel/__init__.py", include_str!("boskel/src/boskel/__init__.py").to_owned()),
            ],
            Self::Shell => {
                vec![(".gitignore", include_str!("boskel/shell/gitignore").to_owned()), ("build.sh", BUILD_SH.to_owned())]
            }
        }
    }

    /// The files that the commit that wants more changes.
    fn wanting(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Buildout => vec![
                ("buildout.cfg", BUILDOUT_CFG.to_owned() + LATE_PIN),
                ("setup.py", include_str!("boskel/setup.py").replace(r#"["tabulate"]"#, r#"["humanize", "tabulate"]"#)),
            ],
            Self::Shell => vec![("build.sh", BUILD_SH.replace("=\"greeting-1.0.sh", &format!("=\"greeting-1.0.sh {LATE_PART}")))],
        }
    }

    fn second(self) -> Vec<(&'static str, String)> {
        let version = |text: &str| text.replace("1.0.0", "2.0.0");
        match self {
            Self::Buildout => vec![("buildout.cfg", BUILDOUT_CFG.to_owned()), ("setup.py", version(include_str!("boskel/setup.py")))],
            Self::Shell => vec![("build.sh", version(BUILD_SH))],
        }
    }
}

/// The repository of the sample project, with a work tree as clean as after a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRepository {
    pub directory: PathBuf,
    /// The commit tagged `v1`. What it builds says `boskel 1.0.0`.
    pub v1: String,
    /// The commit between them, tagged `sizes`: it builds only where `DownloadCache::add_late` was called.
    pub wanting: String,
    /// The commit tagged `v2`, at the head of `master`.
    pub v2: String,
}

impl SampleRepository {
    pub(super) fn create(directory: PathBuf, sample: Sample) -> Result<Self> {
        let mut options = RepositoryInitOptions::new();
        options.initial_head("master").external_template(false);
        let repository = Repository::init_opts(&directory, &options)?;
        // The user's own settings must change neither a byte of the tree nor what counts as a change.
        let mut config = repository.config()?;
        config.set_str("core.autocrlf", "false")?;
        config.set_bool("core.fileMode", true)?;
        config.set_str("core.excludesFile", "/dev/null")?;
        let empty = Self { directory, v1: String::new(), wanting: String::new(), v2: String::new() };
        let v1 = empty.commit("Say which version this is", &borrow(&sample.first()))?;
        empty.tag("v1", &v1)?;
        let wanting = empty.commit("Say sizes as people do", &borrow(&sample.wanting()))?;
        empty.tag("sizes", &wanting)?;
        let v2 = empty.commit("Release 2.0 without the sizes", &borrow(&sample.second()))?;
        empty.tag("v2", &v2)?;
        Ok(Self { v1, wanting, v2, ..empty })
    }

    /// Writes files into the work tree and commits them on `master`, a day after the commit before. Returns the commit's id.
    pub fn commit(&self, message: &str, files: &[(&str, &[u8])]) -> Result<String> {
        let repository = Repository::open(&self.directory)?;
        for (path, content) in files {
            let path = self.directory.join(path);
            doing(format!("write {}", path.display()), write(&path, content))?;
        }
        let mut index = repository.index()?;
        index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
        index.write()?;
        let tree = repository.find_tree(index.write_tree()?)?;
        let parent = repository.head().ok().map(|head| head.peel_to_commit()).transpose()?;
        let time = parent.as_ref().map_or(FIRST_COMMIT, |commit| commit.time().seconds() + DAY);
        let author = Signature::new("Ada", "ada@example.net", &Time::new(time, 0))?;
        let parents: Vec<_> = parent.iter().collect();
        Ok(repository.commit(Some("HEAD"), &author, &author, message, &tree, &parents)?.to_string())
    }

    fn tag(&self, name: &str, commit: &str) -> Result<()> {
        let repository = Repository::open(&self.directory)?;
        let commit = repository.revparse_single(commit)?;
        repository.tag_lightweight(name, &commit, false)?;
        Ok(())
    }
}

fn borrow<'a>(files: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a [u8])> {
    files.iter().map(|(path, text)| (*path, text.as_bytes())).collect()
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)
}
