//! Promotion: production gets the very bytes that staging confirmed, or nothing.

use std::fs;

use deployer::exit::Exit;
use snapbox::str;

use crate::harness::World;
use crate::once::tree;
use crate::whole::{records, state_of, text};

const BUILD_SH: &str =
    "echo \"$DEPLOYER_HOST\" >> \"$BUILDS\"\nmkdir bin\necho \"echo $DEPLOYER_HOST in $PWD\" > bin/app\nchmod 755 bin/app\n";

/// Two hosts of staging and one of production, each at the same path; `check` passes where the file `well` is.
fn world() -> Option<World> {
    let world = World::new().alike_hosts(&["stg1", "stg2", "app1"])?;
    configure(&world, "", "only-from = \"staging\"\n");
    world.commit(&[("build.sh", BUILD_SH), ("data", "one\n")]);
    Some(world)
}

fn configure(world: &World, staging: &str, prod: &str) {
    world.write_raw_config(&format!(
        "schema = 1\nproject = \"boskel\"\n\n[defaults]\nparallel = 1\nroot = \"<tmp>/site/boskel\"\nshared = {{ dirs = [\"var\"] }}\n\
         ssh = {{ config = \"<tmp>/ssh_config\" }}\nbuild = {{ command = \"sh build.sh\", env = {{ BUILDS = \"<tmp>/builds\" }} }}\n\n\
         [env.staging]\nhosts = [\"stg1\", \"stg2\"]\n{staging}\n[env.prod]\nhosts = [\"app1\"]\n{prod}\n"
    ));
}

fn promote(world: &World) -> crate::harness::Run {
    world.deployer(["deploy", "-e", "prod", "--from", "staging"])
}

#[track_caller]
fn is_refused(run: &crate::harness::Run, text: &str) {
    run.exits(Exit::Refused);
    assert!(run.stderr.contains(text), "{run}");
}

