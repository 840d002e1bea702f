// The extension module `_pyhost`: runtime/ for Python.  No policy; see modules/README.md.

#include <new>
#include <string>

#include "modules/native/gil_wait.h"
#include "modules/native/module_state.h"
#include "modules/native/shared_object.h"
#include "runtime/broker/object_kinds.h"

namespace pyhost::native {
namespace {

constexpr char kDoc[] =
    "pyhost's native core: processes, queues, locks and shared memory of a session.\n\n"
    "The packages multiprocessing and concurrent.futures stand on it; programs use those.";

int AddException(PyObject* module, PyRef* where, const char* name, PyObject* base, const char* doc) {
  const std::string qualified = std::string("_pyhost.") + name;
  *where = PyRef::Steal(PyErr_NewExceptionWithDoc(qualified.c_str(), doc, base, nullptr));
  return *where ? PyModule_AddObjectRef(module, name, where->get()) : -1;
}

int BindExceptions(PyObject* module, ModuleState* state) {
  if (AddException(module, &state->owner_died_error, "OwnerDiedError", PyExc_RuntimeError,
                   "The process that held the lock died by a signal; the lock is free again.") < 0) {
    return -1;
  }
  return AddException(module, &state->session_error, "SessionError", PyExc_OSError,
                      "The session's supervisor is gone, or this process is no longer part of the session.");
}

int Execute(PyObject* module) {
  RegisterObjectKinds();
  InstallLongWaitHooks();
  auto* state = new (PyModule_GetState(module)) ModuleState();
  for (auto bind : {BindExceptions, BindShared, BindPickling, BindMemory, BindQueue, BindLine, BindLock, BindSemaphore,
                    BindCondition, BindBarrier, BindSynchronized, BindProcess, BindPool, BindEngine, BindHandOver,
                    BindConnection}) {
    if (bind(module, state) < 0) return -1;
  }
  return 0;
}

void Free(void* module) {
  if (ModuleState* state = StateOfModule(static_cast<PyObject*>(module))) state->~ModuleState();
}

PyModuleDef_Slot kSlots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(Execute)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, nullptr},
};

}  // namespace

PyModuleDef kModuleDef = {PyModuleDef_HEAD_INIT, "_pyhost", kDoc,    sizeof(ModuleState), nullptr, kSlots,
                          nullptr,               nullptr,   Free};

ModuleState* StateOfModule(PyObject* module) { return static_cast<ModuleState*>(PyModule_GetState(module)); }

ModuleState* StateOfType(PyTypeObject* type) {
  PyObject* module = PyType_GetModuleByDef(type, &kModuleDef);
  return module == nullptr ? nullptr : StateOfModule(module);
}

ModuleState* GetState() {
  PyRef module = PyRef::Steal(PyImport_ImportModule("_pyhost"));
  // sys.modules keeps it alive.
  return module ? StateOfModule(module.get()) : nullptr;
}

}  // namespace pyhost::native

PyMODINIT_FUNC PyInit__pyhost() { return PyModuleDef_Init(&pyhost::native::kModuleDef); }
