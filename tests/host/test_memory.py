"""Memory that a program dropped serves it again, without the kernel; but not all of it is kept."""

import subprocess
import sys
import unittest

import oracle
from oracle import clean_environment

PRELUDE = """
import resource

def make(count):
    chain = None
    for _ in range(count):
        chain = (chain,)  # 48 bytes each

def faults_of(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096
"""


def huge_pages_everywhere():
    """Whether this kernel makes huge pages of any memory: then page faults tell nothing."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return "[always]" in file.read()
    except OSError:
        return False


class Memory(unittest.TestCase):
    def run_code(self, program, code):
        done = subprocess.run([program, "-c", PRELUDE + code], env=clean_environment(), timeout=oracle.TIMEOUT,
                              capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    @unittest.skipIf(huge_pages_everywhere(), "counts page faults")
    def test_objects_made_again_take_no_page_faults(self):
        code = "print(faults_of(lambda: make(200_000)), faults_of(lambda: [make(200_000) for _ in range(10)]))"
        first, others = self.run_code(oracle.pyhost(), code)
        self.assertGreater(first, 1000, "10 MB were touched for the first time")
        self.assertLess(others, first / 2, "for ten times as many")
        if sys.version_info < (3, 13):
            _, theirs = self.run_code(oracle.PYTHON, code)
            self.assertGreater(theirs, 20 * others, "python3 gives each arena back at once")

    def test_what_is_kept_is_bounded(self):
        before, after = self.run_code(oracle.pyhost(), "before = resident()\nmake(4_000_000)\nprint(before, resident())")
        self.assertLess(after - before, 40 << 20, "of 200 MB")


if __name__ == "__main__":
    unittest.main()
