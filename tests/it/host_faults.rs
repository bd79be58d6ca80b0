//! What a host's file system, shell and control files can do to a deploy: full, read-only, without exec, limited, altered, noisy.
//!
//! Full and read-only file systems are tmpfs in a namespace of their own, so the whole of a case is a shell script in there: it
//! deploys, and copies the host root out for the checks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::running::{Running, program};
use crate::scratch::git_in;
use crate::whole::{Stage, assert_settled, assert_whole, live_commit, records, state_of};

const DEPLOY: [&str; 3] = ["deploy", "--rev", "master"];

/// Runs a script as root of a user and mount namespace, with `deploy` and `root` set. Gives what it printed, or none where such a
/// namespace is not allowed.
fn in_namespace(stage: &Stage, script: &str) -> Option<String> {
    let allowed = Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|output| output.status.success());
    if !allowed {
        skip("no user namespace with mounts is allowed here");
        return None;
    }
    let deploy = program(&stage.world, &DEPLOY);
    let mut shell = Command::new("unshare");
    shell.args([
        "-Urm",
        "sh",
        "-c",
        &format!("deploy() {{ [ $# -gt 0 ] || set -- --rev master; '{}' deploy \"$@\"; }}\n{script}", env!("CARGO_BIN_EXE_deployer")),
    ]);
    shell.env_clear().envs(deploy.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell.env("root", stage.world.root("app1")).env("out", stage.world.path("out")).current_dir(deploy.get_current_dir().unwrap());
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} {text}{}", output.status, fs::read_to_string(stage.world.path("out/first")).unwrap_or_default());
    Some(text)
}

/// A host that serves nothing yet, and two versions; the second is built with `build`, in which `<tmp>` is the sandbox.
fn two_versions(build: &str) -> (Stage, String, String) {
    let mut stage = Stage::local(&["app1"], "");
    stage.world.reconfigure("[defaults.build]\ncommand = \"sh build.sh\"\nnetwork = \"host\"\n");
    fs::create_dir(stage.world.path("out")).unwrap();
    let build = build.replace("<tmp>", stage.world.path("").to_str().unwrap());
    let one = stage.world.commit(&[("app", "one\n"), ("build.sh", "cp app built\n")]);
    stage.world.repository.commit("two", &[("app", b"two\n"), ("build.sh", build.as_bytes())]).unwrap();
    let two = String::from_utf8(git_in(&stage.world.repository.directory, ["rev-parse", "master"], b"")).unwrap();
    (stage, one, two.trim().to_owned())
}

/// Deploys with a build that fills the file system but for what each case says, gives the host room, and deploys again. The commit is
/// the same in every case, so the build reads what it may leave free from a file.
fn sweep(mount: &str, roomy: &str, fill: &str, cases: &[u32]) {
    let build = format!("cp app built\n[ ! -e <tmp>/out/roomy ] || exit 0\nread -r left <<tmp>/out/left\n{fill}\n");
    let (stage, one, two) = two_versions(&build);
    let list: Vec<String> = cases.iter().map(u32::to_string).collect();
    let script = format!(
        "mount -t tmpfs -o {mount} none \"$root\" || exit 1\ndeploy --rev master~1 >\"$out/first\" 2>&1 || exit 2\n\
         cp -a \"$root\" \"$out/before\"\nfor left in {}; do\n\
         rm -rf \"$root\"/* \"$root\"/.deployer; mount -o remount,{mount} none \"$root\"; cp -a \"$out/before/.\" \"$root/\"\n\
         echo \"$left\" >\"$out/left\"; deploy >\"$out/told-$left\" 2>&1; echo \"$left $?\"; cp -a \"$root\" \"$out/after-$left\"\n\
         mount -o remount,{roomy} none \"$root\"; touch \"$out/roomy\"; deploy >\"$out/again-$left\" 2>&1; echo \"again $left $?\"\n\
         rm \"$out/roomy\"; cp -a \"$root\" \"$out/settled-$left\"; rm -rf \"$out/settled-$left\"/releases/*/filler*\ndone\n",
        list.join(" ")
    );
    let Some(told) = in_namespace(&stage, &script) else { return };
    let mut failures = 0;
    for left in cases {
        let out = |what: &str| stage.world.path("out").join(format!("{what}-{left}"));
        let first = fs::read_to_string(out("told")).unwrap();
        let status: i32 = told.lines().find_map(|line| line.strip_prefix(&format!("{left} "))).unwrap().parse().unwrap();
        assert!(matches!(status, 0 | 11 | 12 | 13), "{left} left: {status}\n{first}");
        assert_whole(&out("after"));
        let live = live_commit(&out("after"));
        let said = if status == 0 { &two } else { &one };
        assert!(live == *said || status == 12, "{left} left, exit {status}: {live} is live\n{first}");
        if status != 0 {
            failures += 1;
            assert!(first.contains("no space left"), "{left} left: {first}");
        }
        let again = fs::read_to_string(out("again")).unwrap();
        assert!(told.contains(&format!("again {left} 0\n")), "{left} left, again with room: {again}\nafter\n{first}");
        assert_whole(&out("settled"));
        assert_eq!(live_commit(&out("settled")), two, "{left} left");
        assert!(!out("settled").join(".deployer/intent").exists(), "{left} left");
    }
    assert!(failures > 0 && failures < cases.len(), "the sweep goes from too little to enough: {failures} of {}", cases.len());
}

