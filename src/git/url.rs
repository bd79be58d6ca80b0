//! URLs of sources: told from paths, refused where git could take them for something else, and shown without credentials.

use crate::tree::Digest;

use super::error::GitError;

/// Tells a URL, or `host:path` as ssh writes it, from a path.
pub fn is_url(text: &str) -> bool {
    match (text.find(':'), text.find('/')) {
        (Some(_), _) if text.contains("://") || text.contains("::") => true,
        (Some(colon), Some(slash)) => colon < slash,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Refuses what git could take for an option or a command.
pub fn check(url: &str, shown: &str) -> Result<(), GitError> {
    let refused = |why| Err(GitError::Url { url: shown.to_owned(), why });
    match url {
        url if url.starts_with('-') => refused("it starts with a dash"),
        url if url.chars().any(char::is_control) => refused("it holds control characters"),
        url if url.contains("::") && !url.contains('[') => refused("remote helpers are not started"),
        url if url.split_once("://").is_some_and(|(_, rest)| rest.starts_with('-')) => refused("the host starts with a dash"),
        _ => Ok(()),
    }
}

/// Takes user and password out of a URL. A name before `@` in `git@host:path` is no secret and stays.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    match authority.rsplit_once('@') {
        Some((user, host)) if scheme.contains("http") || user.contains(':') => format!("{scheme}://{host}{path}"),
        _ => url.to_owned(),
    }
}

/// Names the directory: something to recognise, and a digest. A token that changes from run to run makes no new mirror.
pub fn name(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).take(40).collect();
    format!("{plain}-{}", &Digest::of(url.as_bytes()).to_string()[..16])
}

/// Keeps the lines that explain a failure: progress goes, and so does every credential.
pub fn explained(stderr: &str, source: &str, shown: &str) -> String {
    let stderr = stderr.replace(source, shown);
    let secrets = source.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
    let secret = secrets.map(|(user, _)| user.split_once(':').map_or(user, |(_, password)| password)).filter(|secret| !secret.is_empty());
    let lines = stderr.lines().map(|line| line.rsplit('\r').next().unwrap_or_default());
    let telling = lines.filter(|line| !line.trim().is_empty() && !line.contains("% (") && !line.starts_with("remote: Enumerating"));
    let text = telling.map(|line| line.split(' ').map(redacted_word).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n");
    secret.map_or(text.clone(), |secret| text.replace(secret, "***"))
}

fn redacted_word(word: &str) -> String {
    let quote = |c: char| matches!(c, '\'' | '"');
    match word.trim_matches(quote) {
        inner if inner.contains("://") => word.replace(inner, &redacted(inner)),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for url in
            ["https://example.net/a.git", "ssh://git@example.net/a", "git@example.net:a/b.git", "example.net:a", "file:///srv/a", "ext::sh"]
        {
            assert!(is_url(url), "{url}");
        }
        for path in [".", "../a", "/srv/a:b", "./a:b", "repo.bundle"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn a_credential_is_never_shown_nor_part_of_a_name() {
        let url = "https://ada:s3cret@example.net/team/app.git";
        assert_eq!(redacted(url), "https://example.net/team/app.git");
        assert_eq!(redacted("https://t0ken@example.net/a"), "https://example.net/a");
        assert_eq!(redacted("ssh://git@example.net/a"), "ssh://git@example.net/a");
        let stderr = "fatal: unable to access 'https://ada:s3cret@example.net/team/app.git/': s3cret";
        assert_eq!(explained(stderr, url, &redacted(url)), "fatal: unable to access 'https://example.net/team/app.git/': ***");
        assert!(name(&redacted(url)).starts_with("app-"));
    }

    #[test]
    fn urls_that_git_could_take_for_something_else_are_refused() {
        for url in ["--upload-pack=touch x", "ext::sh -c true", "https://a\nb", "ssh://-oProxyCommand=x/y"] {
            assert!(matches!(check(url, url), Err(GitError::Url { .. })), "{url}");
        }
        assert!(check("ssh://git@[::1]/a", "").is_ok());
    }
}
