"""Blocks of memory with a name, by which other processes and programs find them.

The blocks are POSIX shared memory (`shm_open`), as in python3: any program may attach to them by name.  Memory that
need not have a name is better had from `multiprocessing.Array` and its kind, which lie in the session's segment.

All of a block is allocated when it is created.  If there is not enough, creation fails with a MemoryError, instead
of a SIGBUS at some later access.  Blocks are registered with `resource_tracker` unless `track` is false.
"""

__all__ = ['SharedMemory', 'ShareableList']

import errno
import mmap
import os
import struct
import types
from functools import partial

import _posixshmem

from . import resource_tracker

_USE_POSIX = True
_O_CREX = os.O_CREAT | os.O_EXCL
_SHM_NAME_PREFIX = '/psm_'
# The shortest limit among the systems that have shm_open.
_SHM_SAFE_NAME_LENGTH = 14

# tmpfs starts an allocation over when a signal arrives: small steps always get done.
_ALLOCATION_STEP = 64 << 20
# Allocations are not even begun if there is not enough memory.  Finding that out takes as long as allocating some 100 KiB,
# so it is done once for so many bytes.
_LOOK_EVERY = 4 << 20
_since_last_look = 0


def _make_filename():
    """A random name for a block, with its leading slash."""
    digits = (_SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)) // 2
    return _SHM_NAME_PREFIX + os.urandom(digits).hex()


def _allocate(fd, name, size):
    """Gives the new block `fd` its size and all the memory it will need."""
    global _since_last_look
    from . import _memory_limit
    _since_last_look += size
    if _since_last_look >= _LOOK_EVERY:
        _since_last_look = 0
        if (limit := _memory_limit.available(fd))[0] < size:
            raise _no_memory(name, size, *limit)
    try:
        os.ftruncate(fd, size)
        for start in range(0, size, _ALLOCATION_STEP):
            os.posix_fallocate(fd, start, min(_ALLOCATION_STEP, size - start))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
            raise
        raise _no_memory(name, size, *_memory_limit.available(fd)) from error


def _no_memory(name, size, available, reason):
    return MemoryError(f'SharedMemory {name}: cannot allocate {size} bytes, at most {available}: {reason}')


class SharedMemory:
    """A block of shared memory with a name.

    With `create` a new block of `size` bytes is made, otherwise the block `name` is attached; a new block without a
    name is given one.  Each process calls `close()` when it is done, and one of them calls `unlink()`.  With
    `track` (the default) a block that is not unlinked by the end of the session is then removed, with a warning;
    a block that belongs to another program should be attached with `track=False`.
    """

    # So that close() and unlink() work on an instance whose creation failed.
    _name = None
    _fd = -1
    _mmap = None
    _buf = None
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _track = True
    _announced = False
    _registered = False

    def __init__(self, name=None, create=False, size=0, *, track=True):
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _O_CREX | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        if name is None:
            self._create_with_new_name(track)
        else:
            self._open(name)
        try:
            if create:
                _allocate(self._fd, self._name, size)
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
            if track:
                if not self._announced:
                    resource_tracker.register(self._name, 'shared_memory')
                self._registered = True
        except BaseException:
            if create:
                self._abandon()
            self.close()
            raise
        self._buf = memoryview(self._mmap)

    def _create_with_new_name(self, track):
        # The creator may die at any moment after the block exists, so it is told before.  But programs replace `register` to
        # have nothing tracked (cpython#82300): theirs is called where python3 calls it.
        announced = track and resource_tracker.register == resource_tracker._resource_tracker.register
        while True:
            name = _make_filename()
            if announced:
                resource_tracker.announce(name, 'shared_memory')
            try:
                self._fd = _posixshmem.shm_open(name, self._flags, mode=self._mode)
            except OSError as error:
                if announced:
                    resource_tracker.withdraw(name, 'shared_memory')
                if isinstance(error, FileExistsError):
                    continue
                raise
            self._name = name
            self._announced = announced
            return

    def _open(self, name):
        name = '/' + name if self._prepend_leading_slash else name
        self._fd = _posixshmem.shm_open(name, self._flags, mode=self._mode)
        self._name = name

    def _abandon(self):
        """Removes the block of a creation that failed, on the way out with the error."""
        _posixshmem.shm_unlink(self._name)
        if self._announced:
            resource_tracker.withdraw(self._name, 'shared_memory')

    def __del__(self):
        try:
            self.close()
        except (OSError, BufferError):
            # Views are still in use; the mapping goes with the last of them.
            pass

    def __reduce__(self):
        return self.__class__, (self.name, False, self.size)

    def __repr__(self):
        return f'{self.__class__.__name__}({self.name!r}, size={self.size})'

    @property
    def buf(self):
        """The contents as a memoryview; None once closed."""
        return self._buf

    @property
    def name(self):
        """The name by which others attach."""
        if self._prepend_leading_slash and self._name.startswith('/'):
            return self._name[1:]
        return self._name

    @property
    def size(self):
        """Size in bytes."""
        return self._size

    def close(self):
        """Ends the access through this instance.  The block itself stays."""
        if self._buf is not None:
            self._buf.release()
            self._buf = None
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def unlink(self):
        """Removes the name; the memory goes with the last process that has it.  To be called once for each block."""
        if self._name:
            _posixshmem.shm_unlink(self._name)
            if self._registered:
                resource_tracker.unregister(self._name, 'shared_memory')


