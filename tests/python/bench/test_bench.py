"""`pyhost -m pyhost.bench`: what it prints, writes and refuses.  How fast anything is, is no case here."""

import html.parser
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from pyhost.bench.samples import compare, median_interval
from pyhost.bench.table import row
from pyhost.bench.runner import Measured

# Runs as short as they can be: one operation or a few, once under each program.
SHORT = ['--rounds', '1', '--seconds', '0']


def bench(*arguments, **options):
    return subprocess.run([sys.executable, '-m', 'pyhost.bench', *arguments], capture_output=True, text=True, timeout=300,
                          **options)


class Page(html.parser.HTMLParser):
    """The tags that are open, what the page refers to, and its text."""

    EMPTY = {'meta', 'rect', 'line', 'br'}

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.charts = [], [], '', 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ('href', 'src')]
        self.charts += tag == 'svg'
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text += data


class Statistics(unittest.TestCase):
    def test_interval_of_the_median_comes_from_the_binomial_distribution(self):
        # Of nine values, the second to the eighth hold the median with 96.1%; the third to the seventh with 82.0% only.
        found = median_interval([9, 8, 7, 6, 5, 4, 3, 2, 1])
        self.assertEqual((found.low, found.high), (2, 8))
        self.assertAlmostEqual(found.confidence, 0.9609375)

    def test_few_values_give_all_of_their_range_and_say_what_that_is_worth(self):
        found = median_interval([3, 1, 2])
        self.assertEqual((found.low, found.high), (1, 3))
        self.assertAlmostEqual(found.confidence, 0.75)

    def test_ratio_is_taken_pair_by_pair(self):
        # The machine was ten times slower in the second round: the ratio is what it was.
        median, interval = compare([2.0, 20.0, 2.0], [1.0, 10.0, 1.0])
        self.assertEqual((median, interval.low, interval.high), (2, 2, 2))

    def test_nothing_has_no_ratio(self):
        self.assertIsNone(compare([0.01], [0.0]))

    def test_a_workload_where_pyhost_is_slower_is_shown(self):
        measured = Measured('x', 'title', 'group', 'seconds', 'call', False, {'python3': [1e-3], 'pyhost': [2e-3]})
        self.assertIn('0.50x', ' '.join(row(measured)))


class CommandLine(unittest.TestCase):
    def test_help_says_how_ratios_are_made(self):
        printed = bench('--help')
        self.assertEqual(printed.returncode, 0)
        for word in ('--quick', '--only', '--list', '--json', '--html', 'in alternation', 'slower'):
            self.assertIn(word, printed.stdout)

    def test_list_names_every_workload_once(self):
        names = [line.split()[0] for line in bench('--list').stdout.splitlines()]
        self.assertEqual(len(names), len(set(names)))
        for name in ('start-spawn', 'queue-4to4', 'pool-apply', 'executor-4000', 'manager-dict', 'real-job', 'limit-memcpy'):
            self.assertIn(name, names)

    def test_unknown_workload_is_named(self):
        printed = bench('--only', 'pool-apply', 'no-such-*')
        self.assertEqual(printed.returncode, 2)
        self.assertIn('no workload is named no-such-*', printed.stderr)

    def test_bad_numbers_are_refused(self):
        self.assertIn('--rounds must be at least 1', bench('--rounds', '0').stderr)
        self.assertIn('--seconds must be between', bench('--seconds', '-1').stderr)

    def test_missing_python_is_named(self):
        printed = bench('--python', '/no/such/python3', '--only', 'lock')
        self.assertEqual(printed.returncode, 2)
        self.assertIn('/no/such/python3: No such file or directory', printed.stderr)

    def test_what_is_no_python_is_named(self):
        printed = bench('--python', '/bin/true', '--only', 'lock')
        self.assertEqual(printed.returncode, 2)
        self.assertIn('/bin/true is no Python', printed.stderr)

    def test_report_that_cannot_be_written_is_refused_before_anything_is_measured(self):
        for option in '--json', '--html':
            printed = bench(*SHORT, '--only', 'lock', option, '/no/such/folder/file')
            self.assertEqual((printed.returncode, printed.stdout), (2, ''))
            self.assertIn('cannot write /no/such/folder/file: No such file', printed.stderr)

    def test_report_without_room_is_an_error_and_the_table_and_the_other_are_there_all_the_same(self):
        with tempfile.NamedTemporaryFile() as file:
            printed = bench(*SHORT, '--only', 'lock', '--json', '/dev/full', '--html', file.name)
            self.assertIn(b'with lock, uncontended', file.read())
        self.assertEqual(printed.returncode, 1)
        self.assertIn('cannot write /dev/full: No space left', printed.stderr)
        self.assertIn('with lock, uncontended', printed.stdout)

    def test_output_that_nobody_reads_ends_it_in_one_line(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, 'w') as unread:
            ended = subprocess.run([sys.executable, '-m', 'pyhost.bench', '--list'], stdout=unread, stderr=subprocess.PIPE, text=True)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(ended.stderr, 'pyhost.bench: cannot write to the standard output: Broken pipe\n')


