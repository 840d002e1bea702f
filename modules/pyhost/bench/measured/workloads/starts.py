"""Starting and ending child processes."""

import multiprocessing

from workload import Script, Workload


def nothing():
    pass


class Start(Workload):
    group = 'Start and join a process'
    operation = 'process'
    batch = 10
    method = ''

    def prepare(self):
        self.context = multiprocessing.get_context(self.method)
        self.run(2)  # a fork server starts with the first

    def run(self, count):
        codes = []
        for _ in range(count):
            process = self.context.Process(target=nothing)
            process.start()
            process.join()
            codes.append(process.exitcode)
        return codes


class StartSpawn(Start):
    name = 'start-spawn'
    title = 'spawn, empty target'
    method = 'spawn'
    quick = True


class StartForkServer(Start):
    name = 'start-forkserver'
    title = 'forkserver, empty target'
    method = 'forkserver'
    quick = True


class StartFork(Start):
    name = 'start-fork'
    title = 'fork, empty target'
    method = 'fork'
    batch = 20
    quick = True


class StartSpawnNumpy(Start):
    name = 'start-spawn-numpy'
    title = 'spawn, the main module imports numpy'
    method = 'spawn'
    batch = 3
    needs = ('numpy',)
    main_imports = 'numpy'


class StartForkServerNumpy(StartSpawnNumpy):
    name = 'start-forkserver-numpy'
    title = 'forkserver, the main module imports numpy'
    method = 'forkserver'


class StartForkNumpy(StartSpawnNumpy):
    name = 'start-fork-numpy'
    title = 'fork, the main module imports numpy'
    method = 'fork'


class FirstResult(Script):
    name = 'first-result'
    title = 'program start to the first result of Pool(2), spawn'
    group = 'Start and join a process'
    source = 'first_result.py'
    quick = True


class InterpreterStart(Script):
    name = 'interpreter-start'
    title = 'program start to its first line (-c "print()")'
    group = 'Start and join a process'
    code = 'print()'
    quick = True
