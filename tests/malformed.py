"""Sweep files that must be refused: name → (file text, the key that is named, a piece of the mend).

``content`` makes bytes of a text; ``BINARY`` stands for some that are not UTF-8.
"""

from __future__ import annotations

BINARY = "\udcff\udcfe"


#: Keys of integers: a thousand values of each make 10⁹ combinations.
GRID = ("train_size", "split_seed", "test_size")


def content(text: str) -> bytes:
    """The bytes of a file of ``MALFORMED``."""
    return text.encode("utf-8", "surrogateescape")


def _sweep(**sections: str) -> str:
    """A valid sweep file with ``sections`` in the place of its own."""
    valid = {
        "name": "small",
        "seeds": "3",
        "landscape": "{name: mlp, hidden: [2]}",
        "training": "{optimizer: sgd, lr: 0.1, momentum: 0.9, steps: 10}",
    }
    return "".join(f"{key}: {value}\n" for key, value in {**valid, **sections}.items())


VALID = _sweep()

MALFORMED: dict[str, tuple[str, str, str]] = {
    "unknown key": (_sweep(sedes="3"), "sedes", "did you mean seeds?"),
    "unknown key in a section": (_sweep(training="{momentun: 0.9}"), "training.momentun", "did you mean momentum?"),
    "key on the wrong level": (_sweep(lr="0.1"), "lr", "did you mean training.lr?"),
    "wrong type": (_sweep(training="{steps: many}"), "training.steps", "an integer"),
    "number in quotes": (_sweep(training="{steps: '60'}"), "training.steps", "without quotes"),
    "true for a number": (_sweep(training="{lr: true}"), "training.lr", "a number"),
    "missing name": ("seeds: 3\nlandscape: {name: mlp}\n", "name", "missing"),
    "missing landscape name": (_sweep(landscape="{hidden: [2]}"), "landscape.name", "mlp"),
    "name with ../": (_sweep(name="../elsewhere"), "name", "a-z, 0-9"),
    "negative seeds": (_sweep(seeds="-5"), "seeds", "a positive integer"),
    "zero seeds": (_sweep(seeds="0"), "seeds", "a positive integer"),
    "empty range of seeds": (_sweep(seeds="{start: 5, stop: 5}"), "seeds.stop", "more than start"),
    "too many trials": (_sweep(seeds="10000001"), "seeds", "at most 10,000,000"),
    "too many configurations": (
        _sweep(grid=f"{{training.lr: {list(range(1, 401))}, training.steps: {list(range(1, 401))}}}"),
        "grid",
        "at most 100,000",
    ),
    "empty grid": (_sweep(grid="[]"), "grid", "a mapping"),
    "empty grid axis": (_sweep(grid="{training.lr: []}"), "grid.training.lr", "at least one value"),
    "grid axis that is no list": (_sweep(grid="{training.lr: 0.1}"), "grid.training.lr", "a list"),
    "grid value twice": (_sweep(grid="{training.lr: [0.1, 0.1]}"), "grid.training.lr", "distinct"),
    "equal grid values": (_sweep(grid="{training.lr: [1, 1.0]}"), "grid", "same configuration"),
    "grid key that addresses nothing": (_sweep(grid="{training.speed: [1]}"), "grid.training.speed", "unknown key"),
    "grid key outside the configuration": (
        _sweep(grid="{resources.batch: [1]}"),
        "grid.resources.batch",
        "starts with",
    ),
    "grid key below a value": (_sweep(grid="{training.lr.x: [1]}"), "training.lr.x", "addresses nothing"),
    "grid value out of range": (_sweep(grid="{training.lr: [0.1, -1]}"), "grid.training.lr", "more than 0"),
    "grid value that does not fit": (_sweep(grid="{training.optimizer: [sgd, adam]}"), "training.momentum", "sgd has"),
    "learning rate not a number": (_sweep(training="{lr: .nan}"), "training.lr", "finite"),
    "learning rate infinite": (_sweep(training="{lr: 1e999}"), "training.lr", "finite"),
    "momentum above 1": (_sweep(training="{momentum: 1.5}"), "training.momentum", "less than 1"),
    "nesterov without momentum": (_sweep(training="{nesterov: true}"), "training.nesterov", "momentum > 0"),
    "unknown optimiser": (_sweep(training="{optimizer: adm}"), "training.optimizer", "did you mean adam?"),
    "mini-batches for lbfgs": (
        _sweep(training="{optimizer: lbfgs, batch_size: 32}"),
        "training.batch_size",
        "curvature",
    ),
    "setting of another optimiser": (
        _sweep(training="{optimizer: adam, momentum: 0.9}"),
        "training.momentum",
        "adam has no such setting",
    ),
    "batch larger than the data": (_sweep(training="{batch_size: 1201}"), "training.batch_size", "at most"),
    "mini-batches for gd": (_sweep(training="{optimizer: gd, batch_size: 32}"), "training.batch_size", "'full'"),
    "unknown landscape": (_sweep(landscape="{name: mpl}"), "landscape.name", "did you mean mlp?"),
    "landscape that is no module": (_sweep(landscape="{name: 'a b:c'}"), "landscape.name", "package.module:function"),
    "option that is not finite": (_sweep(landscape="{name: 'a.b:c', width: .inf}"), "landscape", "finite"),
    "unknown data": (_sweep(landscape="{name: mlp, data: digit}"), "landscape.data", "'digits'"),
    "resize that enlarges": (_sweep(landscape="{name: mlp, resize: 9}"), "landscape.resize", "at most 8"),
    "no test data": (_sweep(landscape="{name: mlp, train_size: 1797}"), "landscape.train_size", "at most 1796"),
    "no hidden layer": (_sweep(landscape="{name: mlp, hidden: []}"), "landscape.hidden", "at least 1"),
    "empty hidden layer": (_sweep(landscape="{name: mlp, hidden: [0]}"), "landscape.hidden[0]", "at least 1"),
    "tolerance of zero": (_sweep(search="{tolerance: 0}"), "search.tolerance", "more than 0"),
    "unknown start of saddles": (_sweep(search="{saddles: {starts: here}}"), "search.saddles.starts", "'trajectory'"),
    "spectrum not available": (_sweep(measure="{spectrum: exact}"), "measure.spectrum", "'dense'"),
    "negative resources": (_sweep(resources="{num_gpus: -1}"), "resources.num_gpus", "at least 0"),
    "alpha of one half": (_sweep(verdict="{alpha: 0.5}"), "verdict.alpha", "less than 0.5"),
    "unknown metric": (_sweep(verdict="{metric: test_los}"), "verdict.metric", "did you mean test_loss?"),
    "credentials in the tracking URI": (
        _sweep(tracking="{uri: 'postgresql://me:hunter2@host/runs'}"),
        "tracking.uri",
        "MLFLOW_TRACKING_PASSWORD",
    ),
    "unknown kind of store": (_sweep(store="gs://bucket/runs"), "store", "s3://bucket/prefix"),
    "credentials in the store": (_sweep(store="s3://key:hunter2@bucket/runs"), "store", "AWS_"),
    "tag that builds an object": (
        _sweep(name="!!python/object/apply:os.system ['echo built']"),
        "name",
        "drop the tag",
    ),
    "duplicate key": (_sweep() + "seeds: 4\n", "seeds", "remove one"),
    "duplicate key in a section": (_sweep(training="{lr: 0.1, lr: 0.2}"), "training.lr", "remove one"),
    "key that is not text": (_sweep(grid="{1: [2]}"), "grid", "quote it"),
    "aliases without bound": (
        "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else '1'] * 10)}]\n" for i in range(9)),
        "file",
        "aliases",
    ),
    "alias of itself": ("name: &a [*a]\n", "file", "flatter"),
    "nested too deeply": ("name: " + "[" * 5000 + "]" * 5000 + "\n", "file", "flatter"),
    "not YAML": ("name: [small\nseeds: 3\n", "line 2", "mend the line"),
    "tabs for indentation": ("name: small\nlandscape:\n\tname: mlp\n", "line 3", "indentation"),
    "two documents": (_sweep() + "---\n" + _sweep(), "line 5", "mend the line"),
    "list instead of mapping": ("- name: small\n- seeds: 3\n", "file", "a mapping"),
    "text instead of mapping": ("just text\n", "file", "a mapping"),
    "empty file": ("", "file", "a mapping"),
    "only comments": ("# nothing\n", "file", "a mapping"),
    "binary file": (BINARY + "\x00name", "file", "UTF-8"),
    "control characters": ("name: a\x07b\n", "file", "not YAML"),
    "terminal escape in a name": (_sweep(name='"\\e[2Jx"'), "name", "remove it"),
    "NUL in a path": (_sweep(store='"runs\\0x"'), "store", "remove it"),
    "reordered text": (_sweep(landscape='{name: "mlp\\u202e"}'), "landscape.name", "remove it"),
    "integer of very many digits": (_sweep(seeds="0x" + "f" * 5000), "seeds", "at most 300"),
    "a billion combinations": (
        _sweep(grid="{" + ", ".join(f"landscape.{key}: {list(range(1, 1001))}" for key in GRID) + "}"),
        "grid",
        "at most 100,000",
    ),
    "too large": ("# " + "x" * 1_000_001 + "\n", "file", "1,000,000 bytes"),
}
