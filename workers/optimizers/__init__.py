"""How trials descend: one update rule a file, on many trials at once."""
