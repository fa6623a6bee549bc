"""Tables as text."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return one line for each row of cells, with the columns aligned.

    Args:
        rows: Rows of the same length, the headings among them.
        right: The columns to align right, as for numbers.

    Example:
        >>> aligned([("name", "count"), ("a", "7")], right=[1])
        ['name  count', 'a         7']

    """
    columns = range(len(rows[0]))
    widths = [max(len(row[column]) for row in rows) for column in columns]

    def placed(cell: str, column: int) -> str:
        width = widths[column]
        return cell.rjust(width) if column in right else cell.ljust(width)

    return ["  ".join(map(placed, row, columns)).rstrip() for row in rows]
