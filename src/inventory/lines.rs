//! The plain format: a host a line, then its roles, then what else is known of it.

use std::collections::BTreeMap;

use super::{Found, Next, Wrong};
use crate::config::listed::Listed;
use crate::config::ranges;

/// What a line looks like, for hints.
pub(super) const EXPECTED: &str =
    "a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`";

/// Reads the lines. Blank ones, and what follows a `#`, are for people.
pub(super) fn parse(text: &str) -> Result<Vec<Found>, Wrong> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = format!("line {}", index + 1);
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(name) = words.next() else { continue };
        if found.len() == ranges::MOST {
            return Err(Wrong::new(place, line, format!("it lists more than {} hosts", ranges::MOST)).next(Next::Clear));
        }
        let host = host(name, words).map_err(|why| Wrong::new(&place, line, why))?;
        found.push(Found { place, said: line.to_owned(), host });
    }
    Ok(found)
}

fn host<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Result<Listed, String> {
    if name.contains('=') {
        return Err(format!("it begins with `{name}`, and not with the name of a host"));
    }
    let mut host = Listed { name: name.to_owned(), ..Listed::default() };
    let mut said = BTreeMap::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            host.roles.extend(word.split(',').filter(|role| !role.is_empty()).map(str::to_owned));
            continue;
        };
        if said.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("it says `{key}` twice"));
        }
    }
    host.address = said.remove("address");
    host.user = said.remove("user");
    host.port = said.remove("port");
    host.root = said.remove("root");
    host.labels = said;
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_then_roles_then_settings_and_labels() {
        let found = parse("# the web\napp01 web,worker az=a\n\n  deploy@app02:2222\tweb first # new\r\napp03 address=10.0.0.3 user=ada port=22 root=/srv/p rack=7\n")
            .unwrap();
        assert_eq!(found.iter().map(|found| found.place.as_str()).collect::<Vec<_>>(), ["line 2", "line 4", "line 5"]);
        let [app01, app02, app03] = [&found[0].host, &found[1].host, &found[2].host];
        assert_eq!((app01.name.as_str(), app01.roles.join(" "), app01.labels["az"].as_str()), ("app01", "web worker".to_owned(), "a"));
        assert_eq!((app02.name.as_str(), app02.roles.join(" ")), ("deploy@app02:2222", "web first".to_owned()));
        assert_eq!((app03.address.as_deref(), app03.user.as_deref(), app03.port.as_deref()), (Some("10.0.0.3"), Some("ada"), Some("22")));
        assert_eq!((app03.root.as_deref(), &app03.labels), (Some("/srv/p"), &BTreeMap::from([("rack".to_owned(), "7".to_owned())])));
    }

    #[test]
    fn a_line_that_is_none_is_told_with_its_number() {
        let why = |text: &str| parse(text).map_err(|wrong| format!("{}: {}", wrong.place, wrong.why)).unwrap_err();
        assert_eq!(why("app1\naz=a app2\n"), "line 2: it begins with `az=a`, and not with the name of a host");
        assert_eq!(why("app1 az=a az=b"), "line 1: it says `az` twice");
        assert_eq!(why(&"h\n".repeat(10_001)), "line 10001: it lists more than 10000 hosts");
    }
}
