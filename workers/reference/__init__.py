"""Landscapes whose stationary points are known: what the searches and the classification are measured against."""
