//! How one environment is put together: `[defaults]`, then what it extends, then itself, then the flags; what nobody said comes last.
//!
//! Scalars and lists replace, tables merge by key, `"..."` in a list stands for what it inherits. `hosts`, `host`, `roles` and
//! `inventory` are one thing: a layer that says one of them inherits none of them, so that no host of another environment comes along unseen.

use super::fault::{Fault, closest};
use super::node::{Entry, Node, Place, Table, Value};
use crate::recipe::Recipe;

const INVENTORY: [&str; 4] = ["hosts", "host", "roles", "inventory"];
const DEEPEST: usize = 3;

/// What holds where neither the file nor a flag says otherwise.
const DEFAULTS: &str = r#"
protected = false
keep-releases = 5
waves = ["100%"]
max-failures = 0
on-failure = "rollback"
on-unreachable = "fail"
min-healthy = 0
pause = "0s"
parallel = 100

[source]
git = "."
submodules = false
lfs = false

[shared]
dirs = []
files = []
replace = false

[cache]
link = "downloads"
network = "index"

[build]
timeout = "30m"
idle-timeout = "10m"
output-limit = "64MB"
network = "blocked"
on = "host"

[activate]
timeout = "2m"

[check]
retries = 10
every = "1s"
successes = 1
timeout = "5s"
stay-up = "0s"

[ssh]
session = "auto"
host-keys = "strict"
connect-timeout = "10s"
connect-retries = 3
parallel = 32
forward-agent = false
"#;

fn defaults() -> Table {
    Table::parse(DEFAULTS, &|_| Place::Default).expect("the defaults are TOML: every test of an environment reads them")
}

/// The chain of environments from the one that extends nothing to `name`.
pub fn chain<'a>(environments: &'a Table, name: &'a str) -> Result<Vec<&'a Entry>, Fault> {
    let mut chain: Vec<&Entry> = environments.entry(name).into_iter().collect();
    while let Some(extends) = chain.last().and_then(|last| last.node.table()).and_then(|table| table.entry("extends")) {
        let parent = extends.node.text().unwrap_or_default();
        let from = &extends.node.place;
        let Some(next) = environments.entry(parent) else {
            let known = environments.entries.iter().map(|entry| entry.name.as_str());
            let fault = Fault::new(
                from,
                format!("`{}` extends the unknown environment `{parent}`", chain[chain.len() - 1].name),
                "no such environment",
            );
            return Err(match closest(parent, known) {
                Some(known) => fault.help(format!("did you mean `{known}`?")),
                None => fault,
            });
        };
        if let Some(seen) = chain.iter().find(|seen| seen.name == parent) {
            let fault = Fault::new(from, format!("environments extend each other in a circle: {}", circle(&chain, parent)), "leads back");
            let first = seen.node.table().and_then(|table| table.at("extends")).filter(|first| first.place != *from);
            return Err(match first {
                Some(first) => fault.also(&first.place, "starts here"),
                None => fault,
            });
        }
        if chain.len() > DEEPEST {
            let fault = Fault::new(from, format!("`{name}` extends more than {DEEPEST} environments"), "one too many");
            return Err(fault.help("move what they share to [defaults]"));
        }
        chain.push(next);
    }
    chain.reverse();
    Ok(chain)
}

fn circle(chain: &[&Entry], back: &str) -> String {
    let names = chain.iter().map(|entry| format!("`{}`", entry.name));
    names.skip_while(|name| *name != format!("`{back}`")).chain([format!("`{back}`")]).collect::<Vec<_>>().join(" → ")
}

/// Everything that is said of one environment. `layers` go from the farthest to the nearest, each already checked.
pub fn effective(layers: &[&Table], flags: &Table) -> Result<Table, Fault> {
    let mut table = Table::default();
    for layer in layers.iter().copied().chain([flags]) {
        unset(&mut table, layer)?;
        let mut said = spliced(layer, &table);
        said.entries.retain(|entry| !matches!(entry.name.as_str(), "extends" | "unset" | "env"));
        if INVENTORY.iter().any(|name| said.entry(name).is_some()) {
            table.entries.retain(|entry| !INVENTORY.contains(&entry.name.as_str()));
        }
        overlay(&mut table, said);
    }
    Ok(table)
}

