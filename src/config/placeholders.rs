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
