"""Measures training against torch.optim, theory and exact solutions: ``python -m tests.evidence_training``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landsweep.workers import execution, training_starts
from landsweep.workers.landscape import Landscape
from landsweep.workers.reference.deep_linear import deep_linear
from landsweep.workers.training import Streams, initial_parameters, minibatches
from landsweep.workers.training_starts import Start
from tests.claims import measured_claims
from tests.digits import built
from tests.trained import CPU, path, section, trained

Build = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
SAMPLES, BATCH = 23, 5


# --- torch.optim ---------------------------------------------------------------------------------------------
def lbfgs(lr: float, history: int) -> Build:
    exact = {"max_iter": 1, "tolerance_grad": 0.0, "tolerance_change": 0.0}
    return lambda p: torch.optim.LBFGS(p, lr=lr, history_size=history, **exact)


PEERS: dict[str, tuple[dict[str, Any], Build]] = {
    "sgd": ({"optimizer": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "nesterov": (
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
    ),
    "gd": ({"optimizer": "gd", "lr": 0.3}, lambda p: torch.optim.SGD(p, lr=0.3)),
    "adam": (
        {"optimizer": "adam", "lr": 0.01, "betas": (0.85, 0.99), "epsilon": 1e-7},
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.85, 0.99), eps=1e-7),
    ),
    "rmsprop": (
        {"optimizer": "rmsprop", "lr": 0.003, "alpha": 0.95, "epsilon": 1e-6},
        lambda p: torch.optim.RMSprop(p, lr=0.003, alpha=0.95, eps=1e-6),
    ),
    "lbfgs": ({"optimizer": "lbfgs", "lr": 1.0, "history": 10}, lbfgs(1.0, 10)),
    "short lbfgs": ({"optimizer": "lbfgs", "lr": 0.3, "history": 3}, lbfgs(0.3, 3)),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def classification() -> tuple[Landscape, Tensor, Tensor]:
    """The landscape of ``net`` on random labels, inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (SAMPLES,), generator=generator)
    return Landscape.from_module(net, (x, y), (x, y), weight_decay=0.01), x, y


def by_torch(
    build: Build, start: Tensor, batches: Iterator[Tensor], x: Tensor, y: Tensor,
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
) -> Tensor:  # fmt: skip
    """The same training with torch.optim and torch.nn, one trial."""
    module = net().to(torch.float64)
    nn.utils.vector_to_parameters(start.clone(), module.parameters())
    optimizer = build(module.parameters())
    scheduler = schedule(optimizer) if schedule else None
    for index in batches:

        def closure(index: Tensor = index) -> Tensor:
            optimizer.zero_grad()
            square = sum((p**2).sum() for p in module.parameters())
            loss = functional.cross_entropy(module(x[index]), y[index]) + 0.005 * square
            loss.backward()
            return loss  # type: ignore[no-any-return]

        optimizer.step(closure)  # type: ignore[arg-type]
        if scheduler:
            scheduler.step()
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def batches_of(settings: dict[str, Any], keys: Streams, row: int) -> Iterator[Tensor]:
    """The data order of one trial."""
    if settings["batch_size"] == "full":
        return iter([torch.arange(SAMPLES)] * settings["steps"])
    return (index[row] for index in minibatches(keys.order, SAMPLES, BATCH, settings["steps"]))


def torch_difference(name: str, seeds: int, steps: int = 100) -> tuple[float, float]:
    """The largest |θ − θ'| over seeds and parameters after ``steps`` steps, and the shortest way gone."""
    given, build = PEERS[name]
    size = {} if given["optimizer"] in ("gd", "lbfgs") else {"batch_size": BATCH}
    settings = section(**given, **size, steps=steps)
    land, x, y = classification()
    start = initial_parameters(land, "key", list(range(seeds)), CPU)
    keys = Streams.of("key", list(range(seeds)), CPU)
    ours = trained(land, settings, start).final
    theirs = torch.stack([by_torch(build, start[row], batches_of(settings, keys, row), x, y) for row in range(seeds)])
    return float((ours - theirs).abs().max()), float((theirs - start).norm(dim=1).min())


