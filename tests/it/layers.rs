//! The map in `lib.rs`, kept true: who may import whom, and what words may not touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the edge down: a module imports from its own layer and from later ones.
const LAYERS: [(&str, &[&str]); 4] = [
    ("edge", &["main", "cli", "command", "report"]),
    ("work", &["fleet", "host", "index", "inventory", "provision", "rollout", "stage"]),
    ("doors", &["carry", "git", "sandbox", "session", "shelf", "walk", "wire"]),
    ("words", &["config", "error", "event", "exit", "figures", "op", "plan", "recipe", "release", "tree", "window"]),
];

/// A file of `src/`, without its tests and comments.
struct Source {
    path: PathBuf,
    /// The top module it belongs to.
    module: String,
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    assert!(found.len() > 80, "only {} files are looked at", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root()).unwrap().to_owned();
        let first = below.iter().next().unwrap().to_str().unwrap();
        let is_test = below.iter().any(|part| part == "tests" || part.to_str().unwrap().ends_with("tests.rs"));
        // The helper is a crate of its own, and compiles the words with them.
        if first == "helper" || is_test {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = first.trim_end_matches(".rs").to_owned();
            let code = code(&fs::read_to_string(&path).unwrap());
            found.push(Source { path: below, module, code });
        }
    }
}

/// Drops comments, and the tests, which come last in a file.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The top modules that `code` names behind `crate::`, also within braces.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => top_names(list),
            None => vec![identifier(rest)],
        };
        found.extend(names.into_iter().filter(|name| !name.is_empty()));
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0_usize, Vec::new(), 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(list[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

#[test]
fn imports_are_read_from_paths_and_from_lists() {
    let text = "use crate::{error::Error, host::{Host, Ask}, op};\nlet x = crate::plan::short(y);\nuse crate::tree;";
    assert_eq!(imports(text), ["error", "host", "op", "plan", "tree"]);
}

#[test]
fn a_module_imports_only_from_its_own_layer_and_from_layers_below() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let own = layer(&source.module).unwrap_or_else(|| panic!("{} is in no layer", source.path.display()));
        for name in imports(&source.code) {
            match layer(&name) {
                Some(other) if other >= own => {}
                Some(other) => wrong.push(format!("{} ({}) imports {name} ({})", source.path.display(), LAYERS[own].0, LAYERS[other].0)),
                None => wrong.push(format!("{} imports {name}, which is in no layer", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stages_do_not_import_each_other() {
    for source in sources().iter().filter(|source| source.module == "stage") {
        let own = source.path.file_stem().unwrap().to_str().unwrap();
        for other in ["local", "transfer", "remote"].iter().filter(|other| **other != own) {
            for path in [format!("stage::{other}"), format!("super::{other}")] {
                assert!(!source.code.contains(&path), "{} imports {other}", source.path.display());
            }
        }
    }
}

#[test]
fn words_do_no_io_and_read_no_clock() {
    const FORBIDDEN: [&str; 10] =
        ["std::fs", "std::env::", "std::net::Tcp", "std::process", "SystemTime", "Instant::now", "tokio", "git2", "stdout()", "stderr()"];
    let words = LAYERS[3].1;
    let mut seen = 0;
    for source in sources().iter().filter(|source| words.contains(&source.module.as_str())) {
        seen += 1;
        for path in FORBIDDEN {
            assert!(!source.code.contains(path), "{} uses {path}", source.path.display());
        }
        // `Instant` is the type of a moment that is passed in: events are stamped where they are told.
        assert!(!source.code.contains("Instant") || source.module == "event", "{} knows a clock", source.path.display());
    }
    assert!(seen > 25, "only {seen} files of words were looked at");
}

#[test]
fn a_library_that_shapes_a_boundary_stays_behind_it() {
    let homes: BTreeMap<&str, &[&str]> = BTreeMap::from([
        // Completion scripts are made from the command line by `command/mod.rs`, and clap's own messages are printed by `main`.
        ("clap", &["cli.rs", "cli/global.rs", "command/mod.rs", "main.rs"][..]),
        ("toml", &["config/"][..]),
        ("indicatif", &["report/"][..]),
        ("anstream", &["report/"][..]),
        ("annotate_snippets", &["config/"][..]),
        ("git2", &["git/", "sandbox/"][..]),
        ("ssh2", &["session/"][..]),
        ("walkdir", &["walk.rs"][..]),
        ("axum", &["index/"][..]),
        ("hyper", &["index/"][..]),
        ("reqwest", &["index/"][..]),
        ("rustls", &["index/"][..]),
    ]);
    for source in sources() {
        let path = source.path.to_str().unwrap();
        for (library, homes) in &homes {
            let used = source.code.match_indices(&format!("{library}::")).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(!used || homes.iter().any(|home| path.starts_with(home)), "{path} uses {library}");
        }
    }
}

#[test]
fn the_map_has_a_sentence_for_every_module_and_none_too_many() {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut mapped: Vec<String> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
        assert!(lines[at - 1].starts_with("/// "), "`{name}` has no sentence in lib.rs");
        mapped.push(name.to_owned());
    }
    mapped.sort();
    let mut modules: Vec<String> = LAYERS.iter().flat_map(|(_, modules)| modules.iter()).map(|&name| name.to_owned()).collect();
    modules.retain(|name| name != "main");
    modules.sort();
    assert_eq!(mapped, modules);
}

#[test]
fn every_module_says_what_it_is_for_in_its_first_line() {
    let mut files = Vec::new();
    collect_texts(&root(), &mut files);
    for (path, text) in files {
        assert!(text.starts_with("//! "), "{} does not say what it is for", path.display());
    }
}

fn collect_texts(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_texts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}
