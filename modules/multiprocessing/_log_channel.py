"""The way of log records from child processes to the handlers of the process that called pyhost.collect_logging().

A child's records are put into a queue in shared memory at the moment they are made: whatever becomes of the child, they are
there.  A thread of the collecting process takes them out and hands them to its loggers of the same names.  The queue
belongs to a process's configuration, which its children inherit: children of children send their records to the same place.
"""

import atexit
import logging
import sys
import threading
import traceback

import _pyhost

from . import process
from . import util

__all__ = ()

CONFIG_NAME = 'pyhost_log_channel'


class LogChannel:
    """What a child is told: where records go, and which levels are set here when it is started."""

    def __init__(self, records, levels=None):
        self.records = records
        self.levels = levels

    def __reduce__(self):
        from . import spawn
        if spawn.foreign_executable() is not None:
            return type(None), ()  # another program cannot reach the queue, nor find this module
        return LogChannel, (self.records, current_levels())

    def stop(self):
        """Does nothing: the process that collects is another one."""

    def install(self):
        """In a child: its loggers send what they let pass, and write nothing themselves."""
        self.__dict__.pop('collector', None)
        if self.levels is None:  # a fork: the levels are here already
            self.levels = current_levels()
        disabled, levels = self.levels
        logging.disable(disabled)
        for logger in _loggers():
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
            logger.propagate = True
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().addHandler(ChannelHandler(self.records))
        if util.LOGGER_NAME in levels:
            util.get_logger().propagate = True


def _loggers():
    named = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(logger for logger in list(named) if isinstance(logger, logging.Logger))]


def current_levels():
    """(what logging.disable() was told, name -> level of the loggers that have one)."""
    return (logging.Logger.manager.disable,
            {'' if logger is logging.getLogger() else logger.name: logger.level
             for logger in _loggers() if logger.level})


class _NoLock:
    """What logging takes for a handler's lock: from 3.13 on it wants one."""

    def acquire(self):
        """Nothing to wait for."""

    def release(self):
        """Nothing to give back."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class ChannelHandler(logging.Handler):
    """Puts records into a queue of the segment."""

    def __init__(self, records):
        super().__init__()
        self._records = records

    def createLock(self):
        self.lock = _NoLock()  # The queue needs none, and one that is held at a fork would stay so.

    def emit(self, record):
        try:
            self._records.put(_portable(record))
        except Exception:
            self.handleError(record)


def _portable(record):
    """The attributes of a record: text in place of what may exist here only."""
    attributes = dict(record.__dict__)
    attributes.update(msg=record.getMessage(), message=None, args=None, exc_info=None)
    if record.exc_info and not record.exc_text:
        attributes['exc_text'] = logging.Formatter().formatException(record.exc_info)
    for name, value in attributes.items():
        if type(value) not in (str, int, float, bool, type(None)):
            try:
                _pyhost.pickle_bytes(value)
            except Exception:
                attributes[name] = repr(value)
    return attributes


class LogCollector:
    """Hands the records of child processes to the loggers of this process, until `stop()` or the end of the process."""

    def __init__(self):
        records = _pyhost.Queue()
        thread = threading.Thread(target=handle_until_told, args=(records,), name='log-collector', daemon=True)
        thread._pyhost_internal = True
        thread.start()
        self.channel = LogChannel(records)
        # After the children were joined, before logging's own exit function.
        self._finalizer = util.Finalize(self, self._drain, args=(records, thread), exitpriority=-50)
        atexit.unregister(util._exit_function)
        atexit.register(util._exit_function)

    def stop(self):
        """Handles what has been sent, and no more: the records of children that still live are dropped."""
        process.current_process()._config.pop(CONFIG_NAME, None)
        self._finalizer()

    @staticmethod
    def _drain(records, thread):
        records.put(None)
        thread.join()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.stop()


def handle_until_told(records):
    """Hands each record to its logger, until there is None."""
    while True:
        try:
            attributes = records.get()
            if attributes is None:
                return
            record = logging.makeLogRecord(attributes)
            logging.getLogger('' if record.name == 'root' else record.name).handle(record)
        except Exception:
            # A handler or filter of the program's, or a record that does not unpickle: the others must get through.
            if logging.raiseExceptions and sys.stderr:
                traceback.print_exc()


def collect():
    """See pyhost.collect_logging()."""
    config = process.current_process()._config
    channel = config.get(CONFIG_NAME)
    if channel is None:
        collector = LogCollector()
        config[CONFIG_NAME] = collector.channel
        collector.channel.collector = collector
        return collector
    return getattr(channel, 'collector', channel)
