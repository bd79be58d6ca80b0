//! What the ssh tests share: throwaway hosts, a project that names them, and the program run with nothing of the user's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use deployer::sandbox::{Sandbox, SandboxHost, skip};

/// The sessions that an item must hold in.
pub const BOTH: [&str; 2] = ["ssh2", "openssh"];

pub struct Lab {
    pub sandbox: Sandbox,
}

pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn succeeded(self, what: &str) -> Self {
        assert_eq!(self.code, 0, "{what}: {}", self.all());
        self
    }

    #[track_caller]
    pub fn unreachable(self, what: &str) -> Self {
        assert_eq!(self.code, 10, "{what}: {}", self.all());
        self
    }
}

impl Lab {
    /// Starts hosts and a project whose environment `lab` has all of them. None, with a remark, where there is no sshd.
    pub fn with(names: &[&str]) -> Option<Self> {
        let mut sandbox = Sandbox::new(false).unwrap();
        if let Err(reason) = sandbox.tools().sshd.as_ref().and(sandbox.tools().ssh.as_ref()) {
            skip(reason);
            return None;
        }
        for name in names {
            sandbox.add_host(name).unwrap();
        }
        let lab = Self { sandbox };
        for directory in ["home", "project"] {
            fs::create_dir(lab.path(directory)).unwrap();
        }
        lab.project(names, "");
        Some(lab)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.directory.join(name)
    }

    pub fn host(&self, name: &str) -> &SandboxHost {
        self.sandbox.host(name).unwrap()
    }

    /// Writes `deploy.toml`: the hosts, each with the root of its namesake, and more of the environment's settings.
    pub fn project(&self, names: &[&str], settings: &str) {
        let mut text = format!("schema = 1\nproject = \"p\"\n[env.lab]\nroot = \"{}\"\n{settings}", self.path("no/such/root").display());
        for name in names {
            let root = self.sandbox.host(name).map_or_else(|| self.path("other").join(name), |host| host.root.clone());
            text += &format!("[[env.lab.host]]\nname = \"{name}\"\nroot = \"{}\"\n", root.display());
        }
        fs::write(self.path("project/deploy.toml"), text).unwrap();
    }

    /// Writes an ssh config: `first`, then the sandbox's own, of which ssh takes what `first` does not say.
    pub fn config(&self, first: &str) -> PathBuf {
        let path = self.path("custom_config");
        fs::write(&path, format!("{first}\n{}", fs::read_to_string(self.sandbox.ssh_config()).unwrap())).unwrap();
        path
    }

    /// The program in the project, with no setting and no file of the user's.
    pub fn command(&self, program: &str, config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path("home"));
        for (name, directory) in [("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state"), ("XDG_DATA_HOME", "data")] {
            command.env(name, self.path(directory));
        }
        command.env("USER", self.sandbox.user()).current_dir(self.path("project"));
        command.arg("-F").arg(config).args(["--color", "never", "--connect-timeout", "10s"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn deployer(&self, config: &Path, arguments: &[&str]) -> Ran {
        let began = Instant::now();
        let Output { status, stdout, stderr } = self.command(env!("CARGO_BIN_EXE_deployer"), config, arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr), took: began.elapsed() }
    }

    /// Runs `true` on the hosts in one session.
    pub fn reach(&self, session: &str, config: &Path, more: &[&str]) -> Ran {
        let arguments: Vec<&str> = ["run", "--session", session].into_iter().chain(more.iter().copied()).chain(["--", "true"]).collect();
        self.deployer(config, &arguments)
    }

    /// Runs the program at a terminal, and types each answer once its question is on the screen. None without `script`.
    pub fn at_a_terminal(&self, config: &Path, arguments: &[&str], typed: &[(&str, &str)]) -> Option<(i32, String)> {
        if !Path::new("/usr/bin/script").exists() {
            skip("there is no `script` to make a terminal with");
            return None;
        }
        let inner = self.command(env!("CARGO_BIN_EXE_deployer"), config, arguments);
        let words = std::iter::once(inner.get_program()).chain(inner.get_args()).map(|word| word.to_str().unwrap());
        let line = shlex_join(words);
        let mut script = Command::new("/usr/bin/script");
        script.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(self.path("project"));
        script.env("TERM", "dumb").env("SHELL", "/bin/sh").args(["-qefc", &line, "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (mut shown, mut buffer) = (String::new(), [0; 4096]);
        for (question, answer) in typed {
            let from = shown.len();
            while !shown[from..].contains(question) {
                let count = screen.read(&mut buffer).unwrap();
                assert!(count > 0, "`{question}` was never asked: {shown}");
                shown += &String::from_utf8_lossy(&buffer[..count]);
            }
            writeln!(keyboard, "{answer}").unwrap();
        }
        screen.read_to_string(&mut shown).unwrap();
        Some((child.wait().unwrap().code().unwrap(), shown))
    }

    pub fn keygen(&self, name: &str, flags: &[&str]) -> PathBuf {
        let path = self.path(name);
        let passphrase: &[&str] = if flags.contains(&"-N") { &[] } else { &["-N", ""] };
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-C", "test", "-t", "ed25519"]).args(flags).args(passphrase).arg("-f").arg(&path);
        assert!(command.status().unwrap().success());
        path
    }

    /// Lets a key in on a host beside the sandbox's own.
    pub fn authorize(&self, host: &str, key: &Path) {
        let path = self.host(host).host_key().with_file_name("authorized_keys");
        let text = fs::read_to_string(&path).unwrap() + &fs::read_to_string(key.with_extension("pub")).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `type base64` of the key that a host shows.
    pub fn key_of(&self, host: &str) -> String {
        let text = fs::read_to_string(self.host(host).host_key().with_extension("pub")).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    pub fn fingerprint_of(&self, host: &str) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.host(host).host_key()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    /// The name under which a host's key is looked up.
    pub fn lookup(&self, host: &str) -> String {
        format!("[127.0.0.1]:{}", self.host(host).port)
    }

    /// How often somebody was let in on a host.
    pub fn logins(&self, host: &str) -> usize {
        fs::read_to_string(&self.host(host).log).unwrap().matches("Accepted ").count()
    }
}

/// A process that ends with the test, however the test ends: one that stayed would hold the runner's output open.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shlex_join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ")
}
