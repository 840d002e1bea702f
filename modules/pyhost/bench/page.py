"""The report as one HTML page that needs nothing else: no network, no script."""

import html
import math

from pyhost.bench.format import figure, ratio
from pyhost.bench.samples import compare, summarize

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9d9e0; --ground: #fff; --better: #30796b; --worse: #b3542d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #b0b4ba; --line: #43484e; --ground: #111113; --better: #56c2ab; --worse: #ee9a70; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 46rem; } .soft, caption, th { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; } td, th { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; } td.chart { width: 40%; min-width: 16rem; padding-top: .4rem; }
svg { display: block; width: 100%; height: 1.1rem; } .better { fill: var(--better); } .worse { fill: var(--worse); }
.whisker { stroke: var(--ink); stroke-width: 1.5; } .one { stroke: var(--soft); stroke-width: 1; }
.failed { color: var(--worse); }
"""

EXPLANATION = """
<p>Each workload ran in <b>python3</b> with its standard library and in <b>pyhost</b>: the same script with the same data, in
alternation, {rounds} times each, after a warm-up. A time is that of one operation, and the median of the rounds is shown with
its range. <b>Times better</b> is python3's figure divided by pyhost's, in each round; the bar ends at the median of
these, and the thin line is the interval that holds it with a confidence of {confidence:.0f}%. The scale is logarithmic; the
grey line is 1, where both are equal. Bars to its left, in the other colour, are workloads where pyhost is slower. None has been left out.</p>
"""


class Scale:
    """Ratios to horizontal positions of 0 to 1000, logarithmic, with room for all of them."""

    def __init__(self, ratios):
        self._low = math.log(min([0.5, *ratios]))
        self._high = math.log(max([2.0, *ratios]))

    def at(self, value):
        return 1000 * (math.log(value) - self._low) / (self._high - self._low)


def chart(scale, median, interval):
    """One bar with its interval."""
    one, end = scale.at(1), scale.at(median)
    kind = 'better' if median >= 1 else 'worse'
    low, high = scale.at(interval.low), scale.at(interval.high)
    label = f'{ratio(median)}, between {ratio(interval.low)} and {ratio(interval.high)}'
    return (f'<svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label="{label}"><title>{label}</title>'
            f'<rect class="{kind}" x="{min(one, end):.1f}" y="3" width="{abs(end - one):.1f}" height="14"/>'
            f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="0" y2="20"/>'
            f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10"/></svg>')


def cell(values, unit):
    """The median, and the range where it is pointed at."""
    if not values:
        return '<td class="number">–</td>'
    summary = summarize(values)
    span = f'{figure(summary.low, unit)} to {figure(summary.high, unit)}'
    return f'<td class="number" title="{span}">{figure(summary.median, unit)}</td>'


def title_cell(measured, others):
    lines = [html.escape(measured.title)]
    lines += [f'<span class="soft">{html.escape(label)}: {figure(summarize(values).median, measured.unit)}</span>'
              for label, values in others.items()]
    return '<td>' + '<br>'.join(lines) + '</td>'


def table_row(measured, scale):
    if measured.error:
        return f'<tr><td>{html.escape(measured.title)}</td><td colspan="4" class="failed">{html.escape(measured.error)}</td></tr>'
    values = dict(measured.values)
    theirs, ours = values.pop('python3'), values.pop('pyhost')
    compared = compare(theirs, ours)
    drawn = (f'<td class="number">{ratio(compared[0])}</td><td class="chart">{chart(scale, *compared)}</td>'
             if compared else '<td></td><td></td>')
    return f'<tr>{title_cell(measured, values)}{cell(theirs, measured.unit)}{cell(ours, measured.unit)}{drawn}</tr>'


def group_table(group, rows):
    return (f'<h2>{html.escape(group)}</h2><div class="scroll"><table><tr><th>workload</th><th class="number">python3</th>'
            f'<th class="number">pyhost</th><th class="number">times better</th><th></th></tr>{"".join(rows)}</table></div>')


def limit_table(limits):
    """What the machine and the interpreter allow anybody."""
    rows = ''.join(f'<tr><td>{html.escape(m.title)}</td>{cell(m.values.get("python3"), m.unit)}'
                   f'<td>{html.escape(m.error)}</td></tr>' for m in limits)
    return f'<h2>Limits, to compare with</h2><div class="scroll"><table>{rows}</table></div>' if limits else ''


def facts(report):
    rows = {**report['machine'], **{side['label']: side['program'] for side in report['sides']}}
    if report['missing']:
        rows['not installed, so not compared'] = ', '.join(report['missing'])
    if report['interrupted']:
        rows['interrupted'] = 'the workloads after the last one shown did not run'
    return '<div class="scroll"><table>' + ''.join(
        f'<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>' for name, text in rows.items()) + '</table></div>'


def render(report, all_measured):
    """The page, as text."""
    contests = [measured for measured in all_measured if not measured.limit]
    compared = [found for measured in contests if not measured.error
                and (found := compare(measured.values['python3'], measured.values['pyhost']))]
    scale = Scale([end for median, interval in compared for end in (median, interval.low, interval.high)])
    groups = {}
    for measured in contests:
        groups.setdefault(measured.group, []).append(table_row(measured, scale))
    confidence = 100 * min([interval.confidence for _, interval in compared], default=0)
    return ('<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>pyhost and the standard library</title><style>{STYLE}</style><h1>pyhost and the standard library</h1>'
            f'{EXPLANATION.format(rounds=report["rounds"], confidence=math.floor(confidence))}'
            f'{"".join(group_table(group, rows) for group, rows in groups.items())}'
            f'{limit_table([measured for measured in all_measured if measured.limit])}<h2>Measured on</h2>{facts(report)}</html>\n')
