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
            if common.json {
                return Ok(print(&format!("{}\n", file.show_json(&name, &scene::common_overrides(common))?)));
            }
            Ok(print(&file.show(&name, &scene::common_overrides(common), *origin)?))
        }
        Config::Check => {
            let mut lines = file.check()?;
            if common.json {
                let document = serde_json::json!({ "environments": file.environments(), "summary": lines, "warnings": file.warnings() });
                return Ok(print(&format!("{document}\n")));
            }
            lines.extend(file.warnings().into_iter().map(|warning| format!("warning: {warning}")));
            Ok(print(&lines.iter().fold(String::new(), |text, line| text + line + "\n")))
        }
    }
}
