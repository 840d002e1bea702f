"""Prints the first result of a pool of two; its launch is what is timed."""

import multiprocessing


def square(x):
    return x * x


if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        print(pool.apply(square, (3,)), flush=True)
