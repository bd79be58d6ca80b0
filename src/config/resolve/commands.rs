//! The commands of an environment: build, activation and check, and the time a host has to hear that it is confirmed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reader;
use crate::config::environment::{Build, BuildOn, Cache, Check, CheckProbe, Hook, HostPath, Moment, Network, Run, Target, Unit};
use crate::config::fault::{Fault, closest};
use crate::config::hosts::{self, LOCAL};
use crate::config::node::{Entry, Node, Place, Value};
use crate::config::placeholders::{self, PlaceholderError};
use crate::config::quantity;
use crate::op::Command;
use crate::recipe::{self, Recipe, Settings};

/// The least time a host waits for its confirmation unless `confirm-within` says less.
const CONFIRM: Duration = Duration::from_secs(120);
/// What is added to the longest activation: the way of the confirmation to the host.
const GRACE: Duration = Duration::from_secs(30);

impl Reader<'_> {
    pub(super) fn build(&self, root: &HostPath, cache: Option<&Cache>) -> Result<Option<Build>, Fault> {
        let (recipe, command) = match (self.text(&["build", "recipe"]), self.find(&["build", "command"])) {
            (None, None) => return self.no_build(),
            (None, Some(command)) => ("command", Some((command, &command.place))),
            (Some((recipe, place)), command) => (recipe, command.map(|command| (command, place))),
        };
        let recipe_place = self.find(&["build", "recipe"]).map_or(self.here, |node| &node.place);
        let known = Recipe::find(recipe).ok_or_else(|| unknown_recipe(recipe, recipe_place))?;
        self.fits(known, recipe_place)?;
        let network = self.network()?;
        let has_index = network == Network::Index;
        if known.cache && cache.is_none() && !has_index {
            let fault = Fault::new(recipe_place, format!("the recipe `{recipe}` needs `cache.path`"), "no download cache");
            return Err(
                fault.help("add `path = \"/srv/download-cache\"` to `[defaults.cache]`: the directory on the hosts that it builds from")
            );
        }
        let venv = self.find(&["build", "venv"]).map(|node| self.host_path(node, Some(root))).transpose()?;
        let link = cache.map(|cache| cache.link.to_string());
        let config = self.text(&["build", "config"]).map(|(text, _)| text);
        let settings = Settings { venv: venv.as_ref().map(HostPath::as_str), config, link: link.as_deref() };
        let command = match (known.argv(settings, has_index), command) {
            (Some(argv), None) => Command::Argv(argv),
            (None, Some((command, _))) => self.build_command(command, cache.is_some(), has_index)?,
            (Some(_), Some((command, place))) => {
                let fault = Fault::new(
                    &command.place,
                    format!("`command` and the recipe `{recipe}` exclude each other"),
                    "the recipe has a command of its own",
                );
                return Err(fault.also(place, "the recipe").help("for a command of yours, write `recipe = \"command\"` beside it"));
            }
            (None, None) => {
                return Err(Fault::new(recipe_place, format!("the recipe `{recipe}` needs `build.command`"), "no command")
                    .help("add `command = [\"bin/build\"]`"));
            }
        };
        let mut env = known.variables(settings, has_index);
        env.extend(self.variables(&["build", "env"])?);
        let limit = self.needed(&["build", "output-limit"])?;
        let output_limit = quantity::size(limit.text().unwrap_or_default())
            .map_err(|error| Fault::new(&limit.place, "`output-limit` is not a size", error.to_string()))?;
        Ok(Some(Build {
            recipe: recipe.to_owned(),
            config: config.map(str::to_owned),
            command,
            venv,
            env,
            timeout: self.limit(&["build", "timeout"])?,
            idle_timeout: self.duration(&["build", "idle-timeout"])?,
            output_limit,
            network,
            on: self.build_on()?,
        }))
    }

    /// A host may be one of the environment's, with all that is said of it, or any other.
    fn build_on(&self) -> Result<BuildOn, Fault> {
        let node = self.needed(&["build", "on"])?;
        let name = match node.text().unwrap_or_default() {
            "host" => return Ok(BuildOn::Host),
            "first" => return Ok(BuildOn::First),
            name => name,
        };
        let own = self.targets()?.into_iter().find(|target| target.name == name);
        if let (None, Some(known)) = (&own, closest(name, ["host", "first", LOCAL].into_iter().filter(|known| *known != name))) {
            let fault =
                Fault::new(&node.place, format!("`{name}` is neither `host`, `first`, `local` nor a host of this environment"), "unknown");
            return Err(fault.help(format!("did you mean `{known}`?")));
        }
        let target = match (own, <[Target; 1]>::try_from(hosts::parse(node)?)) {
            (Some(own), _) => own,
            (None, Ok([other])) => other,
            (None, Err(_)) => return Err(Fault::new(&node.place, format!("`{name}` is more than one host"), "one host builds for all")),
        };
        Ok(BuildOn::One(Box::new(target)))
    }

    /// A `[build]` that builds nothing is a slip, unless all it says came from flags or from nobody.
    fn no_build(&self) -> Result<Option<Build>, Fault> {
        let said = self.table.table("build").and_then(|build| build.entries.iter().find(|entry| matches!(entry.place, Place::File(_))));
        match said {
            None => Ok(None),
            Some(entry) => {
                let fault = Fault::new(&entry.place, "the build has neither `recipe` nor `command`", "a setting of no build");
                Err(fault.help("add `recipe = \"buildout\"` or `command = [\"bin/build\"]`"))
            }
        }
    }

    /// Settings a recipe needs must be there, and those it has no use for must not.
    fn fits(&self, recipe: &Recipe, place: &Place) -> Result<(), Fault> {
        let venv = self.find(&["build", "venv"]);
        if recipe.venv && venv.is_none() {
            let fault = Fault::new(place, format!("the recipe `{}` needs `build.venv`", recipe.name), "no virtual environment");
            return Err(fault.help("add `venv = \"/srv/venv\"`: the virtual environment on the hosts that holds `bin/buildout`"));
        }
        let unused = [("venv", recipe.venv), ("config", recipe.config.is_some())];
        let unused =
            unused.into_iter().filter(|(_, used)| !used).find_map(|(name, _)| self.find(&["build", name]).map(|node| (name, node)));
        match unused {
            Some((name, node)) => Err(Fault::new(&node.place, format!("the recipe `{}` has no `{name}`", recipe.name), "would do nothing")
                .help(format!("remove it; where it is inherited, add `unset = [\"build.{name}\"]`"))),
            None => Ok(()),
        }
    }

    fn network(&self) -> Result<Network, Fault> {
        let choices = [("blocked", Network::Blocked), ("none", Network::None), ("host", Network::Host), ("index", Network::Index)];
        self.choice(&["build", "network"], &choices)
    }

    pub(super) fn variables(&self, path: &[&str]) -> Result<BTreeMap<String, String>, Fault> {
        let entries = self.find(path).and_then(Node::table).map(|table| &table.entries[..]).unwrap_or_default();
        entries
            .iter()
            .map(|entry| check_variable(entry).map(|()| (entry.name.clone(), entry.node.text().unwrap_or_default().to_owned())))
            .collect()
    }

    /// A command of the user's. Placeholders are checked here, and filled in for each host.
    pub(super) fn command(&self, node: &Node) -> Result<Command, Fault> {
        self.command_with(node, placeholders::check)
    }

    /// The command of a build, which has places of its own.
    fn build_command(&self, node: &Node, has_cache: bool, has_index: bool) -> Result<Command, Fault> {
        self.command_with(node, |text| placeholders::check_build(text, has_cache, has_index))
    }

    /// The command that fills the cache. It runs for no release and on no particular host.
    pub(super) fn fill_command(&self, node: &Node, has_index: bool) -> Result<Command, Fault> {
        self.command_with(node, |text| placeholders::check_fill(text, has_index))
    }

    fn command_with(&self, node: &Node, check: impl Fn(&str) -> Result<(), PlaceholderError>) -> Result<Command, Fault> {
        match &node.value {
            Value::Text(text) => Ok(Command::Shell(text.clone())),
            Value::List(_) | Value::Whole(_) | Value::Truth(_) | Value::Table(_) | Value::Other(_) => {
                let argv = node.list().unwrap_or_default().iter().map(|item| {
                    let text = item.text().unwrap_or_default();
                    check(text).map(|()| text.to_owned()).map_err(|error| self.placeholder_fault(item, &error))
                });
                let argv = argv.collect::<Result<Vec<_>, _>>()?;
                let named = argv.first().is_some_and(|program| !program.is_empty());
                if named {
                    Ok(Command::Argv(argv))
                } else {
                    Err(Fault::new(&node.place, "the command names no program", "its first item is empty"))
                }
            }
        }
    }

    pub(super) fn activate(&self) -> Result<Option<Run>, Fault> {
        let Some(run) = self.find(&["activate", "run"]) else {
            let said = self.table.table("activate").and_then(|table| table.entries.iter().find(|entry| entry.place != Place::Default));
            return match said {
                None => Ok(None),
                Some(entry) => Err(Fault::new(&entry.place, "`activate` has no `run`", "a setting of no command")
                    .help("add `run = [\"sudo\", \"systemctl\", \"restart\", \"app\"]`")),
            };
        };
        Ok(Some(Run { command: self.command(run)?, user: self.user(&["activate", "as"])?, timeout: self.limit(&["activate", "timeout"])? }))
    }

    pub(super) fn check(&self) -> Result<Option<Check>, Fault> {
        let timeout = self.limit(&["check", "timeout"])?;
        let place = self.table.at("check").map_or(self.here, |node| &node.place);
        let probe = match (self.find(&["check", "url"]), self.find(&["check", "run"])) {
            (None, None) => {
                let said = self.table.table("check").is_some_and(|table| table.entries.iter().any(|entry| entry.place != Place::Default));
                let fault = || {
                    Fault::new(place, "`check` has neither `url` nor `run`", "checks nothing")
                        .help("add `url = \"http://127.0.0.1:8080/healthz\"`")
                };
                return if said { Err(fault()) } else { Ok(None) };
            }
            (Some(url), Some(run)) => {
                let fault = Fault::new(&run.place, "`check` has both `url` and `run`", "one of the two").also(&url.place, "the other");
                return Err(fault.help("where one of them is inherited, add `unset = [\"check.url\"]` or `unset = [\"check.run\"]`"));
            }
            (Some(url), None) => {
                self.unused_with(&["as"], "url")?;
                CheckProbe::Url { url: check_url(url)?, contains: self.text(&["check", "contains"]).map(|(text, _)| text.to_owned()) }
            }
            (None, Some(run)) => {
                self.unused_with(&["contains"], "run")?;
                CheckProbe::Run(Run { command: self.command(run)?, user: self.user(&["check", "as"])?, timeout })
            }
        };
        let (retries, successes) = (self.number(&["check", "retries"])?, self.number(&["check", "successes"])?);
        if successes > retries {
            let node = self.needed(&["check", "successes"])?;
            return Err(Fault::new(
                &node.place,
                format!("{successes} successes in a row need at least {successes} tries"),
                "more than `retries`",
            )
            .help(format!("add `retries = {successes}` or more")));
        }
        let (every, stay_up) = (self.duration(&["check", "every"])?, self.duration(&["check", "stay-up"])?);
        Ok(Some(Check { probe, retries, every, successes, timeout, stay_up, unit: self.unit()? }))
    }

    /// The unit whose start proves that what answers is the new release.
    fn unit(&self) -> Result<Option<Unit>, Fault> {
        let (node, user) = match (self.find(&["check", "unit"]), self.find(&["check", "user-unit"])) {
            (None, None) => return Ok(None),
            (Some(node), None) => (node, false),
            (None, Some(node)) => (node, true),
            (Some(other), Some(node)) => {
                let fault = Fault::new(&node.place, "`check` has both `unit` and `user-unit`", "one of the two");
                return Err(fault.also(&other.place, "the other"));
            }
        };
        let name = self.expanded(node, |name| (name == "env").then_some(self.name))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
        if name.is_empty() || name.len() > 255 || name.starts_with('-') || !name.contains('.') || !name.chars().all(plain) {
            return Err(Fault::new(&node.place, format!("`{name}` is not the name of a unit"), "with its kind, as `boskel.service`"));
        }
        Ok(Some(Unit { name, user }))
    }

    fn unused_with(&self, names: &[&str], probe: &str) -> Result<(), Fault> {
        let unused = names.iter().find_map(|name| self.find(&["check", name]).map(|node| (name, node)));
        match unused {
            Some((name, node)) => {
                Err(Fault::new(&node.place, format!("`check.{name}` does nothing for a check with `{probe}`"), "would do nothing")
                    .help(format!("remove it; where it is inherited, add `unset = [\"check.{name}\"]`")))
            }
            None => Ok(()),
        }
    }

    /// A host must not put itself back while its activation is still within its own limits.
    pub(super) fn confirm_within(&self, activate: Option<&Run>, check: Option<&Check>, hooks: &[Hook]) -> Result<Duration, Fault> {
        let after: Duration = hooks.iter().filter(|hook| hook.on == Moment::AfterActivate).map(|hook| hook.run.timeout).sum();
        let budget = activate.map_or(Duration::ZERO, |run| run.timeout) + check.map_or(Duration::ZERO, Check::longest) + after;
        let Some(node) = self.find(&["confirm-within"]) else { return Ok(CONFIRM.max(budget + GRACE)) };
        let within = self.duration(&["confirm-within"])?;
        if within >= budget || within.is_zero() {
            return Ok(within);
        }
        let longest = quantity::show_duration(budget);
        let fault =
            Fault::new(&node.place, "`confirm-within` is shorter than activation and check may take", format!("they may take {longest}"));
        Err(fault.help(format!(
            "write `confirm-within = \"{}\"`, or shorten `activate.timeout`, `check.retries` or `check.timeout`",
            quantity::show_duration(budget + GRACE)
        )))
    }
}

