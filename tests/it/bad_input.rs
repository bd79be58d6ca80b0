//! What people get wrong, and what hosts have wrong: each is told with its place and its remedy, and changes nothing.

use std::fs;
use std::os::unix::fs::symlink;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::World;

#[test]
fn a_missing_deploy_toml_is_told() {
    let world = World::new();
    world.deployer(["deploy"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: there is no `deploy.toml` in `<tmp>/boskel`, the root of the repository
  hint: write one: copy `deploy.toml.example` to the root of your repository and edit it
  hint: or name it: `deployer deploy -c FILE`, `deployer deploy -C DIR`

"]],
    );
    world.deployer(["status", "-c", "other.toml"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: there is no file `./other.toml`
  hint: write one: copy `deploy.toml.example` to the root of your repository and edit it
  hint: or name it: `deployer deploy -c FILE`, `deployer deploy -C DIR`

"]],
    );
}

#[test]
fn mistakes_in_deploy_toml_are_shown_where_they_are() {
    let world = World::new();
    let text =
        "schema = 1\nproject = \"boskel\"\n\n[defaults]\nroot = \"/srv/boskel\"\nkeep-release = 5\n\n[env.prod]\nhosts = [\"app1\"]\n";
    world.write_raw_config(text);
    world.deployer(["deploy"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: unknown key `keep-release` in [defaults]
 --> deploy.toml:6:1
  |
6 | keep-release = 5
  | ^^^^^^^^^^^^ not a setting of an environment
  |
  = help: did you mean `keep-releases`?
  = note: `deploy.toml.example` shows every key

"]],
    );
    world.write_raw_config(&text.replace("keep-release = 5", "keep-releases = \"five"));
    world.deployer(["config", "check"]).is(
        Exit::Config,
        str![""],
        str![[r#"
error: `deploy.toml` is not TOML: invalid basic string, expected `"`
 --> deploy.toml:6:22
  |
6 | keep-releases = "five
  |  ^ here

"#]],
    );
    world.write_raw_config(&text.replace("keep-release = 5", "").replace("[\"app1\"]", "\"app1\""));
    world.deployer(["config", "check"]).is(
        Exit::Config,
        str![""],
        str![[r#"
error: `hosts` takes a list: `hosts = ["app1"]`
 --> deploy.toml:9:9
  |
9 | hosts = "app1"
  |  ^^^^^^ this is a string

"#]],
    );
    world.write_raw_config(&text.replace("keep-release = 5", "").replace("schema = 1", "schema = 9"));
    world.deployer(["config", "check"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: the file needs a deployer that reads schema 9
 --> deploy.toml:1:10
  |
1 | schema = 9
  |  ^ deployer 0.1.0 reads schema 1
  |
  = help: install a deployer newer than 0.1.0

"]],
    );
    world.write_raw_config(&text.replace("keep-release = 5", ""));
    world.deployer(["config", "check"]).is(
        Exit::Ok,
        str![[r"
prod: 1 host (app1), no build, root /srv/boskel

"]],
        str![""],
    );
    world.deployer(["config", "show", "--origin"]).is(
        Exit::Ok,
        str![[r#"
schema = 1  # deploy.toml:1
project = "boskel"  # deploy.toml:2

[source]
git = "."  # default
submodules = false  # default
lfs = false  # default

[env.prod]
protected = false  # default
keep-releases = 5  # default
waves = ["100%"]  # default
max-failures = 0  # default
on-failure = "rollback"  # default
on-unreachable = "fail"  # default
min-healthy = 0  # default
pause = "0s"  # default
parallel = 100  # default
root = "/srv/boskel"  # deploy.toml:5
hosts = ["app1"]  # deploy.toml:9
# confirm-within = "2m"  # default, from the limits of activation and check

[env.prod.shared]
dirs = []  # default
files = []  # default
replace = false  # default

[env.prod.ssh]
session = "auto"  # default
host-keys = "strict"  # default
connect-timeout = "10s"  # default
connect-retries = 3  # default
parallel = 32  # default
forward-agent = false  # default

"#]],
        str![""],
    );
}

#[test]
fn an_unknown_environment_or_host_is_told_with_the_nearest() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "-e", "prd"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: unknown environment `prd`
  hint: did you mean `prod`?
  hint: `deploy.toml` has `prod`

"]],
    );
    world.deployer(["deploy", "-H", "ap1"]).is(
        Exit::Config,
        str![""],
        str![[r"
error: unknown host `ap1` in `prod`
  hint: did you mean `app1`?
  hint: its hosts are app[1-2]

"]],
    );
    world.deployer(["deploy", "--max-failures", "many"]).is(
        Exit::Config,
        str![""],
        str![[r#"
error: `max-failures` takes a number of hosts or a percentage of them: `max-failures = "10%"`
 --> --max-failures many: neither hosts nor a percentage of them

"#]],
    );
    world.deployer(["deploi"]).is(
        Exit::Usage,
        str![""],
        str![[r"
error: unrecognized subcommand 'deploi'

  tip: some similar subcommands exist: 'demo', 'deploy'

Usage: deployer [OPTIONS] <COMMAND>

For more information, try '--help'.

"]],
    );
}

#[test]
fn a_short_host_name_of_a_hint_selects_the_host() {
    let world = World::new();
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[defaults]\nroot = \"<tmp>/srv/boskel\"\n\
         [[env.prod.host]]\nname = \"app1.example.net\"\nsession = \"local\"\n[[env.prod.host]]\nname = \"app2.example.net\"\nsession = \"local\"\nroot = \"<tmp>/srv/other\"\n",
    );
    world.deployer(["run", "-H", "app2", "--raw", "--", "echo $DEPLOYER_HOST"]).ends(
        0,
        str![[r"
app2.example.net

"]],
        str![""],
    );
}

#[test]
fn an_unreachable_host_stops_the_run_before_anything_is_sent() {
    for session in ["ssh2", "openssh"] {
        let world = World::new().ssh_hosts(session, &["app1", "app2"]);
        world.commit(&[("number", "one\n")]);
        world.sandbox.host("app2").unwrap().stop();
        let mut run = world.deployer(["deploy", "--rev", "master"]);
        // The two clients differ in how they call it: by its address, and by the name in the ssh config.
        run.stderr = run.stderr.replace("`127.0.0.1`", "`app2`");
        run.is(
            Exit::Unreachable,
            str![""],
            str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] ✗ app2 connect failed after <t>: `app2` refused the connection to port <port>
[<t>] ✗ connect  1/2  1 failed: app2

✗ app2 · connect · failed after <t>
  reason: `app2` refused the connection to port <port>
  hint: is sshd running on `app2` port <port>? set `port` for this host if it listens elsewhere
  hint: without: deployer deploy -e prod --rev master -H '!app2'

Not deployed. Nothing was changed; prod still runs nothing on 1/1 host.

"#]],
        );
        assert!(world.releases("app1").is_empty());
        world.deployer(["deploy", "--rev", "master", "--on-unreachable", "skip"]).exits(Exit::Partial);
        assert_eq!(world.read_current("app1", "number"), "one\n");
    }
}

#[test]
fn an_unknown_or_changed_host_key_is_refused_before_a_byte_is_sent() {
    for session in ["ssh2", "openssh"] {
        let world = World::new().ssh_hosts(session, &["app1"]);
        world.commit(&[("number", "one\n")]);
        let known = fs::read_to_string(world.sandbox.known_hosts()).unwrap();
        fs::write(world.sandbox.known_hosts(), "").unwrap();
        let run = world.deployer(["deploy", "--rev", "master"]);
        run.exits(Exit::Unreachable);
        assert!(run.stderr.contains("app1") && run.stderr.contains("deployer hosts trust app1"), "{run}");
        // The host shows another key than the one that is known.
        let host = world.sandbox.host("app1").unwrap();
        fs::write(world.sandbox.known_hosts(), &known).unwrap();
        for key in [host.host_key(), host.host_key().with_extension("pub")] {
            fs::remove_file(key).unwrap();
        }
        let made = std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(host.host_key()).status();
        assert!(made.unwrap().success());
        host.restart().unwrap();
        let run = world.deployer(["deploy", "--rev", "master"]);
        run.exits(Exit::Unreachable);
        assert!(run.stderr.contains("the host key of") && run.stderr.contains("is not the known one"), "{run}");
        assert!(run.stderr.contains("Not deployed. Nothing was changed; no host answered."), "{run}");
        assert!(!world.root("app1").join(".deployer").exists());
    }
}

#[test]
fn a_root_that_is_missing_or_no_directory_is_told_before_anything_is_sent() {
    let world = World::new().local_hosts(&["app1", "app2"]);
    world.commit(&[("number", "one\n")]);
    fs::remove_dir(world.root("app1")).unwrap();
    fs::remove_dir(world.root("app2")).unwrap();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2

error: cannot deploy to `app[1-2]` (2 of 2 hosts): the root directory is missing
  hint: deployer setup -e prod

Not deployed. Nothing was activated: prod still runs nothing on 2/2 hosts.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    fs::write(world.root("app1"), "").unwrap();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2

error: cannot deploy to `app[1-2]` (2 of 2 hosts)
  app1 | the root is not a directory
  app2 | the root directory is missing
  hint: move it away, or change `root`
  hint: deployer setup -e prod

Not deployed. Nothing was activated: prod still runs nothing on 2/2 hosts.
  retry  deployer deploy -e prod --rev master

"#]],
    );
}

#[test]
fn a_current_that_is_no_link_to_a_release_is_left_alone() {
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    fs::create_dir(world.current("app1")).unwrap();
    fs::write(world.current("app1").join("precious"), "").unwrap();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1

error: cannot deploy to `app1`: `current` is a real file or directory, not a link
  hint: move it away on that host: `mv current current.old`, then deploy again

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    assert!(world.current("app1").join("precious").exists());
    fs::remove_dir_all(world.current("app1")).unwrap();
    symlink("releases/gone", world.current("app1")).unwrap();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::BuildFailed,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1

error: cannot deploy to `app1`: `current` leads to `releases/gone`, which is not there
  hint: point it at a directory in `releases/`, or remove it on that host, then deploy again

Not deployed. Nothing was activated: prod still runs nothing on 1/1 host.
  retry  deployer deploy -e prod --rev master

"#]],
    );
    assert_eq!(fs::read_link(world.current("app1")).unwrap().to_str(), Some("releases/gone"));
}

#[test]
fn an_absolute_link_of_capistrano_is_taken_over() {
    let world = World::new().local_hosts(&["app1"]);
    let old = world.root("app1").join("releases/20250101120000");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("number"), "old\n").unwrap();
    symlink(&old, world.current("app1")).unwrap();
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Ok,
        str![""],
        str![[r#"
boskel → prod · 1 host
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  1/1
[<t>] lock  1/1
[<t>] changes  20250101120000..e1a9e0b
[<t>] release  <release>
[<t>] push  1/1 <size> sent per host
[<t>] link  1/1
[<t>] activate  1/1  current → <release>
[<t>] prune  1/1  kept 1, removed 0

Deployed e1a9e0b to prod: 1 host in <t> (was 20250101120000)

"#]],
    );
    assert_eq!(world.read_current("app1", "number"), "one\n");
    assert!(old.join("number").exists());
}

#[test]
fn two_names_for_one_root_are_refused() {
    let world = World::new();
    world.commit(&[("number", "one\n")]);
    fs::create_dir(world.path("srv/boskel")).unwrap();
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[defaults]\nroot = \"<tmp>/srv/boskel\"\n\
         [[env.prod.host]]\nname = \"app1\"\nsession = \"local\"\n[[env.prod.host]]\nname = \"app2\"\nsession = \"local\"\n",
    );
    // Which of the two is first depends on who is quicker.
    let mut run = world.deployer(["deploy", "--rev", "master"]);
    run.stderr = run.stderr.replace("app2", "app1");
    run.is(
        Exit::Config,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2
[<t>] ✗ lock  0/2  stopped

error: `app1` is another name of a host and root that this run has locked
  hint: remove one of the two names from deploy.toml

prod still runs nothing on 2/2 hosts.

"#]],
    );
    world.deployer(["setup", "-H", "app1"]).ok();
    world.deployer(["deploy", "--rev", "master"]).is(
        Exit::Config,
        str![""],
        str![[r#"
boskel → prod · 2 hosts
[<t>] rev  e1a9e0b master "Change what there is" (Ada, <ago>)
[<t>] export  1 file, <size>
[<t>] connect  2/2

error: `app1` and `app2` are one host with one root
  hint: remove one of the two names from deploy.toml

prod still runs nothing on 2/2 hosts.

"#]],
    );
    assert!(fs::read_dir(world.path("srv/boskel/releases")).unwrap().next().is_none());
}

#[test]
fn a_root_that_may_not_be_written_to_is_told_before_anything_is_sent() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        return deployer::sandbox::skip("root may write everywhere");
    }
    let world = World::new().local_hosts(&["app1"]);
    world.commit(&[("number", "one\n")]);
    fs::set_permissions(world.root("app1"), fs::Permissions::from_mode(0o555)).unwrap();
    let run = world.deployer(["deploy", "--rev", "master"]);
    fs::set_permissions(world.root("app1"), fs::Permissions::from_mode(0o755)).unwrap();
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains("error: cannot deploy to `app1`: the root belongs to"), "{run}");
    assert!(run.stderr.contains("hint: deployer setup -e prod"), "{run}");
}
