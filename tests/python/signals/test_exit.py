"""A program's end: threads that still wait do not change how it ends."""

import os
import subprocess
import sys
import textwrap
import unittest

SECONDS = 60

DAEMON_THREADS = textwrap.dedent('''
    import multiprocessing, queue, threading

    def wait_again_and_again():
        while True:
            try:
                {wait}
            except queue.Empty:
                pass
            started.set()

    if __name__ == '__main__':
        {make}
        started = threading.Event()
        for _ in range(8):
            threading.Thread(target=wait_again_and_again, daemon=True).start()
        started.wait()
        print('the end')
''')

WAITS = {
    'queue': ('waited = multiprocessing.Queue()', 'waited.get(timeout=0.001)'),
    'lock': ('waited = multiprocessing.Lock(); waited.acquire()', 'waited.acquire(timeout=0.001)'),
    'event': ('waited = multiprocessing.Event()', 'waited.wait(0.001)'),
    'connection': ('waited, other = multiprocessing.Pipe()', 'waited.poll(0.001)'),
}


class DaemonThreads(unittest.TestCase):
    def end(self, make, wait):
        program = DAEMON_THREADS.format(make=make, wait=wait)
        environment = {**os.environ, 'PYTHONUNBUFFERED': ''}
        return subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=SECONDS,
                              env=environment)

    def test_that_wait_are_left_behind(self):
        for name, (make, wait) in WAITS.items():
            for _ in range(5):
                with self.subTest(name):
                    ended = self.end(make, wait)
                    self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, 'the end\n', ''))


if __name__ == '__main__':
    unittest.main()
