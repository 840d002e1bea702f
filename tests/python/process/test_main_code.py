"""The main script in children of spawn and forkserver: they import what its file holds when they are started."""

import os
import time
import unittest

from script import UNDER_PYHOST, ScriptCase, run

# A process hands the code that it runs on to its children only if the file was last changed a while before.
SETTLED = 3

SCRIPT = '''
    import multiprocessing, os, sys, traceback

    VERSION = 1

    def tell():
        return f'{VERSION} {os.path.basename(__file__)} {tell.__code__.co_filename == os.path.abspath(__file__)}'

    def show(nested=True):
        print(__name__, tell(), traceback.extract_stack()[-1].line, flush=True)
        main_code = sys.modules.get('multiprocessing.main_code')
        print('handed on:', bool(getattr(main_code, '_known', None)), flush=True)
        if nested:
            start(False)

    def start(nested):
        process = multiprocessing.get_context(METHOD).Process(target=show, args=(nested,))
        process.start()
        process.join()

    METHOD = sys.argv[1]
    if __name__ == '__main__':
        if len(sys.argv) > 2:
            with open(__file__) as file:
                text = file.read()
            start(False)
            with open(__file__, 'w') as file:
                file.write(text.replace('VERSION = 1', 'VERSION = 2'))
        start(True)
'''
LINE = "print(__name__, tell(), traceback.extract_stack()[-1].line, flush=True)"


class MainCodeTest(ScriptCase):
    def settled_script(self):
        path = self.write('script.py', SCRIPT)
        changed = os.stat(path).st_ctime
        while time.time() < changed + SETTLED + 0.5:
            time.sleep(0.1)
        return path

    def lines(self, path, *arguments, **options):
        outcome = run(path, *arguments, **options)
        self.assertEqual((outcome.code, outcome.stderr), (0, ''), outcome)
        told = [line for line in outcome.stdout.splitlines() if not line.startswith('handed on')]
        handed_on = [line == 'handed on: True' for line in outcome.stdout.splitlines() if line.startswith('handed on')]
        return told, handed_on

    def test_children_and_their_children_import_the_script(self):
        path = self.settled_script()
        for method in ('spawn', 'forkserver'):
            for arguments in ((path,), (os.path.basename(path),)):
                with self.subTest(method=method, arguments=arguments):
                    told, handed_on = self.lines(*arguments, method, cwd=self.folder)
                    self.assertEqual(told, [f'__mp_main__ 1 script.py True {LINE}'] * 2)
                    if UNDER_PYHOST and method == 'spawn':
                        self.assertEqual(handed_on, [True, True])

    def test_script_that_is_changed_while_it_runs(self):
        told, _ = self.lines(self.settled_script(), 'spawn', 'change')
        self.assertEqual([line.split()[1] for line in told], ['1', '2', '2'], 'children see the file as it is')

    def test_script_that_was_changed_just_now_is_compiled(self):
        told, handed_on = self.lines(self.write('script.py', SCRIPT), 'spawn')
        self.assertEqual([line.split()[1] for line in told], ['1', '1'])
        self.assertFalse(any(handed_on))


if __name__ == '__main__':
    unittest.main()
