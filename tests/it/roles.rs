//! Hosts are built, activated and checked as their role says.

use std::fs;

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::harness::World;

fn world(settings: &str) -> World {
    let world = World::new();
    let host = |name: &str, role: &str| {
        let root = world.path("srv").join(name);
        fs::create_dir_all(&root).unwrap();
        format!("    {{ name = \"{name}\", root = \"{}\", session = \"local\", roles = [\"{role}\"] }},\n", root.display())
    };
    world.write_raw_config(&format!(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[env.prod]\nroot = \"/srv\"\nhost = [\n{}{}]\n\
         build = {{ command = \"echo web >built\" }}\nactivate = \"echo web-up >><tmp>/order\"\ncheck = {{ run = \"[ -f built ]\", retries = 1 }}\n\
         [env.prod.role.worker]\n{settings}\n",
        host("app1", "web"),
        host("app2", "worker"),
    ));
    world.commit(&[("number", "one\n")]);
    world
}

fn built(world: &World, host: &str) -> String {
    fs::read_to_string(world.path("srv").join(host).join("current/built")).unwrap()
}

#[test]
fn a_role_builds_and_activates_in_its_own_way_and_is_built_again_when_that_changes() {
    let settings = "build = { command = \"echo worker >built\" }\nactivate = \"echo worker-up >><tmp>/order\"";
    let world = world(settings);
    let plan = world.deployer(["plan", "--rev", "master"]);
    assert!(
        plan.stdout.contains("build  worker: echo worker >built") || plan.stdout.contains("build      worker: echo worker >built"),
        "{plan}"
    );
    world.deployer(["deploy", "--rev", "master"]).ok();
    assert_eq!((built(&world, "app1"), built(&world, "app2")), ("web\n".to_owned(), "worker\n".to_owned()));
    let mut order: Vec<String> = fs::read_to_string(world.path("order")).unwrap().lines().map(str::to_owned).collect();
    order.sort();
    assert_eq!(order, ["web-up", "worker-up"]);
    // The other way of building is another release, on those hosts alone.
    let text = fs::read_to_string(world.repository.directory.join("deploy.toml")).unwrap();
    world.write_raw_config(&text.replace("echo worker >built", "echo other >built"));
    let again = world.deployer(["deploy", "--rev", "master"]);
    again.ok();
    assert!(again.stderr.contains("push  1/1"), "{again}");
    assert_eq!((built(&world, "app1"), built(&world, "app2")), ("web\n".to_owned(), "other\n".to_owned()));
    // Back by the role's own way, too.
    world.deployer(["rollback", "-H", "app2"]).exits(Exit::Ok);
    assert_eq!(built(&world, "app2"), "worker\n");
    let order = fs::read_to_string(world.path("order")).unwrap();
    assert_eq!(order.lines().last(), Some("worker-up"));
}

#[test]
fn a_check_that_a_role_fails_is_its_own() {
    let world = world("check = { run = \"false\" }");
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::RolledBack);
    assert!(run.stderr.contains("✗ app2 · check"), "{run}");
    assert!(!run.stderr.contains("✗ app1"), "{run}");
}

/// The names of the files in a directory of a host's cache, and in those below it.
fn cached(world: &World, host: &str, place: &str) -> Vec<String> {
    let found = fs::read_dir(world.cache(host).join(place)).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = found.flat_map(|path| match fs::read_dir(&path) {
        Ok(below) => below.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => vec![path],
    });
    files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_deploy_completes_the_cache_of_every_host_for_the_build_of_its_own_role() {
    let world = World::new().own_caches();
    if let Err(why) = world.sandbox.tools().python {
        return skip(&format!("no python: {why}"));
    }
    let host = |name: &str, role: &str| {
        let (root, cache) = (world.path("srv").join(name), world.cache(name));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir(&cache).unwrap();
        let place = format!("root = \"{}\", session = \"local\", cache = \"{}\"", root.display(), cache.display());
        format!("    {{ name = \"{name}\", {place}, roles = [\"{role}\"] }},\n")
    };
    world.write_raw_config(&format!(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[env.prod]\nroot = \"/srv\"\nhost = [\n{}{}{}]\n\
         [env.prod.cache]\npath = \"/nonexistent\"\nfill = 'mkdir -p \"$DEPLOYER_CACHE\"; cp \"<tmp>/$DEPLOYER_ROLE\" \"$DEPLOYER_CACHE/\"'\n\
         [env.prod.build]\ncommand = 'cat \"$DEPLOYER_CACHE\"/* >built'\n\
         [env.prod.role.worker]\nunset = [\"build.command\"]\nbuild = {{ recipe = \"pip\" }}\n",
        host("web1", "web"),
        host("web2", "web"),
        host("job1", "worker"),
    ));
    world.commit(&[("requirements.txt", "# none\n")]);
    for role in ["web", "worker"] {
        fs::write(world.path(role), format!("for {role}\n")).unwrap();
        world.deployer(["cache", "fill", "--rev", "master", "-R", role]).ok();
    }
    for name in ["web1", "web2", "job1"] {
        fs::remove_dir_all(world.cache(name)).unwrap();
        fs::create_dir(world.cache(name)).unwrap();
    }
    let run = world.deployer(["deploy", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("cache  3/3"), "{run}");
    let held = |name: &str| (cached(&world, name, "sets"), cached(&world, name, "dist"));
    let (web, none) = (vec!["web".to_owned()], Vec::new());
    assert_eq!((held("web1"), held("web2")), ((web.clone(), none.clone()), (web, none.clone())));
    assert_eq!(held("job1"), (none, vec!["worker".to_owned()]));
    assert_eq!((built(&world, "web1"), built(&world, "web2")), ("for web\n".to_owned(), "for web\n".to_owned()));
    assert!(world.path("srv/job1/current/venv/bin/python").exists() && !world.path("srv/job1/current/built").exists());
}

#[test]
fn a_builder_that_is_no_host_builds_for_a_role_in_the_way_of_that_role() {
    let Some(world) = World::new().alike_hosts(&["app1", "app2", "build1"]) else { return };
    world.write_raw_config(
        "schema = 1\nproject = \"boskel\"\n[source]\ngit = \".\"\n[defaults]\nroot = \"<tmp>/site/boskel\"\nssh = { config = \"<tmp>/ssh_config\" }\n\
         [env.prod]\nbuild = { command = \"echo web >built\" }\nhost = [\n    { name = \"app1\", roles = [\"web\"] },\n    { name = \"app2\", roles = [\"worker\"] },\n]\n\
         [env.prod.role.worker]\nbuild = { command = \"echo worker on $DEPLOYER_HOST >built\", on = \"build1\" }\n",
    );
    world.commit(&[("number", "one\n")]);
    world.deployer(["deploy", "--rev", "master", "-R", "worker"]).ok();
    assert_eq!(world.read_current("app2", "built"), "worker on build1\n");
    // What is built for one role is nothing for another.
    let all = world.deployer(["plan", "--rev", "master", "--force"]);
    let differ = "would stop: one host builds for all, and `app2` and `app1` are to be built in different ways";
    assert!(all.stdout.contains(differ), "{all}");
    world.deployer(["deploy", "--rev", "master"]).ok();
    assert_eq!(
        (world.read_current("app1", "built"), world.read_current("app2", "built")),
        ("web\n".to_owned(), "worker on build1\n".to_owned())
    );
}
