"""`landsweep doctor`: what works is tried, what does not is named with its mend."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from landsweep.cluster import doctor
from landsweep.cluster.files import LocalFiles
from landsweep.workers import compiled


def found(part: str, works: object) -> doctor.Check:
    assert callable(works)
    return doctor._check(part, works)


def test_this_machines_torch_and_devices_work() -> None:
    torch = found("torch", doctor.torch_works)
    assert (torch.works, torch.found) == (True, f"torch {importlib.metadata.version('torch')}")
    assert "CPUs" in found("devices", doctor.devices_work).found


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    for part, works in (("torch", doctor.torch_works), ("tracking", lambda: doctor.tracking_works(None))):
        check = found(part, works)
        assert not check.works
        assert check.mend == "pip install 'landsweep[run]'"


def test_a_gpu_that_torch_cannot_use_is_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    check = found("devices", doctor.devices_work)
    assert (check.works, "driver" in str(check.mend)) == (False, True)


def test_no_compiler_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "none")
    (check,) = [doctor._check("compiler", doctor.compiler_works, needed=False)]
    assert (check.works, check.needed) == (False, False)


def test_a_store_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check = found("store", lambda: doctor.store_works(str(tmp_path)))
    assert check.works, check
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = found("store", lambda: doctor.store_works(str(tmp_path / "file")))
    assert not check.works
    assert "permissions" in str(check.mend)


def test_a_store_without_exclusive_creation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(files: LocalFiles, name: str, content: bytes) -> bool:
        files.write(name, content)
        return True

    monkeypatch.setattr(LocalFiles, "create", overwrite)
    check = found("store", lambda: doctor.store_works(str(tmp_path)))
    assert not check.works
    assert "If-None-Match" in str(check.mend)


def test_a_tracking_server_that_is_away_says_so() -> None:
    check = found("tracking", lambda: doctor.tracking_works("http://127.0.0.1:9"))
    assert not check.works
    assert "MLFLOW_TRACKING_URI" in str(check.mend)


def test_a_cluster_without_a_token_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    check = found("ray", lambda: doctor.ray_works("http://127.0.0.1:9"))
    assert not check.works
    assert "RAY_AUTH_TOKEN" in check.found
