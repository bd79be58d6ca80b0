//! Host names for people: shortened to what tells them apart, and folded into ranges, `app[01-06,08-12]`.

use std::net::IpAddr;

use crate::config::ranges;

/// Short names of the hosts of one run.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// What all names end in, from a dot on; empty where nothing can be dropped.
    suffix: String,
}

impl Names {
    /// Finds the labels that all `hosts` end in. Addresses are never cut.
    #[must_use]
    pub fn new(hosts: &[String]) -> Self {
        let named = || hosts.iter().map(String::as_str).filter(|host| host.contains('.'));
        if named().any(|host| host.parse::<IpAddr>().is_ok()) {
            return Self::default();
        }
        let Some(first) = named().next() else { return Self::default() };
        // The first label always stays, so the longest candidate begins at the first dot.
        let suffix = first
            .match_indices('.')
            .map(|(dot, _)| &first[dot..])
            .find(|suffix| named().all(|host| host.strip_suffix(suffix).is_some_and(|short| !short.is_empty())));
        Self { suffix: suffix.unwrap_or_default().to_owned() }
    }

    #[must_use]
    pub fn short<'a>(&self, host: &'a str) -> &'a str {
        host.strip_suffix(self.suffix.as_str()).unwrap_or(host)
    }

    /// Names many hosts in one word: `app[01-06,08-12]`.
    #[must_use]
    pub fn fold<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> String {
        let shorts: Vec<&str> = hosts.into_iter().map(|host| self.short(host)).collect();
        ranges::fold(&shorts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hosts: &[&str]) -> Names {
        Names::new(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_lose_the_domain_that_all_of_them_share() {
        let fleet = names(&["app01.eu.example.net", "app02.eu.example.net", "local"]);
        assert_eq!(fleet.short("app02.eu.example.net"), "app02");
        assert_eq!(fleet.fold(["app01.eu.example.net", "app02.eu.example.net", "local"]), "app[01-02],local");
        let two = names(&["app01.eu.example.net", "app01.us.example.net"]);
        assert_eq!(two.short("app01.eu.example.net"), "app01.eu");
        assert_eq!(names(&["10.0.0.1", "10.1.0.1"]).short("10.0.0.1"), "10.0.0.1");
        assert_eq!(names(&["::1"]).short("::1"), "::1");
    }
}
