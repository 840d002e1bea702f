"""`_reader` and `_writer` of queues, as programs reach for them.  Runs under pyhost and under python3, the oracle."""

import asyncio
import multiprocessing
import os
import pickle
import select
import threading
import unittest
from multiprocessing import connection

from context_cases import SECONDS, UNDER_PYHOST, ContextCases, bind


def put_after(go, *boxes):
    go.wait(SECONDS)
    for box in boxes:
        box.put('late')


def receive_and_answer(reader, box):
    box.put(reader.recv())


def wait_and_get(box, answers):
    answers.put(connection.wait([box._reader], SECONDS) == [box._reader] and box.get())


class EndCases(ContextCases):
    def make_queues(self):
        return self.context.Queue(), self.context.JoinableQueue(), self.context.SimpleQueue()

    def test_an_end_that_was_closed_says_so(self):
        for box in self.make_queues():
            box.put(1)
            self.assertEqual(box.get(), 1)
        box.close()
        self.assertTrue(box._reader.closed)
        self.assertTrue(box._writer.closed)
        for use in box.get, box.empty, box._reader.fileno, box._reader.recv, lambda: box.put(1):
            with self.assertRaisesRegex(OSError, 'closed'):
                use()

    def test_one_end_can_be_closed_alone(self):
        box = self.context.SimpleQueue()
        box.put('still there')
        box._writer.close()
        self.assertEqual(box.get(), 'still there')
        with self.assertRaisesRegex(OSError, 'closed'):
            box.put(1)

    def test_ends_send_and_receive_what_the_queue_puts_and_gets(self):
        box = self.context.SimpleQueue()
        box._writer.send({'by': 'the writer'})
        self.assertEqual(box.get(), {'by': 'the writer'})
        box._writer.send_bytes(pickle.dumps('as bytes'))
        self.assertEqual(box.get(), 'as bytes')
        box.put(['by', 'put'])
        self.assertTrue(box._reader.poll())
        self.assertEqual(box._reader.recv(), ['by', 'put'])
        box.put('as bytes')
        self.assertEqual(pickle.loads(box._reader.recv_bytes()), 'as bytes')
        box.put('into a buffer')
        room = bytearray(1000)
        size = box._reader.recv_bytes_into(room)
        self.assertEqual(pickle.loads(room[:size]), 'into a buffer')
        box.put('for a buffer that is too small')
        with self.assertRaises(multiprocessing.BufferTooShort) as caught:
            box._reader.recv_bytes_into(bytearray(5))
        self.assertEqual(pickle.loads(caught.exception.args[0]), 'for a buffer that is too small')
        self.assertFalse(box._reader.poll(0.01))

    def test_wait_takes_readers_together_with_other_things(self):
        boxes = self.make_queues()
        go = self.context.Event()
        child = self.start(put_after, go, *boxes)
        there, here = self.context.Pipe()
        waited_for = {box._reader: box for box in boxes}
        self.assertEqual(connection.wait([*waited_for, here, child.sentinel], 0), [])
        go.set()
        got = set()
        while len(got) < len(boxes):
            for ready in connection.wait([*waited_for, here], SECONDS):
                box = waited_for[ready]
                self.assertEqual(box.get(), 'late')
                got.add(box)
        self.assertEqual(connection.wait([child.sentinel], SECONDS), [child.sentinel])
        self.assertEqual(connection.wait([*waited_for, here], 0), [])

    def test_a_descriptor_is_readable_as_long_as_something_is_inside(self):
        for box in self.make_queues():
            poller = select.poll()
            poller.register(box._reader.fileno(), select.POLLIN)
            for _ in range(3):
                self.assertEqual(poller.poll(0), [])
                box.put(1)
                box.put(2)
                self.assertTrue(poller.poll(SECONDS * 1000))
                box.get()
                self.assertTrue(poller.poll(SECONDS * 1000))
                box.get()

    def test_an_event_loop_reads_a_queue(self):
        box, count = self.context.Queue(), 200
        got = []

        async def read():
            loop, done = asyncio.get_running_loop(), asyncio.Event()

            def readable():
                got.append(box.get())
                if len(got) == count:
                    done.set()

            loop.add_reader(box._reader.fileno(), readable)
            threading.Thread(target=lambda: [box.put(number) for number in range(count)]).start()
            await asyncio.wait_for(done.wait(), SECONDS)
            loop.remove_reader(box._reader.fileno())

        asyncio.run(read())
        self.assertEqual(got, list(range(count)))

    def test_the_writer_can_be_waited_on_too(self):
        box = self.context.SimpleQueue()
        poller = select.poll()
        poller.register(box._writer.fileno(), select.POLLOUT)
        self.assertTrue(poller.poll(0))

    def test_an_end_can_be_passed_to_a_child(self):
        box, back = self.context.SimpleQueue(), self.context.SimpleQueue()
        box.put('for the child')
        self.start(receive_and_answer, box._reader, back)
        self.assertEqual(back.get(), 'for the child')

    def test_a_child_polls_what_its_parent_polls(self):
        box, answers = self.context.SimpleQueue(), self.context.SimpleQueue()
        self.assertEqual(connection.wait([box._reader], 0), [])
        self.start(wait_and_get, box, answers)
        box.put('to whoever is first')
        self.assertEqual(answers.get(), 'to whoever is first')

    def test_descriptors_go_with_the_queue(self):
        before = len(os.listdir('/proc/self/fd'))
        threads = len(os.listdir('/proc/self/task'))
        for _ in range(20):
            box = self.context.SimpleQueue()
            box._reader.fileno(), box._writer.fileno()
            box.close()
            box = self.context.SimpleQueue()
            connection.wait([box._reader], 0)
            del box
        self.assertLessEqual(len(os.listdir('/proc/self/fd')), before + 1)
        self.assertLessEqual(len(os.listdir('/proc/self/task')), threads + 1)


class PyhostEndCases:
    def test_a_descriptor_may_be_readable_for_nothing_but_says_so_only_once(self):
        box = self.context.Queue()
        poller = select.poll()
        poller.register(box._reader.fileno(), select.POLLIN)
        box.put(1)
        self.assertTrue(poller.poll(SECONDS * 1000))
        self.start(take_one, box).join(SECONDS)
        self.assertTrue(box.empty())
        self.assertEqual(poller.poll(0), [])
        box.put(2)
        self.assertTrue(poller.poll(SECONDS * 1000))

    def test_bytes_of_a_message_with_a_large_buffer_beside_it(self):
        import numpy
        box, large = self.context.SimpleQueue(), numpy.arange(100_000)
        box.put(large)
        numpy.testing.assert_array_equal(pickle.loads(box._reader.recv_bytes()), large)


def take_one(box):
    box.get()


bind(globals(), 'EndTest', EndCases, *([PyhostEndCases] if UNDER_PYHOST else []))

if __name__ == '__main__':
    unittest.main()
