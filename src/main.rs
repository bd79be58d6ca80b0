//! The program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use deployer::cli::Cli;

fn main() -> ExitCode {
    // `ssh` starts this program to ask for a passphrase.
    if let Some(code) = deployer::session::ask::client() {
        return ExitCode::from(code);
    }
    let cli = Cli::parse();
    ExitCode::from(deployer::command::main(cli).code())
}
