//! The hooks of an environment: when and where each runs, and what fits together.

use std::time::Duration;

use super::Reader;
use crate::config::environment::{Hook, HookPlace, Moment, Run};
use crate::config::fault::Fault;
use crate::config::hosts::check_role;
use crate::config::node::Node;
use crate::op::Command;

/// The longest a hook may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The longest name: it stands in lines of a screen.
const LONGEST: usize = 60;

impl Reader<'_> {
    pub(super) fn hooks(&self, is_built: bool) -> Result<Vec<Hook>, Fault> {
        let tables = self.list(&["hook"]).iter().filter_map(|node| node.table().map(|table| (node, table)));
        tables.map(|(node, table)| Reader { table, here: &node.place, ..*self }.hook(node, is_built)).collect()
    }

    fn hook(&self, whole: &Node, is_built: bool) -> Result<Hook, Fault> {
        let missing =
            |name: &str, help: &str| Fault::new(&whole.place, format!("a hook has no `{name}`"), "needs it").help(help.to_owned());
        let on = self.find(&["on"]).ok_or_else(|| missing("on", "add `on = \"before-activate\"`: the moment at which it runs"))?;
        let moment = self.choice(&["on"], &Moment::ALL.map(|moment| (moment.name(), moment)))?;
        if matches!(moment, Moment::BeforeBuild | Moment::AfterBuild) && !is_built {
            let fault = Fault::new(&on.place, format!("`{}` never comes: nothing is built here", moment.name()), "there is no build");
            return Err(fault.help("add `build.command`, or say another moment"));
        }
        let run = self.find(&["run"]).ok_or_else(|| missing("run", "add `run = [\"bin/manage\", \"migrate\"]`"))?;
        let command = self.command(run)?;
        let place = self.place(moment)?;
        let user = self.user(&["as"])?;
        if let (Some(node), HookPlace::Local) = (self.find(&["as"]), &place) {
            return Err(Fault::new(&node.place, "a hook on this machine runs as you", "would do nothing").help("remove `as`"));
        }
        let timeout = if self.find(&["timeout"]).is_some() { self.limit(&["timeout"])? } else { TIMEOUT };
        let name = self.hook_name(&command)?;
        Ok(Hook { name, on: moment, place, run: Run { command, user, timeout }, may_fail: self.truth(&["may-fail"]) })
    }

    fn place(&self, moment: Moment) -> Result<HookPlace, Fault> {
        let Some((text, at)) = self.text(&["where"]) else { return Ok(HookPlace::EveryHost) };
        let place = match text {
            "every-host" => HookPlace::EveryHost,
            "once" => HookPlace::Once,
            "local" => HookPlace::Local,
            role => {
                check_role(role, at)?;
                HookPlace::Role(role.to_owned())
            }
        };
        let refused = |help: &str| {
            let fault = Fault::new(at, format!("a hook `{}` cannot run `where = \"{text}\"`", moment.name()), "does not fit");
            Err(fault.help(help.to_owned()))
        };
        match (moment, &place) {
            (Moment::BeforeBuild | Moment::AfterBuild | Moment::AfterActivate, HookPlace::Once | HookPlace::Local) => refused(
                "it runs on each host in its turn: `every-host` or a role; `before-activate` and `after-deploy` can run once or here",
            ),
            (Moment::BeforeWave | Moment::AfterWave, HookPlace::Once) => {
                refused("it runs in every wave: `local`, `every-host` of the wave, or a role; `before-activate` can run once")
            }
            (
                Moment::BeforeBuild
                | Moment::AfterBuild
                | Moment::BeforeActivate
                | Moment::AfterActivate
                | Moment::BeforeWave
                | Moment::AfterWave
                | Moment::AfterDeploy
                | Moment::AfterFailure,
                HookPlace::EveryHost | HookPlace::Once | HookPlace::Local | HookPlace::Role(_),
            ) => Ok(place),
        }
    }

    /// What people call it; where they do not say, the beginning of its command.
    fn hook_name(&self, command: &Command) -> Result<String, Fault> {
        if let Some((name, place)) = self.text(&["name"]) {
            let plain = !name.trim().is_empty() && name.chars().count() <= LONGEST && !name.chars().any(char::is_control);
            let fault = || Fault::new(place, "the name of a hook is a short text on one line", "not a name").code("bad-name");
            return if plain { Ok(name.to_owned()) } else { Err(fault()) };
        }
        let text = match command {
            Command::Argv(words) => words.join(" "),
            Command::Shell(text) => text.trim().lines().next().unwrap_or_default().to_owned(),
        };
        let text: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
        let is_cut = text.len() > LONGEST;
        let shown = text.into_iter().take(if is_cut { LONGEST - 1 } else { LONGEST });
        Ok(shown.chain(is_cut.then_some('…')).collect())
    }
}
