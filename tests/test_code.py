"""The code of a user's own landscapes: what of it a configuration's id depends on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from landsweep.cluster import code, plan, spec
from landsweep.workers.errors import LandscapeError
from tests.data_files import write

PACKAGE = {
    "nets/__init__.py": b"",
    "nets/models/__init__.py": b"",
    "nets/models/wide.py": b"from nets.data import build\n",
    "nets/data.py": b"def build(): ...\n",
    "nets/table.csv": b"1,2\n",
    "alone.py": b"def build(): ...\n",
}


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def ids(folder: Path, *names: str) -> list[str]:
    """Of configurations of the landscapes with these names."""
    section: dict[str, Any] = {"name": "small", "seeds": 1, "code": [str(folder)]}
    sweep = spec.validate({**section, "landscape": {}, "grid": {"landscape.name": list(names)}}, "sweep.yaml")
    return [configuration.id for configuration in plan.expand(sweep, code.code_hashes(sweep))]


def test_every_source_file_of_the_package_counts(tmp_path: Path) -> None:
    """The module's own, one beside it, one above, a new one, another name; not what is no Python source."""
    seen = []
    changes = [
        {}, {"nets/models/wide.py": b"# another\n"}, {"nets/data.py": b"# another\n"},
        {"nets/__init__.py": b"# another\n"}, {"nets/models/extra.py": b""}, {"nets/models/other.py": b""},
    ]  # fmt: skip
    for change in changes:
        write(tmp_path, {**PACKAGE, **change})
        seen += ids(tmp_path, "nets.models.wide:build")
    assert len(set(seen)) == len(changes)
    write(tmp_path, {"nets/table.csv": b"3\n", "nets/.venv/x.py": b"3\n", "nets/__pycache__/x.py": b"", "y.py": b""})
    assert ids(tmp_path, "nets.models.wide:build") == seen[-1:]


def test_the_hash_is_of_names_and_contents_wherever_the_package_lies(tmp_path: Path) -> None:
    here, there = (write(tmp_path / name, PACKAGE) for name in ("here", "there"))
    first = ids(here, "nets.data:build")
    sys.path[:] = [entry for entry in sys.path if entry != str(here)]
    for name in [name for name in sys.modules if name.startswith("nets")]:
        del sys.modules[name]
    assert ids(there, "nets.data:build") == first


def test_a_module_in_no_package_is_its_file(tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    before = ids(tmp_path, "alone:build")
    write(tmp_path, {"beside.py": b""})
    assert ids(tmp_path, "alone:build") == before
    write(tmp_path, {"alone.py": b"# another\n"})
    assert ids(tmp_path, "alone:build") != before


def test_each_landscape_of_a_grid_has_the_hash_of_its_own_code(tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    before = ids(tmp_path, "nets.data:build", "alone:build", "himmelblau")
    write(tmp_path, {"alone.py": b"# another\n"})
    after = ids(tmp_path, "nets.data:build", "alone:build", "himmelblau")
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_a_folder_that_is_no_package_of_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PACKAGE)
    monkeypatch.setattr(code, "MAX_FILES", 3)
    with pytest.raises(LandscapeError, match=r"'nets' .*more than 3 Python files.*package of its own"):
        ids(tmp_path, "nets.data:build")
    monkeypatch.setattr(code, "MAX_FILES", 4)
    monkeypatch.setattr(code, "MAX_BYTES", 10)
    with pytest.raises(LandscapeError, match="package of its own"):
        ids(tmp_path, "nets.data:build")


def test_a_package_that_does_not_import_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {**PACKAGE, "nets/__init__.py": b"1/0\n"})
    with pytest.raises(LandscapeError, match=r"'nets.data'.*ZeroDivisionError.*mend it"):
        ids(tmp_path, "nets.data:build")
