"""Gated nets that tell two rings of points apart."""
