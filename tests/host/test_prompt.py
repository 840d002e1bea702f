"""The interactive prompt, on a terminal of its own (a pty): transcripts of pyhost and python3 must agree."""

import os
import pty
import re
import select
import signal
import subprocess
import time
import unittest

import oracle
from oracle import OracleTestCase, clean_environment, normalized

PROMPT = b">>> "
INTERRUPT = b"\x03"


class Terminal:
    """A program on a pseudo terminal, driven by what it prints."""

    def __init__(self, program, *arguments, **options):
        self.program = program
        self.master, slave = pty.openpty()
        self.output = b""
        self.read_to = 0
        self.process = subprocess.Popen(
            [program, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)), **options,  # makes it the controlling terminal
        )
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, deadline):
        if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"nothing more printed; so far: {self.output!r}")
        try:
            data = os.read(self.master, 4096)
        except OSError:  # EIO: the other end is closed
            data = b""
        self.output += data
        return data

    def expect(self, text):
        """Read until `text` stands in the output that was not expected yet."""
        deadline = time.monotonic() + oracle.TIMEOUT
        while (found := self.output.find(text, self.read_to)) < 0:
            if not self._read(deadline):
                raise EOFError(f"ended without printing {text!r}: {self.output!r}")
        self.read_to = found + len(text)

    def send(self, text):
        """Type the text; an interrupt only once the program waits (readline misses one that comes in between)."""
        if text == INTERRUPT:
            self._await_sleep()
        os.write(self.master, text)

    def _await_sleep(self):
        """Return when the program has been asleep, without having run in between, at two looks in a row."""
        deadline = time.monotonic() + oracle.TIMEOUT
        before = None
        while time.monotonic() < deadline:
            with open(f"/proc/{self.process.pid}/status") as lines:
                status = dict(line.split(":", 1) for line in lines)
            now = (status["State"], status["voluntary_ctxt_switches"])
            if now == before and now[0].split()[0] == "S":
                return
            before = now
            select.select([], [], [], 0.01)
        raise TimeoutError("the program never waits")

    def finish(self):
        """Read to the end; returns the exit code and the transcript."""
        deadline = time.monotonic() + oracle.TIMEOUT
        while self._read(deadline):
            pass
        code = self.process.wait(oracle.TIMEOUT)
        transcript = normalized(self.output, self.program)
        return code, re.sub(rb"\x1b\[[?0-9;]*[a-zA-Z]", b"", transcript)


class Prompt(OracleTestCase):
    def dialogue(self, program, steps, *arguments, environment=None):
        """Type each step when the prompt is there; returns the exit code and the transcript."""
        if environment is None:
            environment = clean_environment(TERM="dumb", HOME=str(self.folder), PYTHON_BASIC_REPL="1")
        with Terminal(program, *arguments, cwd=self.folder, env=environment) as terminal:
            for wait, text in steps:
                terminal.expect(wait)
                terminal.send(text)
            return terminal.finish()

    def assert_same_dialogue(self, *steps, **options):
        """Returns exit code and transcript of pyhost, which are those of python3."""
        arguments = options.pop("arguments", ())
        expected = self.dialogue(oracle.PYTHON, steps, *arguments, **options)
        actual = self.dialogue(oracle.pyhost(), steps, *arguments, **options)
        self.assertEqual(expected, actual)
        return actual

    def test_expression_and_end_of_file(self):
        code, transcript = self.assert_same_dialogue((PROMPT, b"6 * 7\n"), (b"42\r\n" + PROMPT, b"\x04"))
        self.assertEqual(0, code)
        self.assertIn(b"Python 3.", transcript)  # the banner

    def test_quiet(self):
        _, transcript = self.assert_same_dialogue((PROMPT, b"1\n"), (PROMPT, b"exit(3)\n"), arguments=["-q"])
        self.assertNotIn(b"Python 3.", transcript)

    def test_block_and_exception(self):
        self.assert_same_dialogue(
            (PROMPT, b"def f():\n"), (b"... ", b"    return 1 / 0\n"), (b"... ", b"\n"), (PROMPT, b"f()\n"), (PROMPT, b"_\n"),
            (PROMPT, b"\x04"),
        )

    def test_exit_code(self):
        self.assertEqual(5, self.assert_same_dialogue((PROMPT, b"raise SystemExit(5)\n"))[0])

    def test_interrupt_at_the_prompt(self):
        _, transcript = self.assert_same_dialogue((PROMPT, INTERRUPT), (b"KeyboardInterrupt\r\n" + PROMPT, b"\x04"))
        self.assertIn(b"KeyboardInterrupt", transcript)

    def test_interrupt_of_a_statement(self):
        self.assert_same_dialogue(
            (PROMPT, b"import signal; print('wait' + 'ing'); signal.pause()\n"), (b"waiting\r\n", INTERRUPT),
            (b"KeyboardInterrupt\r\n" + PROMPT, b"\x04"),
        )

    def test_interrupt_of_a_script_ends_by_signal(self):
        self.write("script.py", "import signal; print('waiting'); signal.pause()\n")
        code, _ = self.assert_same_dialogue((b"waiting\r\n", INTERRUPT), arguments=["script.py"])
        self.assertEqual(-signal.SIGINT, code)

    def test_inspect_after_a_script(self):
        self.write("script.py", "x = 3\nraise ValueError(x)\n")
        self.assert_same_dialogue((PROMPT, b"x\n"), (PROMPT, b"\x04"), arguments=["-i", "script.py"])

    def test_startup_file(self):
        startup = self.write("startup.py", "import sys; sys.ps1 = 'ready> '; y = 8\n")
        environment = clean_environment(TERM="dumb", HOME=str(self.folder), PYTHONSTARTUP=str(startup), PYTHON_BASIC_REPL="1")
        self.assert_same_dialogue((b"ready> ", b"y\n"), (b"ready> ", b"\x04"), environment=environment)

    def test_completion(self):
        _, transcript = self.assert_same_dialogue(
            (PROMPT, b"import readline\n"), (PROMPT, b"readline.parse_a\t"), (b"readline.parse_and_bind(", b"'')\n"), (PROMPT, b"\x04")
        )
        self.assertIn(b"readline.parse_and_bind('')", transcript)

    def test_history_is_kept(self):
        for program in (oracle.PYTHON, oracle.pyhost()):
            history = self.folder / ".python_history"
            history.unlink(missing_ok=True)
            steps = [(PROMPT, b"'remember me'\n"), (PROMPT, b"\x04")]
            self.dialogue(program, steps)
            self.assertIn("remember me", history.read_text(), program)

    def test_standard_streams_are_a_terminal(self):
        self.assert_same_dialogue((PROMPT, b"import sys; sys.stdout.isatty(), sys.stdout.line_buffering, sys.argv\n"), (PROMPT, b"\x04"))


if __name__ == "__main__":
    unittest.main()
