// PyRef: owns one reference to a Python object.  Move-only; needs the GIL wherever a PyObject* would.

#ifndef PYHOST_MODULES_NATIVE_PYTHON_REF_H_
#define PYHOST_MODULES_NATIVE_PYTHON_REF_H_

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <utility>

namespace pyhost::native {

class PyRef {
 public:
  PyRef() = default;
  // Takes over a new reference (may be null, with a Python error set).
  static PyRef Steal(PyObject* object) { return PyRef(object); }
  static PyRef Borrow(PyObject* object) { return PyRef(Py_XNewRef(object)); }
  PyRef(PyRef&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  PyRef& operator=(PyRef&& other) noexcept {
    PyObject* old = std::exchange(object_, std::exchange(other.object_, nullptr));
    Py_XDECREF(old);
    return *this;
  }
  ~PyRef() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  [[nodiscard]] PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  explicit PyRef(PyObject* object) : object_(object) {}
  PyObject* object_ = nullptr;
};

// A function with keywords or a vector of arguments, as PyMethodDef wants it.
template <typename Function>
PyCFunction AsMethod(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_PYTHON_REF_H_