_encoding = 'utf8'


class ShareableList:
    """A list of fixed length in a SharedMemory block; items are int, float, bool, str, bytes or None.

    An item may be replaced by one of another type; a str or bytes must fit the space of the item it replaces,
    which is rounded up to the next multiple of 8 bytes.  Trailing zero bytes of str and bytes are lost.  Nothing
    is locked.  Python 3.8 and later lay such blocks out in the same way:

        number of items (int64) | start of each item and the end of the last (int64, relative to the items)
        | the items | the struct format of each item (8 bytes) | how to read back each item (int8)
    """

    _types_mapping = {
        int: 'q',
        float: 'd',
        bool: 'xxxxxxx?',
        str: '%ds',
        bytes: '%ds',
        type(None): 'xxxxxx?x',
    }
    _alignment = 8
    _back_transforms_mapping = {
        0: lambda value: value,
        1: lambda value: value.rstrip(b'\x00').decode(_encoding),
        2: lambda value: value.rstrip(b'\x00'),
        3: lambda _value: None,
    }

    def __init__(self, sequence=None, *, name=None):
        if name is not None and sequence is None:
            self._attach(name)
        else:
            self._create(() if sequence is None else list(sequence), name)

    def _create(self, items, name):
        encoded = [_encode(item) for item in items]
        formats = [self._format_of(item, data) for item, data in zip(items, encoded)]
        self._list_len = len(items)
        self._allocated_offsets = [0]
        for fmt in formats:
            self._allocated_offsets.append(self._allocated_offsets[-1] + struct.calcsize('=' + fmt))
        size = self._offset_back_transform_codes + self._list_len
        self.shm = SharedMemory(name, create=True, size=size)
        buf = self.shm.buf
        struct.pack_into('q' + self._format_size_metainfo, buf, 0, self._list_len, *self._allocated_offsets)
        struct.pack_into(''.join(formats), buf, self._offset_data_start, *encoded)
        struct.pack_into(self._format_packing_metainfo, buf, self._offset_packing_formats,
                         *(fmt.encode(_encoding) for fmt in formats))
        struct.pack_into(self._format_back_transform_codes, buf, self._offset_back_transform_codes,
                         *map(self._extract_recreation_code, items))

    def _attach(self, name):
        self.shm = SharedMemory(name)
        self._list_len = len(self)
        self._allocated_offsets = list(struct.unpack_from(self._format_size_metainfo, self.shm.buf, 8))

    def _format_of(self, item, data):
        """The struct format for a new item."""
        try:
            fmt = self._types_mapping[type(item)]
        except KeyError:
            raise KeyError(type(item)) from None
        if isinstance(item, (str, bytes)):
            # python3 counts the characters of a str; room for its bytes is what is needed at least.
            blocks = max(len(item) // self._alignment + 1, -(-len(data) // self._alignment))
            return fmt % (self._alignment * blocks)
        return fmt

    @staticmethod
    def _extract_recreation_code(value):
        """Which of _back_transforms_mapping turns what struct unpacks back into `value`."""
        if isinstance(value, str):
            return 1
        if isinstance(value, bytes):
            return 2
        return 3 if value is None else 0

    def _position(self, position, what):
        """A position counted from the front; IndexError if there is none such."""
        if position < 0:
            position += self._list_len
        if not 0 <= position < self._list_len:
            raise IndexError(what)
        return position

    def _get_packing_format(self, position):
        """The struct format of one item."""
        position = self._position(position, 'Requested position out of range.')
        fmt, = struct.unpack_from('8s', self.shm.buf, self._offset_packing_formats + position * 8)
        return fmt.rstrip(b'\x00').decode(_encoding)

    def _get_back_transform(self, position):
        """The function that gives one item its type."""
        position = self._position(position, 'Requested position out of range.')
        code, = struct.unpack_from('b', self.shm.buf, self._offset_back_transform_codes + position)
        return self._back_transforms_mapping[code]

    def _set_packing_format_and_transform(self, position, fmt_as_str, value):
        position = self._position(position, 'Requested position out of range.')
        struct.pack_into('8s', self.shm.buf, self._offset_packing_formats + position * 8, fmt_as_str.encode(_encoding))
        struct.pack_into('b', self.shm.buf, self._offset_back_transform_codes + position,
                         self._extract_recreation_code(value))

    def __getitem__(self, position):
        position = self._position(position, 'index out of range')
        offset = self._offset_data_start + self._allocated_offsets[position]
        value, = struct.unpack_from(self._get_packing_format(position), self.shm.buf, offset)
        return self._get_back_transform(position)(value)

    def __setitem__(self, position, value):
        position = self._position(position, 'assignment index out of range')
        start, end = self._allocated_offsets[position:position + 2]
        data = _encode(value)
        if isinstance(value, (str, bytes)):
            if len(data) > end - start:
                raise ValueError('bytes/str item exceeds available storage')
            fmt = self._get_packing_format(position)
            if fmt[-1] != 's':
                fmt = self._types_mapping[str] % (end - start)
        else:
            fmt = self._types_mapping[type(value)]
        packed = struct.pack(fmt, data)  # May fail: before anything is changed.
        self._set_packing_format_and_transform(position, fmt, value)
        offset = self._offset_data_start + start
        self.shm.buf[offset:offset + len(packed)] = packed

    def __reduce__(self):
        return partial(self.__class__, name=self.shm.name), ()

    def __len__(self):
        return struct.unpack_from('q', self.shm.buf, 0)[0]

    def __repr__(self):
        return f'{self.__class__.__name__}({list(self)}, name={self.shm.name!r})'

    @property
    def format(self):
        """The struct formats of all items."""
        return ''.join(self._get_packing_format(i) for i in range(self._list_len))

    @property
    def _format_size_metainfo(self):
        return 'q' * (self._list_len + 1)

    @property
    def _format_packing_metainfo(self):
        return '8s' * self._list_len

    @property
    def _format_back_transform_codes(self):
        return 'b' * self._list_len

    @property
    def _offset_data_start(self):
        return (self._list_len + 2) * 8

    @property
    def _offset_packing_formats(self):
        return self._offset_data_start + self._allocated_offsets[-1]

    @property
    def _offset_back_transform_codes(self):
        return self._offset_packing_formats + self._list_len * 8

    def count(self, value):
        """How many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value):
        """The position of the first item that equals `value`; ValueError if there is none."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f'{value!r} not in this container')

    __class_getitem__ = classmethod(types.GenericAlias)


def _encode(item):
    return item.encode(_encoding) if isinstance(item, str) else item
