//! The commonest mistakes in a `deploy.toml`, each with the screen that a person gets, to the letter. Long because it is a list;
//! `SNAPSHOTS=overwrite cargo test --lib mistakes` writes the screens anew.

use snapbox::{assert_data_eq, str};

use super::{HEAD, fails, screen, with};

#[test]
fn hosts_as_a_string_shows_the_list() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = \"app1.example.net\"\n"))),
        str![[r#"
error: `hosts` takes a list: `hosts = ["app1.example.net"]`
 --> deploy.toml:5:9
  |
5 | hosts = "app1.example.net"
  |         ^^^^^^^^^^^^^^^^^^ this is a string

"#]]
    );
}

#[test]
fn an_empty_list_of_hosts_asks_for_hosts() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = []\n"))),
        str![[r#"
error: environment `x` has no hosts
 --> deploy.toml:5:9
  |
5 | hosts = []
  |         ^^ add your hosts here
  |
  = help: write `hosts = ["app[01-03].example.net"]` in [env.x] of `deploy.toml`

"#]]
    );
}

#[test]
fn no_hosts_at_all_points_at_the_environment() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\n"))),
        str![[r#"
error: environment `x` has no hosts
 --> deploy.toml:3:6
  |
3 | [env.x]
  |      ^ add your hosts here
  |
  = help: write `hosts = ["app[01-03].example.net"]` in [env.x] of `deploy.toml`

"#]]
    );
}

#[test]
fn a_missing_root_says_what_to_add() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nhosts = [\"h\"]\n"))),
        str![[r#"
error: environment `x` has no `root`
 --> deploy.toml:3:6
  |
3 | [env.x]
  |      ^ needs the directory that releases live in
  |
  = help: add `root = "/srv/p"` here or in [defaults]

"#]]
    );
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x\n"))),
        str![[r#"
error: `deploy.toml` is not TOML: unclosed table, expected `]`
 --> deploy.toml:3:7
  |
3 | [env.x
  |       ^ here

"#]]
    );
}

#[test]
fn a_key_twice_is_shown() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}project = \"q\"\n"))),
        str![[r#"
error: `deploy.toml` is not TOML: duplicate key
 --> deploy.toml:3:1
  |
3 | project = "q"
  | ^^^^^^^ here

"#]]
    );
}

