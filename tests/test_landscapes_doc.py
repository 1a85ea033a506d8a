"""The page on landscapes of one's own: its files, commands and code run as written, and print what it shows."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

PAGE = Path(__file__).resolve().parents[1] / "docs/landscapes.md"
FILES = {"mine.py", "mine.yaml"}


def blocks() -> list[tuple[str, str]]:
    """(language, content) of the page's code blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def file_name(content: str) -> str | None:
    """The file that a block is, by its first line."""
    named = re.match(r"# (\w+\.(?:py|yaml))\n", content)
    return named[1] if named else None


def run_command(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == "landsweep"
    command = [sys.executable, "-m", "landsweep", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def squeezed(text: str) -> list[str]:
    """Lines with their runs of blanks made one."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.usefixtures("one_thread")
def test_the_page_runs_and_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    printed, shown = "", 0
    for language, content in blocks():
        name = file_name(content)
        if name is not None:
            (tmp_path / name).write_text(content)
        elif language == "bash":
            printed = "".join(run_command(line, tmp_path) for line in content.splitlines())
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(content, PAGE.name, "exec"), names)
            printed = output.getvalue()
        else:
            assert language == "text", language
            begun = squeezed(printed)
            missing = [line for line in squeezed(content) if not any(got.startswith(line) for got in begun)]
            assert not missing, printed
            shown += 1
    assert shown == sum(language == "text" for language, _ in blocks()) >= 5
    assert {path.name for path in tmp_path.iterdir()} >= FILES


def test_every_output_follows_what_printed_it() -> None:
    languages = [language for language, _ in blocks()]
    for before, after in itertools.pairwise(languages):
        assert after != "text" or before in ("bash", "python")
