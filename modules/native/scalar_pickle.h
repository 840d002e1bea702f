// Scalar pickles: the pickles of None, bools, ints, floats, short strings and bytes, short tuples of them, and lists
// of numbers, written and read without a pickler.  They are ordinary protocol 5 pickles behind an ordinary message
// payload header (pickling.h); what is saved are the fixed costs, which are most of the cost of a small call, and
// the pickler's general way with each item of a map over numbers.
//
// No reducer can change how these exact types are pickled, so nothing a program may register is bypassed.  Lists
// of strings go the general way, because a pickler writes an object that occurs twice once.

#ifndef PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_
#define PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_

#include <cstddef>
#include <span>
#include <string>

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Appends the message payload of `object` to `out`.  False, with `out` unchanged and no Python error, when it is
// not one of the above: use Pickle().
bool AppendScalarPickle(PyObject* object, std::string* out);

// The object of a payload that AppendScalarPickle could have written.  Null without a Python error when it is
// another one: use Unpickle().  Null with a Python error when memory is short.
PyObject* ReadScalarPickle(std::span<const std::byte> payload);

// Is this pickle nothing but a reference to a module's global (a function, a class)?  Such an object is the same
// whenever it is unpickled, so it may be kept.
bool IsGlobalReference(std::span<const std::byte> pickle);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_