#[test]
fn a_newer_schema_names_the_version_that_is_here() {
    assert_data_eq!(
        screen(&fails("schema = 2\nproject = \"p\"\nrings = 3\n")),
        str![[r#"
error: the file needs a deployer that reads schema 2
 --> deploy.toml:1:10
  |
1 | schema = 2
  |          ^ deployer 0.1.0 reads schema 1
  |
  = help: install a deployer newer than 0.1.0

"#]]
    );
}

#[test]
fn a_schema_that_is_no_number() {
    assert_data_eq!(
        screen(&fails("schema = \"1\"\n")),
        str![[r#"
error: `schema` is the number 1: `schema = 1`
 --> deploy.toml:1:10
  |
1 | schema = "1"
  |          ^^^ this is a string

"#]]
    );
}

#[test]
fn no_schema_says_how_to_begin() {
    assert_data_eq!(
        screen(&fails("project = \"p\"\n")),
        str![[r#"
error: the file does not say its `schema`
 --> deploy.toml:1:1
  |
1 | project = "p"
  | ^ the first line
  |
  = help: begin with `schema = 1`

"#]]
    );
}

#[test]
fn an_empty_file_says_how_to_begin() {
    assert_data_eq!(
        screen(&fails("")),
        str![[r#"
error: the file does not say its `schema`
 --> deploy.toml:1:1
  |
1 |
  | ^ the first line
  |
  = help: begin with `schema = 1`

"#]]
    );
}

#[test]
fn no_project_says_what_to_add() {
    assert_data_eq!(
        screen(&fails("schema = 1\n[env.x]\n")),
        str![[r#"
error: the file does not name its `project`
 --> deploy.toml:1:1
  |
1 | schema = 1
  | ^^^^^^ add it below this line
  |
  = help: add `project = "NAME"`: it names releases and histories

"#]]
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_home() {
    assert_data_eq!(
        screen(&fails(&with("ssh = { user = \"deploy\" }\n"))),
        str![[r#"
error: unknown key `user` in [env.*.ssh]
 --> deploy.toml:6:9
  |
6 | ssh = { user = "deploy" }
  |         ^^^^ not a setting of the connection
  |
  = help: `user` belongs in [env.*] or [env.*.host]
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn a_key_of_the_top_in_a_section() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[source]\nproject = \"p\"\n"))),
        str![[r#"
error: unknown key `project` in [source]
 --> deploy.toml:4:1
  |
4 | project = "p"
  | ^^^^^^^ not a setting of the source
  |
  = help: `project` belongs at the top of the file, above every `[section]`
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn a_setting_of_a_later_version_is_unknown() {
    assert_data_eq!(
        screen(&fails(&with("[[env.x.timer]]\non = \"before-activate\"\n"))),
        str![[r#"
error: unknown key `timer` in [env.*]
 --> deploy.toml:6:9
  |
6 | [[env.x.timer]]
  |         ^^^^^ not a setting of an environment
  |
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn an_unknown_section_is_unknown() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[environments.x]\n"))),
        str![[r#"
error: unknown key `environments` at the top level
 --> deploy.toml:3:2
  |
3 | [environments.x]
  |  ^^^^^^^^^^^^ not a setting of the file
  |
  = help: did you mean `env`?
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn an_environment_that_is_no_table() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env]\nprod = true\n"))),
        str![[r#"
error: `prod` in [env] takes a table: `[env.prod]`
 --> deploy.toml:3:2
  |
3 | [env]
  |  ^^^ a boolean

"#]]
    );
}

#[test]
fn a_number_where_a_duration_is_due() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", timeout = 90 }\n"))),
        str![[r#"
error: `timeout` takes a duration: `timeout = "90s"`
 --> deploy.toml:6:39
  |
6 | build = { command = "make", timeout = 90 }
  |                                       ^^ this is a number

"#]]
    );
}

#[test]
fn a_duration_without_a_unit() {
    assert_data_eq!(
        screen(&fails(&with("confirm-within = \"90\"\n"))),
        str![[r#"
error: `confirm-within` takes a duration: `confirm-within = "90s"`
 --> deploy.toml:6:18
  |
6 | confirm-within = "90"
  |                  ^^^^ the unit is missing

"#]]
    );
}

#[test]
fn a_duration_with_a_strange_unit() {
    assert_data_eq!(
        screen(&fails(&with("confirm-within = \"5min\"\n"))),
        str![[r#"
error: `confirm-within` takes a duration: `confirm-within = "90s"`
 --> deploy.toml:6:18
  |
6 | confirm-within = "5min"
  |                  ^^^^^^ unknown unit `min`

"#]]
    );
}

#[test]
fn a_size_without_a_unit() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", output-limit = \"10\" }\n"))),
        str![[r#"
error: `output-limit` takes a size: `output-limit = "64MB"`
 --> deploy.toml:6:44
  |
6 | build = { command = "make", output-limit = "10" }
  |                                            ^^^^ the unit is missing

"#]]
    );
}

#[test]
fn a_choice_that_is_none() {
    assert_data_eq!(
        screen(&fails(&with("on-failure = \"roll-back\"\n"))),
        str![[r#"
error: `on-failure` is one of `rollback`, `stop`, `continue`
 --> deploy.toml:6:14
  |
6 | on-failure = "roll-back"
  |              ^^^^^^^^^^^ none of them
  |
  = help: did you mean `rollback`?

"#]]
    );
}

#[test]
fn a_number_out_of_range() {
    assert_data_eq!(
        screen(&fails(&with("keep-releases = 0\n"))),
        str![[r#"
error: `keep-releases` is at least 1
 --> deploy.toml:6:17
  |
6 | keep-releases = 0
  |                 ^ 0 is out of range

"#]]
    );
}

#[test]
fn a_string_where_a_boolean_is_due() {
    assert_data_eq!(
        screen(&fails(&with("protected = \"yes\"\n"))),
        str![[r#"
error: `protected` takes `true` or `false`: `protected = true`
 --> deploy.toml:6:13
  |
6 | protected = "yes"
  |             ^^^^^ this is a string

"#]]
    );
}

#[test]
fn a_fraction_is_no_number() {
    assert_data_eq!(
        screen(&fails(&with("keep-releases = 2.5\n"))),
        str![[r#"
error: `keep-releases` takes a whole number: `keep-releases = 5`
 --> deploy.toml:6:17
  |
6 | keep-releases = 2.5
  |                 ^^^ this is a fraction

"#]]
    );
}

#[test]
fn a_list_with_something_else_in_it() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"var\", 7] }\n"))),
        str![[r#"
error: `dirs` takes a list: `dirs = ["…"]`
 --> deploy.toml:6:27
  |
6 | shared = { dirs = ["var", 7] }
  |                           ^ this is a number

"#]]
    );
}

#[test]
fn a_check_that_is_a_string() {
    assert_data_eq!(
        screen(&fails(&with("check = \"http://127.0.0.1/\"\n"))),
        str![[r#"
error: `check` takes a table: `check = { url = "http://127.0.0.1:8080/healthz" }`
 --> deploy.toml:6:9
  |
6 | check = "http://127.0.0.1/"
  |         ^^^^^^^^^^^^^^^^^^^ this is a string

"#]]
    );
}

#[test]
fn a_check_of_nothing() {
    assert_data_eq!(
        screen(&fails(&with("check = { retries = 3 }\n"))),
        str![[r#"
error: `check` has neither `url` nor `run`
 --> deploy.toml:6:9
  |
6 | check = { retries = 3 }
  |         ^^^^^^^^^^^^^^^ checks nothing
  |
  = help: add `url = "http://127.0.0.1:8080/healthz"`

"#]]
    );
}

#[test]
fn a_check_over_tls_is_a_command() {
    assert_data_eq!(
        screen(&fails(&with("check = { url = \"https://127.0.0.1/\" }\n"))),
        str![[r#"
error: `https://127.0.0.1/` is not a URL that a host can check
 --> deploy.toml:6:17
  |
6 | check = { url = "https://127.0.0.1/" }
  |                 ^^^^^^^^^^^^^^^^^^^^ `http://…` or `unix:/path/to.sock:/path`
  |
  = help: for anything else write `run = ["curl", "-fsS", "https://…"]` instead of `url`

"#]]
    );
}

#[test]
fn a_check_with_two_probes() {
    assert_data_eq!(
        screen(&fails(&with("check = { url = \"http://127.0.0.1/\", run = [\"true\"] }\n"))),
        str![[r#"
error: `check` has both `url` and `run`
 --> deploy.toml:6:44
  |
6 | check = { url = "http://127.0.0.1/", run = ["true"] }
  |                 -------------------        ^^^^^^^^ one of the two
  |                 |
  |                 the other
  |
  = help: where one of them is inherited, add `unset = ["check.url"]` or `unset = ["check.run"]`

"#]]
    );
}

#[test]
fn more_successes_than_tries() {
    assert_data_eq!(
        screen(&fails(&with("check = { url = \"http://127.0.0.1/\", retries = 2, successes = 3 }\n"))),
        str![[r#"
error: 3 successes in a row need at least 3 tries
 --> deploy.toml:6:63
  |
6 | check = { url = "http://127.0.0.1/", retries = 2, successes = 3 }
  |                                                               ^ more than `retries`
  |
  = help: add `retries = 3` or more

"#]]
    );
}

#[test]
fn an_activation_without_a_command() {
    assert_data_eq!(
        screen(&fails(&with("activate = { as = \"root\" }\n"))),
        str![[r#"
error: `activate` has no `run`
 --> deploy.toml:6:14
  |
6 | activate = { as = "root" }
  |              ^^ a setting of no command
  |
  = help: add `run = ["sudo", "systemctl", "restart", "app"]`

"#]]
    );
}

#[test]
fn an_empty_command() {
    assert_data_eq!(
        screen(&fails(&with("activate = []\n"))),
        str![[r#"
error: the command is empty
 --> deploy.toml:6:12
  |
6 | activate = []
  |            ^^ nothing to run

"#]]
    );
}

#[test]
fn a_command_without_a_program() {
    assert_data_eq!(
        screen(&fails(&with("activate = [\"\", \"restart\"]\n"))),
        str![[r#"
error: the command names no program
 --> deploy.toml:6:12
  |
6 | activate = ["", "restart"]
  |            ^^^^^^^^^^^^^^^ its first item is empty

"#]]
    );
}

#[test]
fn an_unknown_placeholder() {
    assert_data_eq!(
        screen(&fails(&with("activate = [\"restart\", \"--to={relaese}\"]\n"))),
        str![[r#"
error: unknown placeholder `{relaese}`
 --> deploy.toml:6:30
  |
6 | activate = ["restart", "--to={relaese}"]
  |                              ^^^^^^^^^ no such placeholder
  |
  = help: did you mean `{release}`?
  = note: placeholders are `{env}` `{rev}` `{short-rev}` `{release}` `{host}` `{role}` `{root}` `{current}` `{shared}`

"#]]
    );
}

#[test]
fn a_brace_that_is_never_closed() {
    assert_data_eq!(
        screen(&fails(&with("activate = [\"awk\", \"{print\"]\n"))),
        str![[r#"
error: `{` is never closed
 --> deploy.toml:6:21
  |
6 | activate = ["awk", "{print"]
  |                     ^ write `{{` for the brace itself

"#]]
    );
}

#[test]
fn a_placeholder_that_differs_from_host_to_host() {
    assert_data_eq!(
        screen(&fails(&with("cache = { path = \"/srv/{host}\" }\n"))),
        str![[r#"
error: `{host}` cannot be used here
 --> deploy.toml:6:24
  |
6 | cache = { path = "/srv/{host}" }
  |                        ^^^^^^ not the same for every host and run

"#]]
    );
}

#[test]
fn a_relative_root() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"srv/p\"\nhosts = [\"h\"]\n"))),
        str![[r#"
error: `srv/p` is not an absolute path of letters, digits and `/._-+@` without `..`
 --> deploy.toml:4:8
  |
4 | root = "srv/p"
  |        ^^^^^^^ not a path on a host

"#]]
    );
}

#[test]
fn a_shared_path_that_leaves_the_release() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"../var\"] }\n"))),
        str![[r#"
error: `../var` is not a path in a release
 --> deploy.toml:6:20
  |
6 | shared = { dirs = ["../var"] }
  |                    ^^^^^^^^ the path has a component `.` or `..`

"#]]
    );
}

#[test]
fn shared_directories_in_each_other() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"var\", \"var/log\"] }\n"))),
        str![[r#"
error: the shared paths `var/log` and `var` lie in each other
 --> deploy.toml:6:27
  |
6 | shared = { dirs = ["var", "var/log"] }
  |                    -----  ^^^^^^^^^ one link cannot lie behind another
  |                    |
  |                    the other
  |
  = help: share the outer one only

"#]]
    );
}

#[test]
fn a_shared_file_in_a_shared_directory() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"etc\"], files = [\"etc/site.cfg\"] }\n"))),
        str![[r#"
error: the shared paths `etc/site.cfg` and `etc` lie in each other
 --> deploy.toml:6:37
  |
6 | shared = { dirs = ["etc"], files = ["etc/site.cfg"] }
  |                    ----- the other  ^^^^^^^^^^^^^^ one link cannot lie behind another
  |
  = help: share the outer one only

"#]]
    );
}

#[test]
fn a_path_shared_twice() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"var\", \"var/\"] }\n"))),
        str![[r#"
error: `var` is shared twice
 --> deploy.toml:6:27
  |
6 | shared = { dirs = ["var", "var/"] }
  |                    -----  ^^^^^^ one link cannot lie behind another
  |                    |
  |                    the other
  |
  = help: share the outer one only

"#]]
    );
}

#[test]
fn a_shared_path_in_the_way_of_the_cache() {
    assert_data_eq!(
        screen(&fails(&with("shared = { dirs = [\"downloads\"] }\ncache = { path = \"/srv/c\" }\n"))),
        str![[r#"
error: `downloads` is shared and is in the way of `cache.link`
 --> deploy.toml:6:20
  |
6 | shared = { dirs = ["downloads"] }
  |                    ^^^^^^^^^^^ the cache is linked at `downloads`
  |
  = help: remove it from `shared`, or link the cache elsewhere

"#]]
    );
}

#[test]
fn a_cache_link_to_nothing() {
    assert_data_eq!(
        screen(&fails(&with("cache = { link = \"downloads\" }\n"))),
        str![[r#"
error: `cache.link` needs `cache.path`
 --> deploy.toml:6:18
  |
6 | cache = { link = "downloads" }
  |                  ^^^^^^^^^^^ of no cache
  |
  = help: add `path = "/srv/download-cache"` to the same section

"#]]
    );
}

#[test]
fn an_unknown_recipe() {
    assert_data_eq!(
        screen(&fails(&with("build = { recipe = \"buildot\" }\n"))),
        str![[r#"
error: unknown recipe `buildot`
 --> deploy.toml:6:20
  |
6 | build = { recipe = "buildot" }
  |                    ^^^^^^^^^ recipes are `buildout`, `uv`, `pip`, `npm`, `cargo`, `command`
  |
  = help: did you mean `buildout`?

"#]]
    );
}

#[test]
fn a_recipe_without_its_venv() {
    assert_data_eq!(
        screen(&fails(&with("build = { recipe = \"buildout\" }\n"))),
        str![[r#"
error: the recipe `buildout` needs `build.venv`
 --> deploy.toml:6:20
  |
6 | build = { recipe = "buildout" }
  |                    ^^^^^^^^^^ no virtual environment
  |
  = help: add `venv = "/srv/venv"`: the virtual environment on the hosts that holds `bin/buildout`

"#]]
    );
}

#[test]
fn a_recipe_and_a_command() {
    assert_data_eq!(
        screen(&fails(&with("build = { recipe = \"buildout\", venv = \"/srv/venv\", command = \"make\" }\n"))),
        str![[r#"
error: `command` and the recipe `buildout` exclude each other
 --> deploy.toml:6:62
  |
6 | build = { recipe = "buildout", venv = "/srv/venv", command = "make" }
  |                    ---------- the recipe                     ^^^^^^ the recipe has a command of its own
  |
  = help: for a command of yours, write `recipe = "command"` beside it

"#]]
    );
}

#[test]
fn the_command_recipe_without_a_command() {
    assert_data_eq!(
        screen(&fails(&with("build = { recipe = \"command\" }\n"))),
        str![[r#"
error: the recipe `command` needs `build.command`
 --> deploy.toml:6:20
  |
6 | build = { recipe = "command" }
  |                    ^^^^^^^^^ no command
  |
  = help: add `command = ["bin/build"]`

"#]]
    );
}

#[test]
fn a_build_of_nothing() {
    assert_data_eq!(
        screen(&fails(&with("build = { timeout = \"5m\" }\n"))),
        str![[r#"
error: the build has neither `recipe` nor `command`
 --> deploy.toml:6:11
  |
6 | build = { timeout = "5m" }
  |           ^^^^^^^ a setting of no build
  |
  = help: add `recipe = "buildout"` or `command = ["bin/build"]`

"#]]
    );
}

#[test]
fn a_setting_that_a_recipe_does_not_use() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", config = \"offline.cfg\" }\n"))),
        str![[r#"
error: the recipe `command` has no `config`
 --> deploy.toml:6:38
  |
6 | build = { command = "make", config = "offline.cfg" }
  |                                      ^^^^^^^^^^^^^ would do nothing
  |
  = help: remove it; where it is inherited, add `unset = ["build.config"]`

"#]]
    );
}

#[test]
fn a_variable_that_changes_every_program() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", env = { LD_PRELOAD = \"x.so\" } }\n"))),
        str![[r#"
error: the variable `LD_PRELOAD` cannot be set
 --> deploy.toml:6:37
  |
6 | build = { command = "make", env = { LD_PRELOAD = "x.so" } }
  |                                     ^^^^^^^^^^ refused
  |
  = help: set it in the command itself, if it must be

"#]]
    );
}

#[test]
fn a_variable_with_a_strange_name() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", env = { \"A-B\" = \"x\" } }\n"))),
        str![[r#"
error: `A-B` is not the name of a variable
 --> deploy.toml:6:37
  |
6 | build = { command = "make", env = { "A-B" = "x" } }
  |                                     ^^^^^ letters, digits and `_`

"#]]
    );
}

#[test]
fn a_confirmation_that_comes_too_early() {
    assert_data_eq!(
        screen(&fails(&with("activate = \"restart\"\ncheck = { url = \"http://127.0.0.1/\" }\nconfirm-within = \"30s\"\n"))),
        str![[r#"
error: `confirm-within` is shorter than activation and check may take
 --> deploy.toml:8:18
  |
8 | confirm-within = "30s"
  |                  ^^^^^ they may take 2m59s
  |
  = help: write `confirm-within = "3m29s"`, or shorten `activate.timeout`, `check.retries` or `check.timeout`

"#]]
    );
}

#[test]
fn waves_that_do_not_grow() {
    assert_data_eq!(
        screen(&fails(&with("waves = [\"1\", \"50%\", \"25%\"]\n"))),
        str![[r#"
error: every wave is larger than the one before: its size counts all hosts so far
 --> deploy.toml:6:22
  |
6 | waves = ["1", "50%", "25%"]
  |                      ^^^^^ not larger
  |
  = help: write `waves = ["1", "25%", "100%"]`

"#]]
    );
}

#[test]
fn a_wave_that_is_no_share() {
    assert_data_eq!(
        screen(&fails(&with("waves = [\"one\"]\n"))),
        str![[r#"
error: `waves` takes a list of numbers of hosts and percentages: `waves = ["1", "25%", "100%"]`
 --> deploy.toml:6:10
  |
6 | waves = ["one"]
  |          ^^^^^ neither hosts nor a percentage of them

"#]]
    );
}

#[test]
fn an_environment_that_extends_nobody() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.staging]\n[env.prod]\nextends = \"stagging\"\n"))),
        str![[r#"
error: `prod` extends the unknown environment `stagging`
 --> deploy.toml:5:11
  |
5 | extends = "stagging"
  |           ^^^^^^^^^^ no such environment
  |
  = help: did you mean `staging`?

"#]]
    );
}

#[test]
fn environments_in_a_circle() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.a]\nextends = \"b\"\n\n[env.b]\nextends = \"a\"\n"))),
        str![[r#"
error: environments extend each other in a circle: `a` → `b` → `a`
 --> deploy.toml:7:11
  |
4 | extends = "b"
  |           --- starts here
...
7 | extends = "a"
  |           ^^^ leads back

"#]]
    );
}

#[test]
fn an_environment_that_extends_itself() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.a]\nextends = \"a\"\n"))),
        str![[r#"
error: environments extend each other in a circle: `a` → `a`
 --> deploy.toml:4:11
  |
4 | extends = "a"
  |           ^^^ leads back

"#]]
    );
}

#[test]
fn too_deep_an_inheritance() {
    assert_data_eq!(
        screen(&fails(&format!(
            "{HEAD}[env.a]\n[env.b]\nextends = \"a\"\n[env.c]\nextends = \"b\"\n[env.d]\nextends = \"c\"\n[env.e]\nextends = \"d\"\n"
        ))),
        str![[r#"
error: `e` extends more than 3 environments
 --> deploy.toml:5:11
  |
5 | extends = "a"
  |           ^^^ one too many
  |
  = help: move what they share to [defaults]

"#]]
    );
}

#[test]
fn a_default_environment_that_is_not_there() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[defaults]\nenv = \"stagin\"\n[env.staging]\n"))),
        str![[r#"
error: `env` in [defaults] names the unknown environment `stagin`
 --> deploy.toml:4:7
  |
4 | env = "stagin"
  |       ^^^^^^^^ no such environment
  |
  = help: did you mean `staging`?

"#]]
    );
}

#[test]
fn an_unset_of_nothing() {
    assert_data_eq!(
        screen(&fails(&with("unset = [\"build.env.DEBUG\"]\n"))),
        str![[r#"
error: `unset` names `build.env.DEBUG`, which is not inherited
 --> deploy.toml:6:10
  |
6 | unset = ["build.env.DEBUG"]
  |          ^^^^^^^^^^^^^^^^^ nothing to remove

"#]]
    );
}

#[test]
fn a_host_that_looks_like_an_option() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"-oProxyCommand=id\"]\n"))),
        str![[r#"
error: `-oProxyCommand=id` is not a host name
 --> deploy.toml:5:10
  |
5 | hosts = ["-oProxyCommand=id"]
  |          ^^^^^^^^^^^^^^^^^^^ it starts with `-`

"#]]
    );
}

#[test]
fn a_host_with_a_shell_in_it() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"a;id\"]\n"))),
        str![[r#"
error: `a;id` is not a host name
 --> deploy.toml:5:10
  |
5 | hosts = ["a;id"]
  |          ^^^^^^ it holds `;`

"#]]
    );
}

#[test]
fn a_host_with_an_escape_in_it_is_shown_escaped() {
    let error = fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"a\\u001bM\\u202e\"]\n"));
    assert_eq!(error.what, "`a\\u{1b}M\\u{202e}` is not a host name");
    assert!(!screen(&error).contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn two_hosts_of_one_name() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app[1-3]\", \"root@app2\"]\n"))),
        str![[r#"
error: two hosts are called `app2`
 --> deploy.toml:5:22
  |
5 | hosts = ["app[1-3]", "root@app2"]
  |          ----------  ^^^^^^^^^^^ the second
  |          |
  |          the first
  |
  = help: remove one, or give them names of their own: `host = [{ name = "app1", address = "…" }]`

"#]]
    );
}

#[test]
fn a_range_that_counts_down() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app[3-1]\"]\n"))),
        str![[r#"
error: `app[3-1]` is not a range of hosts
 --> deploy.toml:5:10
  |
5 | hosts = ["app[3-1]"]
  |          ^^^^^^^^^^ `3-1` counts down
  |
  = help: ranges look like `app[01-12].example.net`

"#]]
    );
}

#[test]
fn too_many_hosts() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app[1-99999]\"]\n"))),
        str![[r#"
error: `app[1-99999]` is not a range of hosts
 --> deploy.toml:5:10
  |
5 | hosts = ["app[1-99999]"]
  |          ^^^^^^^^^^^^^^ it stands for more than 10000 names
  |
  = help: ranges look like `app[01-12].example.net`

"#]]
    );
}

#[test]
fn an_address_of_ipv6_in_the_list() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"[::1]:22\"]\n"))),
        str![[r#"
error: `[::1]:22` is not a range of hosts
 --> deploy.toml:5:10
  |
5 | hosts = ["[::1]:22"]
  |          ^^^^^^^^^^ `::1` is neither a name nor a range of numbers like `01-12`
  |
  = help: an IPv6 address needs a table: `host = [{ name = "app1", address = "2001:db8::1" }]`

"#]]
    );
}

#[test]
fn a_port_beyond_the_last() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"app1:65536\"]\n"))),
        str![[r#"
error: `app1:65536` has no port from 1 to 65535 after its colon
 --> deploy.toml:5:10
  |
5 | hosts = ["app1:65536"]
  |          ^^^^^^^^^^^^ expected `host:22`

"#]]
    );
}

#[test]
fn a_local_host_with_a_user() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\nhosts = [\"root@local\"]\n"))),
        str![[r#"
error: `local` is this machine and has neither user nor port
 --> deploy.toml:5:10
  |
5 | hosts = ["root@local"]
  |          ^^^^^^^^^^^^ write `local`

"#]]
    );
}

#[test]
fn a_host_table_without_a_name() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\n[[env.x.host]]\naddress = \"192.0.2.1\"\n"))),
        str![[r#"
error: a host has no `name`
 --> deploy.toml:5:1
  |
5 | [[env.x.host]]
  | ^^^^^^^^^^^^^^ what people see and select
  |
  = help: add `name = "app1"`

"#]]
    );
}

#[test]
fn a_source_that_is_an_option() {
    assert_data_eq!(
        screen(&fails(&format!("{}[source]\ngit = \"--upload-pack=id\"\n", with("")))),
        str![[r#"
error: `--upload-pack=id` is not a repository
 --> deploy.toml:7:7
  |
7 | git = "--upload-pack=id"
  |       ^^^^^^^^^^^^^^^^^^ a path or a URL
  |
  = help: write `git = "."` for the repository that `deploy.toml` is in

"#]]
    );
}

#[test]
fn a_nul_in_a_value() {
    assert_data_eq!(
        screen(&fails(&with("rev = \"a\\u0000b\"\n"))),
        str![[r#"
error: `rev` holds a NUL byte
 --> deploy.toml:6:7
  |
6 | rev = "a/u0000b"
  |       ^^^^^^^^^^ no program takes it

"#]]
    );
}

#[test]
fn variables_outside_the_build_are_sent_there() {
    assert_data_eq!(
        screen(&fails(&with("env = { A = \"1\" }\n"))),
        str![[r#"
error: unknown key `env` in [env.*]
 --> deploy.toml:6:1
  |
6 | env = { A = "1" }
  | ^^^ not a setting of an environment
  |
  = help: `env` belongs in [env.*.cache] or [env.*.build]
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn a_key_that_several_sections_have_names_them() {
    assert_data_eq!(
        screen(&fails(&with("timeout = \"5m\"\n"))),
        str![[r#"
error: unknown key `timeout` in [env.*]
 --> deploy.toml:6:1
  |
6 | timeout = "5m"
  | ^^^^^^^ not a setting of an environment
  |
  = help: `timeout` belongs in [env.*.inventory] or [env.*.build] or [env.*.activate] or [env.*.check] or [env.*.hook]
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn a_key_of_the_defaults_stays_in_the_defaults() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[defaults.ssh]\nuser = \"deploy\"\n"))),
        str![[r#"
error: unknown key `user` in [defaults.ssh]
 --> deploy.toml:4:1
  |
4 | user = "deploy"
  | ^^^^ not a setting of the connection
  |
  = help: `user` belongs in [defaults] or [defaults.host]
  = note: `deploy.toml.example` shows every key

"#]]
    );
}

#[test]
fn a_step_that_never_ends() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", timeout = \"0s\" }\n"))),
        str![[r#"
error: `build.timeout` is zero
 --> deploy.toml:6:39
  |
6 | build = { command = "make", timeout = "0s" }
  |                                       ^^^^ what may take no time cannot succeed

"#]]
    );
}

#[test]
fn a_health_check_that_names_what_runs_it() {
    assert_data_eq!(
        screen(&fails(&with("check = { url = \"http://127.0.0.1/\", as = \"root\" }\n"))),
        str![[r#"
error: `check.as` does nothing for a check with `url`
 --> deploy.toml:6:43
  |
6 | check = { url = "http://127.0.0.1/", as = "root" }
  |                                           ^^^^^^ would do nothing
  |
  = help: remove it; where it is inherited, add `unset = ["check.as"]`

"#]]
    );
}

#[test]
fn a_socket_without_a_path() {
    assert_data_eq!(
        screen(&fails(&with("check = { url = \"unix:/run/app.sock\" }\n"))),
        str![[r#"
error: `unix:/run/app.sock` is not a URL that a host can check
 --> deploy.toml:6:17
  |
6 | check = { url = "unix:/run/app.sock" }
  |                 ^^^^^^^^^^^^^^^^^^^^ `http://…` or `unix:/path/to.sock:/path`
  |
  = help: for anything else write `run = ["curl", "-fsS", "https://…"]` instead of `url`

"#]]
    );
}

#[test]
fn an_inventory_that_is_a_string() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = \"hosts.txt\"\n"))),
        str![[r#"
error: `inventory` takes a table: `inventory = { file = "hosts.txt" }`
 --> deploy.toml:5:13
  |
5 | inventory = "hosts.txt"
  |             ^^^^^^^^^^^ this is a string

"#]]
    );
}

#[test]
fn an_inventory_without_a_source() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ ttl = \"1m\" }}\n"))),
        str![[r#"
error: the inventory names no source
 --> deploy.toml:5:13
  |
5 | inventory = { ttl = "1m" }
  |             ^^^^^^^^^^^^^^ needs one of `file`, `command`, `ansible`, `ssh-config`
  |
  = help: write `inventory = { file = "hosts.txt" }`

"#]]
    );
}

#[test]
fn an_inventory_with_two_sources() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ file = \"a\", command = \"b\" }}\n"))),
        str![[r#"
error: `file` and `command` exclude each other
 --> deploy.toml:5:37
  |
5 | inventory = { file = "a", command = "b" }
  |                      --- the other  ^^^ one source too many
  |
  = help: an inventory has one source; a command may ask several

"#]]
    );
}

#[test]
fn a_setting_that_an_inventory_has_no_use_for() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ ssh-config = \"a-*\", timeout = \"5s\" }}\n"))),
        str![[r#"
error: `timeout` means nothing beside `ssh-config`
 --> deploy.toml:5:35
  |
5 | inventory = { ssh-config = "a-*", timeout = "5s" }
  |                            -----  ^^^^^^^ has no effect
  |                            |
  |                            the source
  |
  = help: `timeout` is for `command` and `ansible`

"#]]
    );
}

#[test]
fn groups_of_a_plain_inventory() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ file = \"a\", groups = [\"web\"] }}\n"))),
        str![[r#"
error: `groups` are Ansible's
 --> deploy.toml:5:27
  |
5 | inventory = { file = "a", groups = ["web"] }
  |                           ^^^^^^ means nothing in this format
  |
  = help: write `format = "ansible"` for what `ansible-inventory --list` prints

"#]]
    );
}

