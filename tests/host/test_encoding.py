"""Locales, UTF-8 mode and text that is not ASCII."""

import unittest

from oracle import OracleTestCase, clean_environment

SHOW = (
    "import sys, locale, os; print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), sys.flags.utf8_mode, "
    "sys.stdout.encoding, sys.stdin.errors, locale.setlocale(locale.LC_CTYPE), os.environ.get('LC_CTYPE'), "
    "[ascii(a) for a in sys.argv])"
)


class Locales(OracleTestCase):
    def test_locales(self):
        for variables in (
            {"LANG": None}, {"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C.UTF-8"}, {"LC_CTYPE": "C"},
            {"LC_ALL": "no_SUCH.locale"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, {"LANG": "C", "PYTHONCOERCECLOCALE": "0"},
            {"LANG": "C", "PYTHONCOERCECLOCALE": "warn"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ):
            for options in ([], ["-X", "utf8"], ["-X", "utf8=0"], ["-I"]):
                with self.subTest(variables=variables, options=options):
                    self.assert_same(*options, "-c", SHOW, "\u00e9", environment=clean_environment(**variables))

    def test_undecodable_argument(self):
        self.assert_same("-c", SHOW, b"\xff\xfe")

    def test_undecodable_script_name(self):
        name = b"s\xff.py"
        with open(bytes(self.folder) + b"/" + name, "w") as script:
            script.write("import sys; print(ascii(sys.argv), ascii(__file__))")
        self.assert_same(name)

    def test_undecodable_command(self):
        self.assert_same(b"-c", b"print(ascii('\xff'))")

    def test_text_on_standard_streams(self):
        code = "import sys; print(ascii(sys.stdin.read())); print('\u00fc\u4e2d'); sys.stderr.write('\\udcff\\n')"
        for language in ("C", "C.UTF-8"):
            with self.subTest(language=language):
                environment = clean_environment(LANG=language)
                self.assert_same("-c", code, stdin="\u00fc".encode() + b"\xff", environment=environment)


if __name__ == "__main__":
    unittest.main()
