// _pyhost.Barrier: the base of multiprocessing's.

#include <cstdint>

#include "modules/native/gil_wait.h"
#include "modules/native/shared_object.h"
#include "runtime/sync/barrier.h"

namespace pyhost::native {
namespace {

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"parties", nullptr};
  long long parties = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "L:Barrier", const_cast<char**>(kKeywords), &parties)) return nullptr;
  if (parties < 1 || parties > INT32_MAX) {
    return PyErr_Format(PyExc_ValueError, "parties must lie in 1 ... %d, not %lld", INT32_MAX, parties);
  }
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  return NewShared(type, session,
                   Barrier::Create(session->segment(), session->me(), static_cast<uint32_t>(parties)));
}

// Runs `action` with the GIL, whether or not the wait has given it up.  A Python exception becomes Cancelled.
absl::Status RunAction(PyObject* action) {
  PyGILState_STATE gil = PyGILState_Ensure();
  PyRef result = PyRef::Steal(PyObject_CallNoArgs(action));
  PyGILState_Release(gil);
  return result ? absl::OkStatus() : absl::CancelledError("the barrier's action raised an exception");
}

// threading.BrokenBarrierError, for waits that a broken, reset or aborted barrier ended.
PyObject* SetBroken() {
  PyRef threading = PyRef::Steal(PyImport_ImportModule("threading"));
  PyRef error = threading ? PyRef::Steal(PyObject_GetAttrString(threading.get(), "BrokenBarrierError")) : PyRef();
  if (error) PyErr_SetNone(error.get());
  return nullptr;
}

PyObject* Arrive(PyObject* self, PyObject* args) {
  PyObject* timeout = nullptr;
  PyObject* action = Py_None;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "|OO:arrive", &timeout, &action) || !ParseTimeout(timeout, &deadline)) return nullptr;
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  if (!barrier) return nullptr;
  GilWait gil;
  const absl::StatusOr<uint32_t> index =
      action == Py_None ? barrier->Arrive(gil.Until(deadline))
                        : barrier->Arrive(gil.Until(deadline), [action] { return RunAction(action); });
  if (index.ok()) return PyLong_FromUnsignedLong(*index);
  return absl::IsAborted(index.status()) ? SetBroken() : SetError(index.status());
}

PyObject* Reset(PyObject* self, PyObject*) {
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  if (!barrier) return nullptr;
  barrier->Reset();
  Py_RETURN_NONE;
}

PyObject* Abort(PyObject* self, PyObject*) {
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  if (!barrier) return nullptr;
  barrier->Abort();
  Py_RETURN_NONE;
}

PyObject* GetParties(PyObject* self, void*) {
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  return barrier ? PyLong_FromUnsignedLong(barrier->parties()) : nullptr;
}
PyObject* GetWaiting(PyObject* self, void*) {
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  return barrier ? PyLong_FromUnsignedLong(barrier->n_waiting()) : nullptr;
}
PyObject* GetBroken(PyObject* self, void*) {
  std::optional<Barrier> barrier = OpenShared<Barrier>(self);
  return barrier ? PyBool_FromLong(barrier->broken()) : nullptr;
}

PyMethodDef kMethods[] = {
    {"arrive", Arrive, METH_VARARGS,
     "arrive(timeout=None, action=None) -> order of arrival\n\nThe last to arrive calls `action` first.\n"
     "Raises threading.BrokenBarrierError."},
    {"reset", Reset, METH_NOARGS, "reset(): empty again; those who wait get BrokenBarrierError."},
    {"abort", Abort, METH_NOARGS, "abort(): broken until reset()."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kGetSet[] = {
    {"parties", GetParties, nullptr, "How many it waits for.", nullptr},
    {"n_waiting", GetWaiting, nullptr, "How many wait at this moment.", nullptr},
    {"broken", GetBroken, nullptr, "Is it broken?", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Barrier(parties): processes that wait for each other.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kGetSet},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Barrier", sizeof(SharedObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

int BindBarrier(PyObject* module, ModuleState* state) {
  state->barrier_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->barrier_type ? PyModule_AddObjectRef(module, "Barrier", state->barrier_type.get()) : -1;
}

}  // namespace pyhost::native
