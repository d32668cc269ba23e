"""The pictures of docs/, drawn from stored results."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OURS, DURABLE, WEAK = "#1f5fa8", "#8a8a8a", "#d9a5a0"


def _rows(results: Path, part: str) -> list[dict[str, Any]]:
    return json.loads((results / f"{part}.json").read_text())["rows"]  # type: ignore[no-any-return]


def draw(results: Path, folder: Path) -> None:
    """One picture for each part that has results."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pqlog"})
    for part, make in {"fsync": _fsync, "peers": _peers, "routes": _routes}.items():
        if (results / f"{part}.json").exists():
            figure = make(_rows(results, part))
            figure.savefig(folder / f"{part}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            print(folder / f"{part}.svg")


def _durable(row: dict[str, Any]) -> bool:
    return str(row["lost in power cuts"]).startswith("0 ")


def _fsync(rows: list[dict[str, Any]]) -> plt.Figure:
    """What durability costs, and how much larger transactions save."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1, 1.2])
    single = [row for row in rows if row["messages a transaction"] == 1 and row["threads"] == 1]
    names = [f"{row['journal']}, {row['synchronous']}" for row in single]
    rates = [statistics.median(row["rates"]) for row in single]
    left.barh(names, rates, color=[OURS if _durable(row) else WEAK for row in single])
    left.invert_yaxis()
    left.set_xlabel("inserts per second, one per transaction")
    left.bar(0, 0, color=OURS, label="no put lost in 150 power cuts")
    left.bar(0, 0, color=WEAK, label="puts lost, or the file broken")
    left.legend(frameon=False, loc="lower right", fontsize=8)
    for journal, synchronous, style in (("wal", "full", "o-"), ("delete", "extra", "s-"), ("wal", "off", "^--")):
        chosen = [
            row for row in rows if (row["journal"], row["synchronous"], row["threads"]) == (journal, synchronous, 1)
        ]
        sizes = [row["messages a transaction"] for row in chosen]
        color = OURS if all(map(_durable, chosen)) and journal == "wal" else DURABLE if _durable(chosen[0]) else WEAK
        right.loglog(sizes, [statistics.median(row["rates"]) for row in chosen], style, color=color,
                     label=f"{journal}, {synchronous}")  # fmt: skip
    right.set_xlabel("messages per transaction")
    right.set_ylabel("messages per second")
    right.grid(alpha=0.3)
    right.legend(frameon=False)
    figure.tight_layout()
    return figure


def _peers(rows: list[dict[str, Any]]) -> plt.Figure:
    """Each workload, fastest first."""
    works = [name for name in dict.fromkeys(row["workload"] for row in rows) if name != "bytes a message"][:6]
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5))
    for axis, work in zip(axes.flat, works, strict=False):
        chosen = [row for row in rows if row["workload"] == work]
        late = isinstance(chosen[0]["values"][0], list)
        value = {row["peer"]: statistics.median(one[0] if late else one for one in row["values"]) for row in chosen}
        chosen.sort(key=lambda row: value[row["peer"]], reverse=not late)
        colors = [OURS if row["peer"] == "pqlog" else DURABLE if row["survives"] == "all" else WEAK for row in chosen]
        axis.barh([row["peer"] for row in chosen], [value[row["peer"]] for row in chosen], color=colors)
        axis.invert_yaxis()
        axis.set_title(f"{work}, ms (median)" if late else f"{work}, messages per second", fontsize=9)
        axis.ticklabel_format(axis="x", style="plain")
        axis.locator_params(axis="x", nbins=4)
    for label, color in (("pqlog", OURS), ("survives a power cut", DURABLE), ("may lose what returned", WEAK)):
        figure.axes[0].bar(0, 0, color=color, label=label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure


def _routes(rows: list[dict[str, Any]]) -> plt.Figure:
    """Seconds and memory for a million messages, or for the largest number that has results."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = plt.subplots(1, 2 * len(shapes), figsize=(6.5 * len(shapes), 3.4), sharey=True, squeeze=False)
    for number, shape in enumerate(shapes):
        largest = max(row["rows"] for row in rows if row["shape"] == shape and row["rows"] <= 1_000_000)
        chosen = [row for row in rows if row["shape"] == shape and row["rows"] == largest and row["seconds"]]
        names = [row["route"] for row in chosen]
        colors = [OURS if name.startswith("pqlog") else DURABLE for name in names]
        for axis, field, title in (
            (axes[0][2 * number], "seconds", "seconds"),
            (axes[0][2 * number + 1], "memory_mb", "peak memory, MB"),
        ):
            axis.barh(names, [statistics.median(row[field]) for row in chosen], color=colors)
            axis.set_title(f"{largest:,} messages, {shape}: {title}", fontsize=9)
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    return figure
