//! The exit codes, here and nowhere else. The README's table is compared with this one by a test.

/// How the program ends, for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    Ok = 0,
    Internal = 1,
    Usage = 2,
    Config = 3,
    Refused = 4,
    Unreachable = 10,
    BuildFailed = 11,
    Partial = 12,
    RolledBack = 13,
    Locked = 14,
    RemoteCommand = 15,
    Pending = 20,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// Every code, its name and what it means for the caller.
    pub const ALL: [(Self, &'static str, &'static str); 14] = [
        (Self::Ok, "ok", "done, or already at that revision on every host"),
        (Self::Internal, "internal", "unexpected; please report"),
        (Self::Usage, "usage", "bad flags, or an answer is needed and there is no terminal"),
        (Self::Config, "config", "deploy.toml, inventory or revision invalid"),
        (
            Self::Refused,
            "refused",
            "policy: a protected environment without `--yes`, an unexpected revision, a closed window, a wrong source",
        ),
        (Self::Unreachable, "unreachable", "connect, host key or authentication failed; nothing changed"),
        (Self::BuildFailed, "build-failed", "a step before activation failed; the old release is live everywhere"),
        (Self::Partial, "partial", "some hosts switched, some did not: a human should look now"),
        (Self::RolledBack, "rolled-back", "activation or check failed and every switched host was put back"),
        (Self::Locked, "locked", "a lock or hold is in force, or the wait timed out"),
        (Self::RemoteCommand, "remote-command", "`run` failed on one host or more (`--raw` with one host: that command's own exit code)"),
        (Self::Pending, "pending", "only with `--exit-code`: there are changes, drift or warnings"),
        (Self::Interrupted, "interrupted", "SIGINT, after telling what state each host is in"),
        (Self::Terminated, "terminated", "SIGTERM or SIGHUP, likewise"),
    ];

    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Names the code as events and the README do.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(exit, ..)| *exit == self).map_or("internal", |(_, name, _)| name)
    }
}
