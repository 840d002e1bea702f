"""Figures for people."""


def scale(value, steps):
    """The value with three digits in the unit of `steps` that suits it."""
    for factor, unit in steps:
        if value >= factor:
            break
    number = value / factor
    return f'{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}'


def figure(value, unit):
    """A value in 'seconds', 'bytes' or any other unit."""
    if unit == 'seconds':
        return scale(value, [(1, 's'), (1e-3, 'ms'), (1e-6, 'us'), (1e-9, 'ns')])
    if unit == 'bytes':
        return scale(value, [(1 << 30, 'GiB'), (1 << 20, 'MiB'), (1 << 10, 'KiB'), (1, 'B')])
    return f'{value:.3g} {unit}'


def ratio(value):
    return f'{value:.2f}x' if value < 10 else f'{value:.1f}x' if value < 100 else f'{value:.0f}x'
