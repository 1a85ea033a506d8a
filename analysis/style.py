"""What all figures share: colours, the title with its n, the legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe & Ito's palette, which the common colour-blindnesses can tell apart; a marker beside each colour.
COLOURS = {
    "minimum": "#0072B2",
    "degenerate_minimum": "#56B4E9",
    "saddle": "#D55E00",
    "degenerate_saddle": "#E69F00",
    "maximum": "#CC79A7",
    "undetermined": "#009E73",
    "gradient_flat": "#B8A800",  # the palette's yellow, darkened: it is drawn on white
    "not_converged": "#7A7A7A",
    "diverged": "#000000",
}


def finish(ax: Axes, title: str, count: int, tail: str = "") -> None:
    """Title with n, no frame above and right, the legend below the axes."""
    from matplotlib.transforms import offset_copy

    ax.set_title(f"{title} (n = {count}{tail})", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        # Half an inch below the axes, however high they are: clear of the ticks and the label.
        below = offset_copy(ax.transAxes, fig=ax.get_figure(root=True), y=-0.5)
        ax.legend(
            fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=below,
            ncols=3,
            borderaxespad=0,
        )
