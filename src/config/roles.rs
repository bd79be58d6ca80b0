//! What hosts do by their role: which settings hold for a host, and that roles which are named are somebody's.

use super::environment::{BuildOn, Environment, HookPlace, Target};
use super::fault::closest;
use super::ranges;
use crate::error::Error;
use crate::exit::Exit;

impl Environment {
    /// The environment as a host has it: with the build, the activation and the check of its role.
    #[must_use]
    pub fn of(&self, target: &Target) -> &Self {
        self.by_role.iter().find(|(role, _)| target.roles.contains(role)).map_or(self, |(_, environment)| environment)
    }

    /// What to type for a verb on this environment, as this command found it.
    #[must_use]
    pub fn typed(&self, verb: &str) -> String {
        format!("deployer {verb} -e {}", self.as_typed())
    }

    /// What stands behind `-e`.
    #[must_use]
    pub fn as_typed(&self) -> String {
        format!("{}{}", self.name, self.given)
    }

    /// Keeps what advice repeats.
    pub fn was_given(&mut self, flags: &str) {
        for environment in std::iter::once(&mut self.given).chain(self.by_role.iter_mut().map(|(_, environment)| &mut environment.given)) {
            flags.clone_into(environment);
        }
    }

    /// Every way in which hosts are built, activated and checked: what holds for all, and what holds for a role.
    pub fn ways(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.by_role.iter().map(|(_, environment)| environment))
    }

    /// Whoever is named to build for a host: at the root where the release will run, and in the way of the host it builds for.
    #[must_use]
    pub fn builder_of(&self, target: &Target) -> Option<Target> {
        let BuildOn::One(builder) = &self.of(target).build.as_ref()?.on else { return None };
        let root = builder.root.as_ref().or(target.root.as_ref()).unwrap_or(&self.root).clone();
        Some(Target { root: Some(root), roles: target.roles.clone(), ..(**builder).clone() })
    }

    /// The same environment with those as its hosts who build for it and are none of its own. A run that was narrowed to some hosts is
    /// about those alone.
    #[must_use]
    pub fn builders_apart(&self) -> Self {
        let is_own = |builder: &Target| self.targets.iter().any(|target| target.name == builder.name);
        let mut builders: Vec<Target> = Vec::new();
        for target in self.targets.iter().filter(|_| self.left_out.is_empty()) {
            let Some(builder) = self.builder_of(target).filter(|builder| !is_own(builder)) else { continue };
            // Where hosts have roots of their own, it builds at that of the first: what it builds runs on no other.
            let is_same = |other: &Target| other.name == builder.name && std::ptr::eq(self.of(other), self.of(&builder));
            if !builders.iter().any(is_same) {
                builders.push(builder);
            }
        }
        Self { targets: builders, ..self.clone() }
    }

    /// Checks that a host has one role at most that says something, and, where all hosts are known, that roles are somebody's.
    pub fn check_roles(&self, all_are_known: bool) -> Result<(), Error> {
        for target in &self.targets {
            let said: Vec<&str> =
                self.by_role.iter().map(|(role, _)| role.as_str()).filter(|role| target.roles.iter().any(|has| has == role)).collect();
            if let [first, second, ..] = said[..] {
                let what = format!("`{}` has the roles `{first}` and `{second}`, and both have settings of their own", target.name);
                return Err(Error::new(Exit::Config, "two-roles", what).hint(format!(
                    "leave one of `[env.{0}.role.{first}]` and `[env.{0}.role.{second}]` out, with `unset` where it is inherited",
                    self.name
                )));
            }
        }
        let hooks = self.hooks.iter().filter_map(|hook| match &hook.place {
            HookPlace::Role(role) => Some(role),
            HookPlace::EveryHost | HookPlace::Once | HookPlace::Local => None,
        });
        let mut named = self.by_role.iter().map(|(role, _)| role).chain(hooks);
        match named.find(|role| !self.targets.iter().any(|target| target.roles.contains(role))) {
            Some(role) if all_are_known => Err(self.unknown_role(role)),
            Some(_) | None => Ok(()),
        }
    }

    fn unknown_role(&self, role: &str) -> Error {
        let known: Vec<&str> = self.targets.iter().flat_map(|target| target.roles.iter().map(String::as_str)).collect();
        let error = Error::new(Exit::Config, "unknown-role", format!("no host of `{}` has the role `{role}`", self.name));
        match closest(role, known.iter().copied().chain(["every-host", "once", "local"])) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint(format!(
                "its hosts are {}",
                ranges::fold(&self.targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>())
            )),
        }
    }
}
