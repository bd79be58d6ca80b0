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
            Ok(print(&file.show(&name, *origin)?))
        }
        Config::Check => {
            let lines = file.check()?;
            Ok(print(&lines.iter().fold(String::new(), |text, line| text + line + "\n")))
        }
    }
}
