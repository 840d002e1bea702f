"""What child processes print: each line arrives whole, with the process's name in front where it is wanted."""

import os
import pyhost
import re
import subprocess
import sys
import textwrap
import unittest

SECONDS = 60

HEAD = '''
import multiprocessing, os, signal, sys, time
import pyhost
'''


class OutputTest(unittest.TestCase):
    def run_program(self, text, *options, **environment):
        environment = {'PYTHONUNBUFFERED': '', **environment}
        return subprocess.run([sys.executable, *options, '-c', HEAD + textwrap.dedent(text)], capture_output=True,
                              timeout=SECONDS, env={**os.environ, **environment})

    def expect_lines(self, ended, expected):
        self.assertEqual(ended.stderr.decode(), '')
        self.assertEqual(ended.returncode, 0)
        self.assertEqual(sorted(ended.stdout.decode().splitlines()), sorted(expected))


class Lines(OutputTest):
    INTERLEAVE = '''
        def work(number, start):
            start.wait()
            for turn in range({turns}):
                print(number, {letter} * {size}, turn, sep=' ')

        if __name__ == '__main__':
            context = multiprocessing.get_context({method!r})
            start = context.Event()
            children = [context.Process(target=work, args=(number, start)) for number in range(4)]
            for child in children:
                child.start()
            start.set()
            for child in children:
                child.join()
    '''

    def interleave(self, method, turns, size):
        ended = self.run_program(self.INTERLEAVE.format(method=method, turns=turns, size=size, letter='chr(97 + number)'))
        self.expect_lines(ended, [f'{number} {chr(97 + number) * size} {turn}'
                                  for number in range(4) for turn in range(turns)])

    def test_small_ones(self):
        for method in ('spawn', 'fork', 'forkserver'):
            with self.subTest(method):
                self.interleave(method, 500, 30)

    def test_ones_larger_than_a_pipe_takes_at_once(self):
        self.interleave('spawn', 20, 200_000)
        self.interleave('fork', 20, 5_000)

    def test_a_forked_child_has_what_its_parent_has_for_a_stream_at_the_start(self):
        ended = self.run_program('''
            def show(expected):
                print(sys.stdout.encoding, sys.stdout.errors, sys.stdout is expected)

            def start(expected):
                child = multiprocessing.get_context('fork').Process(target=show, args=(expected,))
                child.start()
                child.join()

            if __name__ == '__main__':
                start(None)
                sys.stdout.reconfigure(encoding='latin-1', errors='replace')
                start(None)
                class Own:
                    encoding, errors = 'own', 'none'
                    def write(self, text): os.write(1, text.encode())
                    def flush(self): pass
                sys.stdout = own = Own()
                start(own)
                sys.stdout = sys.__stdout__
                sys.stdout.reconfigure(encoding='utf-8')
                start(None)
        ''', PYTHONIOENCODING='utf-8:strict')
        self.expect_lines(ended, ['utf-8 strict False', 'latin-1 replace False', 'own none True', 'utf-8 strict False'])

    def test_a_killed_child_has_printed_its_lines(self):
        ended = self.run_program('''
            def die():
                print('first')
                print('second')
                os.kill(os.getpid(), signal.SIGKILL)

            if __name__ == '__main__':
                child = multiprocessing.Process(target=die)
                child.start()
                child.join()
        ''')
        self.expect_lines(ended, ['first', 'second'])

    def test_a_child_killed_while_it_writes_keeps_nobody_waiting(self):
        ended = self.run_program('''
            def fill(letter):
                while True:
                    print(letter * 300_000)

            def speak():
                print('speaks')

            if __name__ == '__main__':
                reader = None
                writer = multiprocessing.Process(target=fill, args=('x',))
                writer.start()
                time.sleep(0.2)
                writer.kill()
                writer.join()
                child = multiprocessing.Process(target=speak)
                child.start()
                child.join()
        ''')
        self.assertTrue(ended.stdout.endswith(b'speaks\n'))
        self.assertEqual(ended.returncode, 0)

    def test_parts_of_lines(self):
        ended = self.run_program('''
            def work():
                print('no end', end='')
                sys.stdout.flush()
                sys.stderr.write('to stderr')
                print(' yet', end=' ', flush=True)
                sys.stdout.buffer.write(b'bytes\\n')
                sys.stdout.writelines(['a', 'b\\n', 'left over'])
                assert sys.stdout.fileno() == 1 and not sys.stdout.isatty() and sys.stdout.name == '<stdout>'

            if __name__ == '__main__':
                child = multiprocessing.Process(target=work)
                child.start()
                child.join()
        ''')
        self.assertEqual(ended.stdout, b'no end yet bytes\nab\nleft over')
        self.assertEqual(ended.stderr, b'to stderr')

    def test_streams_that_the_program_replaced_are_left_alone(self):
        ended = self.run_program('''
            import io
            def work():
                assert type(sys.stdout) is io.StringIO
                print('lost')

            if __name__ == '__main__':
                sys.stdout = io.StringIO()
                child = multiprocessing.get_context('fork').Process(target=work)
                child.start()
                child.join()
                sys.__stdout__.write(f'{child.exitcode}\\n')
        ''')
        self.expect_lines(ended, ['0'])

    def test_without_streams(self):
        ended = self.run_program('''
            def work():
                open(sys.argv[1], 'w').write('done') if len(sys.argv) > 1 else None

            if __name__ == '__main__':
                os.close(1)
                child = multiprocessing.get_context('fork').Process(target=work)
                child.start()
                child.join()
                os._exit(child.exitcode)
        ''')
        self.assertEqual((ended.returncode, ended.stderr), (0, b''))


class Prefixes(OutputTest):
    PROGRAM = '''
        def work():
            print('one\\ntwo')
            print('three', end='', flush=True)
            print(' goes on')
            print('four', file=sys.stderr)

        def main():
            print('main')
            child = multiprocessing.Process(target=work, name='child')
            child.start()
            child.join()
    '''

    def test_set_by_the_program(self):
        ended = self.run_program(self.PROGRAM + '''
        if __name__ == '__main__':
            pyhost.set_output_prefix('<{name}> ')
            main()
        ''')
        self.assertEqual(sorted(ended.stdout.decode().splitlines()),
                         sorted(['main', '<child> one', '<child> two', '<child> three goes on']))
        self.assertEqual(ended.stderr.decode(), '<child> four\n')

    def test_set_from_outside(self):
        call = '''
        if __name__ == '__main__':
            main()
        '''
        for options, environment, prefix in (
                ((), {'PYHOST_OUTPUT_PREFIX': '{pid}:{name}|'}, r'\d+:child\|'),
                (('-X', 'pyhost_output_prefix'), {}, r'\[child\] '),
                (('-X', 'pyhost_output_prefix=>{name}>'), {'PYHOST_OUTPUT_PREFIX': 'no'}, '>child>')):
            with self.subTest(options=options, environment=environment):
                ended = self.run_program(self.PROGRAM + call, *options, **environment)
                lines = ended.stdout.decode().splitlines()
                self.assertIn('main', lines)
                self.assertEqual(sum(bool(re.fullmatch(prefix + '(one|two|three goes on)', line)) for line in lines), 3,
                                 lines)

    def test_wrong_ones(self):
        for prefix, error in ((3, TypeError), ('{what}', ValueError), ('{', ValueError), ('{0}', ValueError)):
            with self.subTest(prefix), self.assertRaises(error):
                pyhost.set_output_prefix(prefix)


if __name__ == '__main__':
    unittest.main()
