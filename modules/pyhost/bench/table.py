"""The table on the terminal."""

from pyhost.bench.format import figure, ratio
from pyhost.bench.samples import compare, summarize

HEADER = ('workload', 'python3', 'pyhost', 'times better', '')


def spread(values, unit):
    """Median with half of the range, relative to it."""
    summary = summarize(values)
    if not summary.median:
        return figure(summary.median, unit)
    return f'{figure(summary.median, unit)} ±{(summary.high - summary.low) / summary.median * 50:.0f}%'


def row(measured):
    """The cells of one workload."""
    if measured.error:
        return (measured.name, '', '', '', f'failed: {measured.error}')
    values = measured.values
    cells = [measured.name, spread(values['python3'], measured.unit), '', '', '']
    if 'pyhost' in values:
        cells[2] = spread(values['pyhost'], measured.unit)
        compared = compare(values['python3'], values['pyhost'])
        if compared:
            cells[3] = f'{ratio(compared[0])} ({ratio(compared[1].low)} to {ratio(compared[1].high)})'
    others = [f'{label}: {spread(values[label], measured.unit)}' for label in values if label not in ('python3', 'pyhost')]
    cells[4] = '; '.join([measured.title, *others])
    return tuple(cells)


def text(all_measured):
    """The whole table, a headline for each group."""
    groups = {}
    for measured in all_measured:
        groups.setdefault(measured.group, []).append(row(measured))
    rows = [HEADER] + [cells for group in groups.values() for cells in group]
    widths = [max(len(cells[column]) for cells in rows) for column in range(4)]

    def line(cells):
        return '  '.join([cells[0].ljust(widths[0]), *(cells[column].rjust(widths[column]) for column in (1, 2, 3)),
                          cells[4]]).rstrip()
    lines = [line(HEADER)]
    for group, cells in groups.items():
        lines += ['', group, *map(line, cells)]
    return '\n'.join(lines)
