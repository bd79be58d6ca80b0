//! `config show` and `config check`.

use crate::cli::{Common, Config};
use crate::command::{print, scene};
use crate::error::Error;
use crate::exit::Exit;

/// Runs the verb.
pub fn config(common: &Common, verb: &Config) -> Result<Exit, Error> {
    let file = scene::load(common)?;
    match verb {
        Config::Show { origin } => {
            let name = scene::environment_name(common, &file)?;
            Ok(print(&file.show(&name, &scene::common_overrides(common), *origin)?))
        }
        Config::Check => {
            let mut lines = file.check()?;
            lines.extend(file.warnings().into_iter().map(|warning| format!("warning: {warning}")));
            Ok(print(&lines.iter().fold(String::new(), |text, line| text + line + "\n")))
        }
    }
}
