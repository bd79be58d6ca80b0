//! Deploy windows: outside of them a deploy is refused and told when it will not be, and a rollback is not asked.

use deployer::exit::Exit;
use jiff::{Span, Timestamp};

use crate::harness::World;

/// A window on the day after tomorrow, whatever today is.
fn closed() -> String {
    let day = Timestamp::now().checked_add(Span::new().hours(48)).unwrap();
    format!("window = [\"{} 00:00-24:00 UTC\"]\n", day.strftime("%a"))
}

#[test]
fn a_deploy_outside_its_window_is_refused_until_told_to_go_past_and_a_rollback_never() {
    let mut world = World::new().local_hosts(&["app1"]);
    for text in ["one\n", "two\n"] {
        world.commit(&[("number", text)]);
        world.deploy("master");
    }
    world.reconfigure(&closed());
    let three = world.commit(&[("number", "three\n")]);
    let refused = world.deployer(["deploy", "--rev", "master"]);
    refused.exits(Exit::Refused);
    for told in ["prod is deployed to ", " UTC only, and it is ", "it opens ", "deployer deploy -e prod --rev master --outside-window"] {
        assert!(refused.stderr.contains(told), "{told}: {refused}");
    }
    assert_eq!(world.read_current("app1", "number"), "two\n");
    let planned = world.deployer(["plan", "--rev", "master"]);
    planned.ok();
    assert!(planned.stdout.contains("would stop: prod is deployed to "), "{planned}");
    world.deployer(["rollback"]).ok();
    assert_eq!(world.read_current("app1", "number"), "one\n");
    let past = world.deployer(["deploy", "--rev", "master", "--outside-window"]);
    past.ok();
    assert!(past.stderr.contains("warning: prod is deployed to "), "{past}");
    assert!(world.live("app1").ends_with(&three[..7]));
    world.reconfigure("window = [\"mon-sun 00:00-24:00 UTC\"]\n");
    world.commit(&[("number", "four\n")]);
    world.deploy("master");
    world.reconfigure("window = [\"mon-fri 9-16 UTC\"]\n");
    let wrong = world.deployer(["config", "check"]);
    wrong.exits(Exit::Config);
    assert!(wrong.stderr.contains("`9-16` is not a span of hours") && wrong.stderr.contains("deploy.toml:"), "{wrong}");
}
