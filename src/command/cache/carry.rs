//! `cache export` and `cache import`: a revision, what its build needs and the helpers in one file, for a site that reaches nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Subject, known_set, overrides};
use crate::carry::{self, CarryError, Head, Reader, Writer};
use crate::cli::{self, Common};
use crate::command::print;
use crate::command::scene::{self, Directories, Scene};
use crate::command::typed;
use crate::error::Error;
use crate::event::Events;
use crate::exit::Exit;
use crate::figures::{bytes, counted};
use crate::plan::short;
use crate::session::bootstrap;
use crate::shelf::{Set, Shelf, ShelfError};
use crate::tree::{Digest, Entry, Kind};

const SET: &str = "set.json";
const BUNDLE: &str = "revision.bundle";
const CONTENT: &str = "content/";
const HELPERS: &str = "helpers/";

/// Writes the file.
pub async fn export(common: &Common, args: &cli::CacheExport) -> Result<Exit, Error> {
    let rev = args.what.rev.as_deref();
    let scene = Scene::set(common, &overrides(common, rev)).await?;
    let aside = aside(&args.file)?;
    let (events, _) = Events::new(std::time::Instant::now());
    let subject = Subject::settle(&scene, rev, &events).await?;
    let shelf = subject.shelf();
    // Whatever hosts have, only what is here can go into the file.
    let set = known_set(subject.environment, &subject.local.artifact, &shelf, &[]).await.ok_or_else(|| subject.unknown(&[]))?;
    let absent = set.files.entries().iter().filter(|entry| !shelf.holds(&entry.kind)).count() as u64;
    if absent > 0 {
        let what = format!("{absent} of {} are not on this machine", counted(set.files.totals().0, "file"));
        return Err(Error::new(Exit::Refused, "not-here", what).hint(subject.fill_command()));
    }
    let helpers = bootstrap::helpers();
    write(&subject, &set, &helpers, aside, &args.file)
        .map_err(|error| Error::new(Exit::Internal, "export", format!("`{}` cannot be written", args.file.display())).caused_by(error))?;
    let (files, size) = set.files.totals();
    let text = format!(
        "{}: {} of {}, {} ({}), {}\n",
        args.file.display(),
        subject.local.label(),
        scene.environment.project,
        counted(files, "file"),
        bytes(size),
        counted(helpers.len() as u64, "helper"),
    );
    Ok(print(&text))
}

/// The file under another name: one of its own name is a whole one. It is made before anything else is done.
fn aside(path: &Path) -> Result<tempfile::NamedTempFile, Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = if path.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { tempfile::NamedTempFile::new_in(directory) };
    made.map_err(|error| Error::new(Exit::Usage, "export", format!("`{}` cannot be written", path.display())).caused_by(error))
}

fn write(
    subject: &Subject<'_>,
    set: &Set,
    helpers: &[(String, Vec<u8>)],
    aside: tempfile::NamedTempFile,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let shelf = subject.shelf();
    let commit = subject.local.commit().unwrap_or_default();
    let branch = branch(&subject.local.reference());
    let head = Head::new(&subject.scene.environment.project, &commit, &branch, helpers);
    let mut writer = Writer::new(std::io::BufWriter::new(aside), &head)?;
    let bundle = tempfile::NamedTempFile::new_in(&subject.scene.directories.cache)?;
    subject.local.bundle(&branch, bundle.path())?;
    add_file(&mut writer, BUNDLE, bundle.path())?;
    let record = set.encode()?;
    writer.add(SET, record.len() as u64, &mut &*record)?;
    let mut written: Vec<Digest> = Vec::new();
    for entry in set.files.entries() {
        if let Kind::File { size, digest, .. } = &entry.kind
            && !written.contains(digest)
        {
            writer.add(&format!("{CONTENT}{digest}"), *size, &mut shelf.open(*digest)?)?;
            written.push(*digest);
        }
    }
    for (platform, bytes) in helpers {
        writer.add(&format!("{HELPERS}{platform}"), bytes.len() as u64, &mut &**bytes)?;
    }
    let mut aside = writer.finish()?.into_inner()?;
    aside.as_file_mut().sync_all()?;
    aside.persist(path)?;
    Ok(())
}

fn add_file(writer: &mut Writer<impl std::io::Write>, name: &str, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    writer.add(name, size, &mut file)
}

/// What the revision is called at the other site.
fn branch(reference: &str) -> String {
    if carry::is_branch(reference) { reference.to_owned() } else { "exported".to_owned() }
}

