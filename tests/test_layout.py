"""The layout: bare checkout, wheel and editable install; the arrows between the packages; light imports."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cluster", "workers", "analysis")
IMPORTS = "import landsweep.cluster.spec, landsweep.analysis, landsweep.workers.record"
#: package → what it may import of landsweep: a package, or a module of one
ARROWS = {
    "landsweep": (
        "landsweep.analysis",
        "landsweep.cluster",
        "landsweep.workers.errors",
        "landsweep.workers.landscape",
    ),
    "cluster": ("landsweep.workers",),
    "analysis": ("landsweep.cluster.store", "landsweep.workers.record", "landsweep.workers.errors"),
    "workers": (),
}
ADAPTED = ("ray", "mlflow", "boto3")
FORBIDDEN = {
    "workers": {"ray", "mlflow", "boto3", "pydantic"},
    "analysis": {"torch", "ray", "mlflow"},
}
#: imported inside functions only
LAZY = {"analysis": {"matplotlib", "scipy", "statsmodels"}}


def _python(code: str, *, path: Path | None, cwd: Path, python: str = sys.executable) -> str:
    """What ``code`` prints in a new interpreter that sees ``path`` and not this checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    ended = subprocess.run([python, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _pip(*arguments: str, python: str = sys.executable) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built and installed, links kept."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    copy.mkdir()
    for name in ("landsweep", *PACKAGES):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(tree))
    (built,) = folder.glob("*.whl")
    return built


_ONE_COPY = f"""{IMPORTS}
import sys
bare = [name for name in sys.modules if name.split(".")[0] in {PACKAGES}]
ours = [file for name, module in sys.modules.items() if name.startswith("landsweep") and (file := module.__file__)]
assert not bare, bare
assert len(set(map(__import__("os").path.realpath, ours))) == len(ours), ours
print(landsweep.workers.record.__file__)
"""


def test_bare_checkout_imports_one_copy(tmp_path: Path) -> None:
    record = _python(_ONE_COPY, path=ROOT, cwd=tmp_path)
    assert Path(record.strip()).resolve() == ROOT / "workers" / "record.py"


def test_links_are_relative() -> None:
    assert {name: str((ROOT / "landsweep" / name).readlink()) for name in PACKAGES} == {
        name: f"../{name}" for name in PACKAGES
    }


def test_wheel_holds_landsweep_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        links = [entry.filename for entry in archive.infolist() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"landsweep", f"landsweep-{version}.dist-info"}
    expected = {f"landsweep/{path.relative_to(ROOT)}" for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert expected | {"landsweep/py.typed"} <= names
    assert not links


def test_wheel_imports_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    _pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    record = _python(_ONE_COPY, path=target, cwd=tmp_path)
    assert Path(record.strip()).resolve() == (target / "landsweep" / "workers" / "record.py").resolve()


def test_editable_install_imports(tree: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    python = str(environment / "bin" / "python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    # the dependencies and the build backend of the environment that runs this test, behind those of the new one
    (site / "zz_outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    _pip("install", "--no-deps", "--no-index", "--no-build-isolation", "-e", str(tree), python=python)
    record = _python(_ONE_COPY, path=None, cwd=tmp_path, python=python)
    assert Path(record.strip()).resolve() == tree / "workers" / "record.py"


def test_importing_landsweep_is_light(tmp_path: Path) -> None:
    code = "import landsweep, sys; print(*sorted({'torch', 'ray', 'mlflow', 'pandas'} & set(sys.modules)))"
    assert (ROOT / "landsweep" / "__init__.py").exists()
    assert _python(code, path=ROOT, cwd=tmp_path).split() == []


# the arrows -----------------------------------------------------------------------------------------------------------


def _modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    top = ROOT / package
    for path in sorted(top.glob("*.py") if package == "landsweep" else top.rglob("*.py")):  # its links are the others
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.AST, module: str) -> set[str]:
    """The dotted names that ``tree`` imports; ``from a import b`` gives ``a.b``, relative imports resolved."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) + "." if node.level else ""
            names |= {f"{base}{node.module or ''}".rstrip(".") + f".{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            names |= {str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant)}
    return names


def _name(package: str, path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if package == "landsweep" else ("landsweep", *parts))


ALL = [
    pytest.param(package, path, tree, id=str(path.relative_to(ROOT)))
    for package in ARROWS
    for path, tree in _modules(package)
]


@pytest.mark.parametrize(("package", "path", "tree"), ALL)
def test_arrows(package: str, path: Path, tree: ast.Module) -> None:
    for name in _imported(tree, _name(package, path)):
        assert name.split(".")[0] not in PACKAGES, f"{path} imports the bare {name}"
        if name.split(".")[0] == "landsweep":
            assert _is_allowed(package, name), f"{path} imports {name}; {package} may import {ARROWS[package]}"


def _is_allowed(package: str, name: str) -> bool:
    """Whether ``package`` may import ``name``: a module of its own or along an arrow."""
    other = name.split(".")[1:2]
    if package == "landsweep" and other not in [[folder] for folder in PACKAGES]:
        return True
    targets = (*ARROWS[package], f"landsweep.{package}")
    return any(name == target or name.startswith(f"{target}.") for target in targets)


@pytest.mark.parametrize(("package", "path", "tree"), ALL)
def test_outside_libraries_stay_where_they_belong(package: str, path: Path, tree: ast.Module) -> None:
    tops = {name.split(".")[0] for name in _imported(tree, _name(package, path))}
    assert not tops & FORBIDDEN.get(package, set())
    at_import = {
        name.split(".")[0] for statement in _run_at_import(tree) for name in _imported(statement, _name(package, path))
    }
    assert not at_import & LAZY.get(package, set()), f"{path}: import these inside functions"


def _run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The import statements that importing the module runs: all but those in functions and under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _run_at_import(node)


@pytest.mark.parametrize("library", ADAPTED)
def test_one_library_one_adapter(library: str) -> None:
    users = [
        _name(package, path)
        for package in ARROWS
        for path, tree in _modules(package)
        if any(name.split(".")[0] == library for name in _imported(tree, _name(package, path)))
    ]
    assert len(users) <= 1, f"{library} is imported in {users}"


@pytest.mark.parametrize(("package", "path", "tree"), ALL)
def test_nothing_unpickles(package: str, path: Path, tree: ast.Module) -> None:
    tops = {name.split(".")[0] for name in _imported(tree, _name(package, path))}
    assert not tops & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            mistake = _unsafe(node)
            assert not mistake, f"{path}:{node.lineno}: {mistake}"


def _unsafe(call: ast.Call) -> str:
    """What is unsafe about a call, or nothing."""
    function = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if function == "torch.load" or function.endswith(("read_pickle", "deserialize_pandas")):
        return f"{function} unpickles"
    if keywords.get("allow_pickle", "False") != "False":
        return "allow_pickle"
    if function in (
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "yaml.unsafe_load_all",
        "yaml.full_load_all",
    ):
        return f"{function} may build objects"
    if function == "yaml.load" and "Safe" not in " ".join([*map(ast.unparse, call.args[1:]), *keywords.values()]):
        return "a loader that is not safe"
    if function in ("eval", "exec"):
        return f"{function} runs text as code"
    return ""


@pytest.mark.parametrize(
    ("code", "unsafe"),
    [
        ("torch.load(p)", True),
        ("pd.read_pickle(p)", True),
        ("np.load(p, allow_pickle=True)", True),
        ("np.load(p, allow_pickle=False)", False),
        ("yaml.load(t)", True),
        ("yaml.load(t, yaml.Loader)", True),
        ("yaml.load(t, Loader=yaml.CSafeLoader)", False),
        ("yaml.safe_load(t)", False),
        ("eval(t)", True),
        ("model.eval()", False),
    ],
)
def test_the_check_sees_what_is_unsafe(code: str, unsafe: bool) -> None:
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert bool(_unsafe(statement.value)) is unsafe


@pytest.mark.parametrize(
    ("package", "name", "allowed"),
    [
        ("analysis", "landsweep.cluster.store.open_store", True),
        ("analysis", "landsweep.cluster.storehouse", False),
        ("analysis", "landsweep.cluster", False),
        ("workers", "landsweep.cluster.spec", False),
        ("workers", "landsweep.workers.record", True),
        ("cluster", "landsweep.analysis", False),
        ("landsweep", "landsweep.workers.record", False),
        ("landsweep", "landsweep.cli.main", True),
    ],
)
def test_the_check_knows_the_arrows(package: str, name: str, allowed: bool) -> None:
    assert _is_allowed(package, name) is allowed


def test_the_check_sees_imports_wherever_they_are() -> None:
    text = "def f():\n    from . import a\n    from ..workers import b\n    import ray.util\n"
    found = _imported(ast.parse(text), "landsweep.cluster.x")
    assert found == {"landsweep.cluster.a", "landsweep.workers.b", "ray.util"}
    assert list(_run_at_import(ast.parse(text))) == []
