"""What the main module imports of the standard library, the spawn server imports for later children; they behave as before."""

import os
import textwrap
import unittest

from script import UNDER_PYHOST, ScriptCase

# ask(question): what a child answers.
ASK = '''
    def answer(question, writer):
        writer.send(eval(question))

    def ask(question):
        context = multiprocessing.get_context('spawn')
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=answer, args=(question, writer))
        process.start()
        writer.close()
        told = reader.recv()
        process.join()
        assert process.exitcode == 0
        return told
'''
# wait_until_warm(): children one after the other until one finds what the first imported.
PRELUDE = '''
    import sys
    was_there = 'colorsys' in sys.modules  # python3's own children begin with json from 3.14 on
    import multiprocessing, os, random, time
''' + ASK + '''
    def wait_until_warm():
        end = time.monotonic() + 30
        while not ask('was_there'):
            assert time.monotonic() < end, 'the server imported nothing'
'''
WAIT = 'wait_until_warm()' if UNDER_PYHOST else 'pass'


class WarmModulesTest(ScriptCase):
    def printed(self, imports, main, **files):
        for name, text in files.items():
            self.write(f'{name}.py', text)
        script = PRELUDE + f'\n    {imports}\n\n    if __name__ == "__main__":\n' + ''.join(
            f'        {line}\n' for line in main.format(WAIT=WAIT).strip().splitlines())
        outcome = self.run_script(script)
        self.assertEqual((outcome.code, outcome.stderr), (0, ''), outcome)
        return outcome.stdout.splitlines()

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has no server')
    def test_later_children_find_what_the_first_imported(self):
        lines = self.printed('import colorsys, json, logging, concurrent.futures.process', '''
{WAIT}
print(ask("[name in sys.modules for name in ('json.decoder', 'logging', 'concurrent.futures.process')]"))
print(ask("sys.modules['json'] is json and json.loads('[1]')"))
''')
        self.assertEqual(lines, ['[True, True, True]', '[1]'])

    def test_descriptors_of_the_program_are_not_taken_for_the_servers(self):
        """Whatever numbers they have: here some that the server has, too."""
        self.write('passed.py', '''
            import os
            from multiprocessing import reduction

            class Passed:
                def __init__(self, fd): self.fd = fd
                def __reduce__(self): return taken, (reduction.DupFd(self.fd),)

            def taken(duplicate): return duplicate.detach()

            def show(fds):
                print(all(f'memfd:file {place} ' in os.readlink(f'/proc/self/fd/{fd}') for place, fd in enumerate(fds, 190)))
        ''')
        outcome = self.run_script('''
            import multiprocessing, os, passed

            if __name__ == '__main__':
                context = multiprocessing.get_context('spawn')
                fds = [os.memfd_create(f'file {place}') for place in range(300)]
                for _ in range(2):
                    process = context.Process(target=passed.show, args=([passed.Passed(fd) for fd in fds[190:]],))
                    process.start()
                    process.join()
                print(sum(os.fstat(fd).st_size for fd in fds))
        ''')
        self.assertEqual((outcome.stdout, outcome.stderr), ('True\nTrue\n0\n', ''))

    def test_children_differ_where_they_should(self):
        lines = self.printed('import colorsys, uuid, tempfile', '''
{WAIT}
print(len({{ask('random.random()') for _ in range(5)}}), len({{ask('uuid.uuid4().hex') for _ in range(5)}}))
print(len({{ask('tempfile.mkdtemp()') for _ in range(3)}}))
''')
        self.assertEqual(lines, ['5 5', '3'])

    def test_module_of_the_programs_in_place_of_a_standard_one(self):
        own = 'from posixpath import sep\nMARK = "own"\nclass Template: pass\nclass Formatter: pass\n'
        lines = self.printed('import json, logging, string', '''
for _ in range(3):
    print(ask('(string.MARK, logging.Template is string.Template)'))
    time.sleep(0.1)
''', string=own)
        self.assertEqual(lines, ["('own', True)"] * 3)

    def test_search_path_that_changes_later(self):
        self.write('later/colorsys.py', 'MARK = "later"')
        lines = self.printed('import colorsys', '''
{WAIT}
print(ask('hasattr(colorsys, "MARK")'))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'later'))
print(ask('colorsys.MARK'))
del sys.path[0]
print(ask('hasattr(colorsys, "MARK")'))
''')
        self.assertEqual(lines, ['False', 'later', 'False'])

    def test_modules_of_a_package_that_are_imported_again(self):
        imports = 'import colorsys; from logging import handlers; from multiprocessing import managers, pool'
        lines = self.printed(imports, '''
{WAIT}
sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'later'))
print(ask('pool is managers.pool is sys.modules.get("multiprocessing.pool")'))
print(ask('handlers is sys.modules.get("logging.handlers")'))
''')
        self.assertEqual(lines, ['True', 'True'])

    def test_libraries_that_replace_modules_come_first(self):
        # Five and more starts: the server would have imported by then.
        lines = self.printed('import gevent, colorsys', '''
for _ in range(12):
    told = ask('(gevent.EARLY, was_there)')
    time.sleep(0.01)
print(told)
''', gevent='import sys\nEARLY = "colorsys" not in sys.modules\n')
        self.assertEqual(lines, ['(True, False)'])

    def test_children_inherit_no_descriptor_of_it(self):
        lines = self.printed('import colorsys', '''
first = ask('len(os.listdir("/proc/self/fd"))')
{WAIT}
print(ask('len(os.listdir("/proc/self/fd"))') - first)
''')
        self.assertEqual(lines, ['0'])

    def test_exit_functions_that_a_warm_module_registered(self):
        lines = self.printed('''import colorsys, logging, atexit
    class Last(logging.Handler):
        def emit(self, record): pass
        def close(self):
            os.write(1, b'closed\\n')
            super().close()''', '''
{WAIT}
ask('logging.getLogger().addHandler(Last())')
''')
        self.assertEqual(lines, ['closed'])


