//! Hosts are built, activated and checked as their role says.

use std::fs;

use deployer::exit::Exit;

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
