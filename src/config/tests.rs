//! What `deploy.toml` may hold and how it answers to what it may not, to the letter.

#![expect(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots with them")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use snapbox::{assert_data_eq, str};

use super::environment::{
    BuildOn, CheckProbe, Inventory, InventoryFormat, InventoryLimits, Network, OnFailure, OnUnreachable, SessionKind,
};
use super::quantity::Amount;
use super::schema::{Section, Shape};
use super::*;
use crate::exit::Exit;
use crate::op::Command;
use crate::recipe::build_key;

mod mistakes;

const BOSKEL: &str = r#"schema  = 1
project = "boskel"

[source]
git = "."

[defaults]
root          = "/srv/boskel"
user          = "deploy"
rev           = "master"
keep-releases = 5
shared        = { dirs = ["var"], files = ["etc/site.cfg"] }

[defaults.cache]
path = "/srv/download-cache"
link = "downloads"

[defaults.build]
recipe = "buildout"
venv   = "/srv/venv"
config = "offline.cfg"

[env.staging]
hosts = ["stg[1-3].example.net"]

[env.prod]
extends   = "staging"
protected = true
hosts     = ["app[01-12].example.net"]
waves     = ["1", "25%", "100%"]
activate  = { run = "sudo systemctl restart boskel" }
check     = { url = "http://127.0.0.1:8080/healthz", retries = 10, every = "1s" }
"#;

const HEAD: &str = "schema = 1\nproject = \"p\"\n";

fn file(text: &str) -> File {
    parse(Path::new("deploy.toml"), text).unwrap_or_else(|error| panic!("{}", screen(&error)))
}

/// The settings of one environment `x` with a root and a host.
fn with(settings: &str) -> String {
    format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"h\"]\n{settings}")
}

fn resolve(settings: &str) -> Environment {
    file(&with(settings)).environment("x", &Overrides::default()).unwrap_or_else(|error| panic!("{}", screen(&error)))
}

fn fails(text: &str) -> Error {
    let refused = parse(Path::new("deploy.toml"), text).and_then(|file| {
        let names = file.environments();
        names.iter().try_for_each(|name| file.environment(name, &Overrides::default()).map(|_| ()))
    });
    let error = refused.expect_err("the text is refused");
    assert_eq!(error.exit, Exit::Config);
    error
}

/// As a person sees it.
fn screen(error: &Error) -> String {
    let hints = error.hints.iter().map(|hint| format!("  hint: {hint}"));
    let lines = [format!("error: {}", error.what)].into_iter().chain(error.evidence.clone()).chain(hints);
    lines.map(|line| line + "\n").collect()
}

fn names(environment: &Environment) -> Vec<&str> {
    environment.targets.iter().map(|target| target.name.as_str()).collect()
}

#[test]
fn the_example_of_the_design_resolves_as_it_reads() {
    let file = file(BOSKEL);
    assert_eq!(file.environments(), ["staging", "prod"]);
    assert_eq!(file.default_environment(), None);
    let prod = file.environment("prod", &Overrides::default()).unwrap();
    assert_eq!(prod.targets.len(), 12);
    assert_eq!(prod.targets[8].name, "app09.example.net");
    assert_eq!(prod.root.as_str(), "/srv/boskel");
    assert_eq!(prod.connect.user.as_deref(), Some("deploy"));
    assert_eq!(prod.waves.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1", "25%", "100%"]);
    assert_eq!(
        (prod.on_failure, prod.on_unreachable, prod.max_failures.to_string().as_str()),
        (OnFailure::Rollback, OnUnreachable::Fail, "0")
    );
    assert_eq!(prod.activate.as_ref().unwrap().command, Command::Shell("sudo systemctl restart boskel".into()));
    let check = prod.check.as_ref().unwrap();
    assert_eq!((check.retries, check.every, check.successes), (10, Duration::from_secs(1), 1));
    assert_eq!(check.probe, CheckProbe::Url { url: "http://127.0.0.1:8080/healthz".into(), contains: None });
    assert!(prod.protected);
    let staging = file.environment("staging", &Overrides::default()).unwrap();
    assert!(!staging.protected);
    assert_eq!(staging.waves, [Amount::Percent(100)]);
    assert_eq!(staging.confirm_within, Duration::from_secs(120));
}

#[test]
fn the_buildout_recipe_is_offline_and_leaves_bytecode_alone() {
    let build = file(BOSKEL).environment("staging", &Overrides::default()).unwrap().build.unwrap();
    assert_eq!(build.command, Command::Argv(["/srv/venv/bin/buildout", "-c", "offline.cfg"].map(String::from).to_vec()));
    let env: Vec<String> = build.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        env,
        [
            "PIP_CONFIG_FILE=/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK=1",
            "PIP_FIND_LINKS=downloads/dist",
            "PIP_NO_CACHE_DIR=1",
            "PIP_NO_INDEX=1"
        ]
    );
    assert_eq!(build.network, Network::Blocked);
    assert_eq!((build.timeout, build.idle_timeout, build.output_limit), (Duration::from_secs(1800), Duration::from_secs(600), 64_000_000));
}

