// _pyhost.Condition and _pyhost.Event: the bases of multiprocessing's.

#include "modules/native/gil_wait.h"
#include "modules/native/shared_object.h"
#include "runtime/sync/condition.h"
#include "runtime/sync/event.h"
#include "runtime/sync/mutex.h"

namespace pyhost::native {
namespace {

// ---- Condition --------------------------------------------------------------------------------------------------

PyObject* NewCondition(PyTypeObject* type, PyObject*, PyObject*) {
  Session* session = EnsureSession();
  return session == nullptr ? nullptr
                            : NewShared(type, session, Condition::Create(session->segment(), session->me()));
}

PyObject* WaitOn(PyObject* self, PyObject* args) {
  PyObject* lock = nullptr;
  PyObject* timeout = nullptr;
  PyObject* lock_type = StateOfType(Py_TYPE(self))->lock_type.get();
  if (!PyArg_ParseTuple(args, "O!|O:wait_on", lock_type, &lock, &timeout)) return nullptr;
  Deadline deadline = Deadline::Never();
  if (!ParseTimeout(timeout, &deadline)) return nullptr;
  std::optional<Condition> condition = OpenShared<Condition>(self);
  std::optional<Mutex> mutex = condition ? OpenShared<Mutex>(lock) : std::nullopt;
  if (!mutex) return nullptr;
  GilWait gil;
  const absl::Status status = condition->WaitOn(*mutex, gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

PyObject* Notify(PyObject* self, PyObject* args) {
  unsigned int count = 1;
  if (!PyArg_ParseTuple(args, "|I:notify", &count)) return nullptr;
  std::optional<Condition> condition = OpenShared<Condition>(self);
  return condition ? PyLong_FromUnsignedLong(condition->Notify(count)) : nullptr;
}

PyObject* NotifyAll(PyObject* self, PyObject*) {
  std::optional<Condition> condition = OpenShared<Condition>(self);
  return condition ? PyLong_FromUnsignedLong(condition->NotifyAll()) : nullptr;
}

PyObject* Waiting(PyObject* self, PyObject*) {
  std::optional<Condition> condition = OpenShared<Condition>(self);
  return condition ? PyLong_FromUnsignedLong(condition->waiting()) : nullptr;
}

PyMethodDef kConditionMethods[] = {
    {"wait_on", WaitOn, METH_VARARGS,
     "wait_on(lock, timeout=None) -> bool\n\nReleases `lock` (to any depth), waits for a notification, takes it again."},
    {"notify", Notify, METH_VARARGS, "notify(n=1) -> number of waiters woken"},
    {"notify_all", NotifyAll, METH_NOARGS, "notify_all() -> number of waiters woken"},
    {"waiting", Waiting, METH_NOARGS, "waiting() -> number of waiters not notified yet"},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kConditionSlots[] = {
    {Py_tp_doc, const_cast<char*>("Condition(): waiters of a Lock, told one by one.")},
    {Py_tp_new, reinterpret_cast<void*>(NewCondition)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kConditionMethods},
    {0, nullptr},
};
PyType_Spec kConditionSpec = {"_pyhost.Condition", sizeof(SharedObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kConditionSlots};

// ---- Event ------------------------------------------------------------------------------------------------------

PyObject* NewEvent(PyTypeObject* type, PyObject*, PyObject*) {
  Session* session = EnsureSession();
  return session == nullptr ? nullptr : NewShared(type, session, Event::Create(session->segment(), session->me()));
}

PyObject* Set(PyObject* self, PyObject*) {
  std::optional<Event> event = OpenShared<Event>(self);
  if (!event) return nullptr;
  event->Set();
  Py_RETURN_NONE;
}

PyObject* Clear(PyObject* self, PyObject*) {
  std::optional<Event> event = OpenShared<Event>(self);
  if (!event) return nullptr;
  event->Clear();
  Py_RETURN_NONE;
}

PyObject* IsSet(PyObject* self, PyObject*) {
  std::optional<Event> event = OpenShared<Event>(self);
  return event ? PyBool_FromLong(event->is_set()) : nullptr;
}

PyObject* WaitUntilSet(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"timeout", nullptr};
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:wait", const_cast<char**>(kKeywords), &timeout) ||
      !ParseTimeout(timeout, &deadline)) {
    return nullptr;
  }
  std::optional<Event> event = OpenShared<Event>(self);
  if (!event) return nullptr;
  GilWait gil;
  const absl::Status status = event->WaitUntilSet(gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) return PyBool_FromLong(event->is_set());
  return SetError(status);
}

PyMethodDef kEventMethods[] = {
    {"set", Set, METH_NOARGS, "set(): raise the flag and wake all who wait."},
    {"clear", Clear, METH_NOARGS, "clear(): lower the flag."},
    {"is_set", IsSet, METH_NOARGS, "is_set() -> bool"},
    {"wait", AsMethod(WaitUntilSet), METH_VARARGS | METH_KEYWORDS,
     "wait(timeout=None) -> bool\n\nWaits until the flag is set; False when `timeout` seconds passed first."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kEventSlots[] = {
    {Py_tp_doc, const_cast<char*>("Event(): a flag that processes wait for.")},
    {Py_tp_new, reinterpret_cast<void*>(NewEvent)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kEventMethods},
    {0, nullptr},
};
PyType_Spec kEventSpec = {"_pyhost.Event", sizeof(SharedObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kEventSlots};

}  // namespace

int BindCondition(PyObject* module, ModuleState* state) {
  state->condition_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kConditionSpec, nullptr));
  state->event_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kEventSpec, nullptr));
  if (!state->condition_type || !state->event_type ||
      PyModule_AddObjectRef(module, "Condition", state->condition_type.get()) < 0) {
    return -1;
  }
  return PyModule_AddObjectRef(module, "Event", state->event_type.get());
}

}  // namespace pyhost::native
