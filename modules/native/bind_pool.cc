#include "modules/native/bind_pool.h"

#include <vector>

namespace pyhost::native {

PyRef TakeException() {
#if PY_VERSION_HEX >= 0x030C0000
  return PyRef::Steal(PyErr_GetRaisedException());
#else
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (value != nullptr && traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return PyRef::Steal(value);
#endif
}

void RaiseException(PyRef exception) {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(exception.release());
#else
  PyObject* value = exception.release();
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value))), value, PyException_GetTraceback(value));
#endif
}

PyRef CallOutcomes(ModuleState* state, const char* name, std::initializer_list<PyObject*> arguments) {
  if (!state->pool_outcomes) {
    state->pool_outcomes = PyRef::Steal(PyImport_ImportModule("multiprocessing.pool_outcomes"));
    if (!state->pool_outcomes) return {};
  }
  PyRef function = PyRef::Steal(PyObject_GetAttrString(state->pool_outcomes.get(), name));
  if (!function) return {};
  const std::vector<PyObject*> all(arguments);
  return PyRef::Steal(PyObject_Vectorcall(function.get(), all.data(), all.size(), nullptr));
}

int BindPool(PyObject* module, ModuleState* state) {
  for (auto* bind : {BindCallServer, BindCalls, BindCallClient}) {
    if (bind(module, state) < 0) return -1;
  }
  return 0;
}

}  // namespace pyhost::native
