"""The report in a real browser, and that the browser's eyes are open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import faults
from tests.processes import CHROMIUM
from tests.test_report import written

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; `make evidence` says so too")


def test_a_report_asks_for_nothing_complains_of_nothing_and_fits(tmp_path: Path) -> None:
    text = written(tmp_path)
    path = tmp_path / "page.html"
    path.write_text(text)
    assert faults(path) == []


def test_a_bad_page_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    wide = '<meta name="viewport" content="width=device-width"><div style="width: 2000px">wide</div>'
    path.write_text(f'{wide}<img src="http://127.0.0.1:9/x.png"><script>console.error("bad")</script>')
    found = faults(path)
    assert any("asks for http://127.0.0.1:9/x.png" in fault for fault in found)
    assert any("complains" in fault and "bad" in fault for fault in found)
    assert any("the page is 20" in fault for fault in found)
