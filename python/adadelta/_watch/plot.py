"""Plot what `Monitor` recorded: Zeiler's Figure 2, by layer. Needs matplotlib."""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from adadelta._core import hyperparameters
from adadelta._core.packages import needed_by


def plot(records: list[dict[str, Any]], variables: Any = None, figure: Any = None) -> Any:
    """Draw two panels, one above the other; see `Monitor.plot`."""
    with needed_by("Monitor.plot()", extra="plot"):
        import matplotlib
        from matplotlib.figure import Figure
    shown = chosen(records, variables)
    if figure is None:
        figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    # From dark for the first layer to light for the last, and readable on white.
    colors = matplotlib.colormaps["viridis"]
    for index, (label, name) in enumerate(shown.items()):
        rows = [row for row in records if row["variable"] == name]
        updates = [row["update"] for row in rows]
        color = colors(0.85 * index / max(len(shown) - 1, 1))
        low, middle, high = (
            [row[f"effective_rate_q{quantile}"] for row in rows] for quantile in ("05", "50", "95")
        )
        # Where bands overlap, their edges tell them apart.
        band = {"facecolor": (*color[:3], 0.12), "edgecolor": color, "linewidth": 0.5}
        upper.fill_between(updates, low, high, **band)
        upper.plot(updates, middle, color=color, linewidth=2, label=label)
        lower.plot(updates, [row["update_rms"] for row in rows], color=color, linewidth=2)
    title = "Effective learning rate: median, and band of the middle 90 %"
    upper.set(title=title, yscale="log", ylabel="rate")
    title = "Update (root mean square)"
    lower.set(title=title, yscale="log", ylabel="update", xlabel="updates so far")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def chosen(records: list[dict[str, Any]], variables: Any = None) -> dict[str, str]:
    """Return the variables to draw by label: the given ones, or the largest of each layer."""
    if not records:
        raise ValueError("nothing is recorded yet: pass the monitor to fit() as a callback first")
    sizes: dict[str, int] = {}
    layers: dict[str, str] = {}
    for row in records:
        sizes[row["variable"]], layers[row["variable"]] = row["size"], row["layer"]
    if variables is not None:
        names = [variables] if isinstance(variables, str) else list(variables)
        unknown = [name for name in names if name not in sizes]
        if unknown or not names:
            wrong = unknown[0] if unknown else variables
            near = difflib.get_close_matches(str(wrong), sizes, n=1) or list(sizes)
            requirement = f"recorded variables, such as {hyperparameters.received(near[0], 60)}"
            raise ValueError(hyperparameters.refusal("variables", requirement, wrong))
        return dict(zip(_without_common_start(names), names, strict=True))
    largest: dict[str, str] = {}
    for name, layer in layers.items():
        if layer not in largest or sizes[name] > sizes[largest[layer]]:
            largest[layer] = name
    return dict(zip(_without_common_start(list(largest)), largest.values(), strict=True))


def _without_common_start(paths: Sequence[str]) -> list[str]:
    """Remove the parts that all paths begin with (the model's name), but never the last part."""
    parts = [path.split("/") for path in paths]
    common = 0
    while all(len(one) > common + 1 for one in parts) and all(
        one[common] == two[common] for one, two in pairwise(parts)
    ):
        common += 1
    return ["/".join(one[common:]) for one in parts]
