"""Committed Parquet files as one dataset: columns and predicates are pushed down, footers are read once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from landsweep.cluster import s3
from landsweep.cluster.files import Files
from landsweep.cluster.spans import Spans
from landsweep.workers import record
from landsweep.workers.errors import StoreError

_FORMAT = pa.dataset.ParquetFileFormat()
#: The most values, and bytes uncompressed, that a stored byte may stand for. Real columns stay far below.
_EXPANSION = 10_000


class Tables:
    """Reads files by name; ``uri`` is what messages call their folder."""

    def __init__(self, files: Files, uri: str) -> None:
        self._files = files
        self._uri = uri
        self._fragments: dict[tuple[str, str], Any] = {}  # by name and content: each holds its file's footer

    def dataset(
        self,
        table: str,
        done: Mapping[str, Mapping[str, Any]],
        staged: Mapping[str, Spans],
        coded: bool = False,
    ) -> pa.dataset.Dataset:
        """The rows of the ``done`` files (with their checksums) and, of the ``staged`` ones, those of the seeds.

        The schema is the union of the files': a column that one of them lacks is null there. Staged files are read at
        once, since they vanish when they are gathered. ``coded``: texts that repeat are read as numbers into a
        dictionary, which is less to hold and quicker. Raises StoreError and FileNotFoundError.
        """
        fragments = [self._fragment(name, str(entry.get("sha256", ""))) for name, entry in done.items()]
        parts = {name: self._staged(name, seeds) for name, seeds in staged.items()}
        schemas = dict(zip(done, (fragment.physical_schema for fragment in fragments), strict=True))
        schemas |= {name: part.schema for name, part in parts.items()}
        schema = self._union(schemas) if schemas else record.schema(table)
        filesystem, form = self._files.location("log")[0], _FORMAT
        rows = pa.concat_tables([schema.empty_table(), *parts.values()], promote_options="default")
        if coded:
            schema, form = _coded(schema)
            fragments = [form.make_fragment(fragment.path, filesystem) for fragment in fragments]
            rows = rows.cast(schema)
        files = pa.dataset.FileSystemDataset(fragments, schema, form, filesystem)
        return files if not parts else pa.dataset.dataset([files, pa.dataset.InMemoryDataset(rows)])

    def read(self, data: pa.dataset.Dataset, columns: Sequence[str] | None, filter: Any) -> pa.Table:
        """Rows of a dataset as a table. Raises StoreError naming the file that cannot be read."""
        try:
            table = data.to_table(columns=None if columns is None else list(columns), filter=filter)
            if b"pandas" not in (table.schema.metadata or {}):
                return table
            # what the files say to pandas may be anybody's
            described = {**table.schema.metadata, b"pandas": record.pandas_metadata(table.schema)}
            return table.replace_schema_metadata(described)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as exc:
            raise self._damaged(data, exc) from exc

    def _fragment(self, name: str, content: str) -> Any:
        if (name, content) not in self._fragments:
            filesystem, path = self._files.location(name)
            fragment = _FORMAT.make_fragment(path, filesystem)
            try:
                self._checked(name, fragment.physical_schema, fragment.metadata)
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError) as exc:
                raise self._unreadable(name, exc) from exc
            self._fragments[name, content] = fragment
        return self._fragments[name, content]

    def _staged(self, name: str, seeds: Spans) -> pa.Table:
        """Asked for once as a whole: what is gathered between two requests is gone, and that is no damage."""
        try:
            with pq.ParquetFile(io.BytesIO(self._files.read(name))) as file:
                self._checked(name, file.schema_arrow, file.metadata)
                table = file.read()
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as exc:
            raise self._unreadable(name, exc) from exc
        return of_seeds(table, seeds)

    def _checked(self, name: str, schema: pa.Schema, footer: pq.FileMetaData) -> None:
        """Refuse a file of a later landsweep (the version is absent where it is 1), or one that would fill memory."""
        wrong = _implausible(footer)
        if wrong:
            raise StoreError(f"{self._uri}/{name} {wrong}: it was not written by landsweep; restore it from a copy")
        version = (schema.metadata or {}).get(b"landsweep_schema", b"1").decode(errors="replace")
        if not version.isdigit() or int(version) > record.SCHEMA_VERSION:
            message = f"{self._uri}/{name}: schema {version!r} is newer than this landsweep, which reads"
            raise StoreError(f"{message} {record.SCHEMA_VERSION}; upgrade it")

    def _union(self, schemas: Mapping[str, pa.Schema]) -> pa.Schema:
        try:
            return pa.unify_schemas(list(schemas.values()))
        except pa.ArrowException as exc:
            raise StoreError(f"{self._uri}: {_disagreement(schemas)}; keep the files of one sweep in a folder") from exc

    def _damaged(self, data: pa.dataset.Dataset, error: Exception) -> StoreError:
        """The same error with the name of the file that raises it."""
        unanswered = s3.away(self._uri, error)
        if unanswered:
            return unanswered
        for (name, _), fragment in self._fragments.items():
            try:
                fragment.to_table(schema=data.schema)
            except (pa.ArrowException, OSError) as exc:
                return self._unreadable(name, exc)
        said = str(error).splitlines()[0]  # a schema follows
        return StoreError(f"{self._uri} cannot be read ({said}); restore it from a copy")

    def _unreadable(self, name: str, error: Exception) -> StoreError:
        where, mend = f"{self._uri}/{name}", "restore it from a copy, or delete the sweep and run it again"
        return s3.away(where, error) or StoreError(f"{where} cannot be read ({error}); {mend}")


def of_seeds(table: pa.Table, seeds: Spans) -> pa.Table:
    """The rows of these seeds."""
    held = seeds.holds(table["seed"].to_numpy())
    return table if held.all() else table.filter(pa.array(held))


def _implausible(footer: pq.FileMetaData) -> str | None:
    """Why a file would take more memory than its size explains: every row of ours has an id of its own."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    stored = sum(chunk.total_compressed_size for chunk in chunks)
    if footer.num_rows > stored:
        return f"announces {footer.num_rows:,} rows in {stored:,} bytes"
    values = max((chunk.num_values for chunk in chunks), default=0)
    size = sum(group.total_byte_size for group in groups)
    if max(values, size) > _EXPANSION * stored:
        return f"announces {values:,} values and {size:,} bytes in {stored:,}"
    return None


def _coded(schema: pa.Schema) -> tuple[pa.Schema, Any]:
    """The schema with texts as dictionaries, but for the ids that never repeat, and the format that reads it."""
    texts = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in ("trial", "point")]
    for name in texts:
        place = schema.get_field_index(name)
        schema = schema.set(place, pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    options = pa.dataset.ParquetReadOptions(dictionary_columns=set(texts))
    return schema, pa.dataset.ParquetFileFormat(read_options=options)


def _disagreement(schemas: Mapping[str, pa.Schema]) -> str:
    """Which column has two types, and in which files."""
    seen: dict[str, tuple[str, pa.DataType]] = {}
    for name, schema in schemas.items():
        for field in schema:
            first, kind = seen.setdefault(field.name, (name, field.type))
            if kind != field.type:
                return f"the column {field.name!r} holds {kind} in {first} and {field.type} in {name}"
    return f"the schemas of {', '.join(schemas)} do not agree"
