//! The lines of sudoers that an environment's activations, checks and hooks need: exactly their commands, and nothing else. Where a part
//! of a command differs from run to run or from host to host, the rule is a regular expression, which knows only what may stand there: a
//! `*` of sudoers would match any number of arguments. Before sudo 1.9.10 such a rule matches nothing.

use crate::config::environment::{CheckProbe, Environment, HookPlace, Run};
use crate::config::placeholders;
use crate::op::Command;

/// Stands for a name that differs from run to run or from host to host, until everything else is escaped.
const NAME: char = '\u{1}';
/// Stands for the root, where hosts have different ones.
const ROOT: char = '\u{2}';
/// What a name may be: never `..`, an option or two words.
const NAMES: &str = "[A-Za-z0-9_][A-Za-z0-9._-]*";

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
    let mut expanded: Vec<String> = words.iter().map(|word| expanded(environment, word)).collect();
    if !program.starts_with(['/', '{']) {
        lines.push(format!("# sudo wants the whole path: is this what `command -v {program}` says on the hosts?"));
        expanded[0] = format!("/usr/bin/{program}");
    }
    let varies = |text: &str| text.contains([NAME, ROOT]);
    if expanded.iter().any(|word| varies(word)) {
        lines.push(format!("# `{key}` differs from run to run or host to host: this rule needs sudo 1.9.10 or later"));
    }
    let (path, arguments) = (&expanded[0], &expanded[1..]);
    let path = if varies(path) { format!("^{}$", pattern(environment, path)) } else { escaped(path) };
    let arguments = if arguments.is_empty() {
        // Without it the rule would allow any arguments.
        "\"\"".to_owned()
    } else if arguments.iter().any(|word| varies(word)) {
        let words: Vec<String> = arguments.iter().map(|word| pattern(environment, word)).collect();
        format!("^{}$", words.join(" "))
    } else {
        arguments.iter().map(|word| escaped(word)).collect::<Vec<_>>().join(" ")
    };
    lines.push(format!("{} ALL=({other}) NOPASSWD: {path} {arguments}", name(user)));
    lines
}

/// Writes a word as a regular expression. Of what sudoers itself reads, only `#` means something there.
fn pattern(environment: &Environment, word: &str) -> String {
    let literal = |c: char| if ".[]{}()\\*+?|^$#".contains(c) { format!("\\{c}") } else { c.to_string() };
    let of = |c: char| match c {
        NAME => NAMES.to_owned(),
        ROOT => {
            let roots = environment.targets.iter().map(|target| target.root.as_ref().unwrap_or(&environment.root).as_str());
            let mut roots: Vec<String> = roots.map(|root| root.chars().map(literal).collect()).collect();
            roots.sort();
            roots.dedup();
            format!("({})", roots.join("|"))
        }
        c => literal(c),
    };
    word.chars().map(of).collect()
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
    // A host may have a root of its own.
    let is_one = environment.targets.iter().all(|target| target.root.is_none());
    let (name, root) = (NAME.to_string(), if is_one { root.to_owned() } else { ROOT.to_string() });
    let (current, shared) = (format!("{root}/current"), format!("{root}/shared"));
    let lookup = |wanted: &str| match wanted {
        "env" => Some(environment.name.as_str()),
        "root" => Some(root.as_str()),
        "current" => Some(current.as_str()),
        "shared" => Some(shared.as_str()),
        _ => Some(name.as_str()),
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
                "# `activate` differs from run to run or host to host: this rule needs sudo 1.9.10 or later",
                "deploy ALL=(app) NOPASSWD: /opt/touch ^/srv/p/current/tmp [A-Za-z0-9_][A-Za-z0-9._-]* \\*$"
            ]
        );
    }

    #[test]
    fn what_differs_may_be_a_name_or_a_root_that_there_is_and_nothing_else() {
        let lines = printed(
            "activate = { run = [\"{current}/bin/go\", \"{host}\"], as = \"app\" }\n[[env.x.host]]\nname = \"b\"\nroot = \"/srv/q.1\"\n",
        );
        assert_eq!(lines[1], "deploy ALL=(app) NOPASSWD: ^(/srv/p|/srv/q\\.1)/current/bin/go$ ^[A-Za-z0-9_][A-Za-z0-9._-]*$");
        assert!(!lines.iter().any(|line| line.ends_with('*')), "{lines:?}");
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
