//! Whether what answers is the new process: a unit of systemd that was started after the switch, and what listens where a check asks.

use std::time::Duration;

use crate::exec;
use crate::helper::Helper;
use crate::op::Unit;
use crate::process;

/// What `systemctl show` gets to answer in.
const PATIENCE: Duration = Duration::from_secs(10);
const PROPERTIES: &str =
    "--property=LoadState,ActiveState,MainPID,InvocationID,ActiveEnterTimestampMonotonic,ExecMainStartTimestampMonotonic";

/// One start of a unit: another start is another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    invocation: String,
    pid: String,
    at: u64,
}

/// Microseconds on the clock that systemd tells the start of a unit by.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Asks systemd for a unit that must have been started since `since`, in its microseconds. What cannot be asked is not well.
pub fn started(helper: &Helper, unit: &Unit, since: u64) -> Result<Started, String> {
    let mut argv = vec!["systemctl"];
    argv.extend(unit.user.then_some("--user"));
    argv.extend(["show", PROPERTIES, "--", &unit.name]);
    let mut environment = helper.user.environment();
    if unit.user {
        environment.push(("XDG_RUNTIME_DIR".into(), format!("/run/user/{}", helper.user.uid)));
    }
    let answer = exec::ask_with(&helper.children, &argv, environment, PATIENCE);
    let answer = answer.ok_or_else(|| format!("`{}` gives no answer, so when the unit was started is not known", argv[..2].join(" ")))?;
    judge(&unit.name, &String::from_utf8_lossy(&answer), since)
}

fn judge(name: &str, answer: &str, since: u64) -> Result<Started, String> {
    let property = |key: &str| answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default().trim();
    match (property("LoadState"), property("ActiveState")) {
        ("loaded", "active") => {}
        ("loaded", state) => return Err(format!("the unit `{name}` is {state}")),
        ("" | "not-found", _) => return Err(format!("there is no unit `{name}`")),
        (load, _) => return Err(format!("the unit `{name}` is {load}")),
    }
    let time = |key: &str| property(key).parse::<u64>().ok().filter(|time| *time > 0);
    // A unit without a main process has only the time at which it became active.
    let at = time("ExecMainStartTimestampMonotonic").or_else(|| time("ActiveEnterTimestampMonotonic"));
    match at {
        Some(at) if at >= since => Ok(Started { invocation: property("InvocationID").into(), pid: property("MainPID").into(), at }),
        Some(_) => Err(format!("the unit `{name}` was not started since the switch, so it still runs what it ran before")),
        None => Err(format!("systemd does not say when the unit `{name}` was started")),
    }
}

/// Finds the sockets that listen where `url` leads, as the kernel numbers them: a server that was started again has others.
pub fn listeners(url: &str) -> Vec<u64> {
    if let Some(rest) = url.strip_prefix("unix:") {
        let socket = rest.split_once(":/").map_or(rest, |(socket, _)| socket);
        let table = process::read("/proc/net/unix").unwrap_or_default();
        return unix_listeners(&String::from_utf8_lossy(&table), socket);
    }
    let Some(port) = port(url) else { return Vec::new() };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| process::read(path).unwrap_or_default());
    tables.iter().flat_map(|table| tcp_listeners(&String::from_utf8_lossy(table), port)).collect()
}

fn port(url: &str) -> Option<u16> {
    let authority = url.strip_prefix("http://")?.split('/').next()?;
    let after = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    after.rsplit_once(':').map_or(Some(80), |(_, port)| port.parse().ok())
}

/// Reads lines of `/proc/net/tcp`: the local address, the state `0A` (LISTEN) and the inode.
fn tcp_listeners(table: &str, port: u16) -> Vec<u64> {
    let port = format!(":{port:04X}");
    let listening = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).filter_map(|fields| {
        let is_ours = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        if is_ours { fields.get(9)?.parse().ok() } else { None }
    });
    listening.collect()
}

/// Reads lines of `/proc/net/unix`: the flag `__SO_ACCEPTCON`, the inode and the path.
fn unix_listeners(table: &str, socket: &str) -> Vec<u64> {
    let listening = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).filter_map(|fields| {
        let accepts = u32::from_str_radix(fields.get(3)?, 16).ok()? & 0x10000 != 0;
        if accepts && *fields.get(7)? == socket { fields.get(6)?.parse().ok() } else { None }
    });
    listening.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn shown(active: &str, started: &str) -> String {
        format!(
            "LoadState=loaded\nActiveState={active}\nMainPID=77\nInvocationID=abc\nActiveEnterTimestampMonotonic=900\nExecMainStartTimestampMonotonic={started}\n"
        )
    }

    #[test]
    fn a_unit_counts_that_is_active_and_was_started_since_the_switch() {
        assert_eq!(
            judge("app.service", &shown("active", "1000"), 1000),
            Ok(Started { invocation: "abc".into(), pid: "77".into(), at: 1000 })
        );
        assert_eq!(judge("app.service", &shown("active", "0"), 900).unwrap().at, 900, "without a main process");
        let why = |answer: &str, since: u64| judge("app.service", answer, since).unwrap_err();
        assert!(why(&shown("active", "999"), 1000).contains("was not started since the switch"));
        assert_eq!(why(&shown("activating", "1000"), 1000), "the unit `app.service` is activating");
        assert_eq!(why("LoadState=not-found\nActiveState=inactive\n", 0), "there is no unit `app.service`");
        assert_eq!(why("LoadState=masked\nActiveState=inactive\n", 0), "the unit `app.service` is masked");
        assert_eq!(why("", 0), "there is no unit `app.service`");
    }

    #[test]
    fn a_server_that_is_started_again_listens_with_another_socket() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", server.local_addr().unwrap());
        let first = listeners(&url);
        assert_eq!(first.len(), 1);
        assert_eq!(listeners(&url), first);
        let address = server.local_addr().unwrap();
        drop(server);
        let _again = TcpListener::bind(address).unwrap();
        assert!(!listeners(&url).iter().any(|socket| first.contains(socket)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let _unix = UnixListener::bind(&path).unwrap();
        assert_eq!(listeners(&format!("unix:{}:/up", path.display())).len(), 1);
        assert!(listeners("unix:/nowhere.sock").is_empty());
    }

    #[test]
    fn the_port_of_a_url_is_found() {
        for (url, expected) in
            [("http://a/x", Some(80)), ("http://[::1]:8080/", Some(8080)), ("http://[::1]", Some(80)), ("http://a:x/", None)]
        {
            assert_eq!(port(url), expected, "{url}");
        }
    }
}