fn unknown_recipe(recipe: &str, place: &Place) -> Fault {
    let names: Vec<&str> = recipe::ALL.iter().map(|recipe| recipe.name).collect();
    let fault = Fault::new(place, format!("unknown recipe `{recipe}`"), format!("recipes are `{}`", names.join("`, `")));
    match closest(recipe, names) {
        Some(name) => fault.help(format!("did you mean `{name}`?")),
        None => fault.help("write the command yourself: `command = [\"bin/build\"]`"),
    }
}

impl Check {
    /// The longest time the check may take.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let staying = if self.stay_up.is_zero() { Duration::ZERO } else { self.stay_up + self.timeout };
        self.timeout.saturating_mul(self.retries) + self.every.saturating_mul(self.retries.saturating_sub(1)) + staying
    }
}

/// Variables that change what runs before the build's first line, and those that `deployer` sets itself, are refused.
fn check_variable(entry: &Entry) -> Result<(), Fault> {
    let name = &entry.name;
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Fault::new(&entry.place, format!("`{name}` is not the name of a variable"), "letters, digits and `_`"));
    }
    if name.starts_with("LD_") || name.starts_with("DEPLOYER_") || matches!(name.as_str(), "BASH_ENV" | "ENV") {
        return Err(Fault::new(&entry.place, format!("the variable `{name}` cannot be set"), "refused")
            .help("set it in the command itself, if it must be"));
    }
    Ok(())
}

fn check_url(node: &Node) -> Result<String, Fault> {
    let url = node.text().unwrap_or_default();
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let http = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']));
    let socket = url.strip_prefix("unix:/").and_then(|rest| rest.split_once(":/")).is_some_and(|(socket, _)| !socket.is_empty());
    if plain && (http || socket) {
        return Ok(url.to_owned());
    }
    let fault = Fault::new(&node.place, format!("`{url}` is not a URL that a host can check"), "`http://…` or `unix:/path/to.sock:/path`");
    Err(fault.help("for anything else write `run = [\"curl\", \"-fsS\", \"https://…\"]` instead of `url`"))
}
