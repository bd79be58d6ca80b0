//! What surrounds a command before it starts, and what its end means: words, environment, network, sudo, hints.

use std::io;

use super::Job;
use crate::failure;
use crate::isolate;
use crate::op::{Code, Command, End, Exec, Failure, Network};
use crate::process;
use crate::user::User;

pub(super) fn unstartable(argv: &[String], error: &io::Error) -> Failure {
    failure::new(Code::Command, format!("`{}` cannot be started: {}", argv.first().map_or("", String::as_str), failure::cause(error)))
}

/// What is executed: the user's argv, or the user's text as one argument of a shell, as another user where that is asked for.
pub fn argv(exec: &Exec, user: &User) -> Result<Vec<String>, Failure> {
    let own = match &exec.command {
        Command::Shell(text) => vec!["/bin/sh".into(), "-eu".into(), "-c".into(), text.clone()],
        Command::Argv(argv) => argv.clone(),
    };
    if own.first().is_none_or(String::is_empty) {
        return Err(failure::new(Code::Refused, "a command without words cannot be run"));
    }
    if own.iter().any(|word| word.contains('\0')) {
        return Err(failure::new(Code::Refused, "a command with a NUL byte cannot be run"));
    }
    let Some(other) = exec.user.as_ref().filter(|other| **other != user.name) else { return Ok(own) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    if other.is_empty() || other.starts_with('-') || !other.bytes().all(plain) {
        return Err(failure::new(Code::Refused, format!("`{other}` is not the name of a user")));
    }
    let mut argv: Vec<String> = ["sudo", "-n", "-H", "-u", other, "--"].map(String::from).to_vec();
    // sudo drops the environment. Without variables of the user's the command stays bare, so that a line in sudoers can name it.
    if !exec.env.is_empty() {
        argv.push("/usr/bin/env".into());
        argv.extend(exec.env.iter().map(|(key, value)| format!("{key}={value}")));
    }
    argv.extend(own);
    Ok(argv)
}

/// Refuses variables that change what runs before the command itself does.
pub(super) fn environment(job: &Job<'_>) -> Result<Vec<(String, String)>, Failure> {
    for (key, value) in &job.exec.env {
        let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !first || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(failure::new(Code::Refused, format!("`{key}` is not the name of an environment variable")));
        }
        if key.starts_with("LD_") || key == "BASH_ENV" || key == "ENV" {
            return Err(failure::new(Code::Refused, format!("the variable `{key}` changes what every program runs, and is not passed on")));
        }
        if value.contains('\0') {
            return Err(failure::new(Code::Refused, format!("the variable `{key}` holds a NUL byte")));
        }
    }
    let mut env = job.user.environment();
    // The agent that the session forwards, which it does only when asked to. A build is offline and has no use for it.
    if matches!(job.exec.network, Network::Host | Network::HostAndIndex { .. })
        && let Ok(socket) = std::env::var("SSH_AUTH_SOCK")
    {
        env.push(("SSH_AUTH_SOCK".into(), socket));
    }
    env.extend(job.exec.env.iter().cloned());
    env.push(("DEPLOYER_RUN".into(), job.run.to_owned()));
    env.extend(job.marks.iter().cloned());
    Ok(env)
}

/// Decides whether the command gets a network namespace.
pub(super) fn isolated(job: &Job<'_>) -> Result<bool, Failure> {
    // In a user namespace sudo has no rights to give.
    let possible = || (job.exec.user.is_none() || job.user.uid == 0) && isolate::is_available(job.children);
    match job.exec.network {
        Network::Host | Network::HostAndIndex { .. } => Ok(false),
        Network::Blocked | Network::Index { .. } => Ok(possible()),
        Network::None if possible() => Ok(true),
        Network::None => Err(Failure {
            code: Code::NoNamespace,
            message: "this user cannot make a network namespace, and the command must not reach the network".into(),
            hint: Some("allow it (`sysctl user.max_user_namespaces`), or say `network = \"blocked\"`".into()),
        }),
    }
}

