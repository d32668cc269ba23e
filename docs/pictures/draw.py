"""Draws the diagrams of the documentation: `make pictures`."""

from __future__ import annotations

from html import escape
from pathlib import Path

INK, SOFT, LINE = "#1d2b3a", "#5b6b7c", "#8fa1b3"
BLUE, GREEN, SAND, ROSE, WHITE = "#dbe8f6", "#dcefdc", "#f5ecd7", "#f6dede", "#ffffff"


class Picture:
    """An SVG with boxes, texts and arrows on a white background, so that it is readable on dark pages too."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str = WHITE, dashed: bool = False) -> None:
        """A rounded rectangle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{LINE}"{dash}/>'
        )

    def text(
        self, x: float, y: float, text: str, size: int = 14, ink: str = INK, anchor: str = "middle", mono: bool = False,
        bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of text; `y` is its base line."""
        family = "ui-monospace, Menlo, Consolas, monospace" if mono else "system-ui, Segoe UI, Helvetica, sans-serif"
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" font-family="{family}" fill="{ink}" '
            f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line with a head at its last point."""
        path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(points))
        self.parts.append(f'<path d="{path}" fill="none" stroke="{SOFT}" stroke-width="1.5" marker-end="url(#head)"/>')

    def save(self, name: str) -> None:
        """Write it to the folder of this file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" role="img"><title>{escape(self.title)}</title>'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{SOFT}"/></marker></defs>'
            f'<rect width="{self.width}" height="{self.height}" rx="8" fill="#ffffff"/>'
        )
        (Path(__file__).parent / name).write_text(head + "\n" + "\n".join(self.parts) + "\n</svg>\n")


def log() -> None:
    """A topic as cells, and three clients below it."""
    picture = Picture(760, 250, "A topic with its messages, and three clients at their positions")
    picture.text(20, 30, 'topic "main"', bold=True, anchor="start")
    size, left = 62, 20
    cells = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
    for index, cell in enumerate(cells):
        fill = "#eeeeee" if index < 2 else BLUE
        picture.box(left + index * size, 50, size - 6, 46, fill, dashed=index < 2)
        picture.text(left + index * size + (size - 6) / 2, 78, cell, ink=SOFT if index < 2 else INK, mono=True)
    picture.box(left + 10 * size, 50, size - 6, 46, WHITE, dashed=True)
    picture.text(left + 10 * size + 28, 78, "put", ink=SOFT, size=12)
    picture.text(left + size - 3, 116, "trimmed", 12, SOFT)
    for name, position, row in (("billing", 10, 0), ("etl", 7, 1), ("report", 4, 2)):
        x, y = left + (position - 1) * size - 3, 140 + row * 36
        picture.arrow((x, y - 4), (x, 102))
        picture.box(x - 108, y - 6, 108, 26, GREEN)
        picture.text(x - 54, y + 12, name, 13)
        lag = len(cells) + 1 - position
        picture.text(x + 12, y + 12, f"position {position}, lag {lag}", 12, SOFT, "start")
    picture.save("log.svg")


def batch() -> None:
    """The states of a batch."""
    picture = Picture(760, 210, "The life of a batch")
    boxes = (
        (20, "claimed", "boundaries are durable", BLUE),
        (285, "open", "your code works on it", SAND),
        (550, "acknowledged", "not delivered again", GREEN),
    )
    for x, name, note, fill in boxes:
        picture.box(x, 40, 190, 60, fill)
        picture.text(x + 95, 66, name, 15, bold=True)
        picture.text(x + 95, 87, note, 12, SOFT)
    picture.arrow((210, 70), (283, 70))
    picture.text(247, 60, "handed out", 11, SOFT)
    picture.arrow((475, 70), (548, 70))
    picture.text(511, 60, "ask for next", 11, SOFT)
    picture.box(285, 140, 190, 46, ROSE)
    picture.text(380, 160, "released", 14, bold=True)
    picture.text(380, 177, "attempt + 1, error kept", 12, SOFT)
    picture.arrow((380, 100), (380, 138))
    picture.text(392, 124, "break, exception, kill, power cut", 12, SOFT, "start")
    picture.arrow((285, 163), (115, 163), (115, 102))
    picture.text(200, 155, "the same messages again", 12, SOFT)
    picture.save("batch.svg")


def stage() -> None:
    """The transaction that ends a batch."""
    picture = Picture(760, 220, "What a stage commits together")
    picture.box(20, 70, 150, 80, BLUE)
    picture.text(95, 105, 'topic "raw"', bold=True)
    picture.text(95, 126, "batch 7", 12, SOFT)
    picture.arrow((170, 110), (228, 110))
    picture.box(230, 70, 150, 80, SAND)
    picture.text(305, 105, "your function", bold=True)
    picture.text(305, 126, "a frame in, a frame out", 12, SOFT)
    picture.arrow((380, 110), (438, 110))
    picture.box(440, 20, 300, 180, "#f7f9fb", dashed=True)
    picture.text(590, 44, "one transaction, one sync", 13, SOFT, bold=True)
    for y, name in (
        (56, 'what was put into topic "clean"'),
        (104, "batch 7 is acknowledged"),
        (152, "batch 8 is claimed"),
    ):
        picture.box(460, y, 260, 38, GREEN)
        picture.text(590, y + 24, name, 13)
    picture.save("stage.svg")


def domain() -> None:
    """What a log consists of, and what its clients are: the nouns of the API and of the file."""
    picture = Picture(760, 520, "Log, topic, partition, message, client, position, batch and claim")
    picture.box(10, 10, 740, 500, "#f7f9fb")
    picture.text(26, 34, "log", bold=True, anchor="start")
    picture.text(60, 34, "a set of topics; one file", 12, SOFT, "start")

    picture.box(26, 46, 708, 304)
    picture.text(42, 70, 'topic "orders"', bold=True, anchor="start")
    picture.text(158, 70, "one codec, one or more partitions; in a file, always one", 12, SOFT, "start")
    picture.box(42, 82, 676, 84, "#f7f9fb", dashed=True)
    picture.text(54, 100, "partition", 12, INK, "start", bold=True)
    picture.text(118, 100, "messages in one total order", 12, SOFT, "start")
    size, left, cells = 54, 170, 110

    def start(offset: int) -> float:
        return left + (offset - 1) * size

    for offset in range(1, 8):
        fill = "#eeeeee" if offset < 3 else BLUE
        picture.box(start(offset), cells, size - 6, 44, fill)
        picture.text(start(offset) + (size - 6) / 2, cells + 27, str(offset), mono=True)
    picture.box(start(8), cells, 3 * size - 6, 44, BLUE)
    for offset in range(8, 11):
        picture.text(start(offset) + (size - 6) / 2, cells + 20, str(offset), mono=True)
    picture.text(start(8) + 1.5 * size - 3, cells + 37, "a segment, in columns", 11, SOFT)

    picture.box(42, 188, 106, 40, GREEN)
    picture.text(95, 213, 'client "etl"', 13, bold=True)
    picture.arrow((148, 208), (start(3) - 3, 208), (start(3) - 3, cells + 46))
    picture.text(160, 201, "position 3", 12, SOFT, "start")
    picture.text(160, 226, "lag 8", 12, SOFT, "start")
    for first, last, number, worker in ((3, 5, 2, "A"), (6, 7, 3, "B")):
        width = (last - first + 1) * size - 6
        picture.box(start(first) + 3 * (first == 3), 188, width - 3 * (first == 3), 40, SAND)
        picture.text(start(first) + width / 2, 204, f"batch {number}", 12, bold=True)
        picture.text(start(first) + width / 2, 220, f"claim of worker {worker}", 11, SOFT)
    picture.text(start(3) + 3, 248, "handed out and not acknowledged; if a worker dies,", 12, SOFT, "start")
    picture.text(start(3) + 3, 264, "the same batch is handed out to another", 12, SOFT, "start")

    picture.box(42, 290, 106, 40, GREEN)
    picture.text(95, 315, 'client "audit"', 13, bold=True)
    picture.arrow((148, 310), (start(11) - 3, 310), (start(11) - 3, cells + 46))
    picture.text(160, 303, "position 11: everything is acknowledged, independently of the others", 12, SOFT, "start")
    picture.text(160, 328, "lag 0", 12, SOFT, "start")

    picture.box(26, 366, 340, 128)
    picture.text(42, 390, 'topic "clean"', bold=True, anchor="start")
    picture.text(42, 414, "What batches 2 and 3 put is staged: it appears", 12, SOFT, "start")
    picture.text(42, 430, "here in the transaction that acknowledges them.", 12, SOFT, "start")
    for offset in range(1, 3):
        picture.box(42 + (offset - 1) * size, 442, size - 6, 40, BLUE)
        picture.text(42 + (offset - 1) * size + 24, 467, str(offset), mono=True)
    picture.box(42 + 2 * size, 442, 2 * size - 6, 40, WHITE, dashed=True)
    picture.text(42 + 3 * size - 3, 467, "staged", 12, SOFT)

    picture.box(384, 366, 350, 128, BLUE)
    picture.text(400, 390, "message", bold=True, anchor="start")
    for row, (name, what) in enumerate((
        ("offset", "its place; ascending, never reused"), ("time", "UTC; never decreases"),
        ("key", "optional text: what it is about"), ("headers", "optional metadata"),
        ("value", "whatever the codec of the topic encodes"),
    )):  # fmt: skip
        picture.text(400, 411 + row * 18, name, 12, anchor="start", mono=True)
        picture.text(470, 411 + row * 18, what, 12, SOFT, "start")
    picture.save("domain.svg")


LAYERS = (
    (SAND, "around it, loaded on first use", (("cli/", "shell"), ("notebook/", "explorer"), ("frames/", "tables"),
     ("export.py", "Parquet"), ("pipe.py", "a stage"))),
    (BLUE, "public objects", (("log.py", "Log"), ("topic.py", "put"), ("client.py", "get"), ("batch.py", "checkpoints"),
     ("history.py", "ranges"))),
    (BLUE, "values", (("stream.py", "topic and codec"), ("codecs.py", "bytes"), ("message.py", "Message"),
     ("extras.py", "loads extras"))),
    (GREEN, "the engines", (("store/sqlite/", "one file"), ("store/kafka/", "a cluster"),
     ("store/memory/", "lists with gaps, for tests"))),
    (GREEN, "the seam", (("store/api.py", "Store, TopicStore, ClientStore"), ("store/values.py", "what crosses it"))),
    (ROSE, "", (("errors.py", "every error, as a tree"),)),
)  # fmt: skip


def architecture() -> None:
    """The folders and files of the package, from top to bottom."""
    picture = Picture(760, 60 + 74 * len(LAYERS), "The folders and files of pqlog; imports point downwards")
    picture.arrow((28, 40), (28, 30 + 74 * len(LAYERS)))
    picture.text(28, 28, "imports", 12, SOFT)
    for row, (fill, note, modules) in enumerate(LAYERS):
        y = 40 + row * 74
        width = (690 - 10 * (len(modules) - 1)) / len(modules)
        if note:
            picture.text(740, y + 4, note, 11, SOFT, "end")
        for index, (name, what) in enumerate(modules):
            x = 50 + index * (width + 10)
            picture.box(x, y + 10, width, 46, fill)
            picture.text(x + width / 2, y + 30, name, 13, mono=True, bold=True)
            picture.text(x + width / 2, y + 47, what, 11, SOFT)
    picture.save("architecture.svg")


if __name__ == "__main__":
    for draw in (log, batch, stage, domain, architecture):
        draw()
