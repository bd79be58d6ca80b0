//! Hosts that somebody else lists: a file, a program, Ansible and the ssh config, well and ill, and what `-H` makes of them.

#![expect(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots with them")]

use std::fs;
use std::time::{Duration, Instant};

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::{World, write_program};

/// A project without hosts of its own; all that it is told of are directories of this machine.
fn world(inventory: &str) -> World {
    let world = World::new();
    world.write_raw_config(&format!(
        "schema = 1\nproject = \"boskel\"\n\n[defaults]\nroot = \"<tmp>/srv/boskel\"\nssh = {{ session = \"local\", config = \"<tmp>/ssh_config\" }}\n\n\
         [env.prod]\ninventory = {inventory}\n"
    ));
    world
}

/// A file of the project.
fn write(world: &World, name: &str, text: &str) {
    fs::write(world.repository.directory.join(name), text).unwrap();
}

/// A program of the project.
fn program(world: &World, script: &str) {
    write_program(&world.repository.directory.join("inventory"), script);
}

/// The hosts that `-H` leaves, folded, as the heading of what they all answer.
fn reached(world: &World, patterns: &[&str]) -> String {
    let mut arguments = vec!["run"];
    arguments.extend(patterns.iter().flat_map(|pattern| ["-H", pattern]));
    arguments.extend(["--", "true"]);
    let run = world.deployer(arguments);
    run.ok();
    let heading = run.stdout.lines().next().and_then(|line| line.strip_prefix("── ")).unwrap_or_else(|| panic!("{run}"));
    heading.split(" (").next().unwrap().to_owned()
}

