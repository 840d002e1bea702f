"""pyhost.collect_logging(): records of child processes reach the parent's handlers, however the children end."""

import concurrent.futures
import logging
import multiprocessing
import os
import pyhost
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest

SECONDS = 60
METHODS = ('spawn', 'fork', 'forkserver')
LOG = logging.getLogger('job.part')


class Unportable:
    def __reduce__(self):
        raise TypeError('stays here')

    def __repr__(self):
        return '<unportable>'


def work(number):
    LOG.info('work %d', number, extra={'number': number, 'thing': Unportable()})
    LOG.debug('below the level')
    return number


def fail():
    try:
        raise KeyError('missing')
    except KeyError:
        LOG.exception('failed with %s', Unportable())


def start_another():
    child = multiprocessing.Process(target=work, args=(7,), name='grandchild')
    child.start()
    child.join()


def die():
    LOG.error('last words')
    os.kill(os.getpid(), signal.SIGKILL)


def log_for_ever(started):
    started.set()
    while True:
        LOG.info('again')


class Kept(logging.Handler):
    """Keeps what it gets."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.changed = threading.Condition()

    def emit(self, record):
        record.message = record.getMessage()
        with self.changed:
            self.records.append(record)
            self.changed.notify_all()


class CollectTest(unittest.TestCase):
    def setUp(self):
        self.kept = Kept()
        LOG.setLevel(logging.INFO)
        LOG.addHandler(self.kept)
        LOG.propagate = False
        self.addCleanup(setattr, LOG, 'propagate', True)
        self.addCleanup(LOG.removeHandler, self.kept)
        collector = pyhost.collect_logging()
        self.addCleanup(collector.stop)

    def expect(self, *messages):
        """These and no others come, in whatever order."""
        with self.kept.changed:
            self.kept.changed.wait_for(lambda: len(self.kept.records) >= len(messages), SECONDS)
            self.assertEqual(sorted(record.message for record in self.kept.records), sorted(messages))
            taken = self.kept.records[:]
            self.kept.records.clear()
        return taken

    def run_child(self, context, target, *args, name=None):
        child = context.Process(target=target, args=args, name=name)
        child.start()
        child.join(SECONDS)
        return child

    def test_processes_of_every_start_method(self):
        for method in METHODS:
            with self.subTest(method):
                child = self.run_child(multiprocessing.get_context(method), work, 1, name='worker')
                record, = self.expect('work 1')
                self.assertEqual((record.processName, record.process, record.name, record.levelno),
                                 ('worker', child.pid, 'job.part', logging.INFO))
                self.assertEqual((record.number, record.thing), (1, '<unportable>'))

    def test_children_of_children(self):
        for method in METHODS:
            with self.subTest(method):
                self.run_child(multiprocessing.get_context(method), start_another)
                self.assertEqual(self.expect('work 7')[0].processName, 'grandchild')

    def test_workers_of_pools_and_executors(self):
        for method in METHODS:
            context = multiprocessing.get_context(method)
            with self.subTest(method), context.Pool(2) as pool:
                pool.map(work, range(4))
                self.expect(*(f'work {number}' for number in range(4)))
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
                list(executor.map(work, range(4)))
                self.expect(*(f'work {number}' for number in range(4)))

    def test_a_killed_child_has_said_its_last_words(self):
        for method in METHODS:
            with self.subTest(method):
                child = self.run_child(multiprocessing.get_context(method), die)
                self.assertEqual(child.exitcode, -signal.SIGKILL)
                self.expect('last words')

    def test_a_child_killed_at_any_moment_garbles_nothing(self):
        context = multiprocessing.get_context('spawn')
        for _ in range(5):
            started = context.Event()
            child = context.Process(target=log_for_ever, args=(started,))
            child.start()
            self.assertTrue(started.wait(SECONDS))
            time.sleep(0.01)
            child.kill()
            child.join(SECONDS)
        self.run_child(context, work, 1)
        with self.kept.changed:
            self.kept.changed.wait_for(lambda: self.kept.records and self.kept.records[-1].message == 'work 1', SECONDS)
            self.assertEqual({record.message for record in self.kept.records}, {'again', 'work 1'})

    def test_tracebacks_come_as_text(self):
        self.run_child(multiprocessing.get_context('spawn'), fail)
        record, = self.expect('failed with <unportable>')
        self.assertIn("KeyError: 'missing'", record.exc_text)

    def test_levels_are_those_at_the_start(self):
        LOG.setLevel(logging.DEBUG)
        self.run_child(multiprocessing.get_context('spawn'), work, 1)
        self.expect('work 1', 'below the level')

    def test_a_second_call_returns_the_same(self):
        self.assertIs(pyhost.collect_logging(), pyhost.collect_logging())

    def test_a_failing_handler_costs_its_record_only(self):
        def refuse(record):
            if record.args is None and record.getMessage() == 'work 1':
                raise ZeroDivisionError
            return True
        LOG.addFilter(refuse)
        self.addCleanup(LOG.removeFilter, refuse)
        self.addCleanup(setattr, logging, 'raiseExceptions', logging.raiseExceptions)
        logging.raiseExceptions = False
        context = multiprocessing.get_context('spawn')
        self.run_child(context, work, 1)
        self.run_child(context, work, 2)
        self.expect('work 2')

    def test_forks_while_records_arrive(self):
        """No child inherits a lock that is held."""
        spawn, fork = multiprocessing.get_context('spawn'), multiprocessing.get_context('fork')
        started = spawn.Event()
        busy = spawn.Process(target=log_for_ever, args=(started,), daemon=True)
        busy.start()
        self.assertTrue(started.wait(SECONDS))
        for number in range(20):
            self.assertEqual(self.run_child(fork, work, number).exitcode, 0)
        busy.kill()
        busy.join(SECONDS)


class Programs(unittest.TestCase):
    def test_the_end_of_the_program_waits_for_all_records(self):
        program = textwrap.dedent('''
            import logging, multiprocessing, pyhost, sys, time

            def work():
                for number in range(2000):
                    logging.info('record %d', number)

            if __name__ == '__main__':
                logging.basicConfig(level=logging.INFO, format='%(processName)s %(message)s', stream=sys.stdout)
                pyhost.collect_logging()
                multiprocessing.Process(target=work, name='child').start()
        ''')
        ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual((ended.returncode, ended.stderr), (0, ''))
        self.assertEqual(ended.stdout.splitlines(), [f'child record {number}' for number in range(2000)])

    def test_the_package_s_own_log(self):
        program = textwrap.dedent('''
            import logging, multiprocessing, pyhost

            def work():
                multiprocessing.get_logger().info('hello from %s', multiprocessing.current_process().name)

            if __name__ == '__main__':
                multiprocessing.log_to_stderr(logging.INFO)
                pyhost.collect_logging()
                child = multiprocessing.Process(target=work, name='child')
                child.start()
                child.join()
        ''')
        ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(ended.stderr.count('hello from child'), 1, ended.stderr)

    def test_a_child_of_another_program_starts_all_the_same(self):
        program = textwrap.dedent('''
            import multiprocessing, pyhost
            if __name__ == '__main__':
                pyhost.collect_logging()
                context = multiprocessing.get_context('spawn')
                context.set_executable('/usr/bin/python3')
                child = context.Process(target=print, args=('from python3',))
                child.start()
                child.join()
                print(child.exitcode)
        ''')
        ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual((ended.stdout, ended.stderr), ('from python3\n0\n', ''))


if __name__ == '__main__':
    unittest.main()
