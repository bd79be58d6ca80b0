//! What uv 0.13 and 0.8, npm 11 and cargo 1.95 print when a build without a network lacks something. Only the addresses of registries and
//! the places of projects are other ones.

use super::*;

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn hint(text: &str) -> String {
    explain(&lines(text), false).unwrap()
}

const AGAIN: &str = ": fill the cache for this revision, then run the same command again";

#[test]
fn the_last_line_that_means_something_is_explained() {
    let tail = lines("Getting distribution\nError: Couldn't find a distribution for 'lxml==5.3.1'.\n");
    let hint = explain(&tail, false).unwrap();
    assert!(hint.starts_with("`lxml==5.3.1` is not in the shared download cache"), "{hint}");
    let hint = explain(&tail, true).unwrap();
    assert!(hint.starts_with("the package index has no `lxml==5.3.1`"), "{hint}");
    for from_index in [false, true] {
        let hint = explain(&lines("No module named ensurepip\n"), from_index).unwrap();
        assert_eq!(hint, "install the package python3-venv on the host");
    }
    assert_eq!(explain(&lines("npm error code ENOTCACHED\n"), true), None);
    assert_eq!(explain(&lines("make: *** [all] Error 2\n"), false), None);
}

#[test]
fn what_is_lacking_is_named_once_and_only_as_a_requirement() {
    let tail = "ERROR: Could not find a version that satisfies the requirement hatchling>=1.18 (from versions: none)\n\
                ERROR: No matching distribution found for hatchling>=1.18\n\
                Error: Couldn't find a distribution for 'lxml==5.3.1'.\n\
                ERROR: No matching distribution found for --index-url=http://evil\n\
                ERROR: No matching distribution found for ../evil\n";
    assert_eq!(lacking(&lines(tail)), ["hatchling>=1.18", "lxml==5.3.1"]);
}

/// What uv proves, each with the requirement that it lacks.
const UV: [(&str, &str); 8] = [
    (
        "error: No solution found when resolving dependencies
  cause: Because docopt was not found in the cache and you require docopt==0.6.2, we can conclude that your requirements are unsatisfiable.

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may only be read from the cache.",
        "docopt==0.6.2",
    ),
    (
        "error: No solution found when resolving dependencies
  cause: Because there is no version of tabulate==0.9.0 and you require tabulate==0.9.0, we can conclude that your requirements are unsatisfiable.",
        "tabulate==0.9.0",
    ),
    (
        "Resolved 1 package in 6ms
   Building boskel @ file:///srv/boskel
error: Failed to build `boskel @ file:///srv/boskel`
  cause: Failed to resolve requirements from `build-system.requires`
  cause: No solution found when resolving: `hatchling==1.27.0`
  cause: Because pathspec was not found in the cache and all versions of hatchling depend on pathspec>=0.10.1, we can conclude that all versions of hatchling cannot be used.
         And because you require hatchling==1.27.0, we can conclude that your requirements are unsatisfiable.

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may only be read from the cache.",
        "pathspec>=0.10.1",
    ),
    (
        "error: Failed to download and build `docopt==0.6.2`
  cause: Failed to resolve requirements from `setup.py` build
  cause: No solution found when resolving: `setuptools>=40.8.0`
  cause: Because setuptools was not found in the cache and you require setuptools>=40.8.0, we can conclude that your requirements are unsatisfiable.",
        "setuptools>=40.8.0",
    ),
    (
        "error: No solution found when resolving dependencies
  cause: Because only hatchling==1.27.0 is available and you require hatchling>=1.28,<2, we can conclude that your requirements are unsatisfiable.",
        "hatchling>=1.28,<2",
    ),
    (
        "  × No solution found when resolving dependencies:
  ╰─▶ Because tabulate was not found in the cache and you require
      tabulate==0.9.0, we can conclude that your requirements are
      unsatisfiable.

      hint: Packages were unavailable because the network was disabled. When
      the network is disabled, registry packages may only be read from the
      cache.",
        "tabulate==0.9.0",
    ),
    (
        "  × Failed to build `boskel @ file:///srv/boskel`
  ├─▶ Failed to resolve requirements from `build-system.requires`
  ├─▶ No solution found when resolving: `hatchling==1.27.0`
  ╰─▶ Because pathspec was not found in the cache and hatchling==1.27.0
      depends on pathspec>=0.10.1, we can conclude that hatchling==1.27.0
      cannot be used.
      And because you require hatchling==1.27.0, we can conclude that your
      requirements are unsatisfiable.",
        "pathspec>=0.10.1",
    ),
    (
        "  × No solution found when resolving dependencies:
  ╰─▶ Because only hatchling==1.27.0 is available and you require
      hatchling>=2, we can conclude that your requirements are unsatisfiable.",
        "hatchling>=2",
    ),
];

