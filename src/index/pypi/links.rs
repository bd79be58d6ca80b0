//! The links of an HTML page, as PEP 503 writes them. Anything else on the page is passed over.

use std::collections::BTreeMap;

/// An `<a>` with its attributes, entities resolved.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub attributes: BTreeMap<String, String>,
    pub text: String,
}

/// Finds the links of a page; none where the text is not HTML.
#[must_use]
pub fn find(html: &str) -> Option<Vec<Link>> {
    let head = html.get(..html.len().min(4096)).unwrap_or(html).to_ascii_lowercase();
    if !(head.contains("<!doctype html") || head.contains("<html") || head.contains("<a ")) {
        return None;
    }
    let (mut links, mut rest) = (Vec::new(), html);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let is_anchor = rest.starts_with(['a', 'A']) && rest[1..].starts_with(|c: char| c.is_ascii_whitespace());
        if !is_anchor {
            continue;
        }
        let (attributes, after) = attributes(&rest[1..]);
        let text = after.split('<').next().unwrap_or_default();
        links.push(Link { attributes, text: unescaped(text.trim()) });
        rest = after;
    }
    Some(links)
}

/// Reads attributes up to the end of the tag, and gives what follows.
fn attributes(mut rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return (found, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (found, after);
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || "=>/".contains(c)).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        // A stray `=` must not keep us here.
        rest = if end == 0 { &rest[1..] } else { rest[end..].trim_start() };
        let mut value = String::new();
        if end > 0
            && let Some(after) = rest.strip_prefix('=')
        {
            let after = after.trim_start();
            let quote = after.chars().next().filter(|c| "\"'".contains(*c));
            let (text, left) = match quote {
                Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                None => after.split_at(after.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(after.len())),
            };
            value = unescaped(text);
            rest = left;
        }
        if !name.is_empty() {
            found.entry(name).or_insert(value);
        }
    }
}

fn unescaped(text: &str) -> String {
    const NAMED: [(&str, &str); 5] = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'")];
    NAMED.iter().fold(text.to_owned(), |text, (name, c)| text.replace(name, c)).replace("&#61;", "=").replace("&amp;", "&")
}

/// Writes a text as the value of an attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_are_found_however_they_are_written() {
        let html = "<!DOCTYPE html><!-- <a href='no'>no</a> --><abbr>x</abbr>\n<a  HREF=\"f/a-1.whl#sha256=00&amp;x\" data-requires-python='&gt;=3.8' \
                    data-yanked>a-1.whl</a><br/><A href=b.zip rel>b.zip</A><a =\"x\" href='c'/>c";
        let found = find(html).unwrap();
        let href: Vec<_> = found.iter().map(|link| link.attributes["href"].as_str()).collect();
        assert_eq!(href, ["f/a-1.whl#sha256=00&x", "b.zip", "c"]);
        assert_eq!(found[0].attributes["data-requires-python"], ">=3.8");
        assert_eq!(found[0].attributes.get("data-yanked").map(String::as_str), Some(""));
        assert_eq!(found[0].text, "a-1.whl");
    }

    #[test]
    fn what_is_not_html_has_no_links() {
        assert_eq!(find("{\"files\": []}"), None);
        assert_eq!(find(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "<html>[<>a =\"'!/&-é]{0,60}") {
            prop_assert!(find(&text).is_some());
        }

        #[test]
        fn an_escaped_text_is_read_back(text in "[a-z&<>\"= ;]{0,20}") {
            prop_assert_eq!(unescaped(&escaped(&text)), text);
        }
    }
}
