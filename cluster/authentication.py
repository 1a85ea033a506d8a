"""Who may talk to a Ray cluster: its address, and the token that Ray's own authentication asks for.

Ray takes the token from RAY_AUTH_TOKEN, then from the file of RAY_AUTH_TOKEN_PATH, then from ``~/.ray/auth_token``, and
compares it where RAY_AUTH_MODE is ``token``. No function here returns a token or puts one into a message.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from landsweep.workers.errors import RequestError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_MEND = (
    "put the cluster's token into RAY_AUTH_TOKEN, or into a file that only you can read and its name into "
    "RAY_AUTH_TOKEN_PATH (`ray get-auth-token` prints it on the head)"
)


def job_address(address: str | None) -> str:
    """``http://HEAD:8265``, as jobs are submitted to it. Raises RequestError for anything else."""
    if not address:
        raise RequestError("--address: found none; name the cluster's dashboard: --address http://HEAD:8265")
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        raise RequestError("--address: found a user or password in it; leave them out and set RAY_AUTH_TOKEN")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise RequestError(
            f"--address: found {address!r}; jobs are submitted to the dashboard, http://HEAD:8265 "
            "(`landsweep run` takes HOST:6379)"
        )
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(address: str) -> bool:
    """Whether a URL names this machine.

    >>> is_loopback("http://127.0.0.1:8265"), is_loopback("http://[::1]:8265"), is_loopback("http://head:8265")
    (True, True, False)
    """
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authenticate(address: str, environment: MutableMapping[str, str]) -> str | None:
    """Have Ray send its token to ``address``; a warning, if there is one.

    Turns token authentication on where ``environment`` does not say otherwise. Raises RequestError where there is no
    token, or one that others can read and this user cannot protect, or where authentication is off and ``address`` is
    another machine.
    """
    if environment.setdefault(MODE, "token").lower() == "disabled":
        if not is_loopback(address):
            raise RequestError(
                f"--address {address}: {MODE}=disabled sends jobs to other machines unprotected; {_MEND}"
            )
        return None
    if environment.get(TOKEN, "").strip():
        return None
    path = token_file(environment)
    if not path.is_file():
        raise RequestError(f"--address {address}: found no token in {TOKEN} or {path}; {_MEND}")
    return protect(path)


def token_file(environment: Mapping[str, str]) -> Path:
    """Where Ray looks for a token that is not in the environment itself."""
    return Path(environment.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token")


def own_token(environment: Mapping[str, str]) -> None:
    """Have a token for a cluster of one's own on this machine, which only its owner can read from the start."""
    if environment.get(MODE, "token").lower() == "disabled" or environment.get(TOKEN, "").strip():
        return
    path = token_file(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        protect(path)


def protect(path: Path) -> str | None:
    """Keep a token's file to its owner; what was mended, if anything. Raises RequestError where it cannot be."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return None
    if found.st_uid != os.getuid():
        raise RequestError(f"{path}: others can read this token (mode {mode:04o}); have its owner run chmod 600")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return (
        f"{path}: others could read this token (mode {mode:04o}); it is 0600 now: replace it if others use this machine"
    )