/// The settings that may differ by role.
const BY_ROLE: [&str; 4] = ["build", "activate", "check", "confirm-within"];

/// Everything that is said of the hosts of one role: `said` of the environment, `role` of them, and the flags, which are nearer.
pub fn of_role(said: &Table, role: &Table, flags: &Table) -> Result<Table, Fault> {
    let base = Table { entries: said.entries.iter().filter(|entry| entry.name != "role").cloned().collect() };
    let flags = Table { entries: flags.entries.iter().filter(|entry| BY_ROLE.contains(&entry.name.as_str())).cloned().collect() };
    effective(&[&base, role], &flags)
}

/// Adds what the recipe and `deployer` itself say where nobody else does.
pub fn complete(mut table: Table) -> Table {
    let recipe = table.find(&["build", "recipe"]).and_then(Node::text).and_then(Recipe::find);
    if let Some(config) = recipe.and_then(|recipe| recipe.config.map(|config| (recipe, config))) {
        underlay(&mut table, &["build", "config"], &Node { value: Value::Text(config.1.to_owned()), place: Place::Recipe(config.0.name) });
    }
    let inventory = |name: &str| table.find(&["inventory", name]).is_some();
    let (runs, is_read) = (inventory("command") || inventory("ansible"), inventory("file") || inventory("command"));
    for (name, value, used) in [("format", "lines", is_read), ("timeout", "30s", runs), ("ttl", "0s", runs)] {
        if used {
            underlay(&mut table, &["inventory", name], &Node { value: Value::Text(value.to_owned()), place: Place::Default });
        }
    }
    let mut complete = defaults();
    overlay(&mut complete, table);
    complete
}

fn underlay(table: &mut Table, path: &[&str], node: &Node) {
    if table.find(path).is_none() {
        table.put(path, node.clone());
    }
}

fn unset(table: &mut Table, layer: &Table) -> Result<(), Fault> {
    for item in layer.at("unset").and_then(Node::list).unwrap_or_default() {
        let path = item.text().unwrap_or_default();
        let parts: Vec<&str> = path.split('.').collect();
        if !table.remove(&parts) {
            return Err(Fault::new(&item.place, format!("`unset` names `{path}`, which is not inherited"), "nothing to remove"));
        }
    }
    Ok(())
}

/// Lays `over` on `base`: tables merge by key, everything else replaces.
fn overlay(base: &mut Table, over: Table) {
    for entry in over.entries {
        let Some(below) = base.entries.iter_mut().find(|below| below.name == entry.name) else {
            base.entries.push(entry);
            continue;
        };
        match (&mut below.node.value, entry.node.value) {
            (Value::Table(below_table), Value::Table(table)) => {
                overlay(below_table, table);
                below.node.place = entry.node.place;
                below.place = entry.place;
            }
            (_, value) => *below = Entry { name: entry.name, place: entry.place, node: Node { value, place: entry.node.place } },
        }
    }
}

/// Replaces every `"..."` in the lists of `table` by the items that `inherited` has there.
fn spliced(table: &Table, inherited: &Table) -> Table {
    let splice = |entry: &Entry| {
        let below = inherited.at(&entry.name);
        let value = match &entry.node.value {
            Value::Table(table) => Value::Table(spliced(table, below.and_then(Node::table).unwrap_or(&Table::default()))),
            Value::List(items) => {
                let inherited = below.and_then(Node::list).unwrap_or_default();
                let spread = |item: &Node| if item.text() == Some("...") { inherited.to_vec() } else { vec![item.clone()] };
                Value::List(items.iter().flat_map(spread).collect())
            }
            value @ (Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::Other(_)) => value.clone(),
        };
        Entry { name: entry.name.clone(), place: entry.place.clone(), node: Node { value, place: entry.node.place.clone() } }
    };
    Table { entries: table.entries.iter().map(splice).collect() }
}
