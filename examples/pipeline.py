#!/usr/bin/env python3
"""A pipeline: processes that hand work to the next over queues.

    find files -> read each (several readers) -> add up

    pyhost examples/pipeline.py [folder]

The end is told by None: one for each process that takes from a queue.
"""

import argparse
import os
from multiprocessing import Process, Queue

READERS = 3


def find(folder, paths):
    """Puts every file below the folder, then one end for each reader."""
    for parent, _folders, files in os.walk(folder):
        for name in files:
            paths.put(os.path.join(parent, name))
    for _ in range(READERS):
        paths.put(None)


def read(paths, sizes):
    """Puts (suffix, lines) of each file that is text; an unreadable one is passed over."""
    for path in iter(paths.get, None):
        try:
            with open(path, encoding='utf-8') as file:
                lines = sum(1 for _ in file)
        except (OSError, UnicodeDecodeError):
            continue
        sizes.put((os.path.splitext(path)[1] or 'none', lines))
    sizes.put(None)


def add_up(sizes, result):
    """Adds up lines by suffix until every reader has ended."""
    total = {}
    ended = 0
    while ended < READERS:
        item = sizes.get()
        if item is None:
            ended += 1
            continue
        suffix, lines = item
        files, sum_of_lines = total.get(suffix, (0, 0))
        total[suffix] = files + 1, sum_of_lines + lines
    result.put(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', default=os.path.dirname(os.path.abspath(__file__)),
                        help='whose files to count (default: %(default)s)')
    folder = parser.parse_args().folder

    paths, sizes, result = Queue(), Queue(), Queue()
    stages = [Process(target=find, args=(folder, paths)), Process(target=add_up, args=(sizes, result))]
    stages += [Process(target=read, args=(paths, sizes)) for _ in range(READERS)]
    for stage in stages:
        stage.start()
    total = result.get()
    for stage in stages:
        stage.join()
    for suffix, (files, lines) in sorted(total.items(), key=lambda item: -item[1][1]):
        print(f'{suffix:10} {files:6,} files {lines:10,} lines')


if __name__ == '__main__':
    main()
