"""A signal's handler runs while its process waits, whenever the signal comes: before the wait, in its spin, between spin and
sleep, in a sleep.

PYHOST_SIGNALS chooses how many signals each wait gets (the delays are random, PYHOST_SIGNALS_SEED chooses them).
"""

import multiprocessing
import os
import queue
import random
import signal
import threading
import time
import unittest

SIGNALS = int(os.environ.get('PYHOST_SIGNALS', '200'))
SEED = int(os.environ.get('PYHOST_SIGNALS_SEED', '1'))

PROMPT = 0.1  # seconds
# Of a machine that does other things too: once in a while the process itself does not run when its signal is due.
PROMPT_SHARE = 0.98
EVER = 1.0


class Interrupted(Exception):
    pass


def random_delay(dice):
    """Most of them where a wait spins or is about to sleep, some beyond its first sleeps."""
    if dice.random() < 0.9:
        return 1e-6 + dice.random() * 300e-6
    return dice.random() * 0.2


class SignalTest(unittest.TestCase):
    def setUp(self):
        self.context = multiprocessing.get_context('spawn')
        self.arrivals = []
        self.handler_before = signal.signal(signal.SIGALRM, self.on_alarm)
        self.raises = True

    def tearDown(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler_before)

    def on_alarm(self, signum, frame):
        self.arrivals.append(time.monotonic())
        if self.raises:
            raise Interrupted

    def expect_prompt(self, delays):
        late = sorted(delays)
        prompt = sum(delay < PROMPT for delay in late)
        text = f'{len(late)} signals, latest {late[-3:]}'
        self.assertGreaterEqual(prompt, PROMPT_SHARE * len(late), text)
        self.assertLess(late[-1], EVER, text)

    def interrupt_again_and_again(self, wait):
        dice = random.Random(SEED)
        delays = []
        for _ in range(SIGNALS):
            delay = random_delay(dice)
            due = time.monotonic() + delay
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                wait()
            except Interrupted:
                delays.append(self.arrivals[-1] - due)
            else:
                self.fail('the wait ended without a signal')
        self.expect_prompt(delays)

    def test_queue_get(self):
        items = self.context.Queue()
        self.interrupt_again_and_again(items.get)
        self.interrupt_again_and_again(lambda: items.get(timeout=30))
        items.put('still usable')
        self.assertEqual(items.get(timeout=30), 'still usable')

    def test_queue_put_into_a_full_queue(self):
        items = self.context.Queue(1)
        items.put(1)
        self.interrupt_again_and_again(lambda: items.put(2))
        self.assertEqual(items.get(timeout=30), 1)

    def test_lock_acquire(self):
        lock = self.context.Lock()
        lock.acquire()
        self.interrupt_again_and_again(lock.acquire)
        lock.release()
        self.assertTrue(lock.acquire(block=False))

    def test_semaphore_acquire(self):
        self.interrupt_again_and_again(self.context.Semaphore(0).acquire)

    def test_event_wait(self):
        self.interrupt_again_and_again(self.context.Event().wait)

    def test_condition_wait(self):
        condition = self.context.Condition()
        with condition:
            self.interrupt_again_and_again(condition.wait)

    def test_connection_recv(self):
        for duplex in (True, False):
            reader, writer = self.context.Pipe(duplex)
            with reader, writer:
                self.interrupt_again_and_again(reader.recv)
                self.interrupt_again_and_again(lambda: reader.poll(None))
                self.interrupt_again_and_again(lambda: reader.poll(30))
                writer.send('still usable')
                self.assertEqual(reader.recv(), 'still usable')

    def test_a_call_of_a_manager(self):
        with self.context.Manager() as manager:
            items = manager.Queue()
            self.interrupt_again_and_again(items.get)

    def test_handlers_that_return_do_not_move_the_deadline(self):
        self.raises = False
        items = self.context.Queue()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.003)
        start = time.monotonic()
        with self.assertRaises(queue.Empty):
            items.get(timeout=0.5)
        elapsed = time.monotonic() - start
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertGreaterEqual(elapsed, 0.5)
        self.assertLess(elapsed, 0.5 + EVER)
        self.assertGreater(len(self.arrivals), 20)

    def test_interrupt_key(self):
        items = self.context.Queue()
        dice = random.Random(SEED)
        delays = []
        for _ in range(min(SIGNALS, 300)):
            delay = random_delay(dice)
            sent = []

            def press():
                time.sleep(delay)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

            key = threading.Thread(target=press)
            try:
                key.start()
                items.get()
            except KeyboardInterrupt:
                delays.append(time.monotonic() - sent[0])
            key.join()
        self.assertGreater(len(delays), 0)
        self.expect_prompt(delays)


if __name__ == '__main__':
    unittest.main()