class FirstImportsTest(ScriptCase):
    """What a script imports before anything else, children of spawn import when their server does; nobody can tell but by the clock."""

    def printed(self, head, questions, environment=(), **files):
        """What children answer; `head` is what the script begins with."""
        for name, text in files.items():
            self.write(name.replace('__', '/') + '.py', text)
        script = textwrap.dedent(head) + textwrap.dedent(ASK) + "\nif __name__ == '__main__':\n" + ''.join(
            f'    {line}\n' for line in textwrap.dedent(questions).strip().splitlines())
        outcome = self.run_script(script, env={**os.environ, **dict(environment)})
        self.assertEqual((outcome.code, outcome.stderr), (0, ''), outcome)
        return outcome.stdout.splitlines()

    def test_the_first_child_has_them_from_the_server(self):
        lines = self.printed('''
            #!/usr/bin/env python3
            \"\"\"Names in a docstring are no imports:

            import asyncio
            \"\"\"
            # a comment
            from __future__ import annotations

            import colorsys as colours, logging
            from concurrent.futures import (ProcessPoolExecutor,
                                            as_completed)
            import multiprocessing
            import sys
            ''', '''
            print(ask('logging._startTime') == ask('logging._startTime'))
            print(ask('"asyncio" in sys.modules'), ask('ProcessPoolExecutor.__module__'), ask('colours.ONE_THIRD < 1'))
            ''')
        self.assertEqual(lines, [str(UNDER_PYHOST), 'False concurrent.futures.process True'])

    def test_a_module_of_the_programs_in_place_of_a_standard_one(self):
        lines = self.printed('import colorsys, logging, multiprocessing, string\n',
                             'print(ask("(string.MARK, colorsys.MARK)"))',
                             string='MARK = "own"\nclass Template: pass\nclass Formatter: pass\n', colorsys='MARK = "own"')
        self.assertEqual(lines, ["('own', 'own')"])

    def test_search_path_of_the_environment(self):
        count = os.path.join(self.folder, 'count')
        lines = self.printed('import colorsys, multiprocessing\n', 'print(ask("colorsys.MARK"))',
                             {'PYTHONPATH': os.path.join(self.folder, 'mine')},
                             mine__colorsys=f'MARK = "mine"\nwith open({count!r}, "a") as file: file.write(".")\n')
        self.assertEqual(lines, ['mine'])
        with open(count) as file:
            self.assertEqual(file.read(), '..')  # the program and its child, nobody else

    def test_search_path_that_the_script_changes(self):
        lines = self.printed('''
            import multiprocessing, os, sys
            sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'mine'))
            import colorsys
            ''', 'print(ask("colorsys.MARK"))', mine__colorsys='MARK = "mine"')
        self.assertEqual(lines, ['mine'])

    def test_a_search_path_that_changes_before_the_start(self):
        lines = self.printed('import colorsys, logging, multiprocessing, os, sys\n', '''
            sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'mine'))
            print(ask('(colorsys.MARK, logging.getLogger().name)'))
            ''', mine__colorsys='MARK = "mine"')
        self.assertEqual(lines, ["('mine', 'root')"])

    CANCELLED = '''
        async def wait():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return 'cancelled'

        async def cancel():
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            task.cancel()
            return await task
        '''

    def test_modules_in_c_agree_with_the_others_whatever_the_search_path_is(self):
        head = 'import asyncio, decimal, email.utils, multiprocessing, numbers, os, sys\n' + textwrap.dedent(self.CANCELLED)
        question = 'print(ask("(asyncio.run(cancel()), isinstance(decimal.Decimal(1), numbers.Number))"))'
        for change in ('', 'sys.path.append("/no/such/folder")', 'sys.path.insert(0, os.path.dirname(__file__) + "/mine")'):
            for files in ({}, {'copy': 'MARK = "own"\nfrom mine.copy import *\nfrom mine.copy import Error\n'}, {'mine__colorsys': ''}):
                with self.subTest(change=change, files=files):
                    self.write('mine/__init__.py', '')
                    with open(os.path.join(os.path.dirname(os.__file__), 'copy.py')) as file:
                        self.write('mine/copy.py', file.read())
                    self.assertEqual(self.printed(head, f'{change}\n{question}', **files), ["('cancelled', True)"])
                    for name in files:
                        os.remove(os.path.join(self.folder, name.replace('__', '/') + '.py'))

    def test_an_archive_on_the_search_path_is_searched_in_the_children_alone(self):
        import zipfile
        count, archive = os.path.join(self.folder, 'count'), os.path.join(self.folder, 'mine.zip')
        with zipfile.ZipFile(archive, 'w') as file:
            file.writestr('colorsys.py', f'MARK = "mine"\nwith open({count!r}, "a") as file: file.write(".")\n')
        lines = self.printed('import colorsys, multiprocessing\n', 'print(ask("colorsys.MARK"))', {'PYTHONPATH': archive})
        self.assertEqual(lines, ['mine'])
        with open(count) as file:
            self.assertEqual(file.read(), '..')

    def test_a_module_that_appears_while_the_program_runs(self):
        lines = self.printed('import multiprocessing, os\n', '''
            print(ask('hasattr(__import__("queue"), "MARK")'))
            with open(os.path.join(os.path.dirname(__file__), 'heapq.py'), 'w') as file:
                file.write('MARK = "own"')
            print(ask('hasattr(__import__("heapq"), "MARK")'))
            ''')
        self.assertEqual(lines, ['False', 'True'])

    def test_a_quote_in_a_docstring_is_not_its_end(self):
        lines = self.printed('"""A \\"""\nimport netrc\n"""\nimport json, multiprocessing, sys\n', 'print(ask("\\\'netrc\\\' in sys.modules"))')
        self.assertEqual(lines, ['False'])

    def test_a_finder_of_the_programs_is_asked_in_every_child(self):
        lines = self.printed('''
            import multiprocessing, sys
            class Finder:
                def find_spec(self, name, path=None, target=None):
                    if name == 'colorsys': FOUND.append(name)
            FOUND = []
            sys.meta_path.insert(0, Finder())
            import colorsys
            ''', 'print({tuple(ask("FOUND")) for _ in range(12)})')
        self.assertEqual(lines, ["{('colorsys',)}"])

    def test_what_is_imported_after_a_module_of_the_programs_comes_after_it(self):
        lines = self.printed('import multiprocessing, early, colorsys\n', 'print(ask("early.IS_FIRST"))',
                             early='import sys\nIS_FIRST = "colorsys" not in sys.modules\n')
        self.assertEqual(lines, ['True'])

    def test_statements_on_a_line_with_an_import_run_in_the_children_alone(self):
        count = os.path.join(self.folder, 'count')
        lines = self.printed(f'''
            import colorsys, multiprocessing; open({count!r}, "a").write(".")
            import logging
            ''', 'print(ask("colorsys.ONE_THIRD < 1"))')
        self.assertEqual(lines, ['True'])
        with open(count) as file:
            self.assertEqual(file.read(), '..')

    def test_a_library_that_is_missing_is_the_childrens_own_finding(self):
        lines = self.printed('''
            import multiprocessing, sys
            sys.modules['colorsys'] = None
            try:
                import colorsys
            except ImportError:
                colorsys = 'blocked'
            ''', 'print(ask("colorsys"))')
        self.assertEqual(lines, ['blocked'])

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has no server')
    def test_what_the_module_of_the_function_imports_is_reported(self):
        self.write('work.py', 'import logging\ndef answer(writer): writer.send(logging._startTime)\n')
        outcome = self.run_script('''
            import multiprocessing, time
            def ask():
                import work
                context = multiprocessing.get_context('spawn')
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=work.answer, args=(writer,))
                process.start()
                process.join()
                return reader.recv()
            if __name__ == '__main__':
                end = time.monotonic() + 30
                while ask() != ask():
                    assert time.monotonic() < end, 'the server imported nothing'
                print('found')
            ''')
        self.assert_printed(outcome, 'found')

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has no server')
    def test_the_rest_is_reported_as_before(self):
        self.write('mine/__init__.py', '')
        lines = self.printed('''
            import colorsys
            import multiprocessing, time
            import mine
            import logging
            ''', '''
            end = time.monotonic() + 30
            while ask('logging._startTime') != ask('logging._startTime'):
                assert time.monotonic() < end, 'the server imported nothing'
            print('found')
            ''')
        self.assertEqual(lines, ['found'])


if __name__ == '__main__':
    unittest.main()
