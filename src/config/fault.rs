//! What is wrong in `deploy.toml`, with its place: rendered as a snippet, line and column, and what to write instead.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::node::Place;
use crate::error::Error;
use crate::exit::Exit;
use crate::tree::path::Shown;

/// The text that places point into, and the name it is shown by.
#[derive(Clone, Debug)]
pub struct Text {
    pub name: String,
    pub text: String,
}

impl Text {
    /// Says where a place is: `deploy.toml:7`, `--set rev=v1`, `default`.
    #[must_use]
    pub fn origin(&self, place: &Place) -> String {
        match place {
            Place::File(span) => format!("{}:{}", self.name, self.line(span.start)),
            Place::Flag(flag) => flag.clone(),
            Place::Recipe(recipe) => format!("recipe {recipe}"),
            Place::Default => "default".to_owned(),
        }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    /// Narrows a place to where `part` stands in it, if it stands there as written.
    #[must_use]
    pub fn within(&self, place: &Place, part: &str) -> Place {
        match place {
            Place::File(span) => {
                let found = self.text.get(span.clone()).and_then(|text| text.find(part));
                let narrowed = found.map(|at| span.start + at..span.start + at + part.len());
                Place::File(narrowed.unwrap_or_else(|| span.clone()))
            }
            Place::Flag(_) | Place::Recipe(_) | Place::Default => place.clone(),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: &'static str,
    pub what: String,
    pub place: Place,
    pub label: String,
    /// A second place that takes part.
    pub also: Option<(Place, String)>,
    pub help: Vec<String>,
    pub note: Option<String>,
}

impl Fault {
    #[must_use]
    pub fn new(place: &Place, what: impl Into<String>, label: impl Into<String>) -> Self {
        Self { code: "config", what: what.into(), place: place.clone(), label: label.into(), also: None, help: Vec::new(), note: None }
    }

    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    #[must_use]
    pub fn also(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.also = Some((place.clone(), label.into()));
        self
    }

    /// Renders the fault against the text its places point into.
    #[must_use]
    pub fn into_error(mut self, text: &Text) -> Error {
        // A string of TOML may hold what a terminal would act on (`"\u001b[2J"`).
        [&mut self.what, &mut self.label].into_iter().chain(&mut self.help).for_each(|text| *text = Shown(text.as_bytes()).to_string());
        match &self.place {
            Place::File(span) => {
                let lines = self.snippet(span, text);
                Error::new(Exit::Config, self.code, self.what).evidence(lines)
            }
            Place::Flag(_) | Place::Recipe(_) | Place::Default => {
                let mut error = Error::new(Exit::Config, self.code, self.what);
                error.evidence = vec![format!(" --> {}: {}", text.origin(&self.place), self.label)];
                error.hints = self.help;
                error
            }
        }
    }

    fn snippet(&self, span: &Range<usize>, text: &Text) -> Vec<String> {
        let mut snippet =
            Snippet::source(&text.text).path(&text.name).annotation(annotation(AnnotationKind::Primary, span, &self.label, text));
        if let Some((Place::File(other), label)) = &self.also {
            snippet = snippet.annotation(annotation(AnnotationKind::Context, other, label, text));
        }
        let group = Group::with_title(Level::ERROR.primary_title("")).element(snippet);
        let group = group.elements(self.help.iter().map(|help| Level::HELP.message(help)));
        let group = group.elements(self.note.iter().map(|note| Level::NOTE.message(note)));
        let rendered = Renderer::plain().render(&[group]);
        // The title is the error's own first line, and is printed with it.
        rendered.lines().skip(1).map(|line| line.trim_end().to_owned()).collect()
    }
}

fn annotation<'a>(kind: AnnotationKind, span: &Range<usize>, label: &'a str, text: &Text) -> Annotation<'a> {
    kind.span(one_line(span, &text.text)).label(label)
}

/// Cuts a span to its first line: a table or a list over many lines is pointed at, not repeated.
fn one_line(span: &Range<usize>, text: &str) -> Range<usize> {
    let end = text.get(span.clone()).and_then(|part| part.find(['\n', '\r'])).map_or(span.end, |line| span.start + line);
    span.start..end.min(text.len())
}

/// Finds what was probably meant.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |name: &&str| strsim::normalized_damerau_levenshtein(word, name).max(strsim::jaro_winkler(word, name) - 0.15);
    known.into_iter().filter(|name| score(name) >= 0.6).max_by(|a, b| score(a).total_cmp(&score(b)))
}