/// Takes the file apart: what its digests prove goes onto the shelf, the revision beside the config. Helpers are run on hosts, so whoever
/// made the file is trusted with those.
pub async fn import(common: &Common, args: &cli::CacheImport) -> Result<Exit, Error> {
    let directories = Directories::find()?;
    let file = scene::load(common)?;
    let name = scene::environment_name(common, &file)?;
    let mut environment = file.environment(&name, &scene::common_overrides(common))?;
    environment.was_given(&typed::given(common));
    let git = &environment.source.git;
    let named = Path::new(git).extension().is_some_and(|extension| extension == "bundle");
    let own = || if named { PathBuf::from(git) } else { PathBuf::from(format!("{}.bundle", environment.project)) };
    let bundle = environment.directory.join(args.bundle.clone().unwrap_or_else(own));
    let shelf = Shelf::at(&directories.cache);
    let (path, project) = (&args.file, environment.project.clone());
    let opened = File::open(path).and_then(|file| {
        let is_dir = file.metadata()?.is_dir();
        if is_dir { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    let opened =
        opened.map_err(|error| Error::new(Exit::Usage, "import", format!("`{}` cannot be read", path.display())).caused_by(error))?;
    let taken = tokio::task::spawn_blocking({
        let bundle = bundle.clone();
        move || take(opened, &shelf, &project, &bundle)
    });
    let taken = taken.await.map_err(|error| Error::new(Exit::Internal, "import", "the import ended early").caused_by(error))?;
    let Taken { head, files, size, helpers, left_out } = taken.map_err(|error| refused(&args.file, error))?;
    let mut text = format!(
        "{} of {}: {} ({}), {}\n  revision  {}\n",
        short(&head.commit),
        head.project,
        counted(files, "file"),
        bytes(size),
        counted(helpers, "helper"),
        bundle.display(),
    );
    if left_out > 0 {
        text += &format!(
            "  {} left out: deployer {} wrote them, and this is {}\n",
            counted(left_out, "helper"),
            head.deployer,
            env!("CARGO_PKG_VERSION")
        );
    }
    if !named && args.bundle.is_none() {
        text += &format!("  next      set `git = \"{}.bundle\"` in [source] of deploy.toml\n", environment.project);
    }
    // Hosts that are new get their directories, caches and build environments first; those that have them lose nothing.
    let (setup, deploy) = (environment.typed("setup"), environment.typed("deploy"));
    text += &format!("  then      {setup} --rev {0}\n            {deploy} --rev {0}\n", head.reference);
    Ok(print(&text))
}

struct Taken {
    head: Head,
    files: u64,
    size: u64,
    helpers: u64,
    left_out: u64,
}

/// Says why an import failed.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Carry(#[from] CarryError),
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error("it is of the project `{0}`")]
    Project(String),
    #[error("it lacks `{0}`")]
    Lacks(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn refused(path: &Path, error: ImportError) -> Error {
    let what = format!("`{}` cannot be imported", path.display());
    let is_damaged = match &error {
        ImportError::Carry(error) => matches!(error, CarryError::Truncated | CarryError::Damaged(_)),
        ImportError::Lacks(_) => true,
        ImportError::Shelf(error) => matches!(error, ShelfError::Corrupt { .. } | ShelfError::Record(_)),
        ImportError::Project(_) => false,
        ImportError::Io(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
    };
    let refused = Error::new(Exit::Refused, "import", what).caused_by(error).state("what was here before is as it was");
    if is_damaged {
        refused.hint("copy the file again from where `deployer cache export FILE` wrote it: it is not whole here")
    } else {
        refused
    }
}

fn take(file: File, shelf: &Shelf, project: &str, bundle: &Path) -> Result<Taken, ImportError> {
    let (mut reader, head) = Reader::open(file)?;
    if head.project != project {
        return Err(ImportError::Project(head.project));
    }
    let directory = bundle.parent().unwrap_or(Path::new("."));
    let (mut set, mut revision): (Option<Set>, Option<tempfile::NamedTempFile>) = (None, None);
    let mut helpers: Vec<(String, Vec<u8>)> = Vec::new();
    while let Some(name) = reader.next_entry()? {
        if name == SET {
            set = Some(Set::decode(&reader.small()?)?);
        } else if name == BUNDLE {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            std::io::copy(&mut reader, &mut file)?;
            file.flush()?;
            revision = Some(file);
        } else if let Some(digest) = name.strip_prefix(CONTENT) {
            let of_set = |entry: &&Entry| matches!(&entry.kind, Kind::File { digest: listed, .. } if listed.to_string() == digest);
            // Contents come after the list, and what it does not name is of no use.
            if let Some(entry) = set.as_ref().and_then(|set| set.files.entries().iter().find(of_set)) {
                shelf.take(entry, &mut reader)?;
            }
        } else if let Some(platform) = name.strip_prefix(HELPERS) {
            let bytes = reader.small()?;
            if head.helpers.get(platform) != Some(&Digest::of(&bytes)) {
                return Err(CarryError::Damaged("a helper is not the one that its head names").into());
            }
            helpers.push((platform.to_owned(), bytes));
        }
    }
    let set = set.ok_or_else(|| ImportError::Lacks(SET.to_owned()))?;
    let revision = revision.ok_or_else(|| ImportError::Lacks(BUNDLE.to_owned()))?;
    if let Some(absent) = set.files.entries().iter().find(|entry| !shelf.holds(&entry.kind)) {
        return Err(ImportError::Lacks(absent.path.to_string()));
    }
    let fits = head.deployer == env!("CARGO_PKG_VERSION");
    let all = helpers.len() as u64;
    let (helpers, left_out) = if fits { bootstrap::keep_helpers(&helpers).map(|()| (all, 0))? } else { (0, all) };
    revision.persist(bundle).map_err(|error| error.error)?;
    // The record comes last: it says that all is there.
    shelf.keep(&set)?;
    let (files, size) = set.files.totals();
    Ok(Taken { head, files, size, helpers, left_out })
}

#[cfg(test)]
mod tests {
    use super::branch;

    #[test]
    fn a_revision_is_carried_under_a_name_that_git_takes() {
        for name in ["master", "v2.8.0", "feature/x-1"] {
            assert_eq!(branch(name), name);
        }
        for name in ["", "a1b2c3d4e5", "v*", "-x", "a..b", "HEAD~1", "x.lock", "a//b", "a/.b", "a./b", "x.lock/y", "/a", "a b"] {
            assert_eq!(branch(name), "exported", "{name}");
        }
    }
}
