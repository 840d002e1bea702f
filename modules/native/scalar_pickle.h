// Plain pickles: those of plain builtins, written and read without a pickler (builtin_writer.h, builtin_reader.h).  They
// are ordinary pickles behind an ordinary message payload header (pickling.h).

#ifndef PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_
#define PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_

#include <cstddef>
#include <span>
#include <string>

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Appends the message payload of `object` to `out`.  False, with `out` unchanged and no Python error, when it is
// no plain builtin: use Pickle().
bool AppendScalarPickle(PyObject* object, std::string* out);

// The object of a payload that AppendScalarPickle could have written.  Null without a Python error when it is
// another one: use Unpickle().  Null with a Python error when memory is short.
PyObject* ReadScalarPickle(std::span<const std::byte> payload);

// Is this pickle nothing but a reference to a module's global (a function, a class)?  Such an object is the same
// whenever it is unpickled, so it may be kept.
bool IsGlobalReference(std::span<const std::byte> pickle);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_SCALAR_PICKLE_H_
