"""Results on S3: an object a file. A write is one PUT or a completed multipart upload, a creation a conditional PUT."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar

from landsweep.cluster.files import Entry, checked_name, oversized
from landsweep.cluster.s3 import Bucket, code
from landsweep.workers.errors import LandsweepError, RequestError, UnavailableError

#: Files larger than this are sent in parts of this size: a part that fails is sent again, not the whole.
PART = 64 * 2**20
_WRITER = "landsweep-writer"  # metadata of a created object: who created it
_DELETED_AT_ONCE = 1000  # objects, the most that S3 takes in a request


@dataclass(frozen=True)
class S3Files(Bucket):
    """The files under ``s3://bucket/prefix``; errors as of :class:`Bucket`."""

    unanswered: ClassVar[type[LandsweepError]] = UnavailableError

    def prepare(self) -> None:
        """Refuse a server that does not keep a creation from replacing an object: claims would be lost on it."""
        name = f"probe/{uuid.uuid4().hex}"
        try:
            if not self.create(name, b"") or self.create(name, b""):
                mend = "S3 itself, SeaweedFS ≥ 4.17 and MinIO do"
                raise RequestError(f"{self.uri}: this server ignores If-None-Match, which commits need; {mend}")
        finally:
            self.delete(name)

    def read(self, name: str, limit: int | None = None) -> bytes:
        key = self.key(checked_name(name))

        def call() -> bytes:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:  # `with body` is the bare stream, whose errors are others
                if limit is not None and answer["ContentLength"] > limit:
                    raise oversized(f"s3://{self.bucket}/{key}", answer["ContentLength"], limit)
                return bytes(body.read())

        return self.request(key, call)

    def write(self, name: str, content: bytes) -> None:
        self.upload(self.key(checked_name(name)), content, PART)

    def create(self, name: str, content: bytes) -> bool:
        """Write ``name`` only if it is absent; whether it was.

        A try whose answer was lost may have created it: the object says who did.
        """
        key, writer = self.key(checked_name(name)), uuid.uuid4().hex

        def call() -> bool:
            place = {"Bucket": self.bucket, "Key": key}
            try:
                self.client.put_object(**place, Body=content, IfNoneMatch="*", Metadata={_WRITER: writer})
            except self.client.exceptions.ClientError as exc:
                if code(exc) not in ("PreconditionFailed", "412"):
                    raise
                return bool(self.client.head_object(**place)["Metadata"].get(_WRITER) == writer)
            return True

        return self.request(key, call)

    def names(self, folder: str) -> list[str]:
        """Names of the objects below ``folder``, sorted."""
        return sorted(name for name, _ in self.objects(checked_name(folder)))

    def entries(self) -> list[Entry]:
        """All objects, sorted by name."""
        found = [Entry(name, entry["Size"], entry["LastModified"].timestamp()) for name, entry in self.objects()]
        return sorted(found, key=lambda entry: entry.name)

    def folders(self) -> list[str]:
        """Names of the folders right below, sorted."""
        top = f"{self.prefix}/".removeprefix("/")
        found = self.pages("list_objects_v2", "CommonPrefixes", Prefix=top, Delimiter="/")
        return sorted(entry["Prefix"].removeprefix(top).rstrip("/") for entry in found)

    def delete(self, name: str) -> None:
        """Remove an object, or all below a folder; absent is fine."""
        checked = checked_name(name)
        keys = [self.key(checked), *(self.key(below) for below, _ in self.objects(checked))]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            self._delete(keys[start : start + _DELETED_AT_ONCE])

    def _delete(self, keys: list[str]) -> None:
        wanted: Any = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self.request(keys[0], lambda: self.client.delete_objects(Bucket=self.bucket, Delete=wanted))
        for error in answer.get("Errors", []):
            mend = "allow s3:DeleteObject there, and run the same command again"
            raise RequestError(f"s3://{self.bucket}/{error['Key']}: S3 does not delete it ({error['Code']}); {mend}")

    def location(self, name: str) -> tuple[Any, str]:
        """Where pyarrow reads a file: a filesystem and the path on it."""
        return self.filesystem, f"{self.bucket}/{self.key(checked_name(name))}"

    def unfinished(self) -> list[Entry]:
        """Multipart uploads that nobody completed, with the bytes of their parts."""
        top = f"{self.prefix}/".removeprefix("/")
        uploads = self.pages("list_multipart_uploads", "Uploads", Prefix=top)
        return [self._upload(entry, entry["Key"].removeprefix(top)) for entry in uploads]

    def _upload(self, entry: Any, name: str) -> Entry:
        parts = self.pages("list_parts", "Parts", Key=entry["Key"], UploadId=entry["UploadId"])
        size = sum(part["Size"] for part in parts)
        return Entry(name, size, entry["Initiated"].timestamp(), entry["UploadId"])

    def abort(self, entry: Entry) -> None:
        """Remove an unfinished upload."""
        place = {"Bucket": self.bucket, "Key": self.key(entry.name), "UploadId": entry.upload}
        self.request(place["Key"], lambda: self.client.abort_multipart_upload(**place))
