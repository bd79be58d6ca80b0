"""Fills a flat cache with all that an offline build of a Python project needs, build requirements included.

What pip and buildout leave out (they fetch build back ends into places of their own) is read from every source distribution and from
the project, until nothing new is named. Run by the fill of the recipes buildout, pip and uv; the last argument on is what a build that
was tried said it lacks.

For hosts of another Python or platform than this one it is run again (`other`), with that kind as JSON and the directory of the first run:
whatever was asked for then is asked for again, as pip resolves it there, and as wheels, since nothing can be built for another kind here.
"""
import configparser, glob, json, os, re, shutil, subprocess, sys, tarfile, urllib.parse, zipfile

KIND, CONFIG, OUT, WORK = sys.argv[1:5]
LACKING = sys.argv[5:]
REQUESTS = os.path.join(WORK, "requests")
VENV = os.path.join(WORK, "venv")
PYTHON = os.path.join(VENV, "bin", "python")
DIST = os.path.join(OUT, "dist")
ARCHIVES = (".tar.gz", ".zip", ".tar.bz2", ".tgz")


# pip as it would resolve there: it takes tags and versions by its options, and markers only from whoever runs it.
ELSEWHERE = """
import json, sys
from pip._vendor.packaging import markers
environment = json.loads(sys.argv.pop(1))
markers.default_environment = lambda: dict(environment)
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(*command, told=None):
    print("$ " + " ".join(told or command), flush=True)
    code = subprocess.call(command, stdin=subprocess.DEVNULL)
    if code:
        sys.exit("%s exited with status %d" % ((told or command)[0], code))


def pip(*arguments):
    run(PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)


def ask(requirements):
    """Remembers what was asked for, for hosts of another kind."""
    with open(REQUESTS, "a") as requests:
        requests.write(json.dumps(requirements) + "\n")


def download(*requirements):
    ask(requirements)
    pip("download", "--quiet", "--dest", DIST, *requirements)


def load(text):
    try:
        import tomllib
    except ImportError:
        from pip._vendor import tomli as tomllib
    return tomllib.loads(text)


def build_requirements(pyproject):
    """What pip installs before it builds: the named ones, or those it assumes."""
    named = load(pyproject).get("build-system", {}).get("requires") if pyproject else None
    return named if named is not None else ["setuptools>=40.8.0", "wheel"]


def pyproject_of(archive):
    """The pyproject.toml of a source distribution, which lies one directory deep."""
    if archive.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if re.fullmatch(r"[^/]+/pyproject\.toml", name)]
            return opened.read(names[0]).decode() if names else None
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isfile() and re.fullmatch(r"(\./)?[^/]+/pyproject\.toml", member.name):
                return opened.extractfile(member).read().decode()
    return None


def whole(path):
    """A truncated or damaged archive is no part of a cache, whoever served it."""
    if path.endswith((".whl", ".zip")):
        with zipfile.ZipFile(path) as opened:
            broken = opened.testzip()
        if broken:
            raise ValueError("`%s` in it is damaged" % broken)
    elif path.endswith(ARCHIVES):
        with tarfile.open(path) as opened:
            for member in opened:
                if member.isfile():
                    content = opened.extractfile(member)
                    while content.read(1 << 20):
                        pass


def sections(path, seen):
    """The options of a buildout config and of the local ones it extends; what extends another wins."""
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False, comment_prefixes=("#", ";"))
    parser.optionxform = str
    found = {}
    if path in seen or not os.path.isfile(path):
        return found
    seen.add(path)
    with open(path, encoding="utf-8") as text:
        # buildout allows options such as `eggs += x` and conditions behind a section's name.
        lines = [re.sub(r"^(\[[^\]:]+):[^\]]*\]", r"\1]", re.sub(r"^(\S+)\s*[+-]=", r"\1 =", line)) for line in text]
    parser.read_string("".join(lines))
    for base in parser.get("buildout", "extends", fallback="").split():
        if "://" not in base:
            for name, options in sections(os.path.join(os.path.dirname(path), base), seen).items():
                found.setdefault(name, {}).update(options)
    for name in parser.sections():
        found.setdefault(name, {}).update(parser.items(name))
    return found


def fill_buildout():
    options = sections(CONFIG, set())
    pins = options.get(options.get("buildout", {}).get("versions", "versions"), {})
    pinned = lambda name: name + "==" + pins[name] if name in pins else name
    download(*[pinned(name) for name in ("zc.buildout", "setuptools", "pip", "wheel")])
    before = set(os.listdir(DIST))
    if not os.path.exists(os.path.join(VENV, "bin", "buildout")):
        # From the cache alone: what `setup` does on a host.
        pip("install", "--quiet", "--no-index", "--find-links", DIST, *[pinned(name) for name in ("zc.buildout", "setuptools", "wheel")])
    index = os.environ.get("PIP_INDEX_URL")
    settings = ["buildout:download-cache=" + OUT, "buildout:install-from-cache=false", "buildout:offline=false"]
    if index:
        settings += ["buildout:index=" + index, "buildout:socket-timeout=300"]
        allowed = options.get("buildout", {}).get("allow-hosts", "").split()
        if allowed:
            settings.append("buildout:allow-hosts=" + "\n".join(allowed + [urllib.parse.urlsplit(index).netloc]))
    run(os.path.join(VENV, "bin", "buildout"), "-c", CONFIG, *settings)
    # buildout resolves for nobody but itself: what it picked is what others get, and its pins bind what they need beyond that.
    picked = [exactly(name) for name in sorted(set(os.listdir(DIST)) - before)]
    constraints = os.path.join(WORK, "pins.txt")
    with open(constraints, "w") as text:
        for name, pin in pins.items():
            if normal(name) not in map(normal, filter(None, picked)) and re.fullmatch(r"[\w.!+-]+", pin):
                text.write(name + "==" + pin + "\n")
    if any(picked):
        ask(["--constraint", constraints] + [name for name in picked if name])


def normal(requirement):
    return re.sub(r"[-_.]+", "-", requirement.split("==")[0]).lower()


def exactly(name):
    """The requirement that a file is for, and no other version."""
    stem = next((name[: -len(end)] for end in ARCHIVES if name.endswith(end)), None)
    parts = stem.rsplit("-", 1) if stem else name.split("-")[:2] if name.endswith(".whl") else []
    return "==".join(parts) if len(parts) == 2 else None


def fill_pip():
    download("-r", CONFIG)


def interpreter():
    """The Python that the build runs with: the first in PATH, unless uv is told of another one."""
    chosen = os.environ.get("UV_PYTHON")
    if KIND != "uv" or not chosen:
        return sys.executable
    return subprocess.check_output(["uv", "python", "find", "--no-project", chosen], text=True).strip()


def fill_uv():
    exported = os.path.join(WORK, "requirements.txt")
    run("uv", "export", "--frozen", "--quiet", "--no-emit-project", "--format", "requirements-txt", "--output-file", exported)
    with open(exported) as text:
        if any(line.strip() and not line.startswith("#") for line in text):
            download("--no-deps", "--require-hashes", "-r", exported)


def project_requirements():
    if os.path.isfile("pyproject.toml"):
        with open("pyproject.toml", encoding="utf-8") as opened:
            text = opened.read()
        # A project that names no back end is no package for uv, and is not built.
        return [] if KIND == "uv" and "build-system" not in load(text) else build_requirements(text)
    return build_requirements(None) if os.path.isfile("setup.py") else []


def fetch_for(other, first):
    """Asks for everything again, for hosts of another kind, and lays it beside what the first run got."""
    version, machine = other["version"], other["machine"]
    minor = ".".join(version.split(".")[:2])
    abi = "cp" + minor.replace(".", "")
    platforms = ["linux_" + machine]
    if other["libc"]:
        name, major, newest = other["libc"]
        platforms += ["%s_%d_%d_%s" % (name, major, least, machine) for least in range(newest, -1, -1)]
        if name == "manylinux":
            platforms += [old + "_" + machine for old, least in (("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)) if least <= newest]
    environment = {
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": version,
        "python_version": minor,
        "sys_platform": "linux",
    }
    flags = ["--only-binary=:all:", "--implementation", "cp", "--python-version", version, "--abi", abi]
    # Once it was another one, and wheels say so.
    flags += ["--abi", abi + "m"] if abi in ("cp36", "cp37") else []
    flags += [word for platform in platforms for word in ("--platform", platform)]
    options = ["--disable-pip-version-check", "--no-input", "download", "--quiet", "--dest", DIST]
    with open(REQUESTS) as requests:
        for requirements in map(json.loads, requests):
            told = ["pip", "download", "--only-binary=:all:", "--python-version", version, "--platform", "linux_" + machine] + requirements
            run(PYTHON, "-c", ELSEWHERE, json.dumps(environment), *options, *flags, *requirements, told=told)
    drop_the_project()
    check()
    for path in glob.glob(os.path.join(DIST, "*")):
        beside = os.path.join(first, "dist", os.path.basename(path))
        if not os.path.exists(beside):
            shutil.copyfile(path, beside)


def drop_the_project():
    """Of a project that is its own requirement pip leaves an archive, which no host needs."""
    for archive in glob.glob(os.path.join(DIST, "*.zip")):
        with zipfile.ZipFile(archive) as opened:
            if not any(name.endswith("/PKG-INFO") for name in opened.namelist()):
                os.unlink(archive)


def check():
    for path in sorted(glob.glob(os.path.join(DIST, "*"))):
        try:
            whole(path)
        except Exception as error:
            sys.exit("`%s` did not arrive whole: %s" % (os.path.basename(path), error))


def main():
    os.makedirs(DIST, exist_ok=True)
    if KIND == "other":
        return fetch_for(json.loads(LACKING[0]), LACKING[1])
    if not os.path.exists(PYTHON):
        run(interpreter(), "-m", "venv", VENV)
    if LACKING:
        download(*LACKING)
    else:
        {"buildout": fill_buildout, "pip": fill_pip, "uv": fill_uv}[KIND]()
        drop_the_project()
        requirements = project_requirements()
        if requirements:
            download(*requirements)
    examined = set()
    while True:
        new = [path for path in sorted(glob.glob(os.path.join(DIST, "*"))) if path.endswith(ARCHIVES) and path not in examined]
        if not new:
            break
        for archive in new:
            examined.add(archive)
            requirements = build_requirements(pyproject_of(archive))
            if requirements:
                download(*requirements)
    check()
    for leftover in os.listdir(OUT):
        if leftover != "dist":
            path = os.path.join(OUT, leftover)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


main()
