"""The documents: what they say of tables, links and commands is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from landsweep.cli import app
from landsweep.workers import record

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("table", ["points", "trials", "trajectories", "spectra"])
def test_tables_are_documented_with_the_types_that_pandas_gives(table: str) -> None:
    text = (ROOT / "docs/tables.md").read_text()
    section = text.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `([\w.]+)` \| (\w+) \|", section, re.MULTILINE))
    schema = record.schema(table)
    types = {name: str(dtype) for name, dtype in schema.empty_table().to_pandas().dtypes.items()}
    lists = {field.name for field in schema if pa.types.is_list(field.type)}
    assert documented == {name: "object" if name in lists else dtype for name, dtype in types.items()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("http://", "https://", "#")):
            continue
        assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    """Every ``landsweep VERB --option`` in a code block is a verb with that option."""
    for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", document.read_text(), flags=re.DOTALL):
        for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?landsweep (.*)$", block, re.MULTILINE):
            verb, *rest = shlex.split(line, comments=True)
            help_text = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
            assert help_text.exit_code == 0, line
            for option in (word.partition("=")[0] for word in rest if word.startswith("-")):
                assert option in help_text.output, f"{line}: {option}"
