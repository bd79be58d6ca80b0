//! The severe question: what cannot be undone, or is somebody else's, asks for the environment's name.

use std::io::{BufRead, IsTerminal, Write};

use crate::cli::Common;
use crate::error::Error;
use crate::exit::Exit;
use crate::report::escape;

/// Insists on the name of the environment, by `--confirm` or typed. `to_do` completes `Type prod to …`.
pub fn confirm(common: &Common, given: Option<&str>, environment: &str, to_do: &str) -> Result<(), Error> {
    let refused = |why: String| Error::new(Exit::Usage, "confirm", why).hint(format!("add `--confirm {environment}`"));
    if let Some(name) = given {
        return if name == environment { Ok(()) } else { Err(refused(format!("`--confirm {name}` names another environment"))) };
    }
    if common.no_input || !std::io::stdin().is_terminal() {
        return Err(refused(format!("nobody can be asked here, and `--confirm` is needed to {to_do}")));
    }
    let _ = write!(std::io::stderr(), "Type {environment} to {}: ", escape(to_do));
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if answer.trim() == environment { Ok(()) } else { Err(refused("the answer was not the environment's name".to_owned())) }
}