#[test]
fn a_pattern_of_aliases_that_is_none() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ ssh-config = \"a b\" }}\n"))),
        str![[r#"
error: `a b` is no pattern of host names
 --> deploy.toml:5:28
  |
5 | inventory = { ssh-config = "a b" }
  |                            ^^^^^ letters, digits, `._-`, `*` and `?`
  |
  = help: write `ssh-config = "p-prod-*"`

"#]]
    );
}

#[test]
fn a_placeholder_that_an_inventory_does_not_have() {
    assert_data_eq!(
        screen(&fails(&format!("{HEAD}[env.x]\nroot = \"/srv/p\"\ninventory = {{ command = [\"./inventory\", \"{{rev}}\"] }}\n"))),
        str![[r#"
error: `{rev}` cannot be used here
 --> deploy.toml:5:42
  |
5 | inventory = { command = ["./inventory", "{rev}"] }
  |                                          ^^^^^ not the same for every host and run

"#]]
    );
}

#[test]
fn a_label_that_cannot_be_typed() {
    assert_data_eq!(
        screen(&fails(&with("[[env.x.host]]\nname = \"a\"\nlabels = { az = \"a,b\" }\n"))),
        str![[r#"
error: `a,b` is not the value of a label
 --> deploy.toml:8:17
  |
8 | labels = { az = "a,b" }
  |                 ^^^^^ it holds `,`

"#]]
    );
}

#[test]
fn a_hook_without_a_moment_or_a_command_says_what_to_add() {
    assert_data_eq!(
        screen(&fails(&with("hook = [{ run = \"true\" }]\n"))),
        str![[r#"
error: a hook has no `on`
 --> deploy.toml:6:9
  |
6 | hook = [{ run = "true" }]
  |         ^^^^^^^^^^^^^^^^ needs it
  |
  = help: add `on = "before-activate"`: the moment at which it runs

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"before-activate\" }]\n"))),
        str![[r#"
error: a hook has no `run`
 --> deploy.toml:6:9
  |
6 | hook = [{ on = "before-activate" }]
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^ needs it
  |
  = help: add `run = ["bin/manage", "migrate"]`

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"before-restart\", run = \"true\" }]\n"))),
        str![[r#"
error: `on` is one of `before-build`, `after-build`, `before-activate`, `after-activate`, `before-wave`, `after-wave`, `after-deploy`, `after-failure`
 --> deploy.toml:6:16
  |
6 | hook = [{ on = "before-restart", run = "true" }]
  |                ^^^^^^^^^^^^^^^^ none of them
  |
  = help: did you mean `before-activate`?

"#]]
    );
}

#[test]
fn a_hook_where_it_cannot_run() {
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"after-activate\", where = \"once\", run = \"true\" }]\n"))),
        str![[r#"
error: a hook `after-activate` cannot run `where = "once"`
 --> deploy.toml:6:42
  |
6 | hook = [{ on = "after-activate", where = "once", run = "true" }]
  |                                          ^^^^^^ does not fit
  |
  = help: it runs on each host in its turn: `every-host` or a role; `before-activate` and `after-deploy` can run once or here

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"before-wave\", where = \"once\", run = \"true\" }]\n"))),
        str![[r#"
error: a hook `before-wave` cannot run `where = "once"`
 --> deploy.toml:6:39
  |
6 | hook = [{ on = "before-wave", where = "once", run = "true" }]
  |                                       ^^^^^^ does not fit
  |
  = help: it runs in every wave: `local`, `every-host` of the wave, or a role; `before-activate` can run once

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"before-build\", run = \"true\" }]\n"))),
        str![[r#"
error: `before-build` never comes: nothing is built here
 --> deploy.toml:6:16
  |
6 | hook = [{ on = "before-build", run = "true" }]
  |                ^^^^^^^^^^^^^^ there is no build
  |
  = help: add `build.command`, or say another moment

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"after-deploy\", where = \"local\", as = \"root\", run = \"true\" }]\n"))),
        str![[r#"
error: a hook on this machine runs as you
 --> deploy.toml:6:54
  |
6 | hook = [{ on = "after-deploy", where = "local", as = "root", run = "true" }]
  |                                                      ^^^^^^ would do nothing
  |
  = help: remove `as`

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"after-deploy\", where = \"locale\", run = \"true\" }]\n"))),
        str![[r#"
error: no host of `x` has the role `locale`
  hint: did you mean `local`?

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("hook = [{ on = \"after-activate\", timeout = \"5m\", run = \"true\" }]\nconfirm-within = \"1m\"\n"))),
        str![[r#"
error: `confirm-within` is shorter than activation and check may take
 --> deploy.toml:7:18
  |
7 | confirm-within = "1m"
  |                  ^^^^ they may take 5m
  |
  = help: write `confirm-within = "5m30s"`, or shorten `activate.timeout`, `check.retries` or `check.timeout`

"#]]
    );
}

