//! npm, cargo and uv get what they need through the index: once from an upstream, and again from what was kept, with no upstream at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deployer::sandbox::skip;

use crate::harness::World;
use crate::index::{Serving, publish_wheels, tool, wheel};
use crate::tools;
use crate::upstream::{Answer, Upstream, ask, sha256};

pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

fn world(upstream: &Upstream) -> World {
    let world = World::new();
    let url = &upstream.url;
    let text = format!(
        "schema = 1\nproject = \"p\"\n[index.pypi]\nurl = \"{url}/simple/\"\n[index.crates]\nurl = \"sparse+{url}/crates/\"\n[index.npm]\nurl = \"{url}/npm\"\n"
    );
    world.write_raw_config(&text);
    world
}

/// Packs a directory as the registries do.
fn packed(directory: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("tar").args(["-cz", "-C"]).arg(directory).arg(name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

pub fn publish_npm(world: &World, upstream: &Upstream, node: &Path, name: &str, dependencies: &str) {
    let file = format!("{}-1.0.0.tgz", name.rsplit('/').next().unwrap());
    let directory = world.path("srv").join(file.replace(".tgz", ""));
    fs::create_dir_all(directory.join("package")).unwrap();
    let about = format!("{{\"name\":\"{name}\",\"version\":\"1.0.0\",\"main\":\"i.js\",\"dependencies\":{{{dependencies}}}}}");
    fs::write(directory.join("package/package.json"), &about).unwrap();
    fs::write(directory.join("package/i.js"), "module.exports = 1\n").unwrap();
    let tarball = packed(&directory, "package");
    fs::write(directory.join(&file), &tarball).unwrap();
    let script = "const c = require('crypto'); console.log('sha512-' + c.createHash('sha512').update(require('fs').readFileSync(process.argv[1])).digest('base64'))";
    let output = Command::new(node).args(["-e", script]).arg(directory.join(&file)).output().unwrap();
    let integrity = String::from_utf8(output.stdout).unwrap();
    let place = format!("/npm/{name}/-/{file}");
    let mut version: serde_json::Value = serde_json::from_str(&about).unwrap();
    version["dist"] = serde_json::json!({ "tarball": format!("{}{place}", upstream.url), "integrity": integrity.trim() });
    let page = serde_json::json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
    upstream.has(&format!("/npm/{}", name.replace('/', "%2f")), "application/json", page.to_string());
    upstream.has(&place, "application/octet-stream", tarball);
}

#[test]
fn npm_installs_through_the_index_and_again_when_there_is_no_upstream() {
    let (Some(npm), Some(node)) = (program("npm"), program("node")) else { return skip("there is no npm") };
    let upstream = Upstream::start();
    let world = world(&upstream);
    publish_npm(&world, &upstream, &node, "outer", "\"@deplo/inner\":\"^1.0.0\"");
    publish_npm(&world, &upstream, &node, "@deplo/inner", "");
    let project = world.path("home/project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("package.json"), r#"{"name":"p","version":"1.0.0","dependencies":{"outer":"1.0.0"}}"#).unwrap();
    for (arguments, verb) in [(&[][..], "install"), (&["--offline"], "ci")] {
        let serving = Serving::start(&world, arguments);
        let cache = world.path(format!("cache-of-{verb}"));
        let registry = serving.urls["npm"].as_str().unwrap();
        // The second index has another port than the one that the lock names.
        let variables = [
            ("npm_config_registry", registry),
            ("npm_config_replace_registry_host", "always"),
            ("npm_config_cache", cache.to_str().unwrap()),
        ];
        let output = tool(&world, &npm, &[verb, "--prefix", project.to_str().unwrap()], &variables);
        assert!(output.status.success(), "{output:?}");
        let output =
            tool(&world, &node, &["-e", "require(process.argv[1])", project.join("node_modules/@deplo/inner").to_str().unwrap()], &[]);
        assert!(output.status.success(), "{output:?}");
        assert!(project.join("node_modules/outer/i.js").is_file());
    }
    assert_eq!(upstream.count("/npm/outer/-/outer-1.0.0.tgz"), 1);

    // What does not have its integrity is not served, and an audit is answered at once.
    upstream.has("/npm/@deplo/inner/-/inner-1.0.0.tgz", "", "poison");
    upstream.has("/npm/bad", "application/json", "<html>log in</html>");
    upstream.has("/npm/portal", "text/html", "<html>login please</html>");
    upstream.has("/npm/error", "application/json", "{\"error\":\"log in\"}");
    upstream.answers("/npm/worse", Answer::Whole(500, Vec::new(), Vec::new()));
    fs::remove_dir_all(world.path("cache/deployer/index")).unwrap();
    let serving = Serving::start(&world, &[]);
    for (path, status) in [
        ("npm/@deplo/inner/-/inner-1.0.0.tgz", 502),
        ("npm/bad", 502),
        ("npm/portal", 502),
        ("npm/error", 502),
        ("npm/worse", 502),
        ("npm/none", 404),
        ("npm/@deplo%2finner", 200),
        ("npm/outer/-/other-1.0.0.tgz", 404),
    ] {
        assert_eq!(ask("GET", &serving.url(path), &[]).status, status, "{path}");
    }
    assert_eq!(ask("POST", &serving.url("npm/-/npm/v1/security/advisories/bulk"), &[("Content-Length", "0")]).text(), "{}");
}

/// Publishes the crate `deplo-leaf` in version 1.0.0, and lists a version 1.0.1 that is not what it should be.
pub fn publish_crate(world: &World, upstream: &Upstream) {
    let directory = world.path("srv/deplo-leaf-1.0.0");
    fs::create_dir_all(directory.join("src")).unwrap();
    fs::write(directory.join("Cargo.toml"), "[package]\nname = \"deplo-leaf\"\nversion = \"1.0.0\"\nedition = \"2021\"\n").unwrap();
    fs::write(directory.join("src/lib.rs"), "pub const LEAF: &str = \"green\";\n").unwrap();
    let krate = packed(&world.path("srv"), "deplo-leaf-1.0.0");
    let line = |version: &str, sum: &str| {
        format!("{{\"name\":\"deplo-leaf\",\"vers\":\"{version}\",\"deps\":[],\"cksum\":\"{sum}\",\"features\":{{}},\"yanked\":false}}\n")
    };
    let sums = (sha256(&krate), sha256(b"never published"));
    upstream.has("/crates/config.json", "application/json", format!("{{\"dl\":\"{}/dl\"}}", upstream.url));
    upstream.has("/crates/de/pl/deplo-leaf", "text/plain", line("1.0.0", &sums.0) + &line("1.0.1", &sums.1));
    upstream.has("/dl/deplo-leaf/1.0.0/download", "", krate);
    upstream.has("/dl/deplo-leaf/1.0.1/download", "", "poison");
}

#[test]
fn cargo_fetches_through_the_index_and_again_when_there_is_no_upstream() {
    let Some(toolchain) = tools::toolchain() else { return };
    let [cargo, rustc] = ["cargo", "rustc"].map(|name| toolchain.join(name));
    let upstream = Upstream::start();
    let world = world(&upstream);
    publish_crate(&world, &upstream);
    let project = world.path("home/project");
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("src/lib.rs"), "").unwrap();
    fs::write(
        project.join("Cargo.toml"),
        "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndeplo-leaf = \"=1.0.0\"\n",
    )
    .unwrap();
    for arguments in [&[][..], &["--offline"]] {
        let serving = Serving::start(&world, arguments);
        let home = world.path(format!("cargo{}", arguments.len()));
        let registry = format!("source.deployer.registry=\"{}\"", serving.urls["crates"].as_str().unwrap());
        let manifest = project.join("Cargo.toml");
        let words = [
            "fetch",
            "--manifest-path",
            manifest.to_str().unwrap(),
            "--config",
            "source.crates-io.replace-with=\"deployer\"",
            "--config",
            &registry,
        ];
        let output = tool(&world, &cargo, &words, &[("CARGO_HOME", home.to_str().unwrap()), ("RUSTC", rustc.to_str().unwrap())]);
        assert!(output.status.success(), "{output:?}");
        let sources = fs::read_dir(home.join("registry/src")).unwrap().next().unwrap().unwrap().path();
        assert!(sources.join("deplo-leaf-1.0.0/src/lib.rs").is_file());
    }
    assert_eq!(upstream.count("/dl/deplo-leaf/1.0.0/download"), 1);

    let serving = Serving::start(&world, &[]);
    upstream.has("/crates/ba/d-/bad-crate", "text/plain", "<html>log in</html>");
    upstream.has("/crates/em/pt/empty", "text/plain", "\n");
    let other = "{\"name\":\"other\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"0\",\"features\":{},\"yanked\":false}\n";
    upstream.has("/crates/wr/on/wrong", "text/plain", other);
    upstream.has("/crates/ot/he/other", "text/plain", other);
    for (path, status) in [
        ("crates/dl/deplo-leaf/1.0.1/download", 502),
        ("crates/dl/deplo-leaf/2.0.0/download", 404),
        ("crates/de/pl/deplo-leaf", 200),
        ("crates/de/xx/deplo-leaf", 404),
        ("crates/ba/d-/bad-crate", 502),
        ("crates/em/pt/empty", 502),
        ("crates/wr/on/wrong", 502),
        ("crates/ot/he/other", 200),
        ("crates/no/ne/none", 404),
    ] {
        assert_eq!(ask("GET", &serving.url(path), &[]).status, status, "{path}");
    }
}

#[test]
fn uv_installs_through_the_index_and_again_when_there_is_no_upstream() {
    let Some(uv) = tools::uv() else { return };
    let upstream = Upstream::start();
    let world = world(&upstream);
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    let wheels = [("outer", "inner"), ("inner", "")].map(|(name, requires)| (name, wheel(&python, &world.path("srv"), name, requires)));
    publish_wheels(&upstream, &wheels);
    for arguments in [&[][..], &["--offline"]] {
        let serving = Serving::start(&world, arguments);
        let (target, cache) = (world.path(format!("lib{}", arguments.len())), world.path(format!("uv{}", arguments.len())));
        let words = ["pip", "install", "--python", python.to_str().unwrap(), "--target", target.to_str().unwrap(), "outer"];
        let variables = [
            ("UV_DEFAULT_INDEX", serving.urls["pypi"].as_str().unwrap()),
            ("UV_CACHE_DIR", cache.to_str().unwrap()),
            ("UV_NO_CONFIG", "1"),
        ];
        let output = tool(&world, &uv.join("uv"), &words, &variables);
        assert!(output.status.success(), "{output:?}");
        assert!(target.join("inner.py").is_file());
    }
    assert_eq!(upstream.count("/files/inner-1-py3-none-any.whl"), 1);
}