#[test]
fn what_uv_lacks_is_named_as_a_requirement() {
    for (text, wanted) in UV {
        assert_eq!(lacking(&lines(text)), [wanted], "{text}");
        assert_eq!(lack(&lines(text)), Some(Lack::Python(wanted.to_owned())));
        assert_eq!(hint(text), MISSING.replace("{}", &format!("`{wanted}`")));
    }
    let of_index = "error: No solution found when resolving dependencies
  cause: Because tabulate was not found in the package registry and you require tabulate==0.9.0, we can conclude that your requirements are unsatisfiable.";
    assert!(explain(&lines(of_index), true).unwrap().starts_with("the package index has no `tabulate==0.9.0`: "));
    // Two that do not go together: nothing is lacking.
    let conflict = "error: No solution found when resolving dependencies
  cause: Because you require tabulate==0.9.0 and tabulate==0.8.10, we can conclude that your requirements are unsatisfiable.";
    assert_eq!(lack(&lines(conflict)), None);
    assert!(hint(conflict).contains("its own words above say why"));
}

#[test]
fn a_wheel_that_uv_cannot_use_is_not_told_as_missing() {
    let platform = "error: No solution found when resolving dependencies
  cause: Because tabulate==0.9.0 has no wheels with a matching Python implementation tag (e.g., `cp311`) and you require tabulate==0.9.0, we can conclude that your requirements are unsatisfiable.

hint: You require CPython 3.11 (`cp311`), but we only found wheels for `tabulate` (v0.9.0) with the following Python implementation tag: `cp27`";
    let drawn = "  × No solution found when resolving dependencies:
  ╰─▶ Because tabulate==0.9.0 has no wheels with a matching Python
      implementation tag (e.g., `cp311`) and you require tabulate==0.9.0, we
      can conclude that your requirements are unsatisfiable.";
    for text in [platform, drawn] {
        assert_eq!(hint(text), format!("`tabulate==0.9.0` is in the cache for another Python or platform only{AGAIN}"));
        assert_eq!(lacking(&lines(text)), [""; 0]);
    }
    let hash = "Resolved 2 packages in 42ms
error: Failed to download `docopt==0.6.2`
  cause: Hash mismatch for `docopt==0.6.2`

         Expected:
           sha256:49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8d08c85c491

         Computed:
           sha256:3811d6d60041c0ced04084ba2c64a000a55e733d343a1e8c10a9796dea1618b4";
    assert_eq!(hint(hash), format!("`docopt==0.6.2` in the cache is not the file that uv.lock names{AGAIN}"));
}

#[test]
fn a_cache_that_was_not_filled_for_the_revision_is_told_as_that() {
    let uv = "error: Failed to read `--find-links` directory: /srv/boskel/releases/20261123T061200-a1b2c3d/downloads/dist
  cause: No such file or directory (os error 2)";
    let cargo = "error: failed to get `itoa` as a dependency of package `boskel v1.0.0 (/srv/boskel)`

Caused by:
  failed to load source for dependency `itoa`

Caused by:
  unable to update registry `crates-io`

Caused by:
  failed to update replaced source registry `crates-io`

Caused by:
  failed to read root of directory source: /srv/cache/cargo/9b7b11225fa0c1d2

Caused by:
  No such file or directory (os error 2)";
    let npm = "cp: cannot stat '/srv/cache/npm/9b7b11225fa0c1d2': No such file or directory";
    let busybox = "cp: can't stat '/srv/cache/npm/9b7b11225fa0c1d2': No such file or directory";
    for text in [uv, cargo, npm, busybox, &npm.replacen('\'', "\u{2018}", 1).replace('\'', "\u{2019}")] {
        assert_eq!(lack(&lines(text)), Some(Lack::Set), "{text}");
        assert_eq!(hint(text), format!("the shared download cache has nothing for this revision{AGAIN}"));
    }
    for text in
        ["cp: cannot stat 'src/npm/index.js': No such file or directory", "cp: cannot stat '/srv/npm/9b7b': No such file or directory"]
    {
        assert_eq!(explain(&lines(text), false), None, "{text}");
    }
}

