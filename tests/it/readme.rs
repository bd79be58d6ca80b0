//! The README tells the truth: its walk-through is walked on two throwaway hosts, and every command line that it, the example config
//! or a hint of the program shows is one that the program takes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser as _;
use clap::error::ErrorKind;
use deployer::cli::Cli;
use deployer::exit::Exit;
use deployer::sandbox::{Sandbox, skip};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap()
}

/// A fenced block, with the exit code its last command must have where it is to be run.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    run: Option<i32>,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut run) = (false, None);
    for line in markdown.lines() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                blocks.push(Block { language: language.to_owned(), text: String::new(), run: run.take() });
            }
            open = !open;
        } else if open {
            let text = &mut blocks.last_mut().unwrap().text;
            text.push_str(line);
            text.push('\n');
        } else if let Some(code) = line.strip_prefix("<!-- run").and_then(|rest| rest.strip_suffix("-->")) {
            run = Some(if code.trim().is_empty() { 0 } else { code.trim().parse().unwrap() });
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// Two hosts, a home, and the binary in a directory of its own.
struct Newcomer {
    sandbox: Sandbox,
    bin: PathBuf,
}

impl Newcomer {
    fn new() -> Self {
        let mut sandbox = Sandbox::new(false).unwrap();
        for host in ["web1", "web2"] {
            sandbox.add_host(host).unwrap();
        }
        let bin = sandbox.directory.join("bin");
        for directory in [&bin, &sandbox.directory.join("home"), &sandbox.directory.join("work")] {
            fs::create_dir(directory).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_deployer"), bin.join("deployer")).unwrap();
        Self { sandbox, bin }
    }

    /// What differs here from two machines of one's own: both hosts share a file system, and the ssh config lies elsewhere.
    fn adapted(&self, text: &str) -> String {
        if !text.contains("deploy.toml") {
            return text.to_owned();
        }
        let hosts: Vec<String> = self
            .sandbox
            .hosts()
            .iter()
            .map(|host| format!("[[env.staging.host]]\nname = \"{}\"\nroot = \"{}\"\n", host.name, host.root.display()))
            .collect();
        let ssh = format!("ssh = {{ config = \"{}\" }}", self.sandbox.ssh_config().display());
        let mut text = text.to_owned();
        for (from, to) in [("user = \"deploy\"", ssh.as_str()), ("hosts = [\"web1\", \"web2\"]", &hosts.concat())] {
            assert!(text.contains(from), "the README's deploy.toml has no `{from}`");
            text = text.replace(from, to);
        }
        text
    }

    /// Runs a block as one would type it, and gives where it ended and what it said.
    fn run(&self, block: &Block, directory: &Path) -> (PathBuf, String) {
        let home = self.sandbox.directory.join("home");
        let place = self.sandbox.directory.join("place");
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("/bin/sh")
            .args(["-eu", "-c", &format!("exec 2>&1\n{}pwd > \"$PLACE\"\n", self.adapted(&block.text))])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("HOME", &home)
            .env("USER", self.sandbox.user())
            .env("PLACE", &place)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Ada")))
            .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "ada@example.net")))
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = block.run.unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}\n{said}", block.text);
        let ended = if expected == 0 { PathBuf::from(fs::read_to_string(&place).unwrap().trim()) } else { directory.to_owned() };
        (ended, said)
    }

    fn serves(&self) -> Vec<String> {
        let hello = |root: &Path| Command::new(root.join("current/bin/hello")).output().unwrap().stdout;
        self.sandbox.hosts().iter().map(|host| String::from_utf8(hello(&host.root)).unwrap()).collect()
    }
}

#[test]
fn the_walk_through_leads_from_nothing_to_two_hosts_and_back() {
    if which("sshd").is_none() || which("git").is_none() {
        return skip("the README's walk-through needs sshd and git");
    }
    let newcomer = Newcomer::new();
    let mut directory = newcomer.sandbox.directory.join("work");
    let mut said = Vec::new();
    for block in blocks(&read("README.md")).iter().filter(|block| block.run.is_some()) {
        assert_eq!(block.language, "sh");
        let (ended, text) = newcomer.run(block, &directory);
        directory = ended;
        said.push((text, newcomer.sandbox.hosts()[0].root.join("current").exists().then(|| newcomer.serves())));
    }
    let [_project, _config, _setup, first, second, back, broken, logs] = said.as_slice() else {
        panic!("the walk-through has {} steps", said.len())
    };
    let both = |text: &str| Some(vec![text.to_owned(); 2]);
    assert!(first.0.contains("hello, version 1"), "{}", first.0);
    assert_eq!(first.1, both("hello, version 1\n"));
    assert_eq!(second.1, both("hello, version 2\n"));
    assert_eq!(back.1, both("hello, version 1\n"), "{}", back.0);
    assert_eq!(broken.1, both("hello, version 1\n"));
    for told in [&broken.0, &logs.0] {
        assert!(told.contains("cannot find the frobnicator"), "{told}");
    }
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let rows = Exit::ALL.map(|(exit, name, meaning)| format!("| {} | {name} | {meaning} |", exit.code()));
    let table = format!("| Code | Name | Meaning |\n|---|---|---|\n{}\n", rows.join("\n"));
    assert!(read("README.md").contains(&table), "the README should have\n{table}");
}

