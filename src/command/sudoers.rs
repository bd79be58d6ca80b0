//! The lines of sudoers that an environment's activations, checks and hooks need: exactly their commands, and nothing else.

use crate::config::environment::{CheckProbe, Environment, HookPlace, Run};
use crate::config::placeholders;
use crate::op::Command;

/// Stands for what differs from run to run or from host to host, until everything else is escaped.
const VARIES: char = '\u{1}';

/// Writes the lines for `user`, who logs in, each with a remark where one is needed.
#[must_use]
pub fn lines(environment: &Environment, user: &str) -> Vec<String> {
    let hooks = environment.hooks.iter().filter(|hook| hook.place != HookPlace::Local).map(|hook| ("hook", &hook.run));
    let runs = environment.ways().flat_map(|environment| {
        let check = environment.check.as_ref().and_then(|check| match &check.probe {
            CheckProbe::Run(run) => Some(("check", run)),
            CheckProbe::Url { .. } => None,
        });
        environment.activate.as_ref().map(|run| ("activate", run)).into_iter().chain(check)
    });
    let mut lines: Vec<String> = Vec::new();
    for line in runs.chain(hooks).flat_map(|(key, run)| of(environment, user, key, run)) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn of(environment: &Environment, user: &str, key: &str, run: &Run) -> Vec<String> {
    let (other, words) = match (&run.user, &run.command) {
        (Some(other), Command::Argv(words)) => (other.clone(), words.clone()),
        (None, Command::Argv(words)) => match own_sudo(words) {
            Some(found) => found,
            None => return Vec::new(),
        },
        (Some(other), Command::Shell(_)) => {
            return vec![
                format!("# `{key}` is a text for the shell, which no rule can name: write it as a list, or allow everything:"),
                format!("{} ALL=({other}) NOPASSWD: ALL", name(user)),
            ];
        }
        (None, Command::Shell(text)) if text.split_ascii_whitespace().any(|word| word == "sudo") => {
            return vec![format!(
                "# `{key}` calls sudo in a text for the shell: write it as a list with `as`, and its rule is printed here"
            )];
        }
        (None, Command::Shell(_)) => return Vec::new(),
    };
    let Some(program) = words.first() else { return Vec::new() };
    let mut lines = Vec::new();
    let written: Vec<String> = words.iter().map(|word| escaped(&expanded(environment, word))).collect();
    let mut command = written.join(" ");
    if !program.starts_with('/') {
        lines.push(format!("# sudo wants the whole path: is this what `command -v {program}` says on the hosts?"));
        command = format!("/usr/bin/{command}");
    }
    if written.len() == 1 {
        // Without it the rule would allow any arguments.
        command.push_str(" \"\"");
    }
    if command.contains(VARIES) {
        lines.push(format!("# `*` stands for what differs from run to run or host to host in `{key}`"));
    }
    lines.push(format!("{} ALL=({other}) NOPASSWD: {}", name(user), command.replace(VARIES, "*")));
    lines
}

/// Reads `sudo -n -u USER -- command…` as somebody wrote it.
fn own_sudo(words: &[String]) -> Option<(String, Vec<String>)> {
    let (first, mut rest) = words.split_first()?;
    if first.rsplit('/').next() != Some("sudo") {
        return None;
    }
    let mut user = "root".to_owned();
    loop {
        match rest {
            [flag, other, tail @ ..] if matches!(flag.as_str(), "-u" | "--user") => {
                user.clone_from(other);
                rest = tail;
            }
            [end, tail @ ..] if end == "--" => {
                rest = tail;
                break;
            }
            [flag, tail @ ..] if flag.starts_with('-') => rest = tail,
            _ => break,
        }
    }
    Some((user, rest.to_vec()))
}

fn expanded(environment: &Environment, word: &str) -> String {
    let root = environment.root.as_str();
    let (current, shared, varies) = (format!("{root}/current"), format!("{root}/shared"), VARIES.to_string());
    let lookup = |name: &str| match name {
        "env" => Some(environment.name.as_str()),
        // A host may have a root of its own.
        "root" | "current" | "shared" if environment.targets.iter().any(|target| target.root.is_some()) => Some(varies.as_str()),
        "root" => Some(root),
        "current" => Some(current.as_str()),
        "shared" => Some(shared.as_str()),
        _ => Some(varies.as_str()),
    };
    placeholders::expand_with(word, lookup).unwrap_or_else(|_| word.to_owned())
}

/// What means something in a command of sudoers is escaped (sudoers(5), "Other special characters and reserved words").
fn escaped(word: &str) -> String {
    if word.is_empty() {
        return "\"\"".to_owned();
    }
    word.chars().flat_map(|c| ",:=\\*?[]!\"# ".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A user of a domain has a backslash, which is escaped too.
fn name(user: &str) -> String {
    user.chars().flat_map(|c| "\\@ ,:=!\"".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    fn printed(settings: &str) -> Vec<String> {
        let text = format!("schema = 1\nproject = \"p\"\n[env.x]\nroot = \"/srv/p\"\nhosts = [\"a\"]\n{settings}");
        let file = config::parse(std::path::Path::new("deploy.toml"), &text).unwrap();
        lines(&file.environment("x", &Overrides::default()).unwrap(), "deploy")
    }

    #[test]
    fn a_rule_names_the_whole_command_and_escapes_what_sudoers_would_read() {
        assert_eq!(
            printed("activate = { run = [\"/usr/bin/systemctl\", \"restart\", \"p@{env}:1\"], as = \"root\" }\n"),
            ["deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart p@x\\:1"]
        );
        assert_eq!(
            printed("activate = { run = [\"/opt/touch\", \"{current}/tmp\", \"{release}\", \"*\"], as = \"app\" }\n"),
            [
                "# `*` stands for what differs from run to run or host to host in `activate`",
                "deploy ALL=(app) NOPASSWD: /opt/touch /srv/p/current/tmp * \\*"
            ]
        );
    }

    #[test]
    fn a_command_without_arguments_allows_none() {
        assert_eq!(printed("check = { run = [\"/opt/check\"], as = \"app\" }\n"), ["deploy ALL=(app) NOPASSWD: /opt/check \"\""]);
    }

    #[test]
    fn sudo_that_was_written_by_hand_is_understood() {
        let lines = printed("activate = { run = [\"sudo\", \"-n\", \"systemctl\", \"restart\", \"p\"] }\n");
        assert_eq!(lines.last().unwrap(), "deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart p");
        let lines = printed("activate = { run = [\"sudo\", \"-u\", \"app\", \"--\", \"/opt/x\", \"y\"] }\n");
        assert_eq!(lines, ["deploy ALL=(app) NOPASSWD: /opt/x y"]);
    }

    #[test]
    fn what_needs_no_sudo_has_no_line_and_a_shell_text_says_why_it_has_none() {
        assert_eq!(printed("activate = { run = [\"/opt/x\"] }\ncheck = { url = \"http://localhost/\" }\n"), Vec::<String>::new());
        assert!(printed("activate = { run = \"a; b\", as = \"root\" }\n")[0].contains("as a list"));
        assert!(printed("activate = { run = \"sudo a\" }\n")[0].starts_with('#'));
    }
}
