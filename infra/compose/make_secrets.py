"""Make the secrets that compose.yaml mounts: python3 infra/compose/make_secrets.py [FOLDER].

They name one another, so they are made together, once; to make new ones, remove the folder first. The folder is open
to its owner alone; the files in it to all, for Compose mounts each by itself where another user reads it.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

DATABASE = "postgresql+psycopg://landsweep:{password}@postgres:5432/landsweep"
BUCKET = "landsweep"


def contents(word: Callable[[], str]) -> dict[str, str]:
    """What each file holds; ``word`` gives a new random word at every call."""
    database, admin = DATABASE.format(password=(password := word())), word()
    owner, user = ("landsweep-admin", word()), ("landsweep", word())
    return {
        "ray_token": word(),
        "postgres_password": password,
        "mlflow_backend_uri": database,
        "mlflow_secret_key": word(),
        "mlflow_auth.ini": _section(
            "mlflow",
            default_permission="NO_PERMISSIONS",
            database_uri=database,
            admin_username="admin",
            admin_password=admin,
            authorization_function="mlflow.server.auth:authenticate_request_basic_auth",
        ),
        "mlflow_credentials": _section("mlflow", mlflow_tracking_username="admin", mlflow_tracking_password=admin),
        "s3_identities.json": json.dumps({"identities": [_identity(*owner, ["Admin"]), _identity(*user, _on(BUCKET))]}),
        "s3_admin_credentials": _keys(*owner),
        "s3_credentials": _keys(*user),
    }


def _on(bucket: str) -> list[str]:
    return [f"{action}:{bucket}" for action in ("Read", "Write", "List", "Tagging")]


def _identity(name: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": actions}


def _keys(name: str, secret: str) -> str:
    return _section("default", aws_access_key_id=name, aws_secret_access_key=secret)


def _section(name: str, **values: str) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]) + "\n"


def main(folder: Path) -> int:
    """Write the files; 1 where there are some already."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        sys.stderr.write(f"{folder}: there already, left as it is; remove it to make new secrets\n")
        return 1
    for name, content in contents(lambda: secrets.token_hex(32)).items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)
    sys.stdout.write(f"{folder}: made; `docker compose up` reads it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("secrets")))