#[test]
fn production_gets_the_very_bytes_that_staging_confirmed() {
    let Some(world) = world() else { return };
    let commit = world.commit(&[("data", "two\n")]);
    world.deployer(["deploy", "-e", "staging", "--rev", "master"]).ok();
    world.commit(&[("data", "three\n")]);

    world.deployer(["deploy", "-e", "prod", "--rev", "master"]).is(
        Exit::Refused,
        str![""],
        str![[r"
error: prod takes only what staging confirmed: `only-from`
  state: nothing was changed
  hint: deployer deploy -e prod --from staging

"]],
    );
    is_refused(&world.deployer(["plan", "-e", "prod", "--rev", "master"]), "prod takes only what staging confirmed");
    let other = world.deployer(["deploy", "-e", "prod", "--from", "staging", "--rev", "master"]);
    is_refused(&other, &format!(", and staging confirmed {}", &commit[..7]));
    world.deployer(["plan", "-e", "prod", "--from", "staging"]).is(
        Exit::Ok,
        str![[r#"
boskel → prod · 1 host · read-only, nothing was changed
  rev  none → [..] (master) "Change what there is"
  tree  3 files, <size>
  from  staging, as it confirmed it; built on stg1
  steps  lock → capture → push → link → activate → confirm → prune
...
"#]],
        str![""],
    );
    assert!(world.releases("app1").is_empty());

    let run = world.deployer(["deploy", "-e", "prod", "--from", "staging", "--rev", &commit]);
    run.exits(Exit::Ok);
    assert_eq!(tree(&world, "app1"), tree(&world, "stg1"));
    assert_eq!(world.read_current("app1", "data"), "two\n");
    let (record, source) = (&records(world.root("app1"))[&world.live("app1")], &records(world.root("stg1"))[&world.live("stg1")]);
    let release = &record["release"];
    assert_eq!((text(&release["environment"]), text(&release["commit"])), ("prod", commit.as_str()));
    for same in ["id", "tree", "build_key", "project", "commit"] {
        assert_eq!(release[same], source["release"][same], "{same}");
    }
    assert_eq!((text(&release["origin"]["environment"]), text(&release["origin"]["host"])), ("staging", "stg1"));
    assert_eq!(fs::read_to_string(world.path("builds")).unwrap().lines().count(), 2, "built on staging and nowhere else");

    let again = promote(&world);
    again.exits(Exit::Ok);
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

#[test]
fn what_did_not_hold_in_production_can_be_promoted_again() {
    let Some(world) = world() else { return };
    let well = world.path("well");
    configure(&world, "", "check = { run = \"test -e <tmp>/well\", retries = 1 }\n");
    let commit = world.commit(&[("data", "two\n")]);
    world.deployer(["deploy", "-e", "staging", "--rev", "master"]).ok();
    promote(&world).exits(Exit::RolledBack);
    assert_eq!(state_of(world.root("app1"), &commit), "bad");
    fs::write(well, "").unwrap();
    promote(&world).ok();
    assert_eq!(tree(&world, "app1"), tree(&world, "stg1"));
}

#[test]
fn what_the_promoted_tree_refers_to_and_production_lacks_is_in_the_plan() {
    let Some(world) = world() else { return };
    let site = |host: &str| world.root(host).parent().unwrap().join("library");
    for host in ["stg1", "stg2"] {
        fs::write(site(host), "").unwrap();
    }
    world.commit(&[("build.sh", "ln -s \"$PWD/../../../library\" library\n")]);
    world.deployer(["deploy", "-e", "staging", "--rev", "master"]).ok();
    let plan = world.deployer(["plan", "-e", "prod", "--from", "staging"]);
    let told = "/library` is missing, to which `library` of what was built leads";
    assert!(plan.stdout.contains(told) && plan.stdout.contains("would stop"), "{plan}");
    let run = promote(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains(told), "{run}");
    fs::write(site("app1"), "").unwrap();
    let plan = world.deployer(["plan", "-e", "prod", "--from", "staging"]);
    assert!(!plan.stdout.contains("would stop"), "{plan}");
    promote(&world).ok();
}

#[test]
fn what_staging_did_not_confirm_as_one_unaltered_release_is_refused() {
    let Some(world) = world() else { return };
    is_refused(&promote(&world), "`stg1` of staging serves no release that could be promoted");
    world.deployer(["deploy", "-e", "staging", "--rev", "master"]).ok();
    world.commit(&[("data", "two\n")]);
    world.deployer(["deploy", "-e", "staging", "-H", "stg2", "--rev", "master"]).ok();
    is_refused(&promote(&world), ": there is no one release to promote");
    world.deployer(["deploy", "-e", "staging", "--rev", "master"]).ok();

    // A file that came later does not travel; one that was changed stops everything.
    let bin = world.current("stg1").join("bin");
    fs::write(bin.join("app.pyc"), "").unwrap();
    let app = fs::read_to_string(bin.join("app")).unwrap();
    fs::write(bin.join("app"), "echo patched by hand\n").unwrap();
    is_refused(&promote(&world), "is not what was sealed: `bin/app` changed since");

    configure(&world, "", "shared = { dirs = [\"var\", \"log\"] }\n");
    world.deployer(["deploy", "-e", "staging", "--rev", "master", "--force"]).ok();
    assert!(fs::read_to_string(world.current("stg1").join("bin/app")).unwrap() != app, "built anew");
    is_refused(&promote(&world), "prod links `log` into a release and staging does not");

    configure(&world, "", "root = \"<tmp>/site/elsewhere\"\n");
    is_refused(&promote(&world), "what was built in `<tmp>/site/boskel` on `stg1` does not run in `<tmp>/site/elsewhere` on `app1`");

    configure(&world, "", "");
    fs::write(world.current("stg1").join("late"), "").unwrap();
    let run = promote(&world);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("1 path came to the release on stg1 after it was sealed (`late`): not promoted"), "{run}");
    assert!(!world.current("app1").join("late").exists());

    world.sandbox.host("stg2").unwrap().stop();
    let lost = promote(&world);
    lost.exits(Exit::Unreachable);
    configure(&world, "on-unreachable = \"skip\"\n", "");
    promote(&world).ok();
}
