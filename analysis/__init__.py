"""From committed tables to a verdict. Needs neither ray nor torch."""
