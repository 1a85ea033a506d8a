"""MNIST-1D (Greydanus & Kobak, "Scaling down deep learning with MNIST-1D", 2020, 2024; section 2 and appendix A)."""

from __future__ import annotations

import numpy as np

from landsweep.workers.samples import Array, Samples

#: one stroke for each digit, as heights at 12 points (the paper's figure 2)
TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
PADDING = (36, 60)  # zeros behind a template, fewest and most
LENGTH = 72  # points of a padded template, before it is sampled
SHIFTS = 48  # it is rotated by 0 … SHIFTS − 1 points
SCALE, SHEAR = 0.4, 0.75
CORRELATED_NOISE, NOISE = 0.25, 0.02
FINAL_LENGTH = 40
TRAINING_SHARE = 0.8
_NOT_ZERO = 1e-8  # added to a template, so that its zeros are told from the padding
_SIGMA, _RADIUS = 2.0, 8  # of the filter that correlates noise, in points


def templates() -> Array:
    """The strokes, each of mean 0 and variance 1, shifted to start at 0 and divided by 6. (10, 12)"""
    centred = TEMPLATES - TEMPLATES.mean(1, keepdims=True)
    scaled = centred / centred.std(1, keepdims=True)
    strokes: Array = (scaled - scaled[:, :1]) / 6
    return strokes


def generate(samples: int, seed: int) -> Samples:
    """``samples`` examples, as many of each class, shuffled, of mean 0 and variance 1; the first 80 % are for training.

    The draws are those of numpy's ``RandomState(seed)`` in the order of the authors' program, so that 5,000 examples
    with seed 42 are the published set.
    """
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(10), samples // 10)
    strokes = templates()
    signals = np.stack([_example(strokes[label], random) for label in labels])
    order = random.permutation(len(labels))
    inputs, labels = signals[order], labels[order]
    inputs = (inputs - inputs.mean()) / inputs.std()
    split = int(len(labels) * TRAINING_SHARE)
    return Samples("mnist1d", inputs[:split], labels[:split], 10, inputs[split:], labels[split:])


def _example(stroke: Array, random: np.random.RandomState) -> Array:
    """Pad, scale, translate, add noise, shear and sample one stroke. (12,) → (40,)"""
    low, high = PADDING
    padded = np.concatenate([stroke + _NOT_ZERO, np.zeros(low + int(random.rand() * (high - low + 1)))])
    signal = _sampled(padded, LENGTH) * (1 + SCALE * (random.rand() - 0.5))
    signal = np.roll(signal, random.choice(SHIFTS))
    background = _smoothed(CORRELATED_NOISE * random.randn(LENGTH))
    signal = np.where(signal != 0, signal, background) + NOISE * random.randn(LENGTH)
    signal = signal - SHEAR * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, LENGTH)
    return _sampled(signal, FINAL_LENGTH)


def _sampled(signal: Array, points: int) -> Array:
    """Linear interpolation at equidistant places."""
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(signal)), signal)


def _smoothed(noise: Array) -> Array:
    """Convolution with a Gaussian of ``_SIGMA`` points, cut at ``_RADIUS``; the ends are mirrored."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    return np.convolve(np.pad(noise, _RADIUS, mode="symmetric"), weights / weights.sum(), mode="valid")