#[test]
fn a_disk_that_is_full_at_any_point_after_the_build_leaves_the_old_release_or_the_new_one() {
    let fill = "head -c \"$left\"k /dev/zero >reserve; cat /dev/zero >filler 2>/dev/null || :; rm reserve";
    sweep("size=16m,nr_inodes=5000", "size=64m", fill, &[0, 4, 8, 12, 16, 20, 24, 32, 48, 64, 128, 512]);
}

#[test]
fn a_file_system_without_inodes_at_any_point_after_the_build_leaves_the_old_release_or_the_new_one() {
    let fill = "i=0; while [ $i -lt \"$left\" ]; do : >reserve$i; i=$((i+1)); done\n\
                i=0; while (: >filler$i) 2>/dev/null; do i=$((i+1)); done; rm -f reserve*";
    sweep("size=64m,nr_inodes=300", "nr_inodes=3000", fill, &[0, 1, 2, 3, 4, 5, 6, 8, 12, 40]);
}

#[test]
fn a_read_only_root_is_refused_before_anything_is_sent_and_the_next_run_works() {
    let (stage, one, two) = two_versions("cp app built\n");
    let script = "mount -t tmpfs none \"$root\" || exit 1\ndeploy --rev master~1 >/dev/null 2>&1 || exit 2\n\
         mount -o remount,ro none \"$root\"\ndeploy >\"$out/told\" 2>&1; echo \"status $?\"\ncp -a \"$root\" \"$out/after\"\n\
         mount -o remount,rw none \"$root\"\ndeploy >\"$out/again\" 2>&1; echo \"again $?\"\ncp -a \"$root\" \"$out/settled\"\n";
    let Some(told) = in_namespace(&stage, script) else { return };
    let read = |name: &str| fs::read_to_string(stage.world.path("out").join(name)).unwrap();
    assert_eq!(told, "status 11\nagain 0\n", "{} {}", read("told"), read("again"));
    assert!(read("told").contains("read-only") && read("told").contains("mount it"), "{}", read("told"));
    assert_whole(&stage.world.path("out/after"));
    assert_eq!(live_commit(&stage.world.path("out/after")), one);
    assert_eq!(live_commit(&stage.world.path("out/settled")), two);
}