#[test]
fn an_unknown_key_is_shown_where_it_stands() {
    let text = "schema = 1\nproject = \"boskel\"\n\n[env.prod]\nroot = \"/srv/boskel\"\nhosts = [\"app1\"]\nkeep-release = 5\n";
    assert_data_eq!(
        screen(&fails(text)),
        str![[r#"
error: unknown key `keep-release` in [env.*]
 --> deploy.toml:7:1
  |
7 | keep-release = 5
  | ^^^^^^^^^^^^ not a setting of an environment
  |
  = help: did you mean `keep-releases`?
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn scalars_and_lists_replace_and_tables_merge() {
    let file = file(&format!(
        "{HEAD}[defaults]
root = \"/srv/{{env}}\"
shared = {{ dirs = [\"var\"], files = [\"a.cfg\"] }}
build = {{ command = [\"make\", \"all\"], timeout = \"5m\", env = {{ A = \"1\", B = \"2\" }} }}
[env.base]
hosts = [\"h1\"]
[env.next]
extends = \"base\"
hosts = [\"...\", \"h2\"]
unset = [\"build.env.A\"]
shared = {{ files = [\"...\", \"b.cfg\"] }}
build = {{ command = [\"...\", \"--fast\"], env = {{ C = \"3\" }} }}
"
    ));
    let next = file.environment("next", &Overrides::default()).unwrap();
    assert_eq!(names(&next), ["h1", "h2"]);
    assert_eq!(next.root.as_str(), "/srv/next");
    let shown = |paths: &[crate::tree::TreePath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&next.shared.directories), ["var"]);
    assert_eq!(shown(&next.shared.files), ["a.cfg", "b.cfg"]);
    let build = next.build.unwrap();
    assert_eq!(build.command, Command::Argv(["make", "all", "--fast"].map(String::from).to_vec()));
    assert_eq!(build.env.keys().collect::<Vec<_>>(), ["B", "C"]);
    assert_eq!(build.timeout, Duration::from_secs(300));
    let base = file.environment("base", &Overrides::default()).unwrap();
    assert_eq!(base.build.unwrap().env.keys().collect::<Vec<_>>(), ["A", "B"]);
}

#[test]
fn an_environment_with_hosts_of_its_own_inherits_no_host() {
    let text = format!(
        "{HEAD}[defaults]\nroot = \"/srv/p\"\n[env.staging]\nhosts = [\"stg1\"]\nroles = {{ web = [\"stg1\", \"stg2\"] }}\n[env.prod]\nextends = \"staging\"\nroles = {{ web = [\"app1\"] }}\n[env.same]\nextends = \"staging\"\n"
    );
    let file = file(&text);
    assert_eq!(names(&file.environment("prod", &Overrides::default()).unwrap()), ["app1"]);
    assert_eq!(names(&file.environment("same", &Overrides::default()).unwrap()), ["stg1", "stg2"]);
}

#[test]
fn hosts_of_a_flag_replace_those_of_every_role() {
    let file = file(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nroles = {{ web = [\"app1\"] }}\n"));
    let overrides = Overrides { set: vec!["hosts=[\"app9\"]".into()], ..Overrides::default() };
    assert_eq!(names(&file.environment("x", &overrides).unwrap()), ["app9"]);
}

#[test]
fn three_environments_may_be_extended() {
    let text = format!(
        "{HEAD}[env.a]\nroot = \"/srv/p\"\nhosts = [\"h\"]\n[env.b]\nextends = \"a\"\n[env.c]\nextends = \"b\"\n[env.d]\nextends = \"c\"\n"
    );
    assert_eq!(names(&file(&text).environment("d", &Overrides::default()).unwrap()), ["h"]);
}

#[test]
fn a_short_form_merges_like_the_long_one() {
    let text = format!(
        "{HEAD}[defaults]\nroot = \"/srv/p\"\nactivate = {{ run = \"old\", as = \"root\", timeout = \"1m\" }}\n[env.x]\nhosts = [\"h\"]\nactivate = [\"new\"]\n"
    );
    let activate = file(&text).environment("x", &Overrides::default()).unwrap().activate.unwrap();
    assert_eq!(activate.command, Command::Argv(vec!["new".into()]));
    assert_eq!((activate.user.as_deref(), activate.timeout), (Some("root"), Duration::from_secs(60)));
}

#[test]
fn hosts_are_strings_with_ranges_tables_and_roles() {
    let text = format!(
        "{HEAD}[env.x]
root = \"/srv/p\"
hosts = [\"app[01-02].example.net\", \"root@db:2222\", \"local\"]
roles = {{ web = [\"app[01-02].example.net\", \"edge\"], first = [\"app01.example.net\"] }}
[[env.x.host]]
name = \"lab\"
address = \"2001:db8::7\"
user = \"tester\"
port = 23
roles = [\"web\"]
labels = {{ az = \"a\" }}
session = \"openssh\"
"
    );
    let environment = file(&text).environment("x", &Overrides::default()).unwrap();
    assert_eq!(names(&environment), ["app01.example.net", "app02.example.net", "db", "local", "lab", "edge"]);
    let [app01, app02, db, local, lab, edge] = &environment.targets[..] else { panic!("six hosts") };
    assert_eq!(app01.roles, ["web", "first"]);
    assert_eq!(app02.roles, ["web"]);
    assert_eq!((db.address.as_str(), db.user.as_deref(), db.port), ("db", Some("root"), Some(2222)));
    assert_eq!(local.session, Some(SessionKind::Local));
    assert_eq!(
        (lab.address.as_str(), lab.user.as_deref(), lab.port, lab.session),
        ("2001:db8::7", Some("tester"), Some(23), Some(SessionKind::Openssh))
    );
    assert_eq!(edge.roles, ["web"]);
    assert_eq!((lab.labels.len(), lab.labels["az"].as_str(), edge.labels.len()), (1, "a", 0));
}

/// An environment whose hosts are left to somebody else.
fn asking(inventory: &str) -> String {
    format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {inventory}\n")
}

#[test]
fn an_inventory_is_a_source_and_nothing_is_asked_yet() {
    let of = |inventory: &str| {
        let environment =
            file(&asking(inventory)).environment("x", &Overrides::default()).unwrap_or_else(|error| panic!("{}", screen(&error)));
        assert_eq!(names(&environment), Vec::<&str>::new());
        environment.inventory.unwrap()
    };
    let limits = |timeout, ttl| InventoryLimits { timeout: Duration::from_secs(timeout), ttl: Duration::from_secs(ttl) };
    let groups = vec!["web".to_owned()];
    assert_eq!(of("{ file = \"hosts.txt\" }"), Inventory::File { path: "./hosts.txt".into(), format: InventoryFormat::Lines });
    assert_eq!(
        of("{ command = [\"./inventory\", \"{env}\"], format = \"ansible\", groups = [\"web\"], ttl = \"1m\" }"),
        Inventory::Command {
            command: Command::Argv(vec!["./inventory".to_owned(), "x".to_owned()]),
            format: InventoryFormat::Ansible { groups: groups.clone() },
            limits: limits(30, 60)
        }
    );
    assert_eq!(
        of("{ command = \"cat a b | sort\", format = \"json\", timeout = \"5s\" }"),
        Inventory::Command { command: Command::Shell("cat a b | sort".to_owned()), format: InventoryFormat::Json, limits: limits(5, 0) }
    );
    assert_eq!(
        of("{ ansible = \"inventory/prod\", groups = [\"web\"] }"),
        Inventory::Ansible { path: "./inventory/prod".into(), groups, limits: limits(30, 0) }
    );
    assert_eq!(of("{ ssh-config = \"{env}-*\" }"), Inventory::SshConfig { pattern: "x-*".to_owned() });
}

#[test]
fn an_environment_with_an_inventory_of_its_own_inherits_no_host() {
    let text = format!(
        "{HEAD}[env.a]\nroot = \"/srv/p\"\nhosts = [\"a1\"]\n[env.b]\nextends = \"a\"\ninventory = {{ file = \"b\" }}\n[env.c]\nextends = \"b\"\nhosts = [\"c1\"]\n"
    );
    let of = |name: &str| file(&text).environment(name, &Overrides::default()).unwrap();
    assert_eq!((names(&of("b")), of("b").inventory.is_some()), (vec![], true));
    assert_eq!((names(&of("c")), of("c").inventory.is_some()), (vec!["c1"], false));
}

#[test]
fn an_inventory_is_shown_with_what_it_takes_by_default() {
    let text = asking("{ command = [\"./inventory\"], ttl = \"1m\" }");
    let shown = file(&text).show("x", &Overrides::default(), true).unwrap();
    let from = shown.find("[env.x.inventory]").unwrap();
    assert_data_eq!(
        shown[from..].split("\n\n").next().unwrap().to_owned(),
        str![[r#"
[env.x.inventory]
command = ["./inventory"]  # deploy.toml:5
ttl = "1m"                 # deploy.toml:5
format = "lines"           # default
timeout = "30s"            # default

"#]]
    );
    assert_data_eq!(
        [
            &text,
            &text.replace("inventory =", "hosts = [\"a[1-2]\"]\ninventory ="),
            &asking("{ ssh-config = \"a-*\" }"),
            &asking("{ ansible = \"/etc/ansible\" }")
        ]
        .map(|text| file(text).check().unwrap().join("\n"))
        .join("\n"),
        str![[r#"
x: the hosts of `./inventory`, no build, root /srv/p
x: 2 hosts (a[1-2]) and those of `./inventory`, no build, root /srv/p
x: the hosts of `ssh-config = "a-*"`, no build, root /srv/p
x: the hosts of `ansible-inventory -i /etc/ansible`, no build, root /srv/p
"#]]
    );
}

#[test]
fn flags_are_the_last_layer() {
    let settings = "build = { command = \"make\", env = { A = \"1\" } }\nwaves = [\"1\"]\n";
    let overrides = Overrides {
        set: vec![
            "build.env.B=2".into(),
            "rev=1.0".into(),
            "protected=true".into(),
            "shared.dirs=[\"var\"]".into(),
            "keep-releases=9".into(),
            "parallel=2".into(),
        ],
        user: Some("ada".into()),
        port: Some(2200),
        identities: vec!["key".into()],
        ssh_config: Some("none".into()),
        session: Some("openssh".into()),
        forward_agent: true,
        connect_timeout: Some("3s".into()),
        connect_retries: Some(0),
        parallel: Some(7),
        timeout: Some("5m".into()),
        idle_timeout: Some("1m".into()),
        waves: vec!["2".into(), "50%".into()],
        on_failure: Some("stop".into()),
        on_unreachable: Some("skip".into()),
        max_failures: Some("10%".into()),
        min_healthy: Some("75%".into()),
        pause: Some("30s".into()),
        ..Overrides::default()
    };
    let environment = file(&with(settings)).environment("x", &overrides).unwrap_or_else(|error| panic!("{}", screen(&error)));
    let build = environment.build.unwrap();
    assert_eq!(build.env.into_iter().collect::<Vec<_>>(), [("A".into(), "1".into()), ("B".into(), "2".into())]);
    assert_eq!((build.timeout, build.idle_timeout), (Duration::from_secs(300), Duration::from_secs(60)));
    assert_eq!(environment.rev.as_deref(), Some("1.0"));
    assert!(environment.protected);
    assert_eq!(environment.shared.directories.len(), 1);
    assert_eq!((environment.keep_releases, environment.parallel), (9, 7));
    assert_eq!(environment.waves, [Amount::Hosts(2), Amount::Percent(50), Amount::Percent(100)]);
    assert_eq!((environment.min_healthy, environment.pause), (Amount::Percent(75), Duration::from_secs(30)));
    assert_eq!(
        (environment.on_failure, environment.on_unreachable, environment.max_failures.to_string().as_str()),
        (OnFailure::Stop, OnUnreachable::Skip, "10%")
    );
    assert_eq!(environment.parallel, 7);
    let connect = environment.connect;
    assert_eq!((connect.user.as_deref(), connect.port, connect.session), (Some("ada"), Some(2200), Some(SessionKind::Openssh)));
    assert_eq!((connect.identities, connect.ssh_config), (vec![PathBuf::from("key")], Some(PathBuf::from("none"))));
    assert_eq!((connect.forward_agent, connect.timeout, connect.retries), (true, Duration::from_secs(3), 0));
}

#[test]
fn a_flag_that_is_wrong_is_named_as_it_was_typed() {
    let failing = |set: &str| {
        let overrides = Overrides { set: vec![set.into()], ..Overrides::default() };
        screen(&file(&with("build = { command = \"make\" }\n")).environment("x", &overrides).unwrap_err())
    };
    assert_data_eq!(
        failing("build.timeout=5min"),
        str![[r#"
error: `timeout` takes a duration: `timeout = "90s"`
 --> --set build.timeout=5min: unknown unit `min`

"#]]
    );
    assert_data_eq!(
        failing("build.timeot=5m"),
        str![[r#"
error: unknown key `build.timeot`
 --> --set build.timeot=5m: `timeot` is not a setting of a build
  hint: did you mean `timeout`?

"#]]
    );
    assert_data_eq!(
        failing("protected=yes"),
        str![[r#"
error: `protected` takes `true` or `false`: `protected = true`
 --> --set protected=yes: this is a string

"#]]
    );
    assert_data_eq!(
        failing("protected"),
        str![[r#"
error: `--set protected` has no `=`
 --> --set protected: nothing to set
  hint: write `--set build.timeout=5m`

"#]]
    );
    let overrides = Overrides { timeout: Some("5".into()), ..Overrides::default() };
    assert_data_eq!(
        screen(&file(&with("")).environment("x", &overrides).unwrap_err()),
        str![[r#"
error: `timeout` takes a duration: `timeout = "5s"`
 --> --timeout 5: the unit is missing

"#]]
    );
}

#[test]
fn a_timeout_flag_where_nothing_is_built_changes_nothing() {
    let overrides = Overrides { timeout: Some("5m".into()), ..Overrides::default() };
    assert_eq!(file(&with("")).environment("x", &overrides).unwrap().build, None);
}

#[test]
fn an_unknown_environment_is_answered_with_what_there_is() {
    let error = file(BOSKEL).environment("prd", &Overrides::default()).unwrap_err();
    assert_eq!((error.exit, error.code), (Exit::Config, "unknown-environment"));
    assert_data_eq!(
        screen(&error),
        str![[r#"
error: unknown environment `prd`
  hint: did you mean `prod`?
  hint: `deploy.toml` has `staging`, `prod`

"#]]
    );
    let error = file(HEAD).environment("prod", &Overrides::default()).unwrap_err();
    assert_data_eq!(
        screen(&error),
        str![[r#"
error: unknown environment `prod`
  hint: `deploy.toml` has no environment; add an `[env.NAME]` as `deploy.toml.example` does

"#]]
    );
}

#[test]
fn local_paths_of_the_file_start_beside_it() {
    let text = with("ssh = { config = \"ssh_config\", identities = [\"~/.ssh/id\", \"/abs\"], known-hosts = [\"known_hosts\"] }\n");
    let environment = parse(Path::new("/repo/deploy.toml"), &text).unwrap().environment("x", &Overrides::default()).unwrap();
    assert_eq!(environment.directory, Path::new("/repo"));
    assert_eq!(environment.connect.ssh_config, Some(PathBuf::from("/repo/ssh_config")));
    assert_eq!(environment.connect.identities, [PathBuf::from("~/.ssh/id"), PathBuf::from("/abs")]);
    assert_eq!(environment.connect.known_hosts, [PathBuf::from("/repo/known_hosts")]);
}

#[test]
fn the_time_to_confirm_fits_the_activation() {
    assert_eq!(resolve("activate = \"restart\"\n").confirm_within, Duration::from_secs(150));
    assert_eq!(resolve("confirm-within = \"0s\"\nactivate = \"restart\"\n").confirm_within, Duration::ZERO);
    assert_eq!(resolve("confirm-within = \"2m\"\nactivate = \"restart\"\n").confirm_within, Duration::from_secs(120));
}

#[test]
fn hosts_are_selected_by_name_short_name_range_glob_role_and_their_negations() {
    let text = format!(
        "{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app[01-04].example.net\", \"db.example.net\"]\nroles = {{ web = [\"app[01-03].example.net\"] }}\n"
    );
    let all = file(&text).environment("x", &Overrides::default()).unwrap();
    let selected = |hosts: &[&str], roles: &[&str]| {
        let mut environment = all.clone();
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        select(&mut environment, &owned(hosts), &owned(roles)).map(|()| {
            let names: Vec<String> = environment.targets.iter().map(|target| target.name.clone()).collect();
            ranges::fold(&ranges::shorten(&names))
        })
    };
    for (hosts, roles, left) in [
        (&[][..], &[][..], "app[01-04],db"),
        (&["app02.example.net"], &[], "app02"),
        (&["app02"], &[], "app02"),
        (&["db,app[03-04]"], &[], "app[03-04],db"),
        (&["app*"], &[], "app[01-04]"),
        (&["*.example.net", "!app0?"], &[], "db"),
        (&["!db"], &[], "app[01-04]"),
        (&["@web"], &[], "app[01-03]"),
        (&["!@web"], &[], "app04,db"),
        (&[], &["web"], "app[01-03]"),
        (&["app[03-04]"], &["web"], "app03"),
        (&["app[01,03]"], &[], "app[01,03]"),
    ] {
        assert_eq!(selected(hosts, roles).unwrap(), left, "{hosts:?} {roles:?}");
    }
    let failing = |hosts: &[&str], roles: &[&str]| screen(&selected(hosts, roles).unwrap_err());
    assert_data_eq!(
        failing(&["ap03"], &[]),
        str![[r#"
error: unknown host `ap03` in `x`
  hint: did you mean `app03`?
  hint: its hosts are app[01-04].example.net,db.example.net

"#]]
    );
    assert_data_eq!(
        failing(&["app[03-05]"], &[]),
        str![[r#"
error: unknown host `app05` in `x`
  hint: did you mean `app04`?
  hint: its hosts are app[01-04].example.net,db.example.net

"#]]
    );
    assert_data_eq!(
        failing(&["web*"], &[]),
        str![[r#"
error: no host of `x` matches `web*`
  hint: its hosts are app[01-04].example.net,db.example.net

"#]]
    );
    assert_data_eq!(
        failing(&["@wbe"], &[]),
        str![[r#"
error: no host of `x` has the role `wbe`
  hint: did you mean `web`?

"#]]
    );
    assert_data_eq!(
        failing(&["db"], &["web"]),
        str![[r#"
error: no host of `x` is left by `-H db -R web`
  hint: its hosts are app[01-04].example.net,db.example.net

"#]]
    );
    assert_data_eq!(
        failing(&["app[3-1]"], &[]),
        str![[r#"
error: `app[3-1]` is not a range of hosts
  hint: ranges look like `app[01-04]`

"#]]
    );
    assert_data_eq!(
        failing(&["*", "!*"], &[]),
        str![[r#"
error: no host of `x` is left by `-H * -H !*`
  hint: its hosts are app[01-04].example.net,db.example.net

"#]]
    );
    assert_data_eq!(
        failing(&["app04", " ,"], &[]),
        str![[r#"
error: `-H ' ,'` names no host
  hint: leave `-H` out for all hosts

"#]]
    );
}

#[test]
fn labels_narrow_what_names_and_roles_pick() {
    let text = format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app[01-04]\", \"db\"]\nroles = {{ web = [\"app[01-03]\"] }}\n");
    let mut all = file(&text).environment("x", &Overrides::default()).unwrap();
    for (index, name, value) in [(0, "az", "a"), (1, "az", "b"), (2, "az", "a"), (0, "rack", "7")] {
        all.targets[index].labels.insert(name.to_owned(), value.to_owned());
    }
    let selected = |hosts: &[&str], roles: &[&str]| {
        let mut environment = all.clone();
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        select(&mut environment, &owned(hosts), &owned(roles)).map(|()| names(&environment).join(" "))
    };
    for (hosts, roles, left) in [
        (&["az=a"][..], &[][..], "app01 app03"),
        (&["az=*"], &[], "app01 app02 app03"),
        (&["az=a,az=b"], &[], "app01 app02 app03"),
        (&["az=a", "rack=7"], &[], "app01"),
        (&["@web,!app03,az=a"], &[], "app01"),
        (&["!az=a"], &[], "app02 app04 db"),
        (&["db,@web,!az=b"], &[], "app01 app03 db"),
        (&["az=a"], &["web"], "app01 app03"),
    ] {
        assert_eq!(selected(hosts, roles).unwrap(), left, "{hosts:?} {roles:?}");
    }
    let failing = |hosts: &[&str]| screen(&selected(hosts, &[]).unwrap_err());
    assert_data_eq!(
        failing(&["azz=a"]),
        str![[r#"
error: no host of `x` has the label `azz`
  hint: did you mean `az=a`?

"#]]
    );
    assert_data_eq!(
        failing(&["!az=c"]),
        str![[r#"
error: no host of `x` has `az=c`
  hint: there, `az` is `a`, `b`

"#]]
    );
    assert_data_eq!(
        failing(&["rack=77"]),
        str![[r#"
error: no host of `x` has `rack=77`
  hint: did you mean `rack=7`?
  hint: there, `rack` is `7`

"#]]
    );
    assert_data_eq!(
        failing(&["app04,az=a"]),
        str![[r#"
error: no host of `x` is left by `-H app04,az=a`
  hint: its hosts are app[01-04],db

"#]]
    );
}

#[test]
fn an_environment_is_shown_with_the_origin_of_every_value() {
    assert_data_eq!(
        file(BOSKEL).show("prod", &Overrides::default(), true).unwrap(),
        str![[r#"
schema = 1                                                   # deploy.toml:1
project = "boskel"                                           # deploy.toml:2

[source]
git = "."                                                    # deploy.toml:5
submodules = false                                           # default
lfs = false                                                  # default

[env.prod]
protected = true                                             # deploy.toml:28
keep-releases = 5                                            # deploy.toml:11
waves = ["1", "25%", "100%"]                                 # deploy.toml:30
max-failures = 0                                             # default
on-failure = "rollback"                                      # default
on-unreachable = "fail"                                      # default
min-healthy = 0                                              # default
pause = "0s"                                                 # default
parallel = 100                                               # default
root = "/srv/boskel"                                         # deploy.toml:8
user = "deploy"                                              # deploy.toml:9
rev = "master"                                               # deploy.toml:10
hosts = ["app[01-12].example.net"]                           # deploy.toml:29
# confirm-within = "3m29s"                                   # default, from the limits of activation and check

[env.prod.shared]
dirs = ["var"]                                               # deploy.toml:12
files = ["etc/site.cfg"]                                     # deploy.toml:12
replace = false                                              # default

[env.prod.cache]
link = "downloads"                                           # deploy.toml:16
network = "index"                                            # default
path = "/srv/download-cache"                                 # deploy.toml:15

[env.prod.build]
timeout = "30m"                                              # default
idle-timeout = "10m"                                         # default
output-limit = "64MB"                                        # default
network = "blocked"                                          # default
on = "host"                                                  # default
recipe = "buildout"                                          # deploy.toml:19
venv = "/srv/venv"                                           # deploy.toml:20
config = "offline.cfg"                                       # deploy.toml:21
# command = ["/srv/venv/bin/buildout", "-c", "offline.cfg"]  # recipe buildout
# env.PIP_CONFIG_FILE = "/dev/null"                          # recipe buildout
# env.PIP_DISABLE_PIP_VERSION_CHECK = "1"                    # recipe buildout
# env.PIP_FIND_LINKS = "downloads/dist"                      # recipe buildout
# env.PIP_NO_CACHE_DIR = "1"                                 # recipe buildout
# env.PIP_NO_INDEX = "1"                                     # recipe buildout

[env.prod.activate]
timeout = "2m"                                               # default
run = "sudo systemctl restart boskel"                        # deploy.toml:31

[env.prod.check]
retries = 10                                                 # deploy.toml:32
every = "1s"                                                 # deploy.toml:32
successes = 1                                                # default
timeout = "5s"                                               # default
stay-up = "0s"                                               # default
url = "http://127.0.0.1:8080/healthz"                        # deploy.toml:32

[env.prod.ssh]
session = "auto"                                             # default
host-keys = "strict"                                         # default
connect-timeout = "10s"                                      # default
connect-retries = 3                                          # default
parallel = 32                                                # default
forward-agent = false                                        # default

"#]]
    );
}

#[test]
fn what_is_shown_reads_back_to_the_same_environment() {
    let example = include_str!("../../deploy.toml.example");
    for text in [BOSKEL, example] {
        let file = file(text);
        for name in file.environments() {
            let shown = file.show(&name, &Overrides::default(), false).unwrap();
            let again = parse(Path::new("deploy.toml"), &shown).unwrap_or_else(|error| panic!("{}\n{shown}", screen(&error)));
            let before = file.environment(&name, &Overrides::default()).unwrap_or_else(|error| panic!("{}", screen(&error)));
            assert_eq!(again.environment(&name, &Overrides::default()).unwrap(), before, "{shown}");
            assert_eq!(file.show(&name, &Overrides::default(), true).unwrap().lines().count(), shown.lines().count());
        }
    }
}

#[test]
fn a_check_of_the_file_says_a_line_about_each_environment() {
    assert_data_eq!(
        file(BOSKEL).check().unwrap().join("\n"),
        str![[r#"
staging: 3 hosts (stg[1-3]), recipe buildout, root /srv/boskel
prod: 12 hosts (app[01-12]), recipe buildout, root /srv/boskel
"#]]
    );
    assert_eq!(file(HEAD).check().unwrap_err().code, "no-environment");
    assert_eq!(file(&with("")).default_environment(), Some("x"));
}

#[test]
fn a_placeholder_in_a_text_for_the_shell_is_warned_of() {
    let file = file(&with("activate = \"restart --to {short-rev}\"\nbuild = { command = [\"make\", \"{rev}\"] }\n"));
    assert_data_eq!(
        file.warnings().join("\n"),
        str!["deploy.toml:6: `{short-rev}` is not replaced in `env.x.activate.run`, which a shell reads; write `$DEPLOYER_SHORT_REV`"]
    );
}

#[test]
fn a_password_in_the_repository_is_warned_of() {
    let warnings = |git: &str| file(&format!("{HEAD}[source]\ngit = \"{git}\"\n")).warnings();
    assert_eq!(warnings("https://ada:secret@example.net/p.git").len(), 1);
    assert!(!warnings("https://ada:secret@example.net/p.git")[0].contains("secret"));
    assert_eq!(warnings("ssh://git@example.net:22/a:b@c"), Vec::<String>::new());
    assert_eq!(warnings("git@example.net:p.git"), Vec::<String>::new());
}

#[test]
fn the_hosts_of_a_role_have_what_the_role_says_and_what_it_inherits() {
    let text = "roles = { web = [\"a\"], worker = [\"b\"] }\nbuild = { command = \"make\", env = { A = \"1\" } }\nactivate = { run = \"up\", as = \"app\" }\n\
                check = { url = \"http://localhost/\" }\n[env.x.role.worker]\nunset = [\"check.url\", \"activate.as\"]\n\
                build = { env = { B = \"2\" } }\nactivate = \"work\"\ncheck = { run = \"ping\" }\n";
    let environment = file(&with(text)).environment("x", &Overrides { timeout: Some("5m".into()), ..Overrides::default() }).unwrap();
    let of = |name: &str| environment.of(environment.targets.iter().find(|target| target.name == name).unwrap());
    let (web, worker) = (of("a"), of("b"));
    assert_eq!(web.activate.as_ref().unwrap().user.as_deref(), Some("app"));
    let activate = worker.activate.as_ref().unwrap();
    assert_eq!((&activate.command, &activate.user), (&Command::Shell("work".into()), &None));
    let build = worker.build.as_ref().unwrap();
    assert_eq!(build.env.keys().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!((build.timeout, web.build.as_ref().unwrap().timeout), (Duration::from_secs(300), Duration::from_secs(300)));
    assert!(matches!(worker.check.as_ref().unwrap().probe, CheckProbe::Run(_)));
    assert_ne!(build_key(web), build_key(worker));
    assert!(environment.by_role[0].1.targets.is_empty());
    // A flag is nearer than a role.
    let set = Overrides { set: vec!["build.timeout=7m".into()], ..Overrides::default() };
    let text = format!("{text}[env.x.role.worker.build.env]\nC = \"3\"\n").replace("build = { env = { B = \"2\" } }\n", "");
    let text = text.replace("[env.x.role.worker.build.env]", "[env.x.role.worker.build]\ntimeout = \"1m\"\n[env.x.role.worker.build.env]");
    let environment = file(&with(&text)).environment("x", &set).unwrap();
    assert_eq!(environment.by_role[0].1.build.as_ref().unwrap().timeout, Duration::from_secs(420));
    let environment = file(&with(&text)).environment("x", &Overrides::default()).unwrap();
    assert_eq!(environment.by_role[0].1.build.as_ref().unwrap().timeout, Duration::from_secs(60));
}

#[test]
fn hooks_of_the_file_are_those_of_environments_without_any() {
    let hook = |on: &str| format!("[[{on}hook]]\non = \"after-deploy\"\nwhere = \"local\"\nrun = [\"tell\", \"{{env}}\"]\n");
    let text = |own: &str| format!("{}{}{own}", with(""), hook(""));
    let names = |text: &str| -> Vec<String> {
        file(text).environment("x", &Overrides::default()).unwrap().hooks.into_iter().map(|hook| hook.name).collect()
    };
    assert_eq!(names(&text("")), ["tell {env}"]);
    assert_eq!(names(&text(&format!("{}name = \"own\"\n", hook("env.x.")))), ["own"]);
    let both = with("hook = [\"...\", { on = \"after-failure\", run = \"true\" }]\n") + &hook("");
    assert_eq!(names(&both), ["tell {env}", "true"]);
    let environment = file(&with("hook = [{ on = \"after-activate\", run = \"x\" }]\n")).environment("x", &Overrides::default()).unwrap();
    assert!(environment.confirm_within > Duration::from_secs(600), "{:?}", environment.confirm_within);
    assert_eq!(file(&with("hook = [{ on = \"after-activate\", run = \"x {rev}\" }]\n")).warnings().len(), 1);
}

proptest::proptest! {
    #[test]
    fn no_damage_to_the_file_makes_the_reader_panic(at in 0_usize..BOSKEL.len(), cut in 0_usize..20, put in "[\\[\\]{}=\"'.#\\n\\r\\t0-9a-zäß\u{202e}-]{0,6}") {
        let text = format!("{}{put}{}", &BOSKEL[..at], BOSKEL.get(at + cut..).unwrap_or_default());
        match parse(Path::new("deploy.toml"), &text) {
            Err(error) => proptest::prop_assert!(error.evidence[0].contains("deploy.toml:"), "{}", screen(&error)),
            Ok(file) => for name in file.environments() {
                if file.environment(&name, &Overrides::default()).is_ok() {
                    let shown = file.show(&name, &Overrides::default(), true).unwrap();
                    proptest::prop_assert!(parse(Path::new("deploy.toml"), &shown).is_ok(), "{shown}");
                }
            }
        }
    }
}

/// Every key, as `section.key`, where the section is called by what it is about.
fn keys(section: &'static Section, into: &mut BTreeSet<(&'static str, &'static str)>) {
    for key in section.keys {
        into.insert((section.noun, key.name));
        if let Some(inner) = key.shape.section() {
            keys(inner, into);
        }
    }
}

fn keys_in(table: &Table, section: &'static Section, into: &mut BTreeSet<(&'static str, &'static str)>) {
    for entry in &table.entries {
        let key = section.key(&entry.name).unwrap();
        into.insert((section.noun, key.name));
        let Some(inner) = key.shape.section() else { continue };
        match (&key.shape, &entry.node.value) {
            (Shape::Sections(_), Value::Table(tables)) => {
                for entry in &tables.entries {
                    keys_in(entry.node.table().unwrap(), inner, into);
                }
            }
            (_, Value::Table(table)) => keys_in(table, inner, into),
            (_, Value::List(items)) => items.iter().for_each(|item| keys_in(item.table().unwrap(), inner, into)),
            (_, Value::Text(_) | Value::Whole(_) | Value::Truth(_) | Value::Other(_)) => {}
        }
    }
}

#[test]
fn the_example_shows_every_key_with_a_reason() {
    let text = include_str!("../../deploy.toml.example");
    let example = file(text);
    assert_eq!(example.check().unwrap_or_else(|error| panic!("{}", screen(&error))).len(), 7);
    assert_eq!(example.warnings(), Vec::<String>::new());
    let bare: Vec<&str> = text.lines().filter(|line| line.contains(" = ") && !line.contains('#')).collect();
    assert_eq!(bare, Vec::<&str>::new(), "a key without a reason");
    let (mut known, mut shown) = (BTreeSet::new(), BTreeSet::new());
    keys(&schema::FILE, &mut known);
    keys_in(&example.root, &schema::FILE, &mut shown);
    let missing: Vec<_> = known.difference(&shown).collect();
    assert_eq!(missing, Vec::<&(&str, &str)>::new());
}

#[test]
fn the_build_key_names_what_decides_the_build_and_nothing_else() {
    let base = "cache = { path = \"/srv/c\" }\nshared = { dirs = [\"a\", \"b\"] }\nbuild = { command = [\"make\"], env = { A = \"1\" } }\n";
    let key = |settings: &str| build_key(&resolve(settings));
    let same = [
        base.replace("[\"a\", \"b\"]", "[\"b\", \"a\"]"),
        base.replace("[\"make\"]", "[\"make\"], timeout = \"1m\""),
        format!("{base}keep-releases = 9\nactivate = \"restart\"\n"),
    ];
    for settings in &same {
        assert_eq!(key(settings), key(base), "{settings}");
    }
    let others = [
        base.replace("[\"make\"]", "\"make\""),
        base.replace("[\"make\"]", "[\"make\", \"all\"]"),
        base.replace("A = \"1\"", "A = \"2\""),
        base.replace("A = \"1\"", "B = \"1\""),
        base.replace("\"/srv/c\"", "\"/srv/c\", link = \"other\""),
        base.replace("cache = { path = \"/srv/c\" }", ""),
        base.replace("dirs = [\"a\", \"b\"]", "dirs = [\"a\"], files = [\"b\"]"),
        base.replace("build = { command = [\"make\"], env = { A = \"1\" } }", ""),
    ];
    let mut keys: BTreeSet<_> = others.iter().map(|settings| key(settings)).collect();
    keys.insert(key(base));
    assert_eq!(keys.len(), others.len() + 1);
}

#[test]
fn a_release_is_built_on_every_host_or_on_one_that_is_named() {
    let on = |on: &str| {
        let build = resolve(&format!("build = {{ command = \"make\", on = \"{on}\" }}\n")).build;
        build.map(|build| build.on)
    };
    assert_eq!(resolve("build = { command = \"make\" }\n").build.map(|build| build.on), Some(BuildOn::Host));
    assert_eq!((on("host"), on("first")), (Some(BuildOn::Host), Some(BuildOn::First)));
    let Some(BuildOn::One(local)) = on("local") else { panic!("not this machine") };
    assert_eq!(local.session, Some(SessionKind::Local));
    let Some(BuildOn::One(other)) = on("ada@build1.example.net:2222") else { panic!("no host") };
    assert_eq!((other.name.as_str(), other.user.as_deref(), other.port), ("build1.example.net", Some("ada"), Some(2222)));
    // One of the environment's own hosts is what the environment says of it.
    let own = resolve("build = { command = \"make\", on = \"b\" }\nhost = [{ name = \"b\", address = \"192.0.2.7\" }]\n");
    let Some(BuildOn::One(own)) = own.build.map(|build| build.on) else { panic!("no host") };
    assert_eq!(own.address, "192.0.2.7");
}

#[test]
fn the_source_of_a_promotion_is_an_environment_of_the_file() {
    let text =
        |from: &str| format!("{BOSKEL}only-from = \"{from}\"\n").replace("check     =", "# check =").replace("activate  =", "# activate =");
    let prod = |from: &str| file(&text(from));
    assert_eq!(prod("staging").environment("prod", &Overrides::default()).unwrap().only_from.as_deref(), Some("staging"));
    assert!(prod("staging").check_source("prod").is_ok());
    assert_data_eq!(
        screen(&prod("stagin").check().unwrap_err()),
        str![[r#"
error: `only-from` names the unknown environment `stagin`
  --> deploy.toml:33:13
   |
33 | only-from = "stagin"
   |             ^^^^^^^^ no such environment
   |
   = help: did you mean `staging`?

"#]]
    );
    assert_eq!(screen(&prod("stagin").check_source("prod").unwrap_err()), screen(&prod("stagin").check().unwrap_err()));
}
