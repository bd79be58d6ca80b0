//! Values with the place they were written at: what `toml` parsed, kept so that every later error and `--origin` can point at it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes of `deploy.toml`.
    File(Range<usize>),
    /// A flag, as typed: `--set build.timeout=5m`.
    Flag(String),
    Recipe(&'static str),
    Default,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Whole(i64),
    Truth(bool),
    List(Vec<Node>),
    Table(Table),
    /// What no key of `deploy.toml` takes: a float, a date, a number beyond 64 bits.
    Other(&'static str),
}

/// A table in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    /// Where the key is, as opposed to its value.
    pub place: Place,
    pub node: Node,
}

impl Table {
    /// Parses `text`; `place` says what a range of it is.
    pub fn parse(text: &str, place: &dyn Fn(Range<usize>) -> Place) -> Result<Self, toml::de::Error> {
        DeTable::parse(text).map(|table| from_table(table.get_ref(), place))
    }

    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    #[must_use]
    pub fn at(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// Finds a value by its dotted path.
    #[must_use]
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        let (first, rest) = path.split_first()?;
        let node = self.at(first)?;
        if rest.is_empty() { Some(node) } else { node.table()?.find(rest) }
    }

    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Self> {
        self.at(name).and_then(Node::table)
    }

    /// Writes a value at a path, making the tables above it.
    pub fn put(&mut self, path: &[&str], node: Node) {
        let Some((first, rest)) = path.split_first() else { return };
        let place = node.place.clone();
        let position = self.entries.iter().position(|entry| entry.name == *first);
        if rest.is_empty() {
            let entry = Entry { name: (*first).to_owned(), place, node };
            match position {
                Some(position) => self.entries[position] = entry,
                None => self.entries.push(entry),
            }
            return;
        }
        let mut inner = position.and_then(|position| self.entries[position].node.table().cloned()).unwrap_or_default();
        inner.put(rest, node);
        self.put(&[first], Node { value: Value::Table(inner), place });
    }

    /// Removes a value by its path and tells whether there was one.
    pub fn remove(&mut self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        let Some(position) = self.entries.iter().position(|entry| entry.name == *first) else { return false };
        if rest.is_empty() {
            self.entries.remove(position);
            return true;
        }
        match &mut self.entries[position].node.value {
            Value::Table(inner) => inner.remove(rest),
            Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::List(_) | Value::Other(_) => false,
        }
    }
}

impl Node {
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::List(_) | Value::Other(_) => None,
        }
    }

    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Whole(_) | Value::Truth(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => None,
        }
    }

    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::Table(_) | Value::Other(_) => None,
        }
    }

    /// Names the kind of value for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Whole(_) => "a number",
            Value::Truth(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

fn from_table(table: &DeTable<'_>, place: &dyn Fn(Range<usize>) -> Place) -> Table {
    let mut spans: Vec<_> = table.iter().collect();
    spans.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): &(&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| Entry {
        name: key.get_ref().to_string(),
        place: place(key.span()),
        node: from_value(value, place),
    };
    Table { entries: spans.iter().map(entry).collect() }
}

fn from_value(value: &toml::Spanned<DeValue<'_>>, place: &dyn Fn(Range<usize>) -> Place) -> Node {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other("a number beyond 64 bits"), Value::Whole)
        }
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Array(items) => Value::List(items.iter().map(|item| from_value(item, place)).collect()),
        DeValue::Table(table) => Value::Table(from_table(table, place)),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { value: inner, place: place(value.span()) }
}