#[test]
fn a_root_where_nothing_may_be_run_gets_its_helper_elsewhere_or_an_error_that_says_where_was_tried() {
    let (stage, _, two) = two_versions("cp app built\n");
    let script = "mount -t tmpfs -o noexec none \"$root\" || exit 1\ndeploy >\"$out/told\" 2>&1; echo \"status $?\"\n\
                  cp -a \"$root\" \"$out/after\"; ls \"$HOME/.cache/deployer/helper\" | wc -l\n\
                  mkdir -p \"$HOME\"; mount -t tmpfs -o noexec none \"$HOME\"; deploy --rev master --force >\"$out/none\" 2>&1; echo \"status $?\"\n";
    let Some(told) = in_namespace(&stage, script) else { return };
    let read = |name: &str| fs::read_to_string(stage.world.path("out").join(name)).unwrap();
    assert_eq!(told, "status 0\n1\nstatus 10\n", "{}\n{}", read("told"), read("none"));
    assert_eq!(live_commit(&stage.world.path("out/after")), two);
    assert!(read("none").contains("noexec") && read("none").contains("boskel"), "{}", read("none"));
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_names_the_file() {
    let stage = Stage::local(&["app1"], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    let noise: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    stage.world.repository.commit("large", &[("large.bin", &noise)]).unwrap();
    let direct = program(&stage.world, &DEPLOY);
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=2000000").arg(direct.get_program()).args(direct.get_args()).env_clear();
    limited.envs(direct.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(direct.get_current_dir().unwrap());
    let output = limited.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{told}");
    assert!(told.contains("large.bin") && told.contains("too large"), "{told}");
    stage.rests();
    assert_eq!(live_commit(stage.world.root("app1")), one);
    stage.settles("one\n");
    assert_eq!(fs::metadata(stage.world.current("app1").join("large.bin")).unwrap().len(), 3_000_000);
}

#[test]
fn an_altered_file_of_a_kept_release_is_sent_again_and_an_intact_one_is_not() {
    let sent = |is_altered: bool| {
        let stage = Stage::local(&["app1"], "");
        let noise = (0..40_000_u32).fold(String::new(), |noise, n| noise + &n.wrapping_mul(2_654_435_761).to_string() + "\n");
        stage.world.commit(&[("large", &noise)]);
        stage.commit("one\n");
        stage.settles("one\n");
        if is_altered {
            let file = stage.world.current("app1").join("large");
            let times = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, noise.replace('1', "2")).unwrap();
            // Not even the time tells of it.
            fs::File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        }
        stage.commit("two\n");
        let ended = Running::start(&stage.world, &DEPLOY).end();
        stage.serves_but("two\n", is_altered.then_some("`large` of the sealed"));
        assert_eq!(stage.world.read_current("app1", "large"), noise);
        let of = |event: &&serde_json::Value| event["type"] == "host.step" && event["step"] == "push";
        ended.exits(0).events.iter().find(of).unwrap()["sent_bytes"].as_u64().unwrap()
    };
    let (intact, altered) = (sent(false), sent(true));
    assert!(altered > 20 * intact, "{altered} bytes with the file, {intact} without");
}

/// Damages a control file of a host that serves `one`, and gives the stage with `two` committed.
fn damaged(damage: impl FnOnce(&Path)) -> Stage {
    let stage = Stage::local(&["app1"], "");
    stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    damage(stage.world.root("app1"));
    stage
}

fn only_file_in(directory: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn a_damaged_manifest_of_what_is_live_is_told_by_verify_and_does_not_stop_the_next_deploy() {
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| bytes[40] ^= 0x40,
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let stage = damaged(|root| {
            let file = only_file_in(&root.join(".deployer/manifest"));
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(file, bytes).unwrap();
        });
        let status = stage.world.deployer(["status", "--verify", "--exit-code"]);
        status.exits(Exit::Pending);
        assert!(status.stdout.contains("manifest"), "{status}");
        stage.world.deployer(DEPLOY).ok();
        stage.serves_but("two\n", Some("is sealed, and its manifest"));
        // What cannot be verified is not gone back to.
        let back = stage.world.deployer(["rollback"]);
        back.exits(Exit::BuildFailed);
        assert!(back.stderr.contains("manifest"), "{back}");
        stage.serves("two\n");
    }
}

#[test]
fn a_damaged_record_of_what_is_live_is_told_and_does_not_stop_the_next_deploy() {
    let stage = damaged(|root| fs::write(only_file_in(&root.join(".deployer/rel")), "{\"format\":1,").unwrap());
    let doctor = stage.world.deployer(["doctor"]);
    assert!(doctor.stdout.contains(".deployer/rel/"), "{doctor}");
    let deployed = stage.world.deployer(DEPLOY);
    deployed.ok();
    assert!(deployed.stderr.contains(".deployer/rel/"), "{deployed}");
    assert_eq!(stage.world.read_current("app1", "built"), "two\n");
}

#[test]
fn a_damaged_intent_or_epoch_stops_the_deploy_and_says_which_file_and_what_to_do() {
    for (name, text) in [("intent", "{\"format\":1"), ("epoch", "many\n")] {
        let stage = damaged(|root| fs::write(root.join(".deployer").join(name), text).unwrap());
        let live = stage.world.live("app1");
        let refused = stage.world.deployer(DEPLOY);
        refused.exits(Exit::BuildFailed);
        assert!(refused.stderr.contains(&format!(".deployer/{name}")) && refused.stderr.contains("rm "), "{refused}");
        assert_eq!(stage.world.live("app1"), live);
        fs::remove_file(stage.world.root("app1").join(".deployer").join(name)).unwrap();
        stage.world.deployer(DEPLOY).ok();
        // Without the number that was there, they begin again.
        stage.serves_but("two\n", (name == "epoch").then_some("I4: epoch 1 of run"));
    }
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_history_goes_on() {
    let stage = damaged(|root| {
        let journal = root.join(".deployer/journal");
        let mut bytes = fs::read(&journal).unwrap();
        bytes[20] ^= 1;
        fs::write(journal, bytes).unwrap();
    });
    stage.settles("two\n");
    let names: Vec<String> = fs::read_dir(stage.world.root("app1").join(".deployer"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("journal.damaged-")), "{names:?}");
}

#[test]
fn a_helper_that_was_cut_short_on_the_host_is_sent_again() {
    let stage = damaged(|root| {
        let helper = only_file_in(&root.join(".deployer/helper"));
        let length = fs::metadata(&helper).unwrap().len();
        fs::File::options().write(true).open(&helper).unwrap().set_len(length / 2).unwrap();
    });
    stage.settles("two\n");
}

#[test]
fn a_current_that_is_a_directory_is_refused_before_anything_is_sent() {
    let stage = damaged(|root| {
        fs::remove_file(root.join("current")).unwrap();
        fs::create_dir(root.join("current")).unwrap();
        fs::write(root.join("current/precious"), "mine\n").unwrap();
    });
    let refused = stage.world.deployer(DEPLOY);
    refused.exits(Exit::BuildFailed);
    assert!(refused.stderr.contains("mv current current.old"), "{refused}");
    assert_eq!(stage.world.releases("app1").len(), 1);
    assert_eq!(stage.world.read_current("app1", "precious"), "mine\n");
}

#[test]
fn a_control_directory_that_may_not_be_written_is_told_with_its_path() {
    if rustix::process::geteuid().is_root() {
        return skip("root may write everywhere");
    }
    let stage = damaged(|root| fs::set_permissions(root.join(".deployer"), fs::Permissions::from_mode(0o500)).unwrap());
    let refused = stage.world.deployer(DEPLOY);
    fs::set_permissions(stage.world.root("app1").join(".deployer"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(refused.status, 11, "{refused}");
    assert!(refused.stderr.contains(".deployer"), "{refused}");
    stage.settles("two\n");
}

#[test]
fn odd_login_shells_and_noisy_start_up_files_carry_a_whole_deploy() {
    let stage = Stage::ssh("ssh2", &["app1"], "");
    let host = stage.world.sandbox.host("app1").unwrap();
    let noise = "echo 'Welcome to this host!'; printf 'a\\033[31mb\\n' >&2; cd /\n";
    for file in [".bashrc", ".profile", ".bash_profile", ".zshenv", ".tcshrc", ".cshrc"] {
        fs::write(host.home.join(file), if file.ends_with("cshrc") { "echo noise\n" } else { noise }).unwrap();
    }
    for shell in ["bash", "fish", "tcsh", "busybox sh"] {
        let program = shell.split(' ').next().unwrap();
        let is_here = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|directory| directory.join(program).exists());
        if !is_here {
            skip(&format!("there is no `{program}`"));
            continue;
        }
        host.set_config(&format!("ForceCommand {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n")).unwrap();
        let app = format!("through {shell}\n");
        stage.commit(&app);
        stage.settles(&app);
    }
    let doctor = stage.world.deployer(["doctor"]);
    assert!(doctor.stdout.contains("! shell  app1 writes at login: Welcome to this host!. Fix: "), "{doctor}");
}

#[test]
fn a_build_that_exits_with_the_status_that_ssh_uses_for_itself_is_a_failed_build() {
    for session in ["ssh2", "openssh"] {
        let stage = Stage::ssh(session, &["app1"], "");
        let one = stage.commit("one\n");
        stage.settles("one\n");
        let two = stage.world.commit(&[("build.sh", "exit 255\n")]);
        let ended = Running::start(&stage.world, &DEPLOY).end();
        ended.exits(11).tells(&[(&one[..7], 1)]);
        assert!(ended.error().contains("status 255"), "{ended:#?}");
        assert_eq!(state_of(stage.world.root("app1"), &two), "failed");
    }
}

#[test]
fn a_host_that_loses_its_power_during_a_build_is_told_and_completes_when_it_is_back() {
    let stage = Stage::ssh("ssh2", &["app1", "app2"], "");
    let one = stage.commit("one\n");
    stage.settles("one\n");
    stage.commit("two\n");
    stage.mark("slow", true);
    let mut run = Running::start(&stage.world, &DEPLOY);
    run.until_lines("waiting", 2);
    let host = stage.world.sandbox.host("app2").unwrap();
    host.stop();
    stage.mark("slow", false);
    run.end().exits(11).tells(&[(&one[..7], 2)]);
    let gone = stage.world.deployer(["deploy", "--rev", "master", "--connect-retries", "0"]);
    gone.exits(Exit::Unreachable);
    host.restart().unwrap();
    // The helper that lost its pipe gives its build a grace before it lets the lock go.
    stage.world.deployer(["deploy", "--rev", "master", "--wait-lock", "30s"]).ok();
    stage.settles("two\n");
    assert_settled(&stage.world, &stage.hosts);
    assert!(records(stage.world.root("app2")).len() >= 2);
}