class Runs(unittest.TestCase):
    def test_both_programs_give_the_same_results_in_all_of_the_quick_set(self):
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ('report.json', 'report.html')]
            printed = bench(*SHORT, '--quick', '--json', files[0], '--html', files[1])
            self.assertEqual(printed.returncode, 0, printed.stdout + printed.stderr)
            with open(files[0]) as file:
                report = json.load(file)
            with open(files[1]) as file:
                page = Page(file.read())
        contests = [workload for workload in report['workloads'] if not workload['limit']]
        self.assertGreater(len(contests), 15)
        for workload in contests:
            self.assertEqual({len(values) for values in workload['values'].values()}, {1}, workload['name'])
            self.assertLessEqual({'python3', 'pyhost'}, set(workload['values']))
            self.assertIn(workload['title'], printed.stdout)
            self.assertIn(workload['title'], page.text)
        self.assertEqual(page.open, [])
        self.assertEqual(page.links, [], 'the page needs nothing else')
        self.assertGreater(page.charts, 15)

    def test_workload_that_fails_is_reported_and_the_others_go_on(self):
        with tempfile.TemporaryDirectory() as folder:
            python = os.path.join(folder, 'python3')
            with open(python, 'w') as file:
                file.write(f'#!/bin/sh\ncase "$*" in *pool-apply*) echo broken >&2; exit 3;; esac\n'
                           f'exec {os.environ["PYHOST_ORACLE"]} "$@"\n')
            os.chmod(python, 0o755)
            printed = bench(*SHORT, '--python', python, '--only', 'pool-apply', 'lock')
        self.assertEqual(printed.returncode, 1)
        self.assertIn('failed: python3 ended with exit code 3: broken', printed.stdout)
        self.assertIn('with lock, uncontended', printed.stdout)

    def test_different_results_are_a_failure(self):
        with tempfile.TemporaryDirectory() as folder:
            python = os.path.join(folder, 'python3')
            with open(python, 'w') as file:
                file.write('#!/bin/sh\ncase "$*" in *measure.py*) echo \'{"value": 1, "operations": 1, "result": "wrong"}\'; '
                           f'exit 0;; esac\nexec {os.environ["PYHOST_ORACLE"]} "$@"\n')
            os.chmod(python, 0o755)
            printed = bench(*SHORT, '--python', python, '--only', 'lock')
        self.assertEqual(printed.returncode, 1)
        self.assertIn('gave another result', printed.stdout)

    def test_interrupted_run_prints_what_is_done(self):
        process = subprocess.Popen([sys.executable, '-m', 'pyhost.bench', *SHORT, '--only', 'lock', 'cpu-idle'], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while 'lock' not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn('with lock, uncontended', output)
        self.assertIn('1 of 2 workloads were measured', errors)
        self.assertNotIn('Traceback', errors)


if __name__ == '__main__':
    unittest.main()
