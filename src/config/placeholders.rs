//! The placeholders of argv arrays and paths, and the same values as variables for commands that a shell reads.

/// What a command can be told about the deploy it is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    pub env: String,
    /// The full commit id.
    pub rev: String,
    pub short_rev: String,
    pub release: String,
    pub host: String,
    /// The host's roles, with commas between them.
    pub role: String,
    pub root: String,
    pub current: String,
    pub shared: String,
}

/// Says what is wrong with a text that holds placeholders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    #[error("unknown placeholder `{{{0}}}`")]
    Unknown(String),
    #[error("`{{` is never closed")]
    Open,
    #[error("`}}` closes nothing")]
    Close,
}

/// Every placeholder, in the order of the documentation.
pub const NAMES: [&str; 9] = ["env", "rev", "short-rev", "release", "host", "role", "root", "current", "shared"];

impl Values {
    fn lookup(&self, name: &str) -> Option<&str> {
        let value = match name {
            "env" => &self.env,
            "rev" => &self.rev,
            "short-rev" => &self.short_rev,
            "release" => &self.release,
            "host" => &self.host,
            "role" => &self.role,
            "root" => &self.root,
            "current" => &self.current,
            "shared" => &self.shared,
            _ => return None,
        };
        Some(value)
    }
}

/// Replaces `{name}` in `text`; `{{` and `}}` stand for the braces themselves.
pub fn expand(text: &str, values: &Values) -> Result<String, PlaceholderError> {
    expand_with(text, |name| values.lookup(name))
}

/// Checks a text as `expand` would read it, before there are values.
pub fn check(text: &str) -> Result<(), PlaceholderError> {
    expand(text, &Values::default()).map(|_| ())
}

/// Where a build finds what it is built from, and where it may leave what nobody needs afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The directory of the cache that has this revision's files; none where there is no cache.
    pub cache: Option<String>,
    /// A directory of this build alone, gone when it ends.
    pub scratch: String,
    /// The url of the package index; none where the build does not reach it.
    pub index: Option<String>,
}

impl Places {
    fn lookup(&self, name: &str) -> Option<&str> {
        match name {
            "cache" => self.cache.as_deref(),
            "scratch" => Some(&self.scratch),
            "index" => self.index.as_deref(),
            "index-host" => self.index.as_ref().map(|_| crate::op::INDEX_ADDRESS),
            _ => None,
        }
    }

    /// The same as variables.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let cache = self.cache.iter().map(|cache| ("DEPLOYER_CACHE".to_owned(), cache.clone()));
        let index = self.index.iter().map(|index| ("DEPLOYER_INDEX".to_owned(), index.clone()));
        cache.chain([("DEPLOYER_SCRATCH".to_owned(), self.scratch.clone())]).chain(index).collect()
    }
}

/// As `expand`, with `{cache}`, `{scratch}`, `{index}` and `{index-host}` too.
pub fn expand_build(text: &str, values: &Values, places: &Places) -> Result<String, PlaceholderError> {
    expand_with(text, |name| places.lookup(name).or_else(|| values.lookup(name)))
}

/// Checks a text as `expand_build` would read it.
pub fn check_build(text: &str, has_cache: bool, has_index: bool) -> Result<(), PlaceholderError> {
    let places = Places { cache: has_cache.then(String::new), scratch: String::new(), index: has_index.then(String::new) };
    expand_build(text, &Values::default(), &places).map(|_| ())
}

/// Checks a text of a fill, which knows of the environment, the revision and its own places.
pub fn check_fill(text: &str, has_index: bool) -> Result<(), PlaceholderError> {
    let known = |name: &str| match name {
        "env" | "rev" | "short-rev" | "cache" | "scratch" => true,
        "index" | "index-host" => has_index,
        _ => false,
    };
    expand_with(text, |name| known(name).then_some("")).map(|_| ())
}

/// Replaces `{name}` by what `lookup` says.
pub fn expand_with<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, PlaceholderError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("{{") {
            out.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            out.push('}');
            rest = after;
        } else if let Some(after) = from.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or(PlaceholderError::Open)?;
            out.push_str(lookup(name).ok_or_else(|| PlaceholderError::Unknown(name.to_owned()))?);
            rest = after;
        } else {
            return Err(PlaceholderError::Close);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The same values as variables: how a command written as a string finds them.
#[must_use]
pub fn variables(values: &Values) -> Vec<(String, String)> {
    let named = |name: &&str| {
        let variable = format!("DEPLOYER_{}", name.to_ascii_uppercase().replace('-', "_"));
        values.lookup(name).map(|value| (variable, value.to_owned()))
    };
    NAMES.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            env: "prod".into(),
            rev: "a1b2c3d4".into(),
            short_rev: "a1b2c3d".into(),
            release: "20261123T061200-a1b2c3d".into(),
            host: "app1".into(),
            role: "web".into(),
            root: "/srv/boskel".into(),
            current: "/srv/boskel/current".into(),
            shared: "/srv/boskel/shared".into(),
        }
    }

    #[test]
    fn every_placeholder_is_replaced_and_is_a_variable_too() {
        let text = NAMES.map(|name| format!("{{{name}}}")).join(" ");
        let expected = "prod a1b2c3d4 a1b2c3d 20261123T061200-a1b2c3d app1 web /srv/boskel /srv/boskel/current /srv/boskel/shared";
        assert_eq!(expand(&text, &values()), Ok(expected.to_owned()));
        let variables = variables(&values());
        assert_eq!(variables.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" "), expected);
        assert_eq!(variables[2], ("DEPLOYER_SHORT_REV".to_owned(), "a1b2c3d".to_owned()));
    }

    #[test]
    fn doubled_braces_are_braces_and_values_are_not_expanded_again() {
        assert_eq!(expand("awk '{{print}}' {{env}}", &values()), Ok("awk '{print}' {env}".to_owned()));
        let hostile = Values { host: "{rev}".into(), ..values() };
        assert_eq!(expand("{host}", &hostile), Ok("{rev}".to_owned()));
    }

    #[test]
    fn what_is_not_a_placeholder_is_refused() {
        assert_eq!(check("{revision}"), Err(PlaceholderError::Unknown("revision".into())));
        assert_eq!(check("{}"), Err(PlaceholderError::Unknown(String::new())));
        assert_eq!(check("a {rev"), Err(PlaceholderError::Open));
        assert_eq!(check("a } b"), Err(PlaceholderError::Close));
        assert_eq!(check("{unknown}").unwrap_err().to_string(), "unknown placeholder `{unknown}`");
    }
}
