// FastArguments: the arguments of a METH_FASTCALL | METH_KEYWORDS method, put into the order of its parameters.  For
// methods that are called a million times a second; others parse with PyArg_ParseTupleAndKeywords.
//
//   constexpr std::array kPut = {"obj", "block", "timeout"};
//   FastArguments<kPut.size()> given;
//   if (!given.Parse("put", kPut, 1, args, count, names)) return nullptr;      // the first 1 must be there
//   if (given[2] != nullptr) ...                                               // borrowed; null: not given

#ifndef PYHOST_MODULES_NATIVE_FAST_ARGUMENTS_H_
#define PYHOST_MODULES_NATIVE_FAST_ARGUMENTS_H_

#include <array>
#include <cstddef>

#include "modules/native/gil_wait.h"
#include "modules/native/python_ref.h"

namespace pyhost::native {

template <size_t kCount>
class FastArguments {
 public:
  using Names = std::array<const char*, kCount>;

  // False with TypeError, in the interpreter's words.
  bool Parse(const char* function, const Names& names, size_t required, PyObject* const* args, Py_ssize_t count,
             PyObject* keywords) {
    if (static_cast<size_t>(count) > kCount) {
      PyErr_Format(PyExc_TypeError, "%s() takes at most %zu arguments (%zd given)", function, kCount, count);
      return false;
    }
    for (Py_ssize_t i = 0; i < count; ++i) values_[static_cast<size_t>(i)] = args[i];
    const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < named; ++i) {
      if (!SetNamed(function, names, PyTuple_GET_ITEM(keywords, i), args[count + i])) return false;
    }
    for (size_t i = 0; i < required; ++i) {
      if (values_[i] != nullptr) continue;
      PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (pos %zu)", function, names[i], i + 1);
      return false;
    }
    return true;
  }

  PyObject* operator[](size_t index) const { return values_[index]; }

 private:
  bool SetNamed(const char* function, const Names& names, PyObject* name, PyObject* value) {
    for (size_t i = 0; i < kCount; ++i) {
      if (PyUnicode_CompareWithASCIIString(name, names[i]) != 0) continue;
      if (values_[i] != nullptr) {
        PyErr_Format(PyExc_TypeError, "argument for %s() given by name ('%s') and position (%zu)", function, names[i],
                     i + 1);
        return false;
      }
      values_[i] = value;
      return true;
    }
    PyErr_Format(PyExc_TypeError, "'%U' is an invalid keyword argument for %s()", name, function);
    return false;
  }

  std::array<PyObject*, kCount> values_{};
};

// A deadline from `block` and `timeout` as given, null where not.
inline bool ParseBlockTimeout(PyObject* block, PyObject* timeout, Deadline* deadline) {
  const int blocks = block == nullptr || block == Py_True ? 1 : PyObject_IsTrue(block);
  return blocks >= 0 && ParseBlockTimeout(blocks, timeout, deadline);
}

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_FAST_ARGUMENTS_H_
