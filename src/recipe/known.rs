//! The recipes, each one entry: how a project is recognised, what fills its cache, what builds it offline.

use super::{Fill, Recipe};

/// The fill of all that ends in a flat directory of wheels and source distributions.
const PYTHON: &[&str] = &["python3", "-c", include_str!("fill.py"), "{kind}", "{config}", "{out}", "{work}"];
/// What makes pip ask nobody but the cache, in the build and in the environments that it builds packages in.
const PIP: [(&str, &str); 5] = [
    ("PIP_NO_INDEX", "1"),
    ("PIP_FIND_LINKS", "{link}/dist"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_CONFIG_FILE", "/dev/null"),
    ("PIP_NO_CACHE_DIR", "1"),
];
/// What makes every tool ask the package index and nothing else. A file that is not held yet may take the index a while to get.
pub const ONLINE: &[(&str, &str)] = &[
    ("PIP_INDEX_URL", "{index}/pypi/simple/"),
    ("PIP_DEFAULT_TIMEOUT", "300"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_CONFIG_FILE", "/dev/null"),
    ("PIP_NO_CACHE_DIR", "1"),
    ("UV_DEFAULT_INDEX", "{index}/pypi/simple/"),
    ("UV_HTTP_TIMEOUT", "300"),
    ("UV_CACHE_DIR", "{scratch}/uv"),
    ("UV_PYTHON_DOWNLOADS", "never"),
    ("UV_NO_CONFIG", "1"),
    ("npm_config_registry", "{index}/npm/"),
    ("npm_config_replace_registry_host", "always"),
    ("npm_config_cache", "{scratch}/npm"),
    ("npm_config_audit", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_update_notifier", "false"),
    ("CARGO_HOME", "{scratch}/cargo"),
    ("CARGO_HTTP_TIMEOUT", "300"),
];
const PYTHON_PROJECT: [&str; 3] = ["pyproject.toml", "setup.py", "setup.cfg"];

const PIP_BUILD: &str = "python3 -m venv venv\nexec venv/bin/python -m pip install -r \"$1\"";

/// What a lock names that is published for other platforms too is left out by its markers; the project itself comes last, and alone.
/// `UV_PYTHON` says what the environment is made of, and would then say where to install, instead of there.
const UV_BUILD: &str = "requirements=$DEPLOYER_SCRATCH/requirements.txt
uv export --frozen --quiet --no-emit-project --format requirements-txt --output-file \"$requirements\"
uv venv --quiet .venv
unset UV_PYTHON
export VIRTUAL_ENV=.venv
uv pip install --require-hashes -r \"$requirements\"
if grep -q '^ *\\[build-system\\]' pyproject.toml; then uv pip install --no-deps .; fi";

/// npm writes to its cache, so the build gets a copy of its own.
const NPM_BUILD: &str = "cp -R \"$DEPLOYER_CACHE\" \"$DEPLOYER_SCRATCH/npm\"
npm ci --offline --no-audit --no-fund
exec npm run build --if-present";

const NPM_FILL: &str = "npm ci --cache \"$1\" --ignore-scripts --no-audit --no-fund
rm -rf \"$1/_cacache/tmp\" \"$1/_logs\" \"$1\"/_update-notifier-last-checked";

/// Every lock file of tools that have no recipe of their own.
const LOCKS: &[&str] = &[
    "Gemfile.lock",
    "poetry.lock",
    "pnpm-lock.yaml",
    "yarn.lock",
    "composer.lock",
    "go.sum",
    "mix.lock",
    "uv.lock",
    "package-lock.json",
    "Cargo.lock",
    "requirements*.txt",
    "buildout.cfg",
    "versions.cfg",
];

/// What `deployer` knows how to build, in the order in which a tree is tried.
pub static ALL: [Recipe; 6] = [
    Recipe {
        name: "buildout",
        signs: &["buildout.cfg"],
        // Never `-o`: with `install-from-cache` buildout refuses it, and without it nothing is installed.
        command: &["{venv}/bin/buildout", "-c", "{config}"],
        // buildout's own `install-from-cache` does not stop pip, which it runs for build requirements.
        runs: None,
        env: &PIP,
        // What is said here wins over the config, be it `offline.cfg` or the project's own.
        online: &[
            "{venv}/bin/buildout",
            "-c",
            "{config}",
            "buildout:index={index}/pypi/simple/",
            "buildout:allow-hosts={index-host}",
            "buildout:install-from-cache=false",
            "buildout:download-cache=",
            "buildout:socket-timeout=300",
        ],
        cache: false,
        venv: true,
        config: Some("offline.cfg"),
        fill: Fill {
            command: PYTHON,
            online: &[],
            inputs: &["*.cfg", "pyproject.toml", "setup.py"],
            place: "dist",
            portable: false,
            mixes: true,
            again: true,
            others: true,
        },
    },
    Recipe {
        name: "uv",
        signs: &["uv.lock"],
        command: &["sh", "-eu", "-c", UV_BUILD],
        runs: Some("uv venv, uv pip install --require-hashes"),
        env: &[
            ("UV_OFFLINE", "1"),
            ("UV_NO_INDEX", "1"),
            ("UV_FIND_LINKS", "{link}/dist"),
            ("UV_CACHE_DIR", "{scratch}/uv"),
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_NO_CONFIG", "1"),
        ],
        online: &[],
        cache: true,
        venv: false,
        config: None,
        fill: Fill {
            command: PYTHON,
            online: &[],
            inputs: &["uv.lock", "pyproject.toml", ".python-version"],
            place: "dist",
            portable: false,
            mixes: true,
            again: true,
            others: true,
        },
    },
    Recipe {
        name: "pip",
        signs: &["requirements*.txt"],
        command: &["sh", "-eu", "-c", PIP_BUILD, "pip", "{config}"],
        runs: Some("python3 -m venv, pip install -r {config}"),
        env: &PIP,
        online: &[],
        cache: true,
        venv: false,
        config: Some("requirements.txt"),
        fill: Fill {
            command: PYTHON,
            online: &[],
            inputs: &["requirements*.txt", "constraints*.txt", "requirements/*", PYTHON_PROJECT[0], PYTHON_PROJECT[1], PYTHON_PROJECT[2]],
            place: "dist",
            portable: false,
            mixes: true,
            again: true,
            others: true,
        },
    },
    Recipe {
        name: "npm",
        signs: &["package-lock.json"],
        command: &["sh", "-eu", "-c", NPM_BUILD],
        runs: Some("npm ci, npm run build"),
        env: &[("npm_config_cache", "{scratch}/npm"), ("npm_config_offline", "true"), ("npm_config_update_notifier", "false")],
        online: &["sh", "-eu", "-c", "npm ci\nexec npm run build --if-present"],
        cache: true,
        venv: false,
        config: None,
        fill: Fill {
            command: &["sh", "-eu", "-c", NPM_FILL, "npm", "{out}"],
            online: &[],
            inputs: &["package-lock.json", "package.json", ".npmrc"],
            place: "npm/{set}",
            portable: false,
            mixes: true,
            again: false,
            others: false,
        },
    },
    Recipe {
        name: "cargo",
        signs: &["Cargo.lock"],
        command: &[
            "cargo",
            "build",
            "--release",
            "--frozen",
            "--config",
            "source.crates-io.replace-with=\"deployer\"",
            "--config",
            "source.deployer.directory=\"{cache}\"",
        ],
        runs: None,
        env: &[("CARGO_NET_OFFLINE", "true"), ("CARGO_HOME", "{scratch}/cargo")],
        online: &[
            "cargo",
            "build",
            "--release",
            "--locked",
            "--config",
            "source.crates-io.replace-with=\"deployer\"",
            "--config",
            "source.deployer.registry=\"sparse+{index}/crates/\"",
        ],
        cache: true,
        venv: false,
        config: None,
        fill: Fill {
            command: &["cargo", "vendor", "--locked", "--versioned-dirs", "--quiet", "{out}"],
            // Unless told to respect them, `vendor` reads no replacement of sources.
            online: &[
                "cargo",
                "vendor",
                "--locked",
                "--versioned-dirs",
                "--quiet",
                "--respect-source-config",
                "--config",
                "source.crates-io.replace-with=\"deployer\"",
                "--config",
                "source.deployer.registry=\"sparse+{index}/crates/\"",
                "{out}",
            ],
            inputs: &["Cargo.lock"],
            place: "cargo/{set}",
            portable: true,
            mixes: false,
            again: false,
            others: false,
        },
    },
    Recipe {
        name: "command",
        signs: &[],
        command: &[],
        runs: None,
        env: &[],
        online: &[],
        cache: false,
        venv: false,
        config: None,
        fill: Fill {
            command: &[],
            online: &[],
            inputs: LOCKS,
            place: "sets/{set}",
            portable: false,
            mixes: false,
            again: false,
            others: false,
        },
    },
];
