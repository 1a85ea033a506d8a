"""The sweep file: what is refused and how, what is read, what may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from landsweep.cluster import spec, yaml_reader
from landsweep.cluster.mistakes import masked
from landsweep.cluster.printable import UNPRINTABLE
from landsweep.workers.errors import SweepFileError
from tests.malformed import MALFORMED, VALID, content

BASE: dict[str, Any] = {
    "name": "digits-width",
    "seeds": 200,
    "landscape": {"name": "mlp", "hidden": [25], "weight_decay": 1e-3},
    "training": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "batch_size": 128},
    "search": {"saddles": {"per_trial": 4, "trials": 10}},
    "grid": {"landscape.hidden": [[10], [25]], "training.lr": [0.05, 1]},
}


def sweep(**changes: Any) -> spec.Sweep:
    return spec.validate({**BASE, **changes}, "sweep.yaml")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused_with_key_and_mend(name: str, tmp_path: Path) -> None:
    text, key, mend = MALFORMED[name]
    path = tmp_path / "file.yaml"
    path.write_bytes(content(text))
    with pytest.raises(SweepFileError) as caught:
        spec.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert key in message.removeprefix(str(path.parent))
    assert mend in message
    assert "hunter2" not in message
    assert "pydantic" not in message
    assert len(message) < 2000


def test_valid_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(VALID)
    assert spec.load(tmp_path / "file.yaml").name == "small"


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepFileError, match="no such file"):
        spec.load(tmp_path / "absent.yaml")
    with pytest.raises(SweepFileError, match="cannot be read"):
        spec.load(tmp_path)


def test_every_mistake_has_its_line() -> None:
    with pytest.raises(SweepFileError) as caught:
        sweep(seeds=0, training={"momentum": 2, "lr": -1}, sedes=3)
    lines = str(caught.value).splitlines()
    assert lines[0] == "sweep.yaml: 4 mistakes"
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
        "sedes",
        "seeds",
        "training.lr",
        "training.momentum",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8),
        ("1.0e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("010", 10),
        ("0x10", 16),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("~", None),
        ("True", True),
        ("'1e-8'", "1e-8"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_yaml_scalars(text: str, value: Any) -> None:
    read = yaml_reader.read_text(text, "text")
    assert read == value
    assert type(read) is type(value)


TEXT = st.text(st.characters(codec="utf-8").filter(lambda character: not UNPRINTABLE.search(character)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.-e1", min_size=1), inner, max_size=3),
        max_leaves=8,
    )
)
@example({"a": ["\u2028x\u2029", " \n\t", "\ufeff"]})
def test_yaml_written_is_read_back(value: Any) -> None:
    assert yaml_reader.read_text(yaml_reader.to_text(value), "text") == value


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x85", "\x9b", "\u202e", "\ud800"])
@pytest.mark.parametrize("place", ["key", "value"])
def test_text_that_a_terminal_would_obey_is_refused(character: str, place: str) -> None:
    written = json.dumps(f"a{character}b")
    with pytest.raises(SweepFileError, match=rf"control character U\+{ord(character):04X} .*remove it") as caught:
        yaml_reader.read_text(f"{written}: 1" if place == "key" else f"name: {written}", "text")
    assert str(caught.value).isprintable()


def test_overrides_replace_and_are_validated(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(yaml_reader.to_text(BASE))
    changed = spec.load(path, {"training.momentum": "5e-1", "seeds": "7", "grid.training.lr": "[0.3]", "store": "./x"})
    assert changed.training.model_dump()["momentum"] == 0.5
    assert (changed.seeds.stop, changed.grid["training.lr"], changed.store) == (7, (0.3,), "./x")
    for key, text, message in [
        ("training.momentun", "1", "did you mean momentum"),
        ("training.lr", "1", "set grid.training.lr"),
        ("seeds.stop", "3", "set it as a whole"),
        ("training.", "3", "not a dotted key"),
        ("training.steps", "[", "not YAML"),
    ]:
        with pytest.raises(SweepFileError, match=message):
            spec.load(path, {key: text})


def test_every_default_is_in_the_schema() -> None:
    schema = spec.json_schema()
    for name, model in {"Sweep": schema, **schema["$defs"]}.items():
        for key, field in model["properties"].items():
            described = "description" in field or name == "Sweep"
            assert described, f"{name}.{key} has no description"
            assert "default" in field or key in model["required"], f"{name}.{key} has no default"


def test_schema_accepts_what_load_accepts_and_refuses_unknown_keys() -> None:
    validator = Draft202012Validator(spec.json_schema())
    assert validator.is_valid(BASE)
    assert validator.is_valid({**BASE, "seeds": {"start": 2, "stop": 4}})
    assert validator.is_valid({**BASE, "landscape": {"name": "mine.toy:build", "dimension": 3}})
    assert not validator.is_valid({**BASE, "sedes": 3})
    assert not validator.is_valid({**BASE, "seeds": -3})


def test_models_are_frozen() -> None:
    one = sweep()
    with pytest.raises(ValueError, match="frozen"):
        one.seeds.stop = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid": {}},
        {
            "grid": {
                "training": [{"optimizer": "sgd", "momentum": 0.5}, {"optimizer": "adam"}],
                "training.lr": [0.1, 0.2],
            }
        },
        {"training": {"lr": 0.1, "steps": 3}, "grid": {"training.optimizer": ["sgd", "adam", "rmsprop"]}},
        {"landscape": {"name": "mine.toy:build", "k": {"a": [1, None]}}, "grid": {"landscape.p": [1, 2]}},
        {"grid": {"search.saddles": [None, {"per_trial": 2}]}},
    ],
)
def test_canonical_form_makes_the_same_sweep(changes: dict[str, Any]) -> None:
    one = sweep(**changes)
    canonical = one.canonical()
    json.dumps(canonical, allow_nan=False)
    again = spec.validate(yaml_reader.read_text(yaml_reader.to_text(canonical), "text"), "canonical")
    assert again.canonical() == canonical
    assert again.configurations() == one.configurations()
    assert spec.difference(canonical, again.canonical()) == []


def test_grid_keys_need_not_stand_in_their_section() -> None:
    with_base = sweep(landscape={"name": "mlp", "hidden": [3], "weight_decay": 1e-3})
    without = sweep(landscape={"name": "mlp", "weight_decay": 1e-3})
    assert with_base.configurations() == without.configurations()
    assert with_base.canonical() == without.canonical()


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"seeds": 210}, []),
        ({"seeds": {"start": 0, "stop": 200}}, []),
        ({"seeds": 190}, ["seeds"]),
        ({"seeds": {"start": 200, "stop": 400}}, ["seeds"]),
        ({"grid": {"landscape.hidden": [[25], [50], [10]], "training.lr": [0.05, 1.0]}}, []),
        ({"grid": {"landscape.hidden": [[10]], "training.lr": [0.05, 1]}}, ["grid.landscape.hidden"]),
        ({"grid": {"landscape.hidden": [[10], [25]]}}, ["grid.training.lr", "training.lr"]),
        ({"resources": {"num_cpus": 2}, "verdict": {"alpha": 0.01}, "tracking": {"trials": True}}, []),
        ({"code": ["src"], "store": "./elsewhere"}, []),
        ({"search": {"tolerance": 1e-9, "saddles": None}}, ["search.saddles", "search.tolerance"]),
        ({"landscape": {"name": "mlp", "weight_decay": 1e-2}}, ["landscape.weight_decay"]),
        ({"name": "other"}, ["name"]),
    ],
)
def test_difference_names_what_may_not_change(changes: dict[str, Any], keys: list[str]) -> None:
    assert spec.difference(sweep().canonical(), sweep(**changes).canonical()) == keys


def test_an_axis_of_numbers_stays_one() -> None:
    old = sweep(grid={"training.batch_size": [32, 64]})
    new = sweep(grid={"training.batch_size": [32, 64, "full"]})
    assert spec.difference(old.canonical(), new.canonical()) == ["grid.training.batch_size"]


def test_warnings() -> None:
    assert spec.warnings(sweep()) == []
    assert "no finite minimum" in spec.warnings(sweep(landscape={"name": "mlp", "weight_decay": 0}))[0]
    assert spec.warnings(sweep(landscape={"name": "mlp", "weight_decay": 0, "loss": "mse"})) == []
    assert "tracking is off" in spec.warnings(sweep(store="s3://bucket/runs"))[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://a:b@c/d", "https://***@c/d"),
        ("found 'postgresql://u:p/w@h/x'", "found 'postgresql://***@h/x'"),
        ("https://h/x?user=me&password=p", "https://h/x?user=me&password=***"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
