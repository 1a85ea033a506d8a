"""S3: objects under one prefix. The only module that imports boto3.

Keys, region and endpoint come from the environment (``AWS_*``, ``AWS_ENDPOINT_URL`` included) or the machine's role,
never from a sweep file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from landsweep.workers.errors import RequestError

_ABSENT = ("NoSuchKey", "404")
_REFUSED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


@dataclass(frozen=True)
class S3Folder:
    """The objects under ``s3://bucket/prefix``. Names are relative to it, with ``/``."""

    uri: str

    @property
    def bucket(self) -> str:
        return self.uri.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        return self.uri.removeprefix("s3://").partition("/")[2].strip("/")

    @cached_property
    def client(self) -> Any:
        """Safe to share between threads."""
        import boto3
        from botocore.config import Config

        own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        style: Any = {"addressing_style": "path" if own else "auto"}  # few servers have a name for each bucket
        config = Config(s3=style, retries={"mode": "standard", "max_attempts": 4}, connect_timeout=10, read_timeout=60)
        return boto3.session.Session().client("s3", config=config)  # the default session keeps the first keys for good

    def names(self) -> list[str]:
        """Names of the objects below the prefix, sorted. Raises RequestError where they cannot be listed."""
        top = f"{self.prefix}/" if self.prefix else ""
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=top)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        except _errors() as exc:
            raise _translated(self.uri, exc) from exc
        return sorted(key.removeprefix(top) for key in keys if not key.endswith("/"))

    def read(self, name: str = "") -> bytes:
        """The object's content; without a name that of the object at the prefix itself.

        Raises FileNotFoundError where there is none, RequestError where it cannot be read.
        """
        key = "/".join(filter(None, (self.prefix, name)))
        try:
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except _errors() as exc:
            where = f"s3://{self.bucket}/{key}"
            if _code(exc) in _ABSENT:
                raise FileNotFoundError(where) from exc
            raise _translated(where, exc) from exc
        return content


def _errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


def _code(error: Exception) -> str:
    response: Any = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _translated(where: str, error: Exception) -> RequestError:
    code = _code(error)
    if code in _REFUSED:
        return RequestError(f"{where}: S3 refuses access ({code}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if code == "NoSuchBucket":
        return RequestError(f"{where}: S3 has no such bucket; check its name and AWS_ENDPOINT_URL")
    return RequestError(f"{where}: S3 does not answer ({error}); check AWS_ENDPOINT_URL, the network and the keys")
