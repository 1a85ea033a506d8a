"""Spectra from products alone: extremes, trace, density and inertia of symmetric operators, many at once."""