#[test]
fn the_buildout_config_of_the_readme_is_one_the_program_reads() {
    let blocks = blocks(&read("README.md"));
    let toml = blocks.iter().find(|block| block.language == "toml").unwrap();
    let text = format!("schema = 1\nproject = \"boskel\"\n{}\n[env.staging]\nhosts = [\"web1\"]\n", toml.text);
    let file = deployer::config::parse(Path::new("deploy.toml"), &text).unwrap();
    let environment = file.environment("staging", &deployer::config::Overrides::default()).unwrap();
    assert_eq!(environment.build.unwrap().recipe, "buildout");
}

/// Prose that only looks like a command line: what follows the program's name.
const PROSE: [&str; 11] = ["wrote,", "…", "VERB", "starts", "newer", "that", "end to end", "build key", "turns", "itself", "or"];

/// Every command line in `text`: from the program's name to whatever ends it.
fn command_lines(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (at, name) in line.match_indices("deployer ") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "`/-_.".contains(c) && c != '`') {
                continue;
            }
            let rest = &line[at + name.len()..];
            let end = ["`", "  ", " # ", "\\n", ". Fix", " (", "\"),", "\";", "\"."].iter().filter_map(|stop| rest.find(stop)).min();
            let command = rest[..end.unwrap_or(rest.len())].trim_end_matches([',', '.', ';', ':']);
            let is_word = |word: &&&str| command.strip_prefix(**word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
            // `deployer 0.1.0 …` names a version.
            if PROSE.iter().any(|word| is_word(&word)) || command.starts_with(|c: char| "({".contains(c) || c.is_ascii_digit()) {
                continue;
            }
            found.push(command.to_owned());
        }
    }
    found
}

/// Puts something in place of each `{…}`, that is a name or a number; a time has a unit.
fn filled(command: &str) -> String {
    let mut text = String::new();
    let mut rest = command;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        text += if before.ends_with("--wait-lock ") { "1s" } else { "1" };
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text + rest
}

/// Why the program would not take `command`; none if it would.
fn refusal(command: &str) -> Option<String> {
    let Some(words) = shlex::split(&filled(command)) else { return Some("not a command line".to_owned()) };
    let error = Cli::try_parse_from(std::iter::once("deployer".to_owned()).chain(words)).err()?;
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    (!asked).then(|| error.to_string())
}

#[test]
fn command_lines_are_found_in_prose_in_blocks_and_in_literals() {
    let text =
        "run `deployer plan -e {}`, then\n    deployer deploy -e prod   # now\nhint(\"wait: deployer status -e {}\")\nthe deployer that";
    let found: Vec<String> = command_lines(text).iter().map(|command| filled(command)).collect();
    assert_eq!(found[..2], ["plan -e 1", "deploy -e prod"]);
    assert_eq!(found.len(), 3);
    assert_eq!(refusal("deploy -e {env} --rev master --wait-lock {}"), None);
    for wrong in ["deploy --no-such-flag", "no-such-verb", "plan --rev 'open"] {
        assert!(refusal(wrong).is_some(), "{wrong}");
    }
}

#[test]
fn every_command_line_that_is_shown_is_taken() {
    let mut texts: Vec<(String, String)> = ["README.md", "deploy.toml.example"].map(|name| (name.to_owned(), read(name))).into();
    let mut files = Vec::new();
    collect(&project().join("src"), &mut files);
    for path in files {
        let literals = literals(&fs::read_to_string(&path).unwrap());
        texts.extend(literals.into_iter().map(|literal| (path.display().to_string(), literal)));
    }
    let lines = texts.iter().flat_map(|(place, text)| command_lines(text).into_iter().map(move |command| (place, command)));
    let (mut count, mut wrong) = (0, Vec::new());
    for (place, command) in lines {
        count += 1;
        wrong.extend(refusal(&command).map(|why| format!("{place}: `deployer {command}`\n{why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "only {count} command lines were found");
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The string literals of Rust code, and its doc comments, which clap shows as help.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let tail = &rest[at..];
        let (literal, used) = if tail.starts_with("//") {
            let end = tail.find('\n').unwrap_or(tail.len());
            (tail.starts_with("/// ").then(|| tail[4..end].to_owned()), end)
        } else if tail.starts_with("'\"'") || tail.starts_with("'\\\"'") {
            (None, tail[1..].find('\'').unwrap() + 2)
        } else if tail.starts_with('"') {
            let raw = rest[..at].ends_with("r#");
            let end = if raw { tail.find("\"#").unwrap_or(tail.len() - 1) } else { closing(tail) };
            (Some(tail[1..end].replace("\\\"", "'").replace("\\\n", "")), end + 1)
        } else {
            (None, 1)
        };
        found.extend(literal);
        rest = &tail[used.min(tail.len())..];
    }
    found
}

/// Where the literal that `text` begins with ends.
fn closing(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len() - 1
}

#[test]
fn the_top_level_holds_what_a_newcomer_expects_and_nothing_else() {
    const VISIBLE: [&str; 9] =
        ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "build.rs", "deploy.toml.example", "scripts", "src", "tests"];
    let Ok(listed) = Command::new("git").args(["-c", "safe.directory=*", "-C"]).arg(project()).args(["ls-files", "--cached"]).output()
    else {
        return skip("the list of files needs git");
    };
    let text = String::from_utf8(listed.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|path| path.split('/').next()).filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return skip("this is not a checkout with files that git tracks");
    }
    assert_eq!(names, VISIBLE);
}
