"""A child that runs another program than pyhost (set_executable): outside the session, our own to reap."""

import os
import select
import signal

from . import spawn, util

__all__ = ['launch', 'LaunchedChild']


def launch(payload, tracker_fd, fds):
    """Starts the set program, writes it the payload, and returns its LaunchedChild."""
    child_end, parent_end = os.pipe()
    try:
        command = spawn.get_command_line(tracker_fd=tracker_fd, pipe_handle=child_end)
        pid = util.spawnv_passfds(spawn.get_executable(), command, [*fds, tracker_fd, child_end])
    except BaseException:
        os.close(parent_end)
        raise
    finally:
        os.close(child_end)
    # The child keeps its end of the pipe and sees us go by it, so ours stays open until close().
    child = LaunchedChild(pid, parent_end)
    try:
        with open(parent_end, 'wb', closefd=False) as pipe:
            pipe.write(payload)
    except BrokenPipeError:
        pass  # it has ended; its exit code tells
    return child


class LaunchedChild:
    """What _pyhost.Child is for the children of the session: pid, sentinel, poll, wait, signal, close."""

    def __init__(self, pid, pipe):
        self.pid = pid
        self.sentinel = os.pidfd_open(pid)
        self._pipe = pipe
        self._code = None

    def poll(self):
        """The exit code, or None."""
        if self._code is None:
            self._reap(os.WNOHANG)
        return self._code

    def wait(self, timeout):
        """The exit code; None if the child lives after `timeout` seconds (None: for ever)."""
        if self._code is None and select.select([self.sentinel], [], [], timeout)[0]:
            self._reap(0)
        return self._code

    def _reap(self, flag):
        try:
            pid, status = os.waitpid(self.pid, flag)
        except ChildProcessError:
            self._code = 255  # somebody else has waited for it; how it ended is lost
        else:
            if pid == self.pid:
                self._code = os.waitstatus_to_exitcode(status)

    def signal(self, signum):
        """Sends a signal; ProcessLookupError if the child is gone."""
        signal.pidfd_send_signal(self.sentinel, signum)

    def exit_reason(self):
        """How the child ended, in words."""
        if self._code is None:
            return ''
        if self._code < 0:
            return f'killed by {signal.Signals(-self._code).name}'
        return f'exited with code {self._code}'

    def close(self):
        """Closes the descriptors."""
        util.close_fds(self.sentinel, self._pipe)
