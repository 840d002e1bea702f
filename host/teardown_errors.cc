#include "host/teardown_errors.h"

namespace pyhost::host {
namespace {

using native::PyRef;

PyRef Attribute(const PyRef& object, const char* name) {
  return PyRef::Steal(object ? PyObject_GetAttrString(object.get(), name) : nullptr);
}

// Was the error raised by code of a module whose names are gone?
bool CameFromClearedModule(PyObject* unraisable) {
  PyRef traceback = PyRef::Steal(PyObject_GetAttrString(unraisable, "exc_traceback"));
  while (traceback && traceback.get() != Py_None) {
    PyRef inner = Attribute(traceback, "tb_next");
    if (inner && inner.get() != Py_None) {
      traceback = std::move(inner);
      continue;
    }
    PyRef names = Attribute(Attribute(traceback, "tb_frame"), "f_globals");
    return names && PyDict_Check(names.get()) && PyDict_GetItemString(names.get(), "__name__") == Py_None;
  }
  return false;
}

PyObject* Report(PyObject* hook, PyObject* unraisable) {
  const bool cleared = CameFromClearedModule(unraisable);
  PyErr_Clear();
  if (cleared) Py_RETURN_NONE;
  return PyObject_CallOneArg(hook, unraisable);
}

PyMethodDef kReport = {"unraisablehook", Report, METH_O, nullptr};

}  // namespace

TeardownErrors::TeardownErrors() : before_(PyRef::Borrow(PySys_GetObject("unraisablehook"))) {
  PyRef hook = PyRef::Steal(before_ ? PyCFunction_New(&kReport, before_.get()) : nullptr);
  if (hook) PySys_SetObject("unraisablehook", hook.get());
  PyErr_Clear();
}

TeardownErrors::~TeardownErrors() {
  if (before_) PySys_SetObject("unraisablehook", before_.get());
  PyErr_Clear();
}

}  // namespace pyhost::host