#[test]
fn a_file_lists_hosts_that_names_roles_and_labels_select() {
    let world = world("{ file = \"hosts.txt\" }");
    write(&world, "hosts.txt", "# the web\napp[01-02] web az=a\napp03 web,first az=b\n\ndb1 db az=b rack=7\n");
    assert_eq!(reached(&world, &[]), "app[01-03],db1");
    assert_eq!(reached(&world, &["@web,!app02,az=a"]), "app01");
    assert_eq!(reached(&world, &["app[01,03]"]), "app[01,03]");
    assert_eq!(reached(&world, &["!az=b"]), "app[01-02]");
    assert_eq!(reached(&world, &["az=b", "rack=7"]), "db1");
    world.deployer(["run", "-H", "az=c", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: no host of `prod` has `az=c`
  hint: there, `az` is `a`, `b`

"#]],
    );
    world.deployer(["run", "-H", "", "--", "true"]).is(
        Exit::Usage,
        str![],
        str![[r#"
error: `-H ''` names no host
  hint: leave `-H` out for all hosts

"#]],
    );
}

#[test]
fn the_hosts_that_failed_last_time_are_selected_and_left_out() {
    let world = world("{ file = \"hosts.txt\" }");
    write(&world, "hosts.txt", "app01\napp02\napp03\n");
    let fail_on_two = ["run", "--", "sh", "-c", "test \"$DEPLOYER_HOST\" != app02"];
    assert_eq!(reached(&world, &["!@failed"]), "app[01-03]");
    world.deployer(fail_on_two).exits(Exit::RemoteCommand);
    assert_eq!(reached(&world, &["@failed"]), "app02");
    world.deployer(fail_on_two).exits(Exit::RemoteCommand);
    assert_eq!(reached(&world, &["!@failed,!app03"]), "app01");
    world.deployer(["run", "-H", "@unreachable", "--", "true"]).is(
        Exit::Usage,
        str![],
        str![[r#"
error: `@unreachable` names no host: the last run of prod had none
  hint: deployer logs --list

"#]],
    );
}

#[test]
fn a_host_of_an_inventory_is_planned_like_any_other() {
    let world = world("{ file = \"<tmp>/hosts.txt\" }");
    let root = world.path("srv/app01");
    fs::create_dir(&root).unwrap();
    fs::write(world.path("hosts.txt"), format!("app01 web root={}\n", root.display())).unwrap();
    world.commit(&[("a", "1")]);
    world.deployer(["plan", "--rev", "master"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 1 host · read-only, nothing was changed
  rev  none → 5c36ae6 (master) "Change what there is"
  tree  1 file, <size>
  steps  lock → push → link → activate → confirm → prune
  HOSTS  FROM  PUSH  DISK FREE
  app01  none <size> <size>  new

"#]],
        str![],
    );
}

#[test]
fn what_the_file_says_of_a_host_wins_and_roles_add_up() {
    let world = World::new();
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n[defaults]\nroot = \"<tmp>/srv/boskel\"\nssh = { session = \"local\" }\n[env.prod]\n\
         inventory = { file = \"hosts.txt\" }\nhosts = [\"local\"]\n[[env.prod.host]]\nname = \"app01\"\nroles = [\"first\"]\nlabels = { az = \"z\" }\n",
    );
    write(&world, "hosts.txt", "app01 web az=a rack=7\napp02 web az=a\n");
    assert_eq!(reached(&world, &[]), "local,app[01-02]");
    assert_eq!(reached(&world, &["@web"]), "app[01-02]");
    assert_eq!(reached(&world, &["@first,rack=7"]), "app01");
    assert_eq!(reached(&world, &["az=a"]), "app02");
}

#[test]
fn a_file_that_is_wrong_is_told_with_the_line() {
    let world = world("{ file = \"hosts.txt\" }");
    let run = || world.deployer(["run", "--", "true"]);
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `<tmp>/boskel/hosts.txt` cannot be read: No such file or directory (os error 2)
  hint: write it, or change `inventory` of [env.prod]

"#]],
    );
    write(&world, "hosts.txt", "app01\n-oProxyCommand=id web\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `hosts.txt`, line 2: it begins with `-oProxyCommand=id`, and not with the name of a host
  line 2 | -oProxyCommand=id web
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
    write(&world, "hosts.txt", "app01\napp02\u{1b}[2J\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `hosts.txt`, line 2: `app02\u{1b}[2J` is not a range of hosts: `[` is never closed
  line 2 | app02\u{1b}[2J
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
    write(&world, "hosts.txt", "app01 port=ssh\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `hosts.txt`, line 1: `ssh` is not a port: a port is a number from 1 to 65535
  line 1 | app01 port=ssh
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
    write(&world, "hosts.txt", "app01\napp02\napp01 web\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `hosts.txt`, line 3: `app01` is listed a second time; the first is line 1
  line 3 | app01 web

"#]],
    );
    write(&world, "hosts.txt", "# nobody yet\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `hosts.txt` lists no host
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
}

#[test]
fn a_program_lists_hosts_from_where_the_file_lies_and_knows_the_environment() {
    let world = world("{ command = [\"./inventory\", \"{env}\"] }");
    program(&world, "test \"$1\" = prod && test \"$DEPLOYER_ENV\" = prod && cat hosts.txt\n");
    write(&world, "hosts.txt", "app01\napp02\n");
    fs::create_dir(world.repository.directory.join("deep")).unwrap();
    let mut command = world.command(["run", "--", "true"]);
    command.current_dir(world.repository.directory.join("deep"));
    world.run(&mut command).ok();
    assert_eq!(reached(&world, &["app02"]), "app02");
}

#[test]
fn a_program_that_is_ill_is_told_with_what_it_said() {
    let world = world("{ command = [\"./inventory\"] }");
    let run = || world.deployer(["run", "--", "true"]);
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` cannot be started: No such file or directory (os error 2)
  hint: a name with a slash begins beside `deploy.toml`, one without is looked for in PATH

"#]],
    );
    program(&world, "echo app01; echo 'token has expired' >&2; exit 1\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` exited with status 1
  stderr | token has expired
  hint: run it in `<tmp>/boskel` to see what it does

"#]],
    );
    program(&world, "printf '<!DOCTYPE html>\\n<html><body>502 Bad Gateway</body></html>\\n'\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory`, line 1: `<!DOCTYPE` is not a host name: it holds `<`
  line 1 | <!DOCTYPE html>
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
    program(&world, "echo 'no such account' >&2\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` lists no host
  stderr | no such account
  hint: a line is a host, its roles and its labels: `app01 web,worker az=a address=10.0.0.7 user=deploy port=22`

"#]],
    );
    program(&world, "kill -9 $$\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` was ended by signal 9
  hint: run it in `<tmp>/boskel` to see what it does

"#]],
    );
    program(&world, "seq -f 'app%07.0f' 1 1000000\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory`, line 10001: it lists more than 10000 hosts
  line 10001 | app0010001

"#]],
    );
    program(&world, "yes app01\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` lists more than 16 MiB, which is no inventory

"#]],
    );
}

#[test]
fn a_program_that_hangs_is_stopped_at_its_timeout() {
    let world = world("{ command = [\"./inventory\"], timeout = \"3s\" }");
    program(&world, "echo app01; echo 'waiting for the VPN' >&2; sleep 600\n");
    let began = Instant::now();
    world.deployer(["run", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory` was not done after <t> and was stopped
  stderr | waiting for the VPN
  hint: run it in `<tmp>/boskel` to see what it does
  hint: or give it more time: `timeout = "2m"` in the `inventory` of [env.prod]

"#]],
    );
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_answer_that_is_kept_is_not_asked_for_again() {
    let world = world("{ command = [\"./inventory\"], ttl = \"1h\" }");
    program(&world, "echo app01\n");
    assert_eq!(reached(&world, &[]), "app01");
    program(&world, "exit 1\n");
    assert_eq!(reached(&world, &[]), "app01");
}

#[test]
fn json_lists_names_and_tables() {
    let world = world("{ command = [\"./inventory\"], format = \"json\" }");
    program(&world, r#"echo '["app[01-02]", {"name": "db1", "roles": ["db"], "labels": {"az": "b"}}]'"#);
    assert_eq!(reached(&world, &[]), "app[01-02],db1");
    assert_eq!(reached(&world, &["@db"]), "db1");
    program(&world, r#"echo '[{"name": "db1", "adress": "10.0.0.1"}]'"#);
    world.deployer(["run", "--", "true"]).is(Exit::Config, str![], str![[r#"
error: the inventory `./inventory`, host 1: unknown field `adress`, expected one of `name`, `address`, `user`, `port`, `root`, `roles`, `labels`
  host 1 | {"adress":"10.0.0.1","name":"db1"}
  hint: expected a list: `["app01", { "name": "app02", "address": "10.0.0.7", "roles": ["web"], "labels": { "az": "a" } }]`

"#]]);
    program(&world, "echo '<html>'\n");
    world.deployer(["run", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `./inventory`, line 1: it is not JSON: expected value
  line 1 | <html>
  hint: expected a list: `["app01", { "name": "app02", "address": "10.0.0.7", "roles": ["web"], "labels": { "az": "a" } }]`

"#]],
    );
}

#[test]
fn ansible_is_asked_for_its_groups() {
    let world = world("{ ansible = \"inventory/prod\", groups = [\"web\"] }");
    let run = || world.deployer(["run", "--", "true"]);
    // A PATH of its own, in which there is all that the harness needs, and no Ansible.
    let mut without = world.command(["run", "--", "true"]);
    let bin = world.path("elsewhere");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/bin/timeout", bin.join("timeout")).unwrap();
    without.env("PATH", &bin);
    world.run(&mut without).is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `ansible-inventory -i inventory/prod` cannot be started: No such file or directory (os error 2)
  hint: install ansible-core on this machine, or have a `command` print the same with `format = "ansible"`

"#]],
    );
    world.program(
        "ansible-inventory",
        r#"test "$1 $2 $3" = "-i $PWD/inventory/prod --list" || { echo "ERROR! unexpected $*" >&2; exit 5; }
cat <<'END'
{
    "_meta": {
        "hostvars": {
            "app01": { "ansible_host": "127.0.0.1", "ansible_port": 22, "ansible_user": "deploy" },
            "app02": { "ansible_connection": "local", "db_password": "hunter22" }
        },
        "profile": "inventory_legacy"
    },
    "all": { "children": ["ungrouped", "canary", "web", "db"] },
    "canary": { "hosts": ["app02"] },
    "db": { "hosts": ["db1"] },
    "web": { "children": ["canary"], "hosts": ["app01"] }
}
END
"#,
    );
    assert_eq!(reached(&world, &[]), "app[01-02]");
    assert_eq!(reached(&world, &["@canary"]), "app02");
    world.deployer(["run", "-H", "@db", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: no host of `prod` has the role `db`
  hint: its roles are `canary`, `web`

"#]],
    );
    world.program(
        "ansible-inventory",
        "echo '[WARNING]: provided hosts list is empty' >&2; echo '{\"all\": {\"children\": [\"ungrouped\"]}}'\n",
    );
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `ansible-inventory -i inventory/prod` has no group `web`
  stderr | [WARNING]: provided hosts list is empty
  hint: `ansible-inventory --list` with the same `-i` shows what was read

"#]],
    );
    world.program("ansible-inventory", "echo 'ERROR! Unexpected Exception' >&2; exit 250\n");
    run().is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `ansible-inventory -i inventory/prod` exited with status 250
  stderr | ERROR! Unexpected Exception
  hint: run it in `<tmp>/boskel` to see what it does

"#]],
    );
}

#[test]
fn aliases_of_the_ssh_config_are_found_through_its_includes() {
    let world = world("{ ssh-config = \"boskel-prod-*\" }");
    let included = world.path("more.conf");
    fs::write(world.path("ssh_config"), format!("Include {}\nHost boskel-prod-1 bastion\n  Port 2222\nHost *\n", included.display()))
        .unwrap();
    fs::write(&included, "Host boskel-prod-2\n  HostName 10.0.0.2\n").unwrap();
    assert_eq!(reached(&world, &[]), "boskel-prod-[1-2]");
    fs::write(world.path("ssh_config"), "Host bastion\nHost boskel-prod-?\n  User deploy\nHost *\n").unwrap();
    world.deployer(["run", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `ssh-config = "boskel-prod-*"` names no host: no `Host` line has a matching alias
  <tmp>/ssh_config:2 | Host boskel-prod-?
  looked in <tmp>/ssh_config
  hint: a pattern after `Host` stands for names that are written nowhere
  hint: write the names: `Host app01 app02` in the ssh config, or `hosts = ["app[01-02]"]` in deploy.toml

"#]],
    );
    fs::remove_file(world.path("ssh_config")).unwrap();
    world.deployer(["run", "--", "true"]).is(
        Exit::Config,
        str![],
        str![[r#"
error: the inventory `<tmp>/ssh_config` cannot be read: No such file or directory (os error 2)
  hint: change `ssh.config` of [env.prod]

"#]],
    );
}

#[test]
fn what_an_inventory_names_is_connected_to() {
    let world = World::new().with_hosts(&["app1", "app2"]);
    let root = world.root("app1").display();
    let ask = |inventory: &str| {
        world.write_raw_config(&format!(
            "schema = 1\nproject = \"boskel\"\n[defaults]\nroot = \"{root}\"\nssh = {{ config = \"<tmp>/ssh_config\" }}\n[env.prod]\ninventory = {inventory}\n"
        ));
    };
    ask("{ ssh-config = \"app?\" }");
    assert_eq!(reached(&world, &[]), "app[1-2]");
    ask("{ file = \"hosts.txt\" }");
    write(&world, "hosts.txt", "blue address=app1\ngreen address=app2 port=1\n");
    assert_eq!(reached(&world, &["blue"]), "blue");
    world.deployer(["run", "-H", "green", "--", "true"]).exits(Exit::Unreachable);
    assert_eq!(reached(&world, &["!@unreachable"]), "blue");
}

#[test]
fn without_a_file_of_its_own_the_aliases_are_those_of_the_user() {
    let world = World::new();
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n[defaults]\nroot = \"<tmp>/srv/boskel\"\nssh = { session = \"local\" }\n[env.prod]\n\
         inventory = { ssh-config = \"boskel-{env}-*\" }\n",
    );
    let home = world.path("home/.ssh/conf.d");
    fs::create_dir_all(&home).unwrap();
    fs::write(world.path("home/.ssh/config"), "Include conf.d/*\nHost boskel-prod-2\n").unwrap();
    fs::write(home.join("prod"), "Host boskel-prod-1 boskel-stg-1\n").unwrap();
    assert_eq!(reached(&world, &[]), "boskel-prod-[1-2]");
}
