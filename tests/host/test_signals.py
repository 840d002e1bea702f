"""Signals end pyhost as they end python3."""

import os
import signal
import subprocess
import unittest

import oracle
from oracle import OracleTestCase, clean_environment

# Tells that it runs, then waits for a signal.
WAIT = "import signal, os; os.write(1, b'up\\n'); signal.pause()"


class Signals(OracleTestCase):
    def end_by(self, program, number, code, preexec=None):
        """Start the code, send the signal once it is up, and tell how it ended."""
        with subprocess.Popen(
            # Without column markers: which call of the line is interrupted is a matter of timing.
            [program, "-X", "no_debug_ranges", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environment(), preexec_fn=preexec,
        ) as process:
            self.assertEqual(b"up\n", process.stdout.readline())
            process.send_signal(number)
            output, errors = process.communicate(timeout=oracle.TIMEOUT)
        return process.returncode, output, errors

    def assert_same_end(self, number, code=WAIT, preexec=None):
        """Returns how both ended."""
        expected = self.end_by(oracle.PYTHON, number, code, preexec)
        self.assertEqual(expected, self.end_by(oracle.pyhost(), number, code, preexec))
        return expected

    def test_interrupt_is_an_exit_by_signal(self):
        code, _, errors = self.assert_same_end(signal.SIGINT)
        self.assertEqual(-signal.SIGINT, code)
        self.assertIn(b"KeyboardInterrupt", errors)

    def test_caught_interrupt(self):
        code = f"try:\n    {WAIT.split('; ', 1)[0]}; os.write(1, b'up\\n'); signal.pause()\nexcept KeyboardInterrupt: print('caught')"
        self.assertEqual(0, self.assert_same_end(signal.SIGINT, code)[0])

    def test_interrupt_ignored_from_the_start(self):
        code = "import signal, os; print(signal.getsignal(signal.SIGINT)); os.write(1, b'up\\n'); signal.sigtimedwait([], .2)"
        self.assert_same_end(signal.SIGINT, code, lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))

    def test_terminate(self):
        self.assertEqual(-signal.SIGTERM, self.assert_same_end(signal.SIGTERM)[0])

    def test_interrupt_in_atexit(self):
        self.assert_same("-c", "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)")

    def test_interrupt_raised_by_the_script(self):
        self.assertEqual(-signal.SIGINT, self.assert_same("-c", "raise KeyboardInterrupt").code)

    def test_abort(self):
        self.assertEqual(-signal.SIGABRT, self.assert_same("-c", "import os; os.abort()").code)

    def test_broken_pipe(self):
        code = "import sys\nfor n in range(100000): print(n)"
        ends = []
        for program in (oracle.PYTHON, oracle.pyhost()):
            with subprocess.Popen(
                [program, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
            ) as process:
                process.stdout.readline()
                process.stdout.close()
                errors = process.stderr.read()
                process.wait(oracle.TIMEOUT)
            ends.append((process.returncode, errors))
        self.assertEqual(ends[0], ends[1])
        self.assertIn(b"BrokenPipeError", ends[0][1])

    def test_dispositions_and_mask_at_start(self):
        code = (
            "import signal; print([(s, signal.getsignal(s)) for s in sorted(signal.valid_signals())"
            " if signal.getsignal(s) != signal.SIG_DFL], signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        )
        self.assert_same("-c", code)
        self.assert_same("-c", code, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]))

    def test_faulthandler(self):
        code = "import faulthandler, os, signal; faulthandler.enable(); os.kill(os.getpid(), signal.SIGSEGV)"
        expected, actual = self.run_python("-c", code), self.run_pyhost("-c", code)
        self.assertEqual(expected.code, actual.code)
        self.assertEqual(expected.stderr.splitlines()[0], actual.stderr.splitlines()[0])

    def test_descriptors_at_start(self):
        """pyhost opens nothing of its own that the script could trip over."""
        self.assert_same("-c", "import os; print(sorted(os.listdir('/proc/self/fd')))")

    def test_threads_at_start(self):
        self.assert_same("-c", "import os; print(len(os.listdir('/proc/self/task')))")


if __name__ == "__main__":
    unittest.main()
