"""Which address and which token a client may use; no message holds a token."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from landsweep.cluster import authentication
from landsweep.workers.errors import RequestError

MARKER = "marker-of-a-token"


def token_in(folder: Path, mode: int = 0o600) -> dict[str, str]:
    path = folder / "token"
    path.write_text(MARKER)
    path.chmod(mode)
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


@pytest.mark.parametrize("address", ["http://head:8265", "https://head", "http://127.0.0.1:1", "http://[::1]:8265"])
def test_a_dashboards_address_is_taken(address: str) -> None:
    assert authentication.job_address(address) == address
    assert authentication.job_address(f"{address}/") == address


@pytest.mark.parametrize("address", [None, "", "auto", "head:6379", "ray://head:10001", "http://", "http://head/x?y=1"])
def test_other_addresses_are_refused(address: str | None) -> None:
    with pytest.raises(RequestError, match="http://HEAD:8265"):
        authentication.job_address(address)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(RequestError, match="user or password") as caught:
        authentication.job_address(f"http://me:{MARKER}@head:8265")
    assert MARKER not in str(caught.value)


def test_tokens_are_on_by_default(tmp_path: Path) -> None:
    environment = token_in(tmp_path)
    assert authentication.authenticate("http://head:8265", environment) is None
    assert environment["RAY_AUTH_MODE"] == "token"


def test_without_a_token_nothing_is_sent(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    for address in ("http://head:8265", "http://127.0.0.1:8265"):
        with pytest.raises(RequestError, match=r"found no token in RAY_AUTH_TOKEN or .*none"):
            authentication.authenticate(address, dict(environment))


def test_a_token_in_the_environment_is_enough(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_TOKEN": MARKER, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    assert authentication.authenticate("http://head:8265", environment) is None


def test_authentication_is_off_on_this_machine_only() -> None:
    off = {"RAY_AUTH_MODE": "disabled"}
    assert authentication.authenticate("http://127.0.0.1:8265", dict(off)) is None
    assert authentication.authenticate("http://localhost:8265", dict(off)) is None
    for address in ("http://head:8265", "http://10.0.0.1:8265", "http://127.0.0.1.evil.org:8265"):
        with pytest.raises(RequestError, match="RAY_AUTH_MODE=disabled"):
            authentication.authenticate(address, dict(off))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_token_that_others_can_read_is_mended(tmp_path: Path, mode: int) -> None:
    environment = token_in(tmp_path, mode)
    warning = authentication.authenticate("http://head:8265", environment)
    assert warning is not None
    assert f"{mode:04o}" in warning
    assert MARKER not in warning
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_somebody_elses_token_that_others_can_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = token_in(tmp_path, 0o644)
    monkeypatch.setattr(authentication.os, "getuid", lambda: 4321)  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="have its owner run chmod 600") as caught:
        authentication.authenticate("http://head:8265", environment)
    assert MARKER not in str(caught.value)


def test_a_token_of_ones_own_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ray" / "token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)}
    authentication.own_token(environment)
    made = path.read_text()
    assert len(made) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)  # as Ray would have left it
    authentication.own_token(environment)
    assert path.read_text() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("settings", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": MARKER}])
def test_no_token_is_made_that_nobody_reads(tmp_path: Path, settings: dict[str, str]) -> None:
    authentication.own_token({**settings, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert not (tmp_path / "token").exists()
