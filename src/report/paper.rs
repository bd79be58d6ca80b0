//! What text is written on: its character set, its colours and its width. Whatever reaches a terminal passes here.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::tree::path::Shown;

/// How a view writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paper {
    pub color: bool,
    /// False outside UTF-8 locales: nothing but ASCII is written.
    pub unicode: bool,
}

impl Paper {
    pub const PLAIN: Self = Self { color: false, unicode: true };
}

/// What stands before a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    None,
    Ok,
    Failed,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Dim,
    Strong,
    Warning,
    Bad,
}

/// One line for people: not yet escaped, clipped or coloured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub mark: Mark,
    pub tone: Tone,
    pub text: String,
}

impl Line {
    pub fn new(text: impl Into<String>) -> Self {
        Self { mark: Mark::None, tone: Tone::Plain, text: text.into() }
    }

    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { mark: Mark::None, tone, text: text.into() }
    }

    pub fn marked(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, tone: Tone::Plain, text: text.into() }
    }

    /// Writes the line in full.
    #[must_use]
    pub fn write(&self, paper: Paper) -> String {
        self.paint(paper, &paper.safe(&self.text))
    }

    /// Writes what fits into `width` columns: for lines that are redrawn, never for a log.
    #[must_use]
    pub fn clipped(&self, paper: Paper, width: usize) -> String {
        let mark = self.mark.sign(paper).map_or(0, |(sign, _)| sign.width() + 1);
        self.paint(paper, &clip(&paper.safe(&self.text), width.saturating_sub(mark)))
    }

    fn paint(&self, paper: Paper, text: &str) -> String {
        let text = if text.is_empty() { String::new() } else { paper.styled(self.tone.style(), text) };
        match self.mark.sign(paper) {
            Some((sign, style)) => format!("{} {text}", paper.styled(style, sign)),
            None => text,
        }
    }
}

impl Mark {
    fn sign(self, paper: Paper) -> Option<(&'static str, Style)> {
        let good = AnsiColor::Green.on_default();
        let bad = AnsiColor::Red.on_default().bold();
        match (self, paper.unicode) {
            (Self::None, _) => None,
            (Self::Ok, true) => Some(("✓", good)),
            (Self::Ok, false) => Some(("ok    ", good)),
            (Self::Failed, true) => Some(("✗", bad)),
            (Self::Failed, false) => Some(("FAILED", bad)),
        }
    }
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }
}

impl Paper {
    /// Makes one line of text harmless and writable in this character set.
    #[must_use]
    pub fn safe(self, text: &str) -> String {
        let text = escape(text);
        if self.unicode || text.is_ascii() { text } else { text.chars().map(ascii).collect() }
    }

    /// Colours text, where there is colour.
    #[must_use]
    pub fn styled(self, style: Style, text: &str) -> String {
        if self.color && !style.is_plain() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Colours a word by how loud it is.
    #[must_use]
    pub fn toned(self, tone: Tone, text: &str) -> String {
        self.styled(tone.style(), text)
    }
}

/// Makes text from a host or a tree harmless: what a terminal could act on is shown as `\n` or `\u{1b}`.
#[must_use]
pub fn escape(text: &str) -> String {
    Shown(text.as_bytes()).to_string()
}

/// Tells whether the locale writes UTF-8: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set decides.
#[must_use]
pub fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_some_and(|locale| ["utf-8", "utf8"].iter().any(|name| locale.to_ascii_lowercase().contains(name)))
}

fn ascii(c: char) -> String {
    match c {
        c if c.is_ascii() => c.to_string(),
        '✓' => "ok".to_owned(),
        '✗' => "FAILED".to_owned(),
        '→' => "->".to_owned(),
        '·' | '−' | '─' => "-".to_owned(),
        '…' => "...".to_owned(),
        '━' => "#".to_owned(),
        c => c.escape_default().collect(),
    }
}

/// Cuts text to `width` columns as a terminal counts them.
#[must_use]
pub fn clip(text: &str, width: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

/// Sets rows under each other: all columns but the last are padded to the widest cell.
#[must_use]
pub fn table(rows: &[Vec<String>], gap: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let pad = |cell: &String, width: usize| format!("{cell}{}", " ".repeat(width + gap - cell.width().min(width)));
    let row = |row: &Vec<String>| row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect::<String>().trim_end().to_owned();
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides_the_character_set() {
        let utf8 = |set: &[(&str, &str)]| is_utf8(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        assert!(utf8(&[("LANG", "de_DE.UTF-8@euro")]));
        assert!(utf8(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!utf8(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!utf8(&[]));
    }

    #[test]
    fn clipping_counts_columns_not_characters() {
        assert_eq!(clip("日本語", 4), "日本");
        assert_eq!(clip("日本語", 3), "日");
        assert_eq!(clip("abc", 0), "");
    }

    #[test]
    fn outside_utf_8_signs_have_words_and_other_letters_are_escaped() {
        let ascii = Paper { color: false, unicode: false };
        assert_eq!(Line::marked(Mark::Failed, "a → é").write(ascii), "FAILED a -> \\u{e9}");
        assert_eq!(Line::marked(Mark::Ok, "a").write(ascii), "ok     a");
    }

    #[test]
    fn colour_is_written_only_where_there_is_colour() {
        let line = Line { mark: Mark::Ok, tone: Tone::Dim, text: "a".to_owned() };
        assert_eq!(line.write(Paper::PLAIN), "✓ a");
        assert_eq!(line.write(Paper { color: true, unicode: true }), "\u{1b}[32m✓\u{1b}[0m \u{1b}[2ma\u{1b}[0m");
    }

    proptest! {
        #[test]
        fn no_text_yields_a_character_a_terminal_acts_on(text in "\\PC*|[\\x00-\\x9f\u{202a}-\u{202e}x]*", width in 0_usize..200) {
            for unicode in [true, false] {
                let paper = Paper { color: false, unicode };
                for shown in [Line::new(&*text).write(paper), Line::new(&*text).clipped(paper, width)] {
                    prop_assert!(!shown.chars().any(|c| c.is_control() || crate::tree::path::is_bidi_control(c)));
                    prop_assert!(unicode || shown.is_ascii());
                }
                prop_assert!(Line::new(&*text).clipped(paper, width).width() <= width);
            }
        }
    }
}
