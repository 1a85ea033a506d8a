"""What somebody hostile, or careless, may hand over: data that unpacks without end, names that a terminal or a browser
would obey, filters, folders with credentials. Each is one clear error or harmless."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from landsweep.analysis import query
from landsweep.cli import app
from landsweep.cluster import display, shipping, spec, status
from landsweep.cluster.data import idx, images, npz, parquet
from landsweep.cluster.printable import UNPRINTABLE, printable
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import LandscapeError, QueryError, RequestError
from tests import fabricated
from tests.toy import small_sweep

ESCAPE = "\x1b[2J\x9b31m\u202ename"

# --- data files -----------------------------------------------------------------------------------------------------


def npz_bomb(folder: Path, megabytes: int = 300) -> Path:
    """Zeros: a thousand times smaller than what they unpack to."""
    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (megabytes * 125_000, 1)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("inputs.npy", "w", force_zip64=True) as file:
            file.write(header.getvalue())
            for _ in range(megabytes):
                file.write(bytes(10**6))
        labels = io.BytesIO()
        np.save(labels, np.arange(2))
        archive.writestr("labels.npy", labels.getvalue())
    return folder / "bomb.npz"


def idx_bomb(folder: Path, megabytes: int = 300) -> Path:
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">IIII", 0x803, megabytes, 1000, 1000))
        for _ in range(megabytes):
            file.write(bytes(10**6))
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, megabytes) + bytes(megabytes))
    return folder


def idx_of_all_there_is(folder: Path, megabytes: int = 0) -> Path:
    """A header that announces (2³²−1)³ bytes."""
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, *[2**32 - 1] * 3) + bytes(100))
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 10) + bytes(10))
    return folder


def parquet_bomb(folder: Path, megabytes: int = 320) -> Path:
    """Runs of one value."""
    table = pa.table({"label": np.zeros(10**7, dtype=np.int64), "a": np.zeros(10**7)})
    with pq.ParquetWriter(folder / "bomb.parquet", table.schema, compression="zstd") as writer:
        for _ in range(megabytes // 160):
            writer.write_table(table, row_group_size=10**7)
    return folder / "bomb.parquet"


def image_bomb(folder: Path, megabytes: int = 0) -> Path:
    """8,200 × 8,200 pixels of one colour."""
    for name in "ab":
        (folder / name).mkdir()
    Image.new("1", (8200, 8200)).save(folder / "a/0.png")
    Image.new("L", (8, 8)).save(folder / "b/0.png")
    return folder


def postscript(folder: Path, megabytes: int = 0) -> Path:
    """Pillow has Ghostscript run such a file, where it is installed, whatever its name."""
    for name in "ab":
        (folder / name).mkdir()
        text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n({folder}/run) (w) file closefile\n"
        (folder / name / "0.png").write_text(text)
    return folder


def pipe(folder: Path, megabytes: int = 0) -> Path:
    os.mkfifo(folder / "pipe.npz")
    return folder / "pipe.npz"


#: How it is made, how it is loaded, what the message says.
Bomb = tuple[Callable[..., Path], Callable[[str], object], str]
BOMBS: dict[str, Bomb] = {
    "npz": (npz_bomb, lambda path: npz.load(path, "x"), r"bomb.npz: [\d,]+ bytes announce 3\d\d,"),
    "idx.gz": (idx_bomb, lambda path: idx.load(path, "x"), r"idx3-ubyte.gz: [\d,]+ bytes announce 3\d\d,"),
    "idx header": (idx_of_all_there_is, lambda path: idx.load(path, "x"), "truncated: 100 bytes of the 79,228,"),
    "parquet": (parquet_bomb, lambda path: parquet.load(path, "x"), r"bomb.parquet: [\d,]+ bytes announce 3\d\d,"),
    "image": (image_bomb, lambda path: images.load(path, "x", 8), "0.png: has 8,200 × 8,200 pixels"),
    "postscript": (postscript, lambda path: images.load(path, "x", 8), "0.png: is no readable image"),
    "pipe": (pipe, lambda path: npz.load(path, "x"), "pipe.npz: is a pipe or a device; name a file"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_data_that_unpacks_without_end_is_refused_before_it_is_unpacked(name: str, tmp_path: Path) -> None:
    make, load, message = BOMBS[name]
    path = make(tmp_path)
    with pytest.raises(LandscapeError, match=message):
        load(str(path))
    assert not (tmp_path / "run").exists()


def test_data_that_compresses_well_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", inputs=np.zeros((2, 10**6)), labels=np.arange(2))
    assert npz.load(str(tmp_path / "zeros.npz"), "x").inputs.shape == (2, 10**6)


# --- terminals ------------------------------------------------------------------------------------------------------


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    assert printable(ESCAPE) == "\\u001b[2J\\u009b31m\\u202ename"
    assert printable("é\tß\n→ 10⁹") == "é\tß\n→ 10⁹"
    facts = status.Facts(ESCAPE, "running", 4, 1, {ESCAPE: 1}, 1.0, None, 0, 0, 0.0, [], {})
    assert not UNPRINTABLE.search(display.line(status.status(facts, 1.0)))


@pytest.mark.parametrize(
    "arguments", [["run", f"{ESCAPE}.yaml"], ["points", f"/tmp/{ESCAPE}"], ["verdict", "x", "--metric", ESCAPE]]
)
def test_arguments_are_shown_harmlessly(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert not UNPRINTABLE.search(ended.output)


def test_names_in_a_store_are_shown_harmlessly(tmp_path: Path) -> None:
    store = SweepStore(tmp_path / ESCAPE)
    store.files.write("sweep.yaml", b"name: small\n")
    fabricated.stage(store, "aa", [0, 1])
    for arguments in (["list", str(tmp_path)], ["verify", store.uri], ["gc", store.uri], ["points", store.uri]):
        ended = CliRunner().invoke(app, arguments)
        assert not UNPRINTABLE.search(ended.output), arguments
        assert "Traceback" not in ended.output


# --- filters --------------------------------------------------------------------------------------------------------


def test_a_filter_of_very_many_terms_is_refused() -> None:
    """pyarrow would overflow the stack and end the process."""
    schema = pa.schema([("seed", pa.int64())])
    query.parse_where(" and ".join(["seed < 3"] * query.MAX_TERMS), schema)
    with pytest.raises(QueryError, match="more than 100 terms"):
        query.parse_where(" and ".join(["seed < 3"] * 20_000), schema)


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('touch x')",
        "seed < 3; import os",
        "seed.__class__ == 1",
        "seed < (1).__class__",
        "@seed == 1",
        "seed == `id`",
        "seed == ${HOME}",
        "seed == 1 or 1 == 1",
        "seed in [" + "[" * 10_000,
        "'" * 10_001,
    ],
)
def test_a_filter_is_no_code(where: str) -> None:
    with pytest.raises(QueryError, match=r"cannot be read|ends too early|no column"):
        query.parse_where(where, pa.schema([("seed", pa.int64())]))


# --- what is shipped ------------------------------------------------------------------------------------------------

PRIVATE = (
    *(".env", ".git/config", ".aws/credentials", ".netrc", ".ssh/id_rsa", "prod.env", "ID_RSA", "id_ecdsa", "a.PEM"),
    *("key.pfx", "my-credentials.json", "Secrets.yaml", "db_password.txt", "token", "token.json", "hf.token"),
    *("kubeconfig", "service-account-1.json", "secrets/all.txt", "credentials/all.txt", "auth_token"),
)
PUBLIC = ("model.py", "secrets.py", "tokenizer.json", "env/__init__.py", "tokens/words.txt", "monkey.csv")


def shipped(folder: Path, sweep: dict[str, Any]) -> list[str]:
    target = folder / "shipped"
    target.mkdir()
    shipping.ship(spec.validate(sweep, "toy"), target, "job-1")
    files = (path for path in (target / "code").rglob("*") if not path.is_dir())
    return [path.relative_to(target / "code/0-code").as_posix() for path in files]


def test_credentials_are_not_shipped(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    code = Path(sweep["code"][0])
    for name in (*PRIVATE, *PUBLIC):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text("x")
    (code / "outside").symlink_to("/etc")
    (code / "outside.txt").symlink_to("/etc/passwd")
    os.mkfifo(code / "pipe.txt")
    found = {name for name in shipped(tmp_path, sweep) if not name.startswith("toy_")}
    assert found == set(PUBLIC)


def test_a_folder_of_very_many_files_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "MAX_FILES", 5)
    sweep = small_sweep(tmp_path)
    for number in range(5):  # empty ones, beside the module
        (Path(sweep["code"][0]) / f"{number}.txt").touch()
    with pytest.raises(RequestError, match="or 5 files; name folders of source alone"):
        shipped(tmp_path, sweep)
