"""What the evidence modules share: claims by name, measured and printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Measured = tuple[str, bool]  # what was measured, and whether the claim holds
Claims = Mapping[str, tuple[str, Callable[..., Measured]]]  # name → what is claimed, how it is measured


def measured_claims(claims: Claims, names: list[str]) -> int:
    """Measure the claims of these names, or all; print each. Returns the exit code."""
    unknown = [name for name in names if name not in claims]
    if unknown:
        print(f"no claim {unknown[0]!r}; there are {', '.join(claims)}")
        return 2
    held = True
    for name in names or claims:
        text, measure = claims[name]
        print(f"{name}: {text}", flush=True)
        measured, holds = measure()
        held = held and holds
        print(f"  {'holds' if holds else 'DOES NOT HOLD'}: {measured}", flush=True)
    return 0 if held else 1
