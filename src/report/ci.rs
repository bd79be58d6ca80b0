//! How blocks and errors are written for the log viewers of pipelines: groups of GitHub Actions, sections of GitLab.

use std::fmt::Write as _;

/// Whose log viewer reads the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ci {
    /// Found out from the environment.
    #[default]
    Auto,
    Github,
    Gitlab,
    None,
}

impl Ci {
    /// Decides `Auto` by what the runners set.
    #[must_use]
    pub fn resolve(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).is_some_and(|value| value == "true");
        match self {
            Self::Auto if set("GITHUB_ACTIONS") => Self::Github,
            Self::Auto if set("GITLAB_CI") => Self::Gitlab,
            Self::Auto => Self::None,
            chosen => chosen,
        }
    }
}

/// Lines that belong together.
pub struct Block<'a> {
    /// `app07_build`, unique enough for a section.
    pub name: String,
    pub title: String,
    pub lines: &'a [String],
    /// Success is folded, failure never is.
    pub folded: bool,
    /// Seconds since 1970.
    pub at: i64,
}

impl Ci {
    /// Writes a block: its title, its lines, and what the viewer needs around them.
    #[must_use]
    pub fn block(self, block: &Block) -> Vec<String> {
        let title = block.title.clone();
        let lines = block.lines.iter().cloned();
        match (self, block.folded) {
            (Self::Github, true) => {
                std::iter::once(format!("::group::{}", data(&title))).chain(lines).chain(["::endgroup::".to_owned()]).collect()
            }
            // GitLab takes `collapsed` at the start of a section only, so a block is written when its verdict is known.
            (Self::Gitlab, folded) => {
                let name: String =
                    block.name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
                let collapsed = if folded { "[collapsed=true]" } else { "" };
                let start = format!("\x1b[0Ksection_start:{}:{name}{collapsed}\r\x1b[0K{title}", block.at);
                let end = format!("\x1b[0Ksection_end:{}:{name}\r\x1b[0K", block.at);
                std::iter::once(start).chain(lines).chain([end]).collect()
            }
            (Self::Github | Self::Auto | Self::None, _) => std::iter::once(title).chain(lines).collect(),
        }
    }

    /// Keeps text of a host from being read as a command. GitHub's runner acts on `::name::` only at the start of a line, which no
    /// host reaches, but on `##[name]` anywhere in it (`ActionCommand.TryParse` of actions/runner).
    #[must_use]
    pub fn harmless(self, line: &str) -> String {
        match self {
            Self::Github => line.replace("##[", "##\\["),
            Self::Auto | Self::Gitlab | Self::None => line.to_owned(),
        }
    }

    /// One annotation for a failed step. GitHub shows ten a step, so hosts are folded into its text.
    #[must_use]
    pub fn annotation(self, title: &str, text: &str) -> Option<String> {
        (self == Self::Github).then(|| format!("::error title={}::{}", property(title), data(text)))
    }
}

fn data(text: &str) -> String {
    escaped(text, "%\r\n")
}

fn property(text: &str) -> String {
    escaped(text, "%\r\n:,")
}

fn escaped(text: &str, special: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if special.contains(c) {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_viewer_is_found_out_unless_it_was_chosen() {
        let only = |set: &'static str| move |name: &str| (name == set).then(|| "true".to_owned());
        assert_eq!(Ci::Auto.resolve(only("GITHUB_ACTIONS")), Ci::Github);
        assert_eq!(Ci::Auto.resolve(only("GITLAB_CI")), Ci::Gitlab);
        assert_eq!(Ci::Auto.resolve(only("CI")), Ci::None);
        assert_eq!(Ci::None.resolve(only("GITHUB_ACTIONS")), Ci::None);
    }

    #[test]
    fn what_an_annotation_says_cannot_end_it() {
        let annotation = Ci::Github.annotation("a: b, c", "100%\n::error::x");
        assert_eq!(annotation.unwrap(), "::error title=a%3A b%2C c::100%25%0A::error::x");
        assert_eq!(Ci::Gitlab.annotation("a", "b"), None);
    }

    #[test]
    fn what_the_runner_would_act_on_is_broken_up() {
        assert_eq!(Ci::Github.harmless("app1| ##[add-mask]a ###[x]"), "app1| ##\\[add-mask]a ###\\[x]");
        assert_eq!(Ci::None.harmless("##[x]"), "##[x]");
    }
}
