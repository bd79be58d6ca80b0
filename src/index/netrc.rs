//! The user's netrc: names and passwords by host, as curl, pip and git read them.

/// What a netrc says of one host.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// Finds the login of `host` in the text of a netrc; `default` stands for every host.
#[must_use]
pub fn find(text: &str, host: &str) -> Option<Login> {
    let mut words = words(text).into_iter();
    let (mut here, mut user, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" | "default" => {
                if here && password.is_some() {
                    break;
                }
                here = word == "default" || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                (user, password) = (None, None);
            }
            "login" if here => user = words.next(),
            "password" if here => password = words.next(),
            "login" | "password" | "account" => drop(words.next()),
            _ => {}
        }
    }
    here.then_some(password).flatten().map(|password| Login { user: user.unwrap_or_default(), password })
}

/// Splits at white space, but not within quotes. Comments and the bodies of macros are left out.
fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if in_macro {
            in_macro = !line.trim().is_empty();
            continue;
        }
        if line.trim_start().starts_with('#') {
            continue;
        }
        in_macro = line.trim_start().starts_with("macdef");
        if in_macro {
            continue;
        }
        let (mut word, mut quoted, mut escaped) = (None::<String>, false, false);
        for c in line.chars() {
            match c {
                _ if escaped => {
                    word.get_or_insert_default().push(c);
                    escaped = false;
                }
                '\\' if quoted => escaped = true,
                '"' if quoted || word.is_none() => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                c if c.is_whitespace() && !quoted => found.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            }
        }
        found.extend(word);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str, host: &str) -> Option<(String, String)> {
        find(text, host).map(|login| (login.user, login.password))
    }

    #[test]
    fn the_login_of_a_host_is_found_among_others() {
        let text = "# mine\nmachine a.example login ada password one\nmachine\n  b.example\n  login bob\n  password \"two words\"\n\
                    macdef init\n  machine c.example login x password y\n\nmachine d.example password p#4 account z\ndefault login any password rest\n";
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login(text, "a.example"), pair("ada", "one"));
        assert_eq!(login(text, "B.example"), pair("bob", "two words"));
        assert_eq!(login(text, "c.example"), pair("any", "rest"));
        assert_eq!(login(text, "d.example"), pair("", "p#4"));
        assert_eq!(login("machine a.example login ada", "a.example"), None);
        assert_eq!(login("machine a.example login ada password", "a.example"), None);
        assert_eq!(login("", "a.example"), None);
    }
}
