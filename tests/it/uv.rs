//! uv with a cache: what its fill gets through the package index of this machine, and for which Python.

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

/// A wheel that serves the interpreter which makes it, and no other: its name says so.
const PARTICULAR: &str = "import sys, sysconfig, zipfile
tag = 'cp%d%d' % sys.version_info[:2]
name = f'outer-1-{tag}-{tag}-{sysconfig.get_platform().replace(\"-\", \"_\")}.whl'
with zipfile.ZipFile(sys.argv[1] + '/' + name, 'w') as made:
    made.writestr('outer.py', 'x = 1\\n')
    made.writestr('outer-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: outer\\nVersion: 1\\n')
    made.writestr('outer-1.dist-info/WHEEL', f'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: false\\nTag: {tag}-{tag}-linux\\n')
    made.writestr('outer-1.dist-info/RECORD', 'outer.py,,\\nouter-1.dist-info/METADATA,,\\nouter-1.dist-info/WHEEL,,\\nouter-1.dist-info/RECORD,,\\n')
print(name)
";

/// The first Python in `PATH`: an older one, as far as hosts can tell, and of no use for environments.
const OLDER: &str = "case \"$*\" in\n-m*) exit 1 ;;\n*cache_tag*) echo cpython-39 x ;;\n*) exec \"$REAL\" \"$@\" ;;\nesac\n";

#[test]
fn a_project_whose_uv_is_told_of_another_python_than_the_first_is_filled_for_that_one_and_built_with_it() {
    let Some(uv) = tools::uv() else { return };
    let upstream = Upstream::start();
    let world = World::new().local_hosts(&["app1"]).own_caches().patient();
    let Ok(python) = world.sandbox.tools().python else { return skip("there is no usable python") };
    fs::create_dir(world.cache("app1")).unwrap();
    let made = tool(&world, &python, &["-I", "-c", PARTICULAR, world.path("srv").to_str().unwrap()], &[]);
    assert!(made.status.success(), "{made:?}");
    let file = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let bytes = fs::read(world.path("srv").join(&file)).unwrap();
    let page = format!("<!DOCTYPE html><html><body><a href=\"../../files/{file}#sha256={}\">{file}</a></body></html>", sha256(&bytes));
    upstream.has("/simple/outer/", "text/html", page);
    upstream.has(&format!("/files/{file}"), "", bytes);
    world.program("python3", OLDER);
    let config = |chosen: &str| {
        format!(
            "[defaults.cache]\npath = \"/nonexistent\"\n[defaults.build]\nrecipe = \"uv\"\n\
             env = {{ PATH = \"{}\", REAL = \"{}\"{chosen} }}\n[index.pypi]\nurl = \"{}/simple/\"\n",
            tools::path(&[&world.path("bin"), &uv]),
            python.display(),
            upstream.url
        )
    };
    let (none, one) = (config(""), config(&format!(", UV_PYTHON = \"{}\"", python.display())));
    let mut world = world.config(&one);
    let directory = world.repository.directory.clone();
    let project = "[project]\nname = \"boskel\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"outer\"]\n";
    fs::write(directory.join("pyproject.toml"), project).unwrap();
    let simple = format!("{}/simple/", upstream.url);
    let lock = ["lock", "--quiet", "--no-cache", "--directory", directory.to_str().unwrap()];
    let output = tool(&world, &uv.join("uv"), &lock, &[("UV_DEFAULT_INDEX", &simple), ("UV_PYTHON", python.to_str().unwrap())]);
    assert!(output.status.success(), "{output:?}");
    world.commit(&[(".gitignore", ".venv\n")]);
    let run = world.deployer(["cache", "fill", "--rev", "master"]);
    run.exits(Exit::Ok);
    assert!(run.stderr.contains("1 file") && run.stderr.contains("proven by a build"), "{run}");
    world.deploy("master");
    let output = Command::new(world.current("app1").join(".venv/bin/python")).args(["-I", "-c", "import outer; print(outer.x)"]).output();
    let output = output.unwrap();
    assert_eq!((output.status.success(), output.stdout.as_slice()), (true, &b"1\n"[..]), "{output:?}");
    // The control: where nothing is said, the first is what the file is compared with.
    world.reconfigure(&none);
    let run = world.deployer(["deploy", "--rev", "master", "--force"]);
    run.exits(Exit::BuildFailed);
    assert!(run.stderr.contains(&format!("`{file}` is of no use here: ")) && run.stderr.contains("this host has CPython 3.9"), "{run}");
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
