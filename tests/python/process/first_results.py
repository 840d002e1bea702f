"""A small script as people write it, for compare_starts.py: the time of its first byte of output counts."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor


def started():
    os.write(1, b'.')


def process():
    child = multiprocessing.get_context('spawn').Process(target=abs, args=(-1,))
    child.start()
    child.join()
    started()


def pool():
    with multiprocessing.get_context('spawn').Pool(2) as workers:
        workers.apply(abs, (-1,))
        started()


def executor():
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as workers:
        workers.submit(abs, -1).result()
        started()


if __name__ == '__main__':
    {'started': started, 'process': process, 'pool': pool, 'executor': executor}[sys.argv[1]]()
