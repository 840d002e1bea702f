// ReadBuiltinPickle: loads standard pickles of plain builtins faster than pickle.loads: those that BuiltinWriter writes,
// and what the pickler writes for the same objects.
//
// A stack machine over untrusted bytes: every length and index is checked, and what it does not know it leaves to
// pickle.loads, which also has the words for what is wrong.  Only builtins are made; no code of the program is called.

#ifndef PYHOST_MODULES_NATIVE_BUILTIN_READER_H_
#define PYHOST_MODULES_NATIVE_BUILTIN_READER_H_

#include <cstddef>
#include <span>

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Null without a Python error: use pickle.loads.  Null with one: memory is short.
PyObject* ReadBuiltinPickle(std::span<const std::byte> pickle);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_BUILTIN_READER_H_
