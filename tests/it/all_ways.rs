//! A project comes to its hosts in every way: fed from the shared cache or through the package index, built on each host or once for all,
//! by the real tools and without any network but the index. What cannot be built changes nothing that is live.
//!
//! Here are the ways, and `boskel`, a buildout, at several revisions; projects of the other recipes are in `recipes`.
//!
//! Tests start in the order of their names, and these are the longest: what starts last is waited for by processors with nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deployer::exit::Exit;
use deployer::sandbox::Sample;

use crate::harness::{World, snapshot};
use crate::once::tree;
use crate::tools;
use crate::whole::assert_settled;

const HOSTS: [&str; 2] = ["app1", "app2"];

/// Where a build finds its packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Cache,
    Index,
}

/// A project on two hosts that are alike, and how it is built there.
pub struct Project {
    pub world: World,
    way: Way,
    /// The keys of `build`, without those that say where and from what.
    build: String,
}

impl Project {
    pub fn new(way: Way, build: &str) -> Option<Self> {
        let world = World::new().alike_hosts(&HOSTS)?.patient();
        if way == Way::Cache {
            for host in HOSTS {
                fs::create_dir(cache(&world, host)).unwrap();
            }
        }
        let mut project = Self { world, way, build: build.to_owned() };
        project.builds_on("first");
        Some(project)
    }

    fn builds_on(&mut self, on: &str) {
        let from = match self.way {
            Way::Cache => "rev = \"master\"\n[defaults.cache]\npath = \"<tmp>/site/cache\"\nnetwork = \"host\"\n[defaults.build]",
            Way::Index => "[defaults.build]\nnetwork = \"index\"",
        };
        self.world.reconfigure(&format!("{from}\non = \"{on}\"\n{}\n", self.build));
    }

    /// Fills the cache for `master`, where there is one, with all that its build needs.
    pub fn is_filled(&self) {
        if self.way == Way::Cache {
            let filled = self.world.deployer(["cache", "fill", "--rev", "master"]);
            filled.ok();
            assert!(filled.stderr.contains("proven by a build"), "{filled}");
        }
    }

    pub fn cache(&self, host: &str) -> PathBuf {
        cache(&self.world, host)
    }

    /// What the cache of a host holds.
    fn supplies(&self, host: &str) -> BTreeMap<PathBuf, String> {
        let cache = self.cache(host);
        // What the helper remembers of it is none of that.
        snapshot(&cache).into_iter().filter(|(path, _)| *path != cache && !path.starts_with(cache.join(".deployer"))).collect()
    }

    /// Brings `master` to both hosts, built by one of them, and then to the first alone, which builds it again for itself. `program` is
    /// run on each, without a network, and must say what `said` expects.
    pub fn builds_once_and_then_on_the_host(&mut self, program: &str, said: &str) {
        self.builds_on("first");
        self.builds(&["deploy", "--rev", "master", "-v"]);
        self.is_the_same_on_both(program, said);

        let before = self.world.live("app1");
        self.builds_on("host");
        self.builds(&["deploy", "--rev", "master", "--force", "-H", "app1", "-v"]);
        assert_ne!(self.world.live("app1"), before);
        self.says("app1", program, said);
        self.holds_no_way_to_the_index();
    }

    /// Brings `master` to the first host, which builds it for itself, and then to the other, which gets what is built already.
    pub fn builds_on_the_host_and_gives_that(&mut self, program: &str, said: &str) {
        self.builds_on("host");
        self.builds(&["deploy", "--rev", "master", "-H", "app1", "-v"]);
        self.says("app1", program, said);
        self.holds_no_way_to_the_index();

        self.builds_on("first");
        let run = self.world.deployer(["deploy", "--rev", "master"]);
        run.ok();
        assert!(run.stderr.contains("capture  1/1") && !run.stderr.contains("build  "), "{run}");
        self.is_the_same_on_both(program, said);
    }

    fn is_the_same_on_both(&self, program: &str, said: &str) {
        let (first, second) = (tree(&self.world, "app1"), tree(&self.world, "app2"));
        // What a build lets everybody write (uv's lock file) arrives as what its owner writes.
        let differing = |(path, what): &(&PathBuf, &String)| second.get(*path) != Some(&what.replace("100666 ", "100644 "));
        assert_eq!(first.iter().filter(differing).collect::<Vec<_>>(), []);
        assert_eq!(first.len(), second.len());
        for host in HOSTS {
            self.says(host, program, said);
        }
        assert_settled(&self.world, &HOSTS);
    }