def peers() -> tuple[str, bool]:
    """Parameters agree with torch.optim's to 1e-6 after 100 steps in float64, same seed and data order."""
    found = {name: torch_difference(name, seeds=8) for name in PEERS}
    text = "; ".join(f"{name} {difference:.0e}" for name, (difference, _) in found.items())
    holds = all(difference <= 1e-6 and way > 0.1 for difference, way in found.values())
    return f"largest |θ − θ'| after 100 steps, 8 seeds: {text}", holds


# --- Jin et al. 2017 -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Jin:
    """The constants of algorithm 2 (PGD) for a gradient that is ``smooth``-Lipschitz and a Hessian that is
    ``rho``-Lipschitz, with c = 1: the paper's constant may be smaller, and then allows more steps."""

    smooth: float  # ℓ
    rho: float  # ρ
    epsilon: float  # ε
    fall: float  # Δ_f ≥ L(θ₀) − L*
    delta: float  # probability of failure
    dimension: int

    @property
    def chi(self) -> float:
        return 3 * max(math.log(self.dimension * self.smooth * self.fall / (self.epsilon**2 * self.delta)), 4)

    @property
    def steps(self) -> int:
        """t_thres = χ ℓ/√(ρε): so many steps after a perturbation at a saddle L has fallen by f_thres, with high
        probability (the paper's lemma on saddles)."""
        return math.ceil(self.chi * self.smooth / math.sqrt(self.rho * self.epsilon))

    @property
    def least_fall(self) -> float:
        """f_thres."""
        return math.sqrt(self.epsilon**3 / self.rho) / self.chi**3

    def settings(self, steps: int) -> dict[str, Any]:
        return section(
            "perturbed_gd", lr=1 / self.smooth, gradient_threshold=self.epsilon / self.chi**2,
            radius=self.epsilon / (self.chi**2 * self.smooth), interval=self.steps, steps=steps,
        )  # fmt: skip


SINGULAR_VALUES = (1.0, 0.5)
#: Of ½‖W₂W₁ − Y‖², ‖Y‖₂ = 1, where ‖θ‖ ≤ 1: ℓ = 3/2·‖θ‖² + ‖Y‖, ρ = 3‖θ‖; at the origin λ_min = −1 ≤ −√(ρε).
TWO_LAYERS = Jin(smooth=2.5, rho=3.0, epsilon=0.3, fall=0.625, delta=0.1, dimension=8)


def escapes(seeds: int) -> tuple[Tensor, Tensor, Tensor]:
    """From the origin of a two-layer linear net: the fall of L within t_thres steps by perturbed_gd, how far it came
    (which has to stay within the ball that the constants hold in), and the fall of L by gd. (seeds,) each."""
    landscape = deep_linear((2, 2, 2), SINGULAR_VALUES)
    origin = torch.zeros(seeds, landscape.dim, dtype=torch.float64)
    before = landscape.objective(origin)
    along = path(landscape, TWO_LAYERS.settings(TWO_LAYERS.steps), origin)
    values = torch.stack([landscape.objective(theta) for theta in along])
    first = (before - values >= TWO_LAYERS.least_fall).to(torch.int64).argmax(0)  # 0: never
    reached = along[first, torch.arange(seeds)].norm(dim=1)
    plain = trained(landscape, section("gd", lr=1 / TWO_LAYERS.smooth, steps=100 * TWO_LAYERS.steps), origin)
    return first, reached, before - landscape.objective(plain.final)


def jin() -> tuple[str, bool]:
    """perturbed_gd leaves the origin saddle of a two-layer linear net within Jin's bound where gd does not."""
    first, reached, plain = escapes(1000)
    bound, stayed = TWO_LAYERS.steps, int((first == 0).sum())
    text = (
        f"L falls by f_thres = {TWO_LAYERS.least_fall:.1e} within {int(first.max())} steps, t_thres = {bound} (1000 "
        f"seeds, {stayed} stayed; ‖θ‖ ≤ {float(reached.max()):.2f}); gd in {100 * bound} steps: {float(plain.max()):g}"
    )
    return text, stayed == 0 and bool((reached <= 1).all()) and bool((plain == 0).all())