#[test]
fn what_npms_cache_lacks_is_named_by_its_address() {
    let text = "npm error code ENOTCACHED
npm error request to https://registry.example.net/left-pad failed: cache mode is 'only-if-cached' but no cached response is available.
npm error A complete log of this run can be found in: /srv/boskel/.deployer/tmp/npm/_logs/2026-11-24T18_13_10_697Z-debug-0.log";
    assert_eq!(hint(text), format!("`left-pad` is not in npm's cache{AGAIN}"));
    let url = "https://registry.example.net/left-pad".to_owned();
    assert_eq!(lack(&lines(text)), Some(Lack::Npm { package: "left-pad".to_owned(), url }));
    for (path, package) in [
        ("@types%2fms", "@types/ms"),
        ("npm/left-pad", "left-pad"),
        ("left-pad/-/left-pad-1.3.0.tgz", "left-pad@1.3.0"),
        ("repository/npm/@types/ms/-/ms-0.7.34.tgz", "@types/ms@0.7.34"),
    ] {
        assert_eq!(hint(&text.replace("left-pad", path)), format!("`{package}` is not in npm's cache{AGAIN}"));
    }
    let part = "npm error code ENOENT
npm error syscall stat
npm error errno ENOENT
npm error enoent Invalid response body while trying to fetch https://registry.example.net/@types%2fms: ENOENT: no such file or directory, stat '/srv/boskel/.deployer/tmp/npm/_cacache/content-v2/sha512/8d/ba/8fd9'
npm error enoent This is related to npm not being able to find a file.
npm error enoent";
    let damaged = "npm error code EINTEGRITY
npm error errno EINTEGRITY
npm error Invalid response body while trying to fetch https://registry.example.net/@types%2fms: sha512-dKYGPOIAegR integrity checksum failed when using sha512: wanted sha512-dKYGPOIAegR but got sha512-RYQ2SOz52o5RMobx. (2 bytes)";
    for text in [part, damaged] {
        assert_eq!(hint(text), format!("`@types/ms` is damaged in npm's cache{AGAIN}"));
    }
}

#[test]
fn what_the_vendored_crates_lack_is_named_and_what_is_wrong_with_them() {
    let missing = "error: no matching package named `itoa` found
location searched: directory source `/srv/cache/cargo/9b7b11225fa0c1d2` (which is replacing registry `crates-io`)
required by package `boskel v1.0.0 (/srv/boskel)`
As a reminder, you're using offline mode (--frozen) which can sometimes cause surprising resolution failures, if this error is too confusing you may wish to retry without `--frozen`.";
    assert_eq!(hint(missing), format!("`itoa` is not in the vendored crates{AGAIN}"));
    assert!(explain(&lines(missing), true).unwrap().starts_with("the package index has no `itoa`: "));
    let other = "error: failed to select a version for the requirement `itoa = \"=1.0.11\"` (locked to 1.0.11)
candidate versions found which didn't match: 1.0.10
location searched: directory source `/srv/cache/cargo/9b7b11225fa0c1d2` (which is replacing registry `crates-io`)
required by package `boskel v1.0.0 (/srv/boskel)`
perhaps a crate was updated and forgotten to be re-vendored?";
    assert_eq!(hint(other), format!("`itoa 1.0.11` is not in the vendored crates{AGAIN}"));
    assert_eq!(hint(&other.replace(" (locked to 1.0.11)", "")), format!("`itoa = \"=1.0.11\"` is not in the vendored crates{AGAIN}"));
    let changed = "error: the listed checksum of `/srv/cache/cargo/9b7b11225fa0c1d2/itoa-1.0.11/src/lib.rs` has changed:
expected: 22f02b06399d4c6849dac5a1b517d3e5736dd33edc3955101ee0be6afc8376eb
actual:   5742f76cd30eeb9ca30df1261a12ed488a88126016e39f23d3f60013a59420c0

directory sources are not intended to be edited, if modifications are required then it is recommended that `[patch]` is used with a forked copy of the source";
    assert_eq!(hint(changed), format!("`/srv/cache/cargo/9b7b11225fa0c1d2/itoa-1.0.11/src/lib.rs` is not as it was vendored{AGAIN}"));
    let checksum = "error: checksum for `itoa v1.0.11` changed between lock files

this could be indicative of a few possible errors:

    * the lock file is corrupt
    * a replacement source in use (e.g., a mirror) returned a different checksum
    * the source itself may be corrupt in one way or another

unable to verify that `itoa v1.0.11` is the same as when the lockfile was generated";
    assert_eq!(hint(checksum), format!("the vendored `itoa v1.0.11` is not the one that Cargo.lock names{AGAIN}"));
    let unreadable = "error: failed to get `itoa` as a dependency of package `boskel v1.0.0 (/srv/boskel)`

Caused by:
  failed to load checksum `.cargo-checksum.json` of itoa v1.0.11

Caused by:
  No such file or directory (os error 2)";
    assert_eq!(hint(unreadable), format!("`itoa` cannot be read from the vendored crates{AGAIN}"));
    let lock = "error: cannot create the lock file /srv/boskel/Cargo.lock because --frozen was passed to prevent this
help: to generate the lock file without accessing the network, remove the --frozen flag and use --offline instead.";
    assert_eq!(hint(lock), "commit the Cargo.lock that goes with Cargo.toml: the build does not write it");
    assert_eq!(lack(&lines(lock)), None);
}
