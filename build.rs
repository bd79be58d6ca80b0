//! Builds the helper for this machine as a static binary and leaves it, with its digest, where `session/bootstrap.rs` embeds it.

#![expect(clippy::disallowed_methods, reason = "a build script runs before there is a session")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for input in ["src/helper", "src/tree", "src/wire", "src/op", "src/release.rs", "build.rs"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed=DEPLOYER_HELPER");
    let helper = match env::var_os("DEPLOYER_HELPER") {
        // Packagers may bring a helper of their own (a musl build, say).
        Some(path) => PathBuf::from(path),
        None => build(&root, &out),
    };
    let bytes = fs::read(&helper).unwrap_or_else(|error| panic!("the helper {} cannot be read: {error}", helper.display()));
    fs::write(out.join("helper.bin"), bytes).expect("OUT_DIR is writable");
}

/// Runs cargo on the helper's own manifest. It needs a target directory of its own, or both would wait for one lock, and a target
/// triple, or static linking would apply to procedural macros as well.
fn build(root: &Path, out: &Path) -> PathBuf {
    let target = env::var("TARGET").expect("cargo sets it");
    let directory = out.join("helper-target");
    let status = Command::new(env::var_os("CARGO").expect("cargo sets it"))
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(root.join("src/helper/Cargo.toml"))
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "the helper does not build");
    directory.join(target).join("release/deployer-helper")
}
