"""Programs that do with their own process what servers do.  Runs under pyhost and under python3, which is the oracle."""

import os
import time
import unittest

from process.script import SECONDS, ScriptCase


class ProgramTest(ScriptCase):
    def read_when_written(self, path, text):
        """What a process that nobody waits for has written, once it ends with `text`."""
        deadline = time.monotonic() + SECONDS
        content = ''
        while not content.endswith(text) and time.monotonic() < deadline:
            if os.path.exists(path):
                with open(path) as file:
                    content = file.read()
        return content

    def test_a_program_that_daemonizes_starts_processes_afterwards(self):
        log = os.path.join(self.folder, 'log')
        outcome = self.run_script('''
            import multiprocessing, os, sys

            def square(x):
                return x * x

            def daemonize(log):
                if os.fork():
                    os._exit(0)
                os.setsid()
                if os.fork():
                    os._exit(0)
                os.chdir('/')
                nowhere = os.open(os.devnull, os.O_RDWR)
                written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(nowhere, 0)
                os.dup2(written, 1)
                os.dup2(written, 2)

            if __name__ == '__main__':
                before = multiprocessing.SimpleQueue()
                before.put('put before')
                daemonize(sys.argv[1])
                print(before.get())
                queue = multiprocessing.Queue()
                child = multiprocessing.Process(target=queue.put, args=('from a child',))
                child.start()
                print(queue.get(timeout=30))
                child.join()
                with multiprocessing.Pool(2) as pool:
                    print(pool.map(square, range(4)), child.exitcode)
                print('end', flush=True)
        ''', log)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(self.read_when_written(log, 'end\n'), 'put before\nfrom a child\n[0, 1, 4, 9] 0\nend\n')

    def test_a_program_that_daemonizes_first_works(self):
        log = os.path.join(self.folder, 'log')
        outcome = self.run_script('''
            import multiprocessing, os, sys

            if __name__ == '__main__':
                if os.fork():
                    os._exit(0)
                os.setsid()
                os.closerange(0, 256)
                os.open(os.devnull, os.O_RDWR)
                os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(1, 2)
                with multiprocessing.Pool(1) as pool:
                    os.write(1, f'{pool.apply(abs, (-5,))}\\nend\\n'.encode())
        ''', log)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(self.read_when_written(log, 'end\n'), '5\nend\n')

    def test_a_program_that_executes_itself_anew_starts_processes_again(self):
        self.assert_printed(self.run_script('''
            import multiprocessing, os, sys

            def work(queue, generation):
                queue.put(f'generation {generation}')

            if __name__ == '__main__':
                generation = int(sys.argv[1])
                queue = multiprocessing.Queue()
                child = multiprocessing.Process(target=work, args=(queue, generation))
                child.start()
                print(queue.get(timeout=30), flush=True)
                child.join()
                if generation < 3:
                    os.execv(sys.executable, [sys.executable, sys.argv[0], str(generation + 1)])
        ''', 1), 'generation 1', 'generation 2', 'generation 3')

    def test_an_execution_with_a_pool_at_work_leaves_nobody_behind(self):
        self.assert_printed(self.run_script('''
            import multiprocessing, os, sys

            if __name__ == '__main__':
                if len(sys.argv) == 1:
                    pool = multiprocessing.get_context('spawn').Pool(2)
                    pool.apply(abs, (-1,))
                    pool.terminate()
                    os.execv(sys.executable, [sys.executable, sys.argv[0], 'again'])
                print(multiprocessing.active_children())
        '''), '[]')

    def test_an_event_loop_runs_calls_in_an_executor(self):
        self.assert_printed(self.run_script('''
            import asyncio, os
            from concurrent.futures import ProcessPoolExecutor

            def power(x, y):
                return x ** y, os.getpid()

            def fail():
                raise LookupError('in the worker')

            async def main():
                loop = asyncio.get_running_loop()
                with ProcessPoolExecutor(2) as executor:
                    calls = [loop.run_in_executor(executor, power, 2, i) for i in range(20)]
                    results = await asyncio.gather(*calls)
                    print([value for value, _ in results] == [2 ** i for i in range(20)])
                    print(os.getpid() in {pid for _, pid in results})
                    try:
                        await loop.run_in_executor(executor, fail)
                    except LookupError as error:
                        print(error)
                    print(await asyncio.wait_for(asyncio.wrap_future(executor.submit(abs, -3)), 30))

            if __name__ == '__main__':
                asyncio.run(main())
        '''), 'True', 'False', "in the worker", '3')


if __name__ == '__main__':
    unittest.main()