    /// A build has no network, or one in which there is nothing but the index, and writes to no cache.
    pub fn builds(&self, arguments: &[&str]) {
        let before = self.supplies("app1");
        let run = self.world.deployer(arguments);
        run.exits(Exit::Ok);
        assert_eq!(self.supplies("app1"), before);
        let told = match self.way {
            Way::Cache => "the build had no network: it ran in a namespace without any",
            Way::Index => "the build reached the package index and nothing else: it ran in a namespace without any network",
        };
        assert!(run.stderr.contains(told), "{run}");
    }

    fn says(&self, host: &str, program: &str, said: &str) {
        let program = format!("unshare --map-root-user --net env PYTHONDONTWRITEBYTECODE=1 \"$DEPLOYER_CURRENT\"/{program}");
        let run = self.world.deployer(["run", "-H", host, "--raw", "--", &program]);
        assert_eq!((run.status, run.stdout.as_str()), (0, said), "{run}");
    }

    /// The index is there only while a build runs, so nothing in the release may lead to it.
    fn holds_no_way_to_the_index(&self) {
        if self.way == Way::Cache {
            return;
        }
        let release = fs::canonicalize(self.world.current("app1")).unwrap();
        // buildout writes down what it was told, the way that is gone included.
        for path in files(&release).iter().filter(|path| !path.ends_with(".installed.cfg")) {
            let content = fs::read(path).unwrap();
            assert!(!names_the_index(&content), "{} names the index", path.display());
        }
    }

    /// Deploys what cannot be built, once for all and on the host, and sees each time that both hosts serve what they served.
    pub fn fails(&mut self, evidence: &[&str]) {
        let live = HOSTS.map(|host| self.world.live(host));
        for (on, hosts) in [("first", &[][..]), ("host", &["-H", "app1"])] {
            self.builds_on(on);
            let run = self.world.deployer(["deploy", "--rev", "master"].iter().chain(hosts));
            run.exits(Exit::BuildFailed);
            for text in evidence.iter().chain(&["Nothing was activated"]) {
                assert!(run.stderr.contains(text), "{on}, {text}\n{run}");
            }
            assert_eq!(HOSTS.map(|host| self.world.live(host)), live, "{on}");
        }
        assert_settled(&self.world, &HOSTS);
    }
}

fn cache(world: &World, host: &str) -> PathBuf {
    world.root(host).parent().unwrap().join("cache")
}

/// Looks for an address of this machine with a port and a token behind it.
fn names_the_index(content: &[u8]) -> bool {
    const START: &[u8] = b"127.0.0.1:";
    content.windows(START.len()).enumerate().filter(|(_, bytes)| *bytes == START).any(|(at, _)| {
        let rest = &content[at + START.len()..];
        let port = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let token = rest[port..].iter().skip(1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        port > 0 && token >= 32
    })
}

#[test]
fn an_address_of_the_index_is_seen_among_other_bytes() {
    let token = "0123456789abcdef0123456789abcdef";
    assert!(names_the_index(format!("\0http://127.0.0.1:40123/{token}/pypi/simple/\n").as_bytes()));
    assert!(!names_the_index(b"http://127.0.0.1:8080/simple/ and 127.0.0.1:"));
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}

const ANSWER_C: &str = r#"
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_answer", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__answer(void) {
    PyObject *made = PyModule_Create(&module);
    if (made) PyModule_AddIntConstant(made, "answer", 42);
    return made;
}
"#;

