"""Results for people: Markdown tables, by declared columns, that also line up in a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
Row = Mapping[str, Any]


def make_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table; none without rows. Numbers stand on the right."""
    cells = [[show(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(3, len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(head)]
    right = [i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        texts = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(texts)} |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return [line(head), line(rule), *map(line, cells), ""]


def show(value: Any) -> str:
    """A number with four figures, a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        head: its title.
        key: of a row, with dots into what a row holds; or a function of the row.
        show: what to make of a value that is there.
    """

    head: str
    key: str | Callable[[Row], Any]
    show: Callable[[Any], Any] = lambda value: value

    def of(self, row: Row) -> Any:
        """The cell of a row; None for what it lacks."""
        value: Any = row
        if callable(self.key):
            value = self.key(row)
        else:
            for name in self.key.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
        return None if value is None else self.show(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


# What a column's values are shown as, by the letter at the end of its text.
SHOWN: dict[str, Callable[[Any], Any]] = {
    "%": percent,
    "G": lambda n: n / 1e9,
    "M": lambda n: round(n / 1e6, 1),
    "k": lambda n: n * 1e3,
    "0": round,
}


def columns(*texts: str | Column) -> tuple[Column, ...]:
    """Columns from texts such as "key", "title=key" and "title=key:%"."""
    found = []
    for text in texts:
        if isinstance(text, Column):
            found.append(text)
            continue
        head, _, key = text.partition("=")
        key, _, shown = (key or head).partition(":")
        found.append(Column(head, key, SHOWN[shown]) if shown else Column(head, key))
    return tuple(found)


@dataclass(frozen=True)
class Table:
    """A table of a section's rows; a column that no row has anything for is left out.

    Args:
        needs: of the rows those that have this key.
        where: of these those for which it is true.
        order: by what they are sorted; else as they were measured.
    """

    columns: Sequence[Column]
    needs: str = "row"
    where: Callable[[Row], bool] = lambda row: True
    order: Callable[[Row], Any] | None = None

    def lines(self, rows: Iterable[Row]) -> list[str]:
        chosen = [row for row in rows if self.needs in row and self.where(row)]
        chosen = sorted(chosen, key=self.order) if self.order else chosen
        cells = [(column.head, [column.of(row) for row in chosen]) for column in self.columns]
        kept = [cell for i, cell in enumerate(cells) if not i or any(value is not None for value in cell[1])]
        return make_table([head for head, _ in kept], zip(*(values for _, values in kept), strict=True))


@dataclass(frozen=True)
class Page:
    """How a section is shown: by tables, or by a function of its own."""

    title: str
    section: str
    tables: Sequence[Table] = ()
    render: Callable[[Sequence[Row]], list[str]] | None = None

    def lines(self, rows: Sequence[Row]) -> list[str]:
        lines = [line for table in self.tables for line in table.lines(rows)]
        return lines + (self.render(rows) if self.render else [])


def join(lines: Iterable[str]) -> str:
    """A page, never with two empty lines together."""
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"
