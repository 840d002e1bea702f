// _pyhost.Lock: the base of multiprocessing's Lock and RLock.

#include "modules/native/acquire.h"
#include "modules/native/lock_object.h"
#include "modules/native/shared_object.h"
#include "runtime/sync/mutex.h"

namespace pyhost::native {
namespace {

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"recursive", nullptr};
  int recursive = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:Lock", const_cast<char**>(kKeywords), &recursive)) return nullptr;
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  return NewShared(type, session,
                   Mutex::Create(session->segment(), session->me(),
                                 recursive ? Mutex::Type::kRecursive : Mutex::Type::kPlain));
}

PyObject* Release(PyObject* self, PyObject*) {
  if (!ReleaseLock(self)) return nullptr;
  Py_RETURN_NONE;
}

// Is `name` of `lock` our `function`, bound to this very lock?
bool IsOwnMethod(PyObject* lock, const char* name, PyCFunction function) {
  PyRef method = PyRef::Steal(PyObject_GetAttrString(lock, name));
  if (!method) {
    PyErr_Clear();
    return false;
  }
  return PyCFunction_Check(method.get()) && PyCFunction_GetFunction(method.get()) == function &&
         PyCFunction_GetSelf(method.get()) == lock;
}

PyObject* Exit(PyObject* self, PyObject* const*, Py_ssize_t) { return Release(self, nullptr); }

PyObject* Locked(PyObject* self, PyObject*) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(self);
  return mutex ? PyBool_FromLong(mutex->locked()) : nullptr;
}
PyObject* IsMine(PyObject* self, PyObject*) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(self);
  return mutex ? PyBool_FromLong(mutex->is_mine()) : nullptr;
}
PyObject* Count(PyObject* self, PyObject*) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(self);
  return mutex ? PyLong_FromUnsignedLong(mutex->count()) : nullptr;
}
PyObject* GetValue(PyObject* self, PyObject*) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(self);
  return mutex ? PyLong_FromLong(mutex->locked() ? 0 : 1) : nullptr;
}
PyObject* Owner(PyObject* self, PyObject*) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(self);
  return mutex ? PyLong_FromUnsignedLong(mutex->owner().value()) : nullptr;
}

PyMethodDef kMethods[] = {
    {"acquire", AsMethod(Acquire<Mutex>), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nTrue: locked.  False: not free within `timeout` seconds.\n"
     "Raises OwnerDiedError, once, when the process that held the lock was killed; it is free then."},
    {"release", Release, METH_NOARGS, "release(): unlock; any process may release a plain lock."},
    {"__enter__", Enter<Mutex>, METH_NOARGS, nullptr},
    {"__exit__", AsMethod(Exit), METH_FASTCALL, nullptr},
    {"locked", Locked, METH_NOARGS, "locked() -> bool: held by somebody at this moment."},
    {"_is_mine", IsMine, METH_NOARGS, "Does the calling thread have it?"},
    {"_count", Count, METH_NOARGS, "How often this process has it locked."},
    {"_get_value", GetValue, METH_NOARGS, "1 when free, else 0."},
    {"_owner", Owner, METH_NOARGS, "The host id of the holder, or 0."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Lock(recursive=False): a lock for all processes of the session.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Lock", sizeof(SharedObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

bool HasOwnLocking(PyObject* lock) {
  return IsOwnMethod(lock, "acquire", AsMethod(Acquire<Mutex>)) && IsOwnMethod(lock, "release", Release);
}

bool AcquireLock(PyObject* lock) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(lock);
  if (!mutex) return false;
  GilWait gil;
  const absl::Status status = mutex->Acquire(gil.Until(Deadline::Never()));
  if (!status.ok()) SetError(status);
  return status.ok();
}

bool ReleaseLock(PyObject* lock) {
  std::optional<Mutex> mutex = OpenShared<Mutex>(lock);
  if (!mutex) return false;
  const absl::Status status = mutex->Release();
  if (status.ok()) return true;
  // python3 asserts for a recursive lock, and raises ValueError for a plain one.
  if (absl::IsFailedPrecondition(status) && mutex->type() == Mutex::Type::kRecursive) {
    PyErr_SetString(PyExc_AssertionError, std::string(status.message()).c_str());
  } else {
    SetError(status);
  }
  return false;
}

int BindLock(PyObject* module, ModuleState* state) {
  state->lock_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->lock_type ? PyModule_AddObjectRef(module, "Lock", state->lock_type.get()) : -1;
}

}  // namespace pyhost::native