/// The sample project, from which every revision starts.
struct Boskel(BTreeMap<&'static str, String>);

impl Boskel {
    fn sample(world: &mut World) -> Self {
        fs::remove_dir_all(&world.repository.directory).unwrap();
        world.repository = world.sandbox.repository(Sample::Buildout).unwrap();
        let directory = &world.repository.directory;
        fs::write(directory.join(".git/info/exclude"), "deploy.toml\n").unwrap();
        let names = ["buildout.cfg", "setup.py", "src/boskel/__init__.py"];
        Self(names.map(|name| (name, fs::read_to_string(directory.join(name)).unwrap())).into())
    }

    /// Commits the sample with some texts replaced, each of which must be there, and with more files.
    fn commit(&self, world: &World, replaced: &[(&'static str, &str, &str)], more: &[(&str, &str)]) {
        let mut files = self.0.clone();
        for (name, from, to) in replaced {
            let text = files.get_mut(name).unwrap();
            assert!(text.contains(from), "{name} has no `{from}`");
            *text = text.replace(from, to);
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).chain(more.iter().copied()).collect();
        world.commit(&files);
    }
}

/// The sample at six revisions: four that build, whose program says what they are made of, and two that do not.
fn boskel(way: Way, venv: &str) {
    if !tools::has_python_index() {
        return;
    }
    let Some(mut project) = Project::new(way, &format!("recipe = \"buildout\"\nvenv = \"{venv}\"")) else { return };
    let boskel = Boskel::sample(&mut project.world);
    project.builds_on("first");
    let (requires, main) = ("install_requires=[\"tabulate\"]", "src/boskel/__init__.py");
    let (tabulate, two) = ("tabulate = 0.9.0\n", "tabulate = 0.9.0\ndocopt = 0.6.2\n");
    let needs_two = [("setup.py", requires, "install_requires=[\"tabulate\", \"docopt\"]"), ("buildout.cfg", tabulate, two)];
    let back_end = ("pyproject.toml", "[build-system]\nrequires = [\"setuptools==75.8.2\"]\nbuild-backend = \"setuptools.build_meta\"\n");
    match way {
        // One cache for all of them, which is what hosts have: it is filled for a revision that needs what each of the others does.
        Way::Cache => {
            boskel.commit(&project.world, &needs_two, &[back_end]);
            project.is_filled();
            project.world.deployer(["setup"]).ok();
            fs::remove_file(project.world.repository.directory.join(back_end.0)).unwrap();
        }
        Way::Index => {
            let cache = project.world.sandbox.download_cache(Sample::Buildout).unwrap();
            project.world.sandbox.venv(&cache).unwrap();
        }
    }
    let no_dependency = "def main():\n    print('alone')\n";
    boskel.commit(&project.world, &[("setup.py", requires, "install_requires=[]")], &[(main, no_dependency)]);
    project.builds_once_and_then_on_the_host("bin/boskel", "alone\n");

    // Wheels, and a source distribution that the host makes a wheel of.
    let says_two = "import tabulate, docopt\ndef main():\n    print(tabulate.__version__, docopt.__version__)\n";
    boskel.commit(&project.world, &needs_two, &[(main, says_two)]);
    project.builds_on_the_host_and_gives_that("bin/boskel", "0.9.0 0.6.2\n");

    // An extension in C, and a back end of another version than the environment has, which is what builds it.
    let extension = "ext_modules=[Extension(\"boskel._answer\", [\"src/boskel/answer.c\"])],\n    install_requires=[\"tabulate\"]";
    let setup = [("setup.py", requires, extension), ("setup.py", "from setuptools import", "from setuptools import Extension,")];
    let says_answer = "from boskel._answer import answer\ndef main():\n    print(answer)\n";
    boskel.commit(&project.world, &setup, &[(main, says_answer), ("src/boskel/answer.c", ANSWER_C)]);
    project.builds_once_and_then_on_the_host("bin/boskel", "42\n");
    let says_version =
        "import setuptools\nopen(\"src/boskel/made.py\", \"w\").write(\"by = %r\\n\" % setuptools.__version__)\nfrom setuptools import";
    let says_made = "from boskel.made import by\ndef main():\n    print(by)\n";
    boskel.commit(&project.world, &[("setup.py", "from setuptools import", says_version)], &[(main, says_made), back_end]);
    project.builds_on_the_host_and_gives_that("bin/boskel", "75.8.2\n");

    let wanting = [("setup.py", requires, "install_requires=[\"humanize\"]"), ("buildout.cfg", "tabulate = 0.9.0\n", "humanize = 99.0\n")];
    boskel.commit(&project.world, &wanting, &[]);
    let told = match way {
        Way::Cache => ["`humanize==99.0` is not in the shared download cache of app1", "fix  deployer cache fill -e prod"],
        Way::Index => ["Couldn't find a distribution for 'humanize==99.0'", "hint: the package index has no `humanize==99.0`: correct"],
    };
    project.fails(&told);

    let broken = "parts = boskel broken\n";
    let part = "[broken]\nrecipe = zc.recipe.egg\neggs = boskel\nentry-points = nonsense\n\n[versions]\n";
    boskel.commit(&project.world, &[("buildout.cfg", "parts = boskel\n", broken), ("buildout.cfg", "[versions]\n", part)], &[]);
    project.fails(&["Installing broken.", "nonsense"]);
}

#[test]
fn a_buildout_at_six_revisions_is_built_or_refused_from_the_cache() {
    boskel(Way::Cache, "<tmp>/site/venv");
}

#[test]
fn a_buildout_at_six_revisions_is_built_or_refused_through_the_index() {
    boskel(Way::Index, "<tmp>/venv");
}
