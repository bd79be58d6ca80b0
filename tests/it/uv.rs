//! uv with a cache: what its fill gets through the package index of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deployer::exit::Exit;
use deployer::sandbox::skip;

use crate::harness::{World, snapshot};
use crate::index::{publish_wheels, tool, wheel};
use crate::tools;
use crate::upstream::{Upstream, sha256};

/// A back end that lies in the tree, and itself needs a package.
const BACK_END: &str = "import zipfile, maker
def build_wheel(directory, config=None, metadata=None):
    name = 'boskel-1-py3-none-any.whl'
    with zipfile.ZipFile(directory + '/' + name, 'w') as made:
        made.writestr('boskel.py', open('boskel.py').read())
        made.writestr('boskel-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: boskel\\nVersion: 1\\n')
        made.writestr('boskel-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        made.writestr('boskel-1.dist-info/RECORD', 'boskel.py,,\\nboskel-1.dist-info/METADATA,,\\nboskel-1.dist-info/WHEEL,,\\nboskel-1.dist-info/RECORD,,\\n')
    return name
";

const PROJECT: &str = "[project]\nname = \"boskel\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"outer\"]\n\
                       [build-system]\nrequires = [\"maker\"]\nbuild-backend = \"back_end\"\nbackend-path = [\".\"]\n";

#[test]
fn uv_fills_through_the_index_what_the_lock_names_and_what_its_back_end_needs() {
    let Some(uv) = tools::uv() else { return };
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    fs::create_dir(world.cache("app1")).unwrap();
    let wheels = [("outer", "inner"), ("inner", ""), ("maker", ""), ("other", "")]
        .map(|(name, requires)| (name, wheel(&python, &world.path("srv"), name, requires)));
    publish_wheels(&upstream, &wheels);
    let path = tools::path(&[&uv, python.parent().unwrap()]);
    let world = world.config(&format!(
        "[defaults.cache]\npath = \"/nonexistent\"\nenv = {{ HTTPS_PROXY = \"http://127.0.0.1:9\" }}\n\
         [defaults.build]\nrecipe = \"uv\"\nenv = {{ PATH = \"{path}\" }}\n[index.pypi]\nurl = \"{}/simple/\"\n",
        upstream.url
    ));
    let directory = world.repository.directory.clone();
    fs::write(directory.join("pyproject.toml"), PROJECT).unwrap();
    let simple = format!("{}/simple/", upstream.url);
    let lock = ["lock", "--quiet", "--no-cache", "--directory", directory.to_str().unwrap()];
    let output = tool(&world, &uv.join("uv"), &lock, &[("UV_DEFAULT_INDEX", &simple), ("UV_PYTHON", python.to_str().unwrap())]);
    assert!(output.status.success(), "{output:?}");
    world.commit(&[("boskel.py", "import outer, inner\nprint(outer.x + inner.x)\n"), ("back_end.py", BACK_END), (".gitignore", ".venv\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("3 files") && run.stderr.contains("proven by a build"), "{run}");
    let file = |(name, bytes): &(&str, Vec<u8>)| (format!("{name}-1-py3-none-any.whl"), sha256(bytes));
    let needed: BTreeMap<String, String> = wheels.iter().filter(|(name, _)| *name != "other").map(file).collect();
    assert_eq!(contents(&world.cache("app1").join("dist")), needed);
    // All of it came through the index, though the lock names another way.
    assert_eq!(contents(&kept(&world)), needed);

    // A build needs nothing else.
    upstream.is_down(true);
    world.deploy("master");
    let output = Command::new(world.current("app1").join(".venv/bin/python")).args(["-I", "-m", "boskel"]).output().unwrap();
    assert_eq!((output.status.success(), String::from_utf8(output.stdout).unwrap().as_str()), (true, "2\n"));
}

/// Where the index keeps the files of Python packages.
fn kept(world: &World) -> PathBuf {
    let mut places = fs::read_dir(world.path("cache/deployer/index")).unwrap().map(|entry| entry.unwrap().path());
    places.find(|place| place.file_name().unwrap().to_str().unwrap().starts_with("pypi")).unwrap().join("files")
}

/// The files below a directory by their names, each as its digest.
fn contents(directory: &Path) -> BTreeMap<String, String> {
    let files = snapshot(directory).into_keys().filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), sha256(&fs::read(&path).unwrap()))).collect()
}
