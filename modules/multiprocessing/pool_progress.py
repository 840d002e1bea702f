"""How far a map() is, for progress=True: tqdm's bar, else rich's, else a line on the terminal, else nothing."""

import importlib
import sys
import time

__all__ = ['Progress']

# Seconds between two looks at what has arrived.
LOOK_EVERY = 0.1


class Progress:
    """Shows items done of `total` (None: unknown).  update() may be called by one thread at a time."""

    def __init__(self, function, total):
        self._done = 0
        self._show = _show_for(getattr(function, '__name__', type(function).__name__), total)

    def update(self, done):
        """`done` items are done altogether."""
        if done != self._done and self._show is not None:
            self._show.advance(done - self._done)
            self._done = done

    def close(self):
        """Nothing more will be shown."""
        show, self._show = self._show, None
        if show is not None:
            show.close()


def _show_for(name, total):
    for module, make in (('tqdm.auto', _Tqdm), ('rich.progress', _Rich)):
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        return make(found, name, total)
    stderr = sys.stderr
    return _Line(stderr, name, total) if stderr is not None and stderr.isatty() else None


class _Tqdm:
    def __init__(self, module, name, total):
        self._bar = module.tqdm(desc=name, total=total)

    def advance(self, count):
        self._bar.update(count)

    def close(self):
        self._bar.close()


class _Rich:
    def __init__(self, module, name, total):
        self._progress = module.Progress()
        self._task = self._progress.add_task(name, total=total)
        self._progress.start()

    def advance(self, count):
        self._progress.advance(self._task, count)

    def close(self):
        self._progress.stop()


class _Line:
    """One line that is written over; ends with a new line."""

    def __init__(self, stream, name, total):
        self._stream = stream
        self._name = name
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._next = self._began

    def advance(self, count):
        self._done += count
        if time.monotonic() >= self._next:
            self._write('')

    def close(self):
        self._write('\n')

    def _write(self, end):
        now = time.monotonic()
        self._next = now + LOOK_EVERY
        of = '' if self._total is None else f'/{self._total} ({self._done * 100 // max(self._total, 1)}%)'
        print(f'\r{self._name}: {self._done}{of} in {now - self._began:.1f} s', end=end, file=self._stream, flush=True)
