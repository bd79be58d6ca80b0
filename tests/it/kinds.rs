//! Caches for hosts of several Pythons and platforms: what one builder fetches for all of them, and what it cannot.

use std::fs;
use std::path::Path;
use std::process::Command;

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::fills::{contents, fill, index_of, kept, names};
use crate::harness::{Run, World};
use crate::upstream::{Upstream, sha256};

/// A Python that is another one on every host, as far as hosts can tell.
const PYTHON: &str = "case \"$1\" in\n\
    -m) mkdir -p venv/bin; printf '#!/bin/sh\\n' > venv/bin/python; chmod +x venv/bin/python ;;\n\
    *) case \"$PLACE\" in */app1/*) echo cpython-311 x ;; *) echo cpython-39 x ;; esac ;;\nesac\n";

#[test]
fn a_host_with_another_python_than_the_wheels_are_for_is_told_of_until_one_of_its_kind_filled_too() {
    let mut world = World::new().local_hosts(&["app1", "app2", "app3"]).own_caches();
    for host in ["app1", "app2", "app3"] {
        fs::create_dir(world.cache(host)).unwrap();
    }
    world.program("python3", PYTHON);
    world.reconfigure(
        "[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; cp wheels/$DEPLOYER_HOST/* wheels/all/* $DEPLOYER_CACHE/\"\n\
         [defaults.build]\nrecipe = \"pip\"\nenv = { PATH = \"<tmp>/bin:/usr/bin:/bin\" }\n",
    );
    let machine = String::from_utf8(Command::new("uname").arg("-m").output().unwrap().stdout).unwrap();
    let file = |tag: &str| format!("lxml-5.3.1-{tag}-{tag}-linux_{}.whl", machine.trim());
    world.commit(&[
        ("requirements.txt", "lxml==5.3.1\n"),
        (&format!("wheels/app1/{}", file("cp311")), "11"),
        (&format!("wheels/app2/{}", file("cp39")), "9"),
        ("wheels/all/pure-1-py3-none-any.whl", "any"),
    ]);
    // What a command of the project's own finds is for hosts like the builder, and the others are told of at once.
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    let what = format!("`{}` is of no use here: the files were filled on `app1` for CPython 3.11 ({}, ", file("cp311"), machine.trim());
    let here = format!("and this host has CPython 3.9 ({}, ", machine.trim());
    let told = |run: &Run, out: &str| assert!(out.contains(&what) && out.contains(&here), "{run}");
    told(&run, &run.stderr);
    assert!(run.stderr.contains("fill failed on `app[2-3]` (2 of 3 hosts)"), "{run}");
    assert!(
        run.stderr.contains("hint: deployer cache fill -e prod -H app2 --rev master")
            || run.stderr.contains("hint: deployer cache fill -e prod --rev master -H app2\n"),
        "{run}"
    );
    assert!(run.stderr.contains("Hosts like `app1` find all they need in its cache: 2 files"), "{run}");
    let status = world.deployer(["cache", "status", "--rev", "master", "--exit-code"]);
    status.exits(Exit::Pending);
    told(&status, &status.stdout);
    assert!(
        status.stdout.contains("app1  complete") && status.stdout.contains("  Fix: deployer cache fill -e prod --rev master -H app2\n"),
        "{status}"
    );
    let plan = world.deployer(["plan", "--rev", "master"]);
    told(&plan, &plan.stdout);
    assert!(plan.stdout.contains("would stop: app2: `lxml"), "{plan}");
    for verb in [&["cache", "push"][..], &["deploy"]] {
        let run = world.deployer(verb.iter().chain(&["--rev", "master"]));
        run.exits(Exit::BuildFailed);
        told(&run, &run.stderr);
        assert!(run.stderr.contains("hint: deployer cache fill -e prod --rev master -H app2,app3"), "{run}");
    }
    assert!(names(&world.cache("app2").join("dist")).is_empty() && world.releases("app2").iter().all(|_| !world.current("app2").exists()));

    // One of its kind fills, and what either kind needs is sent to all.
    world.deployer(["cache", "fill", "-H", "app2", "--rev", "master"]).ok();
    world.deployer(["cache", "push", "--rev", "master"]).ok();
    world.deployer(["cache", "status", "--rev", "master", "--exit-code"]).exits(Exit::Ok);
    for host in ["app1", "app2", "app3"] {
        assert_eq!(names(&world.cache(host).join("dist")), [file("cp311"), file("cp39"), "pure-1-py3-none-any.whl".to_owned()]);
    }
    world.deploy("master");

    // A set that serves every interpreter is nobody's in particular.
    world.commit(&[("requirements.txt", "pure\n"), (&format!("wheels/app1/{}", file("cp311")), "11")]);
    world.reconfigure(
        "[defaults.cache]\npath = \"/nonexistent\"\nfill = \"mkdir -p $DEPLOYER_CACHE; cp wheels/all/* $DEPLOYER_CACHE/\"\n\
         [defaults.build]\nrecipe = \"pip\"\nenv = { PATH = \"<tmp>/bin:/usr/bin:/bin\" }\n",
    );
    fill(&world).ok();
    world.deployer(["cache", "push", "--rev", "master"]).ok();
}