/// Finds out before anything is started whether the program is there.
pub(super) fn startable(argv: &[String], job: &Job<'_>) -> Result<(), Failure> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let Some(program) = argv.first() else { return Ok(()) };
    let check = |path: &str| match &job.directory {
        Some(directory) => accessat(directory, path, Access::EXEC_OK, AtFlags::empty()),
        None => accessat(CWD, format!("{}/{path}", job.user.home.as_deref().unwrap_or("")), Access::EXEC_OK, AtFlags::empty()),
    };
    let found = if program.starts_with('/') {
        accessat(CWD, program.as_str(), Access::EXEC_OK, AtFlags::empty())
    } else if program.contains('/') {
        check(program)
    } else {
        let path = job.exec.env.iter().rfind(|(key, _)| key == "PATH").map_or_else(|| job.user.path(), |(_, path)| path.clone());
        let hit =
            path.split(':').any(|directory| accessat(CWD, format!("{directory}/{program}"), Access::EXEC_OK, AtFlags::empty()).is_ok());
        if hit { Ok(()) } else { Err(rustix::io::Errno::NOENT) }
    };
    match found {
        Ok(()) => Ok(()),
        Err(_) if program == "sudo" => Err(failure::new(Code::Sudo, "`sudo` is not installed, and the command is to run as another user")),
        Err(error) => Err(unstartable(argv, &error.into())),
    }
}

/// Recognises that it was sudo that refused, and says which line of sudoers would let it pass.
pub(super) fn sudo_failure(job: &Job<'_>, argv: &[String], end: End, error_head: &[u8]) -> Option<Failure> {
    let refused = error_head.starts_with(b"sudo: ") || error_head.starts_with(b"Sorry, user ");
    if argv.first()? != "sudo" || end != End::Code(1) || !refused {
        return None;
    }
    let text = String::from_utf8_lossy(error_head);
    let other = job.exec.user.as_deref().unwrap_or("root");
    let words = argv.get(6..).unwrap_or_default();
    // In sudoers these have a meaning of their own, and an env prefix allows everything anyway.
    let escape =
        |word: &String| word.chars().flat_map(|c| ",:=\\*?[]!\" ".contains(c).then_some('\\').into_iter().chain([c])).collect::<String>();
    let bare =
        words.first().is_some_and(|word| word.starts_with('/') && word != "/usr/bin/env") && !words.iter().any(|word| word.contains('\n'));
    let allowed = if bare { words.iter().map(escape).collect::<Vec<_>>().join(" ") } else { "ALL".into() };
    Some(Failure {
        code: Code::Sudo,
        message: text.lines().next().unwrap_or("sudo refused").to_owned(),
        hint: Some(format!("a line for sudoers: `{} ALL=({other}) NOPASSWD: {allowed}`", job.user.name)),
    })
}

/// How many processes the kernel ended for want of memory since it started.
pub(super) fn oom_kills() -> Option<u64> {
    let text = process::read("/proc/vmstat")?;
    String::from_utf8_lossy(&text).lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

pub(super) fn hint(end: End, oom_before: Option<u64>, log: Option<&io::Error>) -> Option<String> {
    let killed = match end {
        End::Signal(9) | End::Code(137) => true,
        End::Code(0) => return log.map(|error| format!("the stored log is incomplete: {error}")),
        End::Code(_) | End::Signal(_) | End::TimedOut | End::Idle | End::Stopped => false,
    };
    if oom_kills() > oom_before {
        return Some("the host ran out of memory, and the kernel ended a process".into());
    }
    let cause = match end {
        _ if killed => "killed with SIGKILL, as the kernel does where memory is short",
        End::Code(127) => "a program was not found: check its path and that its interpreter exists",
        End::Code(126) => "a program could not be executed: check its mode, and that the file system is not mounted noexec",
        End::Idle => "does it wait for an answer, or for the network?",
        End::Code(_) | End::Signal(_) | End::TimedOut | End::Stopped => {
            return log.map(|error| format!("the stored log is incomplete: {error}"));
        }
    };
    Some(cause.into())
}
