"""Data sets by name: loaders that turn a name into raw samples, and refuse what cannot be used."""