# --- Saxe et al. 2014 ----------------------------------------------------------------------------------------
def sigmoid_mode(strength: float, initial: float, time: Tensor) -> Tensor:
    """u(t) = s e^{2st}/(e^{2st} − 1 + s/u₀) (Saxe, McClelland & Ganguli 2014, equation 8, τ = 1)."""
    growth = torch.exp(-2 * strength * time)
    return strength / (1 - growth + strength / initial * growth)


def mode_error(singular_values: tuple[float, ...], initial: float, step: float, end: float) -> tuple[float, int]:
    """The largest |u − u(t)| over all modes and steps of gd on ½‖W₂W₁ − Y‖² (whitened inputs), u = (W₂W₁)_ii, from the
    balanced aligned start W₁ = W₂ = √u₀ I; ``step`` is lr·s_max, ``end`` the time s_min·t."""
    size = len(singular_values)
    landscape = deep_linear((size, size, size), singular_values)
    lr = step / max(singular_values)
    steps = math.ceil(end / (min(singular_values) * lr))
    start = math.sqrt(initial) * torch.eye(size, dtype=torch.float64).reshape(-1).repeat(2).unsqueeze(0)
    along = path(landscape, section("gd", lr=lr, steps=steps), start)[:, 0]
    first, second = along[:, : size**2].view(-1, size, size), along[:, size**2 :].view(-1, size, size)
    modes = (second @ first).diagonal(dim1=1, dim2=2)
    time = lr * torch.arange(steps + 1, dtype=torch.float64)
    exact = torch.stack([sigmoid_mode(value, initial, time) for value in singular_values], 1)
    return float((modes - exact).abs().max()), steps


def saxe() -> tuple[str, bool]:
    """Singular-mode learning curves of a two-layer linear net match the exact solution to 1e-3 over the whole run."""
    errors = {}
    for step in (1e-3, 5e-4):
        errors[step], steps = mode_error((2.0, 1.0), 0.02, step, end=6.0)
    text = "; ".join(f"lr·s_max = {step:g}: {error:.1e}" for step, error in errors.items())
    text = f"largest |u − u(t)| over 2 modes and every step ({steps} at the finer one): {text}"
    return text, max(errors.values()) <= 1e-3


# --- Liu et al. 2020 -----------------------------------------------------------------------------------------
OVERPARAMETRISED: dict[str, Any] = {
    "name": "mlp", "data": "digits", "hidden": [40], "resize": 8, "train_size": 200, "weight_decay": 0.0,
}  # fmt: skip


def ends(seeds: int, pretraining: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Errors on the training and the test set at the end, from the usual start and from random labels learnt."""
    true, relabelled = (built({**OVERPARAMETRISED, "random_labels": random}) for random in (False, True))
    start = {"kind": "random_labels", "steps": pretraining}
    settings = section("sgd", lr=0.3, momentum=0.9, batch_size=50, steps=600, dtype="float32", start=start)
    assert true.train_error is not None
    assert true.test_error is not None
    found = {}
    for name, origin in (("usual", Start()), ("random labels", Start(pretraining=relabelled))):
        theta = training_starts.trained(true, settings, "key", list(range(seeds)), CPU, start=origin).final
        found[name] = true.map(true.train_error, theta), true.map(true.test_error, theta)
    return found


def liu() -> tuple[str, bool]:
    """From random labels training ends at minima of training error 0 that generalise worse."""
    found = ends(seeds=16, pretraining=1000)
    text = "; ".join(
        f"{name}: training error {float(train.max()):g}, "
        f"test error {float(test.mean()):.3f} ({float(test.min()):.3f} … {float(test.max()):.3f})"
        for name, (train, test) in found.items()
    )
    fitted = all(float(train.max()) == 0 for train, _ in found.values())
    return f"16 seeds; {text}", fitted and bool(found["random labels"][1].mean() > found["usual"][1].mean() + 0.02)


CLAIMS: dict[str, tuple[str, Callable[[], tuple[str, bool]]]] = {
    "optimizers": ("parameters agree with torch.optim's to 1e-6 after 100 steps in float64", peers),
    "perturbed_gd": ("perturbed_gd leaves a linear net's origin within Jin's bound, gd does not", jin),
    "saxe": ("singular-mode learning curves match Saxe's exact solution to 1e-3", saxe),
    "random_labels": ("from random labels training ends at global minima that generalise worse", liu),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
