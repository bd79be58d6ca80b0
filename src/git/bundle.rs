//! A revision as one file that git itself takes as a repository.

use std::path::Path;

use super::command;
use super::error::GitError;
use super::isolated::Isolated;

/// Writes a bundle of a commit and all its history, under the name of a branch. The repository itself is not touched.
pub fn write(isolated: &Isolated, commit: &str, branch: &str, to: &Path) -> Result<(), GitError> {
    let reference = format!("refs/heads/{branch}");
    let work = isolated.work();
    command::output(isolated.call(["update-ref", &reference, commit]), &work)?;
    let mut call = isolated.call(["bundle", "create", "--quiet"]);
    call.arguments.extend([to.as_os_str().to_owned(), reference.into()]);
    command::output(call, &work)?;
    Ok(())
}
