//! A project, hosts, and the program run on them as a person would: nothing of the real user is read or written, and what it prints
//! is compared to the byte once times, ids and places are replaced by their names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use deployer::exit::Exit;
use deployer::sandbox::{SampleRepository, Sandbox};
use snapbox::IntoData;

use crate::scratch::git_in;

/// The seconds that a person would have waited before giving up; a test that needs them has failed.
const PATIENCE: &str = "120";

/// A repository with its `deploy.toml`, and the hosts of its one environment, `prod`.
pub struct World {
    pub sandbox: Sandbox,
    pub repository: SampleRepository,
    /// Names and roots, as they are found from outside the hosts.
    hosts: Vec<(String, PathBuf)>,
    /// The root of all hosts, where they themselves find it at one path.
    site: Option<PathBuf>,
    session: &'static str,
    extra: String,
    own_caches: bool,
    patience: &'static str,
}

/// How the program ended and what it printed, with everything replaced that differs from run to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// An empty repository, without hosts.
    pub fn new() -> Self {
        let sandbox = Sandbox::new(false).unwrap();
        let directory = sandbox.directory.join("boskel");
        for place in ["boskel", "home", "bin", "srv"] {
            fs::create_dir(sandbox.directory.join(place)).unwrap();
        }
        git_in(&directory, ["init", "-q", "-b", "master"], b"");
        fs::write(directory.join(".git/info/exclude"), "deploy.toml\n").unwrap();
        let repository = SampleRepository { directory, v1: String::new(), wanting: String::new(), v2: String::new() };
        Self {
            sandbox,
            repository,
            hosts: Vec::new(),
            site: None,
            session: "local",
            extra: String::new(),
            own_caches: false,
            patience: PATIENCE,
        }
    }

    /// Hosts behind an sshd each, reached with the built-in client. Their root is there and empty.
    pub fn with_hosts(self, names: &[&str]) -> Self {
        self.ssh_hosts("ssh2", names)
    }

    /// Hosts behind an sshd each, reached with `session`: `ssh2` or `openssh`.
    pub fn ssh_hosts(mut self, session: &'static str, names: &[&str]) -> Self {
        self.session = session;
        for name in names {
            let root = self.sandbox.add_host(name).unwrap().root.clone();
            fs::create_dir(&root).unwrap();
            self.hosts.push(((*name).to_owned(), root));
        }
        self.config("")
    }

    /// Hosts behind an sshd each that find their root at the same path, as real hosts do. None where this machine cannot have such.
    /// They see each other's processes, as real hosts do not: two of them must not build at one time.
    pub fn alike_hosts(mut self, names: &[&str]) -> Option<Self> {
        if let Err(why) = self.sandbox.mount_namespaces() {
            deployer::sandbox::skip(&format!("no mount namespace: {why}"));
            return None;
        }
        self.session = "ssh2";
        let site = self.path("site");
        fs::create_dir(&site).unwrap();
        for name in names {
            let root = self.sandbox.add_host_at(name, site.clone()).unwrap().root.clone();
            fs::create_dir(&root).unwrap();
            self.hosts.push(((*name).to_owned(), root));
        }
        self.site = Some(site.join("boskel"));
        Some(self.config(""))
    }

    /// Hosts that are directories of this machine: cheap, and everything but the connection is real.
    pub fn local_hosts(mut self, names: &[&str]) -> Self {
        for name in names {
            let root = self.path("srv").join(name).join("boskel");
            fs::create_dir_all(&root).unwrap();
            self.hosts.push(((*name).to_owned(), root));
        }
        self.config("")
    }

    /// Gives every host a place of its own for its download cache, which does not exist yet.
    pub fn own_caches(mut self) -> Self {
        fs::create_dir(self.path("caches")).unwrap();
        self.own_caches = true;
        self
    }

    /// Lets the program take long: a resolver asks an index, and compilers run.
    pub const fn patient(mut self) -> Self {
        self.patience = "900";
        self
    }

    /// Where the cache of a host is.
    pub fn cache(&self, host: &str) -> PathBuf {
        self.path("caches").join(host)
    }

    /// Writes `deploy.toml` with `extra` in it: keys of `[defaults]` first, then tables. `<tmp>` in it is the sandbox.
    pub fn config(mut self, extra: &str) -> Self {
        extra.clone_into(&mut self.extra);
        self.write_config();
        self
    }

    /// Replaces what `config` added, in the middle of a test.
    pub fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
        self.write_config();
    }

    fn write_config(&self) {
        let mut text = format!(
            "schema = 1\nproject = \"boskel\"\n\n[source]\ngit = \".\"\n\n[defaults]\nroot = \"<tmp>/srv/boskel\"\n\
             ssh = {{ config = \"<tmp>/ssh_config\", connect-timeout = \"10s\", connect-retries = 1 }}\n{}\n",
            self.extra
        );
        for (name, root) in &self.hosts {
            let root = self.site.as_ref().unwrap_or(root);
            text += &format!("\n[[env.prod.host]]\nname = \"{name}\"\nroot = \"{}\"\nsession = \"{}\"\n", root.display(), self.session);
            if self.own_caches {
                text += &format!("cache = \"{}\"\n", self.cache(name).display());
            }
        }
        self.write_raw_config(&text);
    }

    /// Writes the whole of `deploy.toml`. `<tmp>` in it is the sandbox.
    pub fn write_raw_config(&self, text: &str) {
        fs::write(self.repository.directory.join("deploy.toml"), text.replace("<tmp>", self.tmp())).unwrap();
    }

    /// Commits files on `master`. The same files give the same id in every run.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        self.repository.commit("Change what there is", &files).unwrap()
    }

    /// A path in the sandbox.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.sandbox.directory.join(below)
    }

    fn tmp(&self) -> &str {
        self.sandbox.directory.to_str().unwrap()
    }

    /// Puts a program in front of everything in `PATH`.
    pub fn program(&self, name: &str, script: &str) {
        write_program(&self.path("bin").join(name), script);
    }

    /// The program with `arguments`, in the project's directory, ready to be changed further.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", self.patience, env!("CARGO_BIN_EXE_deployer")]).args(arguments);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.path("bin")).chain(std::env::split_paths(&path));
        command.env_clear().env("PATH", std::env::join_paths(path).unwrap());
        for (name, below) in [
            ("HOME", "home"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "etc"),
        ] {
            command.env(name, self.path(below));
        }
        command.envs([("USER", "ada"), ("TZ", "UTC"), ("LANG", "C.UTF-8"), ("TMPDIR", self.tmp()), ("DEPLOYER_PROGRESS", "log")]);
        command.current_dir(&self.repository.directory).stdin(Stdio::null());
        command
    }

    /// A shell's text, to which the program and its arguments are `"$@"`.
    pub fn shell(&self, script: &str, arguments: &[&str]) -> Command {
        let command = self.command::<&str>([]);
        let (directory, environment) = (command.get_current_dir().unwrap().to_owned(), command.get_envs());
        let mut shell = Command::new("sh");
        shell.env_clear().envs(environment.filter_map(|(key, value)| Some((key, value?)))).current_dir(directory);
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args()).args(arguments).stdin(Stdio::null());
        shell
    }

    /// Runs the program to its end.
    pub fn deployer<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.run(&mut self.command(arguments))
    }

    /// Runs a command that `command` made.
    pub fn run(&self, command: &mut Command) -> Run {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| self.plain(&String::from_utf8(bytes).unwrap());
        Run { status: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Deploys `rev`, which must succeed.
    pub fn deploy(&self, rev: &str) {
        self.deployer(["deploy", "--rev", rev]).ok();
    }

    /// Runs the program with `--json` and gives the events, which must be the whole of stdout.
    pub fn events<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> (i32, Vec<serde_json::Value>) {
        let Output { status, stdout, .. } = self.command(arguments).args(["--json"]).output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        (status.code().unwrap(), text.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    pub fn root(&self, host: &str) -> &Path {
        &self.hosts.iter().find(|(name, _)| name == host).unwrap().1
    }

    pub fn current(&self, host: &str) -> PathBuf {
        self.root(host).join("current")
    }

    /// The id that `current` names.
    pub fn live(&self, host: &str) -> String {
        let target = fs::read_link(self.current(host)).unwrap();
        target.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A file of the live release.
    pub fn read_current(&self, host: &str, path: &str) -> String {
        let path = self.current(host).join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The ids of all releases, oldest first; empty where there are none.
    pub fn releases(&self, host: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root(host).join("releases")).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The id of the only release of a commit.
    pub fn release_of(&self, host: &str, commit: &str) -> String {
        let found: Vec<String> = self.releases(host).into_iter().filter(|id| id.ends_with(&commit[..7])).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// Replaces what differs from run to run: the sandbox by `<tmp>`, ports, ids of releases and runs, times, sizes on the wire.
    pub fn plain(&self, text: &str) -> String {
        let mut text = text.replace(self.tmp(), "<tmp>");
        for host in self.sandbox.hosts() {
            text = text.replace(&format!(":{}", host.port), ":<port>").replace(&format!("port {}", host.port), "port <port>");
        }
        text = text.replace(&format!("ada@{}", hostname()), "ada@<here>").replace(hostname().as_str(), "<here>");
        let mut lines: Vec<String> = text.lines().map(plain_line).filter(|line| !line.starts_with("[<t>] still running")).collect();
        // The local stage and connecting go on at the same time: whichever is told first, the local stage stands first.
        for block in lines.chunk_by_mut(|a, b| is_of_the_beginning(a) && is_of_the_beginning(b)) {
            block.sort_by_key(|line| line.contains(" connect"));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }
}

fn is_of_the_beginning(line: &str) -> bool {
    let told = line.strip_prefix("[<t>] ").unwrap_or_default();
    ["rev ", "resolve ", "export ", "mirror ", "connect "].iter().any(|step| told.starts_with(step)) || told.contains(" connect ")
}

impl Run {
    /// Compares everything; what a test does not mention cannot be.
    #[track_caller]
    pub fn is(&self, exit: Exit, stdout: impl IntoData, stderr: impl IntoData) {
        self.ends(i32::from(exit.code()), stdout, stderr);
    }

    /// The same for a status that is not the program's own.
    #[track_caller]
    pub fn ends(&self, status: i32, stdout: impl IntoData, stderr: impl IntoData) {
        assert_eq!(self.status, status, "{self}");
        let assert = snapbox::Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV).normalize_paths(false);
        assert.eq(self.stderr.clone(), stderr);
        assert.eq(self.stdout.clone(), stdout);
    }

    /// For what only prepares the test.
    #[track_caller]
    pub fn ok(&self) {
        self.exits(Exit::Ok);
    }

    /// For runs whose text another test is about.
    #[track_caller]
    pub fn exits(&self, exit: Exit) {
        assert_eq!(self.status, i32::from(exit.code()), "{self}");
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "status {}\n--- stdout\n{}--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Writes an executable shell script.
pub fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Every path below `root` with its kind, mode, owner, time and content or target: two of them differ if anything was written.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            deployer::tree::Digest::of(&fs::read(&path).unwrap()).to_string()
        };
        let (mode, owner, time) = (metadata.mode(), metadata.uid(), (metadata.mtime(), metadata.mtime_nsec()));
        found.insert(path, format!("{mode:o} {owner} {time:?} {content}"));
    }
    found
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

fn plain_line(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let starts_word = !plain.chars().next_back().is_some_and(|before| before.is_ascii_alphanumeric() || ".:\"".contains(before));
        if let Some((length, name)) = if starts_word { token(rest) } else { None } {
            plain += name;
            rest = &rest[length..];
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    settled(&plain)
}

/// Leaves away what depends on how fast a machine is: the slowest host of a slow step, and how wide the cells of a table are.
fn settled(line: &str) -> String {
    let line = match line.split_once("  slowest ") {
        Some((before, rest)) if rest.ends_with("<t>") => before.trim_end(),
        _ => line,
    };
    let text = line.trim_start();
    let words = text.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  ");
    let words = words.replace("  <t>", " <t>").replace("  <size>", " <size>");
    format!("{}{words}", &line[..line.len() - text.len()])
}

/// Finds what stands at the beginning of `text` and differs from run to run: its length and its name.
fn token(text: &str) -> Option<(usize, &'static str)> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let hex = |from: usize| text[from..].bytes().take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).count();
    let whole = digits(0);
    if whole == 8 && text[8..].starts_with('T') && digits(9) == 6 && text[15..].starts_with('-') {
        let word = text[16..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte)).count();
        let word = text[16..16 + word].trim_end_matches('.').len();
        return Some((16 + word, if (hex(16), word) == (6, 6) { "<run>" } else { "<release>" }));
    }
    if whole == 0 {
        return None;
    }
    let fraction = if text[whole..].starts_with('.') { digits(whole + 1) } else { 0 };
    let number = if fraction > 0 { whole + 1 + fraction } else { whole };
    if text[whole..].starts_with(':') && digits(whole + 1) == 2 {
        let seconds = whole + 3;
        let tenths = if text[seconds..].starts_with('.') { 1 + digits(seconds + 1) } else { 0 };
        return Some((seconds + tenths, "<t>"));
    }
    let ends =
        |unit: &str| text[number..].starts_with(unit) && !text[number + unit.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let named = |units: &[&str], name| units.iter().find(|unit| ends(unit)).map(|unit| (number + unit.len(), name));
    named(&[" s ago", " min ago", " h ago", " d ago"], "<ago>")
        .or_else(|| named(&["s", " s", " ms"], "<t>"))
        .or_else(|| named(&[" B", " kB", " MB", " GB", " TB"], "<size>"))
}

#[test]
fn what_differs_from_run_to_run_is_replaced_and_nothing_else() {
    for (line, plain) in [
        ("[0:27.4] ✓ app01 build   24.3s, 2.1 MB sent", "[<t>] ✓ app01 build <t>, <size> sent"),
        ("[0:03.0] push        2/2  slowest app2 1.2s", "[<t>] push  2/2"),
        ("  app1    0 s   ada", "  app1 <t>  ada"),
        ("in releases/20261123T061200-a1b2c3d (run 20261123T061200-a1b2c3)", "in releases/<release> (run <run>)"),
        ("1 of 12 hosts at 9f8e7d6, exit 1, python 3.12.3", "1 of 12 hosts at 9f8e7d6, exit 1, python 3.12.3"),
        ("by ada, 12 s ago; app1s", "by ada, <ago>; app1s"),
    ] {
        assert_eq!(plain_line(line), plain);
    }
}
