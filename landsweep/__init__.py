"""landsweep: sweep training seeds, find the minima and saddles they reach, and test whether they generalise alike.

>>> import landsweep
>>> landsweep.__version__
'0.1.0'

``open(uri)`` reads a sweep's results; ``Landscape`` makes a landscape of one's own (it needs torch, and is imported
when it is first asked for); ``plots`` draws; ``LandsweepError`` is the base of everything raised on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landsweep.analysis import plots
    from landsweep.analysis.sweep import Sweep, open
    from landsweep.workers.errors import LandsweepError
    from landsweep.workers.landscape import Landscape

__all__ = ["Landscape", "LandsweepError", "Sweep", "__version__", "open", "plots"]

__version__ = "0.1.0"

_HOMES = {
    "Landscape": "landsweep.workers.landscape",
    "LandsweepError": "landsweep.workers.errors",
    "Sweep": "landsweep.analysis.sweep",
    "open": "landsweep.analysis.sweep",
    "plots": "landsweep.analysis.plots",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'landsweep' has no attribute {name!r}")
    import importlib

    home = importlib.import_module(_HOMES[name])
    return home if name == "plots" else getattr(home, name)