#[test]
fn roles_with_settings_that_are_nobodys_or_two_of_one_host() {
    assert_data_eq!(
        screen(&fails(&with("role.worker.activate = \"true\"\n"))),
        str![[r#"
error: no host of `x` has the role `worker`
  hint: its hosts are h

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with(
            "roles = { web = [\"a\"], worker = [\"a\"] }\nrole.web.activate = \"true\"\nrole.worker.activate = \"true\"\n"
        ))),
        str![[r#"
error: `a` has the roles `web` and `worker`, and both have settings of their own
  hint: leave one of `[env.x.role.web]` and `[env.x.role.worker]` out, with `unset` where it is inherited

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("roles = { web = [\"a\"] }\nrole.web.waves = [\"1\"]\n"))),
        str![[r#"
error: unknown key `waves` in [env.*.role.*]
 --> deploy.toml:7:10
  |
7 | role.web.waves = ["1"]
  |          ^^^^^ not a setting of a role
  |
  = help: `waves` belongs in [env.*]
  = note: `deploy.toml.example` shows every key

"#]]
    );
    assert_data_eq!(
        screen(&fails(&with("roles = { web = [\"a\"] }\nrole.web.unset = [\"build.recipe\"]\n"))),
        str![[r#"
error: `unset` names `build.recipe`, which is not inherited
 --> deploy.toml:7:19
  |
7 | role.web.unset = ["build.recipe"]
  |                   ^^^^^^^^^^^^^^ nothing to remove

"#]]
    );
}

#[test]
fn a_builder_that_is_nearly_a_word() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", on = \"frist\" }\n"))),
        str![[r#"
error: `frist` is neither `host`, `first`, `local` nor a host of this environment
 --> deploy.toml:6:34
  |
6 | build = { command = "make", on = "frist" }
  |                                  ^^^^^^^ unknown
  |
  = help: did you mean `first`?

"#]]
    );
}

#[test]
fn more_than_one_builder() {
    assert_data_eq!(
        screen(&fails(&with("build = { command = \"make\", on = \"b[1-2].example.net\" }\n"))),
        str![[r#"
error: `b[1-2].example.net` is more than one host
 --> deploy.toml:6:34
  |
6 | build = { command = "make", on = "b[1-2].example.net" }
  |                                  ^^^^^^^^^^^^^^^^^^^^ one host builds for all

"#]]
    );
}

#[test]
fn an_environment_that_takes_only_from_itself() {
    assert_data_eq!(
        screen(&fails(&with("only-from = \"x\"\n"))),
        str![[r#"
error: `only-from` of `x` names `x` itself
 --> deploy.toml:6:13
  |
6 | only-from = "x"
  |             ^^^ needs another environment
  |
  = help: where it is inherited, add `unset = ["only-from"]`

"#]]
    );
}
