"""S3: clients, retries and errors, and the objects under one prefix. The only module that imports boto3.

Keys, region and endpoint come from the environment (``AWS_*``, ``AWS_ENDPOINT_URL`` included) or the machine's role,
never from a sweep file. botocore tries a request again at once, and a whole operation is tried again with full jitter
until its budget is spent, so that a server that is down for less than that is not noticed.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import tenacity

from landsweep.workers.errors import LandsweepError, RequestError, UnavailableError

_ABSENT = ("NoSuchKey", "404")
_REFUSED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
#: Answers with a status below 500 after which the same request may succeed. ``NoSuchUpload``: it was completed by a try
#: whose answer was lost, and is begun again.
_TRANSIENT = ("SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "NoSuchUpload", "429")
#: The same in the words of pyarrow's filesystem.
_AWAY = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|INTERNAL_FAILURE)\b"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Seconds that one operation may be tried again; its last try may take REQUESTS·(CONNECT + READ) more.
BUDGET = 60.0
REQUESTS, CONNECT, READ = 3, 5, 20  # tries of a request, and the seconds of each
_SAID_AFTER = 4  # tries of an operation that nobody hears of
_log = logging.getLogger("landsweep.s3")
T = TypeVar("T")


@dataclass(frozen=True)
class Bucket:
    """``s3://bucket/prefix``: requests on it, their retries and errors."""

    address: str
    unanswered: ClassVar[type[LandsweepError]] = RequestError  # what it is when the budget is spent

    def __post_init__(self) -> None:
        odd = {".", "..", ""} & set(self.prefix.split("/")) if self.prefix else ()
        if not _BUCKET.fullmatch(self.bucket) or odd:
            raise RequestError(
                f"found {self.address!r:.200}; write s3://bucket/prefix, keys and endpoint being in AWS_*"
            )

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def bucket(self) -> str:
        return self.address.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        return self.address.removeprefix("s3://").partition("/")[2].removesuffix("/")

    @property
    def client(self) -> Any:
        """Safe to share between threads."""
        return _client(os.getpid(), _environment())

    @property
    def filesystem(self) -> Any:
        """The same server for pyarrow."""
        return _filesystem(os.getpid(), _environment())

    def key(self, name: str) -> str:
        return "/".join(filter(None, (self.prefix, name)))

    def request(self, key: str, call: Callable[[], T]) -> T:
        """What ``call`` returns, tried again where S3 may answer later.

        Raises FileNotFoundError where there is no such object, RequestError where it may not be read or written,
        ``unanswered`` where the budget is spent.
        """
        where = f"s3://{self.bucket}/{key}"
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(transient),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_delay(BUDGET),
            before_sleep=functools.partial(_say, where),
            reraise=True,
        )
        try:
            return retrying(call)
        except _errors() as exc:
            if code(exc) in _ABSENT:
                raise FileNotFoundError(where) from exc
            raise self._translated(where, exc) from exc

    def upload(self, key: str, content: bytes, part: int) -> None:
        """One PUT, or a completed multipart upload of what is larger than ``part`` bytes."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, use_threads=False)

        def call() -> None:
            if len(content) <= part:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
            else:
                self.client.upload_fileobj(io.BytesIO(content), self.bucket, key, Config=config)

        self.request(key, call)

    def pages(self, operation: str, entries: str, **arguments: Any) -> list[Any]:
        """The ``entries`` of all pages of a listing."""

        def call() -> list[Any]:
            pages = self.client.get_paginator(operation).paginate(Bucket=self.bucket, **arguments)
            return [entry for page in pages for entry in page.get(entries, [])]

        return self.request(str(arguments.get("Key", arguments.get("Prefix", ""))).rstrip("/"), call)

    def objects(self, folder: str = "") -> Iterator[tuple[str, Any]]:
        """(name, entry) of the objects below ``folder``, ordered by name."""
        top = f"{self.key(folder)}/".removeprefix("/")
        start = len(f"{self.prefix}/".removeprefix("/"))
        for entry in self.pages("list_objects_v2", "Contents", Prefix=top):
            if not entry["Key"].endswith("/"):
                yield entry["Key"][start:], entry

    def _translated(self, where: str, error: Exception) -> LandsweepError:
        found = code(error)
        if found in _REFUSED:
            mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of one who may"
            return RequestError(f"{where}: S3 refuses access ({found}); {mend}")
        if found == "NoSuchBucket":
            return RequestError(f"{where}: S3 has no such bucket; check its name and AWS_ENDPOINT_URL")
        raised = self.unanswered if transient(error) else RequestError
        return raised(_unanswered(where, error))


@dataclass(frozen=True)
class S3Folder(Bucket):
    """The objects under ``s3://bucket/prefix`` that a data set is read from."""

    def names(self) -> list[str]:
        """Names of the objects below the prefix, sorted. Raises RequestError where they cannot be listed."""
        return sorted(name for name, _ in self.objects())

    def read(self, name: str = "") -> bytes:
        """The object's content; without a name that of the object at the prefix itself.

        Raises FileNotFoundError where there is none, RequestError where it cannot be read.
        """
        key = self.key(name)
        return self.request(key, lambda: bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()))


def code(error: BaseException) -> str:
    """The code of S3's answer, empty where it is none."""
    response: Any = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: throttled, failed or cut off; never where access is refused."""
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return status >= 500 or code(error) in _TRANSIENT
    if isinstance(error, (exceptions.SSLError, exceptions.ProxyConnectionError)):
        return False
    cut = (exceptions.ResponseStreamingError, exceptions.IncompleteReadError, exceptions.FlexibleChecksumError)
    # botocore passes the errors of urllib3 on where an answer that is no object breaks off
    return isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError, *cut, HTTPError))


def away(where: str, error: BaseException) -> UnavailableError | None:
    """What an error of pyarrow's filesystem is, if it is the server's that does not answer: the file may be whole."""
    return UnavailableError(_unanswered(where, error)) if _AWAY.search(str(error)) else None


def _unanswered(where: str, error: BaseException) -> str:
    mend = "check AWS_ENDPOINT_URL, the network and the keys, and run the same command again"
    return f"{where}: S3 does not answer ({error}); {mend}"


def _say(where: str, state: tenacity.RetryCallState) -> None:
    if state.attempt_number == _SAID_AFTER and state.outcome is not None:
        _log.warning("%s: S3 does not answer (%s); trying for up to %g s", where, state.outcome.exception(), BUDGET)


def _errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, HTTPError)


def _environment() -> tuple[tuple[str, str], ...]:
    """What a client follows from; a process that changes it gets another."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


def _own_endpoint() -> bool:
    return bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@functools.lru_cache(maxsize=4)
def _client(process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    style: Any = {"addressing_style": "path" if _own_endpoint() else "auto"}  # few servers have a name for each bucket
    retries: Any = {"mode": "standard", "total_max_attempts": REQUESTS}
    config = Config(s3=style, retries=retries, connect_timeout=CONNECT, read_timeout=READ, tcp_keepalive=True)
    return boto3.session.Session().client("s3", config=config)  # the default session keeps the first keys for good


@functools.lru_cache(maxsize=4)
def _filesystem(process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    import pyarrow.fs

    client = _client(process, environment)
    scheme, _, host = client.meta.endpoint_url.partition("://")
    return pyarrow.fs.S3FileSystem(  # it finds the keys as boto3 does, and renews those of a role
        region=client.meta.region_name,
        scheme=scheme,
        endpoint_override=host if _own_endpoint() else None,
        connect_timeout=CONNECT,
        allow_delayed_open=True,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=10),
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"),
    )