/// Writes wheels, each with a name as it has in an index and the lines of its metadata, and lists them on the pages of their projects.
fn publish(python: &Path, to: &Path, upstream: &Upstream, wheels: &[(String, &str)]) {
    let script = "import sys, zipfile\npath, metadata = sys.argv[1:]\nname, version, *_ = path.rsplit('/', 1)[1].split('-')\n\
        tags = path[:-4].rsplit('/', 1)[1].split('-')[2:]\nz = zipfile.ZipFile(path, 'w')\nd = f'{name}-{version}.dist-info/'\n\
        z.writestr(f'{name}.py', f'version = {version!r}\\ntags = {tags!r}\\n')\n\
        z.writestr(d + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{metadata}')\n\
        z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: ' + '-'.join(tags) + '\\n')\n\
        z.writestr(d + 'RECORD', ''.join(f'{n},,\\n' for n in [f'{name}.py', d + 'METADATA', d + 'WHEEL', d + 'RECORD']))\nz.close()\n";
    for (name, metadata) in wheels {
        let output = Command::new(python).args(["-I", "-c", script]).arg(to.join(name)).arg(metadata).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        upstream.has(&format!("/files/{name}"), "application/octet-stream", fs::read(to.join(name)).unwrap());
    }
    let mut projects: Vec<&str> = wheels.iter().map(|(name, _)| name.split('-').next().unwrap()).collect();
    projects.dedup();
    for project in projects {
        let of_project = |(name, _): &&(String, &str)| name.split('-').next() == Some(project);
        let files: Vec<serde_json::Value> = wheels
            .iter()
            .filter(of_project)
            .map(|(name, metadata)| {
                let requires = metadata.lines().find_map(|line| line.strip_prefix("Requires-Python: "));
                serde_json::json!({ "filename": name, "url": format!("../../files/{name}"), "requires-python": requires,
                    "hashes": { "sha256": sha256(&fs::read(to.join(name)).unwrap()) } })
            })
            .collect();
        let page = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": project, "files": files });
        upstream.has(&format!("/simple/{project}/"), "application/vnd.pypi.simple.v1+json", page.to_string());
    }
}

/// The names of an interpreter's own wheels: `cp311`, `x86_64`.
fn tags_of(python: &Path) -> (String, String) {
    let script = "import sys, platform; print('cp3%d' % sys.version_info[1], platform.machine())";
    let said = String::from_utf8(Command::new(python).args(["-I", "-c", script]).output().unwrap().stdout).unwrap();
    let (own, machine) = said.trim().split_once(' ').unwrap();
    (own.to_owned(), machine.to_owned())
}

/// Two hosts with real Pythons as far as they build, of which `app2` says that its Python is 3.6.
fn two_pythons(hosts: &[&str], upstream: &Upstream) -> Option<(World, std::path::PathBuf)> {
    let world = World::new().local_hosts(hosts).own_caches().patient();
    let Ok(python) = world.sandbox.tools().python else {
        skip("there is no usable python");
        return None;
    };
    for host in hosts {
        fs::create_dir(world.cache(host)).unwrap();
    }
    let script = format!(
        "case \"$*\" in *cache_tag*) case \"$PLACE\" in */app2/*) echo cpython-36 x 3.6.15; exit ;; esac ;; esac\nexec {} \"$@\"\n",
        python.display()
    );
    world.program("python3", &script);
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\n\
         [defaults.build]\nrecipe = \"pip\"\nenv = {{ PATH = \"<tmp>/bin:/usr/bin:/bin\" }}\n{}",
        index_of(upstream)
    ));
    Some((world, python))
}

