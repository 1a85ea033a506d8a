"""Sweeps on a real cluster while processes, servers and disks fail by a seeded schedule: ``python -m tests.chaos``."""