#[test]
fn what_hosts_of_another_python_need_is_fetched_by_the_one_builder_as_wheels() {
    let upstream = Upstream::start();
    let Some((world, python)) = two_pythons(&["app1", "app2"], &upstream) else { return };
    let (own, machine) = tags_of(&python);
    let native = |python: &str, abi: &str, platform: &str| format!("native-5-{python}-{abi}-{platform}_{machine}.whl");
    let (of_own, of_other) = (native(&own, &own, "manylinux_2_5"), native("cp36", "cp36m", "manylinux1"));
    let of_arm = "native-5-cp39-cp39-manylinux_2_17_aarch64.manylinux2014_aarch64.whl".to_owned();
    let pure = |name: &str| format!("{name}-py3-none-any.whl");
    publish(
        &python,
        &world.path("srv"),
        &upstream,
        &[
            (of_own.clone(), "Requires-Dist: backport; python_full_version < '3.6.16' and platform_machine != 'aarch64'\n"),
            (of_other.clone(), "Requires-Dist: backport; python_full_version < '3.6.16' and platform_machine != 'aarch64'\n"),
            (of_arm.clone(), "Requires-Dist: backport; python_full_version < '3.6.16' and platform_machine != 'aarch64'\n"),
            (native("cp36", "cp36m", "manylinux_2_99"), ""),
            (pure("backport-1"), ""),
            (pure("free-1"), "Requires-Python: >=3.5\n"),
            (pure("free-2"), "Requires-Python: >=3.7\n"),
        ],
    );
    // A host that nobody reaches does not end a fill.
    let config = world.repository.directory.join("deploy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let away = "\n[[env.prod.host]]\nname = \"app3\"\naddress = \"127.0.0.1\"\nport = 1\nsession = \"ssh2\"\n";
    fs::write(&config, text + away).unwrap();
    world.commit(&[("requirements.txt", "native==5\nfree\nbackport; python_version < '3.0'\n")]);
    let run = fill(&world);
    run.exits(Exit::Ok);
    let told = format!("; 3 files more for CPython 3.6 ({machine}, glibc ");
    assert!(run.stderr.contains(": 2 files, ") && run.stderr.contains(&told), "{told}\n{run}");
    assert!(run.stderr.contains("warning: cannot be reached: nobody knows whether what is filled serves it"), "{run}");
    let all = [pure("backport-1"), pure("free-1"), pure("free-2"), of_other.clone(), of_own.clone()];
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    assert_eq!(names(&world.cache("app1").join("dist")), sorted(&all));
    // A build that the builder proves has nothing of the others.
    assert!(run.stderr.contains("proven by a build"), "{run}");
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    assert!(status.stdout.contains("needs 5 files"), "{status}");
    assert!(status.stdout.contains("for CPython 3.6 (") && status.stdout.contains("wheels only, not proven by a build"), "{status}");
    assert!(!status.stdout.contains("of no use here"), "{status}");
    world.deployer(["cache", "push", "--rev", "master", "-H", "app1,app2"]).ok();
    world.deployer(["cache", "status", "--rev", "master", "--exit-code", "-H", "app1,app2"]).exits(Exit::Ok);
    assert_eq!(contents(&world.cache("app2").join("dist")), contents(&world.cache("app1").join("dist")));

    // A kind that cannot be reached is named, and what the others need stays.
    let run = world.deployer(["cache", "fill", "--rev", "master", "-H", "app1", "--for", "cp39-manylinux_2_28_aarch64"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("1 file more for CPython 3.9 (aarch64, glibc 2.28)"), "{run}");
    let status = world.deployer(["cache", "status", "--rev", "master"]);
    assert!(status.stdout.contains("needs 6 files") && status.stdout.contains("for CPython 3.9 (aarch64, glibc 2.28)"), "{status}");
    assert_eq!(names(&world.cache("app1").join("dist")), sorted(&[&all[..], &[of_arm]].concat()));
    let run = world.deployer(["cache", "fill", "--rev", "master", "--for", "python3.9"]);
    run.exits(Exit::Usage);
    assert!(run.stderr.contains("write it as the name of a wheel does: `cp39-manylinux_2_28_x86_64`"), "{run}");
}

#[test]
fn what_has_no_wheel_for_another_python_is_refused_until_a_host_of_that_kind_filled() {
    let upstream = Upstream::start();
    let Some((world, python)) = two_pythons(&["app1", "app2"], &upstream) else { return };
    let (own, machine) = tags_of(&python);
    publish(&python, &world.path("srv"), &upstream, &[(format!("native-5-{own}-{own}-linux_{machine}.whl"), "")]);
    world.commit(&[("requirements.txt", "native\n")]);
    let run = fill(&world);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains(&format!("there is no wheel of `native` for CPython 3.6 ({machine}, glibc ")), "{run}");
    assert!(run.stderr.contains("hint: deployer cache fill -e prod --rev master -H app2\n"), "{run}");
    assert!(run.stderr.contains("Hosts like `app1` find all they need in its cache: 1 file, "), "{run}");
    assert_eq!(names(&world.cache("app1").join("dist")).len(), 1);

    // Its own resolver finds what it can use; then nothing is refused any more.
    let publishes = |name: String| {
        publish(&python, &world.path("srv"), &upstream, &[(name, "")]);
        // A page is asked for again only when it is old.
        fs::remove_dir_all(kept(&world, "pypi", "pages")).unwrap();
    };
    publishes("native-4-py3-none-any.whl".to_owned());
    world.deployer(["cache", "fill", "--rev", "master", "-H", "app2"]).ok();
    publishes(format!("native-5-{own}-{own}-linux_{machine}.whl"));
    fill(&world).ok();
    world.deployer(["cache", "push", "--rev", "master"]).ok();
    for host in ["app1", "app2"] {
        assert_eq!(names(&world.cache(host).join("dist")).len(), 2, "{host}");
    }
}
