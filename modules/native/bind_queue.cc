// _pyhost.Queue: pickled objects through a queue of the segment; the base of multiprocessing's queues.

#include <string>
#include <vector>

#include "modules/native/buffer_view.h"
#include "modules/native/gil_wait.h"
#include "modules/native/pickling.h"
#include "modules/native/shared_object.h"
#include "runtime/queue/queue.h"

namespace pyhost::native {
namespace {

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"maxsize", nullptr};
  long long maxsize = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|L:Queue", const_cast<char**>(kKeywords), &maxsize)) return nullptr;
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  return NewShared(type, session,
                   Queue::Create(session->segment(), session->me(), maxsize > 0 ? static_cast<uint64_t>(maxsize) : 0));
}

// queue.Full or queue.Empty.
PyObject* SetFromQueueModule(PyRef* error, const char* name) {
  if (!*error) {
    PyRef module = PyRef::Steal(PyImport_ImportModule("queue"));
    if (!module) return nullptr;
    *error = PyRef::Steal(PyObject_GetAttrString(module.get(), name));
    if (!*error) return nullptr;
  }
  PyErr_SetNone(error->get());
  return nullptr;
}

PyObject* SetPushError(ModuleState* state, const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return SetFromQueueModule(&state->queue_full, "Full");
  return SetError(status);
}

PyObject* SetPopError(ModuleState* state, const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return SetFromQueueModule(&state->queue_empty, "Empty");
  return SetError(status);
}

// ---- put ----------------------------------------------------------------------------------------------------------

// An object that cannot be pickled: `on_error(exception, object)` is told and the put ends without effect, as
// python3's feeder thread does it; without `on_error` the exception is raised.
PyObject* ReportPickleError(PyObject* on_error, PyObject* object) {
  if (on_error == nullptr || on_error == Py_None) return nullptr;
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  PyRef type_ref = PyRef::Steal(type), value_ref = PyRef::Steal(value), traceback_ref = PyRef::Steal(traceback);
  if (!PyErr_GivenExceptionMatches(value, PyExc_Exception)) {
    PyErr_SetObject(type, value);
    return nullptr;
  }
  return PyObject_CallFunctionObjArgs(on_error, value, object, nullptr);
}

PyObject* Put(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"obj", "block", "timeout", "on_error", nullptr};
  PyObject *object = nullptr, *timeout = nullptr, *on_error = nullptr;
  int block = 1;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|pOO:put", const_cast<char**>(kKeywords), &object, &block, &timeout,
                                   &on_error) ||
      !ParseBlockTimeout(block, timeout, &deadline)) {
    return nullptr;
  }
  ModuleState* state = StateOfType(Py_TYPE(self));
  Pickled pickled;
  if (!Pickle(state, object, &pickled)) return ReportPickleError(on_error, object);
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  GilWait gil;
  const absl::Status status = queue->Push({.parts = pickled.parts(), .handles = pickled.handles()}, gil.Until(deadline));
  if (!status.ok()) return SetPushError(state, status);
  Py_RETURN_NONE;
}

PyObject* PutMany(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"objects", "block", "timeout", nullptr};
  PyObject *objects = nullptr, *timeout = nullptr;
  int block = 1;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|pO:put_many", const_cast<char**>(kKeywords), &objects, &block,
                                   &timeout) ||
      !ParseBlockTimeout(block, timeout, &deadline)) {
    return nullptr;
  }
  ModuleState* state = StateOfType(Py_TYPE(self));
  PyRef iterator = PyRef::Steal(PyObject_GetIter(objects));
  if (!iterator) return nullptr;
  std::vector<Pickled> pickled;
  while (PyRef object = PyRef::Steal(PyIter_Next(iterator.get()))) {
    if (!Pickle(state, object.get(), &pickled.emplace_back())) return nullptr;
  }
  if (PyErr_Occurred()) return nullptr;
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  std::vector<MessageView> messages;
  messages.reserve(pickled.size());
  for (const Pickled& one : pickled) messages.push_back({.parts = one.parts(), .handles = one.handles()});
  GilWait gil;
  absl::Status status;
  const size_t count = queue->PushBatch(messages, gil.Until(deadline), &status);
  // A full queue after some were taken is told by the count; any other error is raised.
  if (!status.ok() && (count == 0 || !absl::IsDeadlineExceeded(status))) return SetPushError(state, status);
  return PyLong_FromSize_t(count);
}

PyObject* PutBytes(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"data", "block", "timeout", nullptr};
  PyObject *data = nullptr, *timeout = nullptr;
  int block = 1;
  Deadline deadline = Deadline::Never();
  BufferView view;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|pO:put_bytes", const_cast<char**>(kKeywords), &data, &block,
                                   &timeout) ||
      !ParseBlockTimeout(block, timeout, &deadline) || !view.Acquire(data)) {
    return nullptr;
  }
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  const std::span<const std::byte> part = view.bytes();
  GilWait gil;
  const absl::Status status = queue->Push({.parts = {&part, 1}, .handles = {}}, gil.Until(deadline));
  if (!status.ok()) return SetPushError(StateOfType(Py_TYPE(self)), status);
  Py_RETURN_NONE;
}

// ---- get ----------------------------------------------------------------------------------------------------------

PyObject* UnpickleMessage(ModuleState* state, Message message) {
  const std::span<const std::byte> payload = message.payload();
  return Unpickle(state, std::move(message), payload);
}

absl::StatusOr<Message> PopUntil(PyObject* self, Deadline deadline) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return absl::CancelledError();
  GilWait gil;
  return queue->Pop(gil.Until(deadline));
}

PyObject* Get(PyObject* self, PyObject* args, PyObject* kwargs) {
  Deadline deadline = Deadline::Never();
  if (!ParseAcquireArguments(args, kwargs, &deadline)) return nullptr;
  ModuleState* state = StateOfType(Py_TYPE(self));
  absl::StatusOr<Message> message = PopUntil(self, deadline);
  return message.ok() ? UnpickleMessage(state, *std::move(message)) : SetPopError(state, message.status());
}

PyObject* GetBytes(PyObject* self, PyObject* args, PyObject* kwargs) {
  Deadline deadline = Deadline::Never();
  if (!ParseAcquireArguments(args, kwargs, &deadline)) return nullptr;
  absl::StatusOr<Message> message = PopUntil(self, deadline);
  if (!message.ok()) return SetPopError(StateOfType(Py_TYPE(self)), message.status());
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(message->payload().data()),
                                   static_cast<Py_ssize_t>(message->payload().size()));
}

// A message that does not unpickle must not take the ones before it along: they go with the exception.
PyObject* RaiseWithReceived(PyObject* received) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (PyObject_SetAttrString(value, "received", received) < 0) PyErr_Clear();
  PyErr_Restore(type, value, traceback);
  return nullptr;
}

PyObject* GetMany(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"maximum", "block", "timeout", nullptr};
  long long maximum = 0;
  int block = 1;
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "L|pO:get_many", const_cast<char**>(kKeywords), &maximum, &block,
                                   &timeout) ||
      !ParseBlockTimeout(block, timeout, &deadline)) {
    return nullptr;
  }
  if (maximum < 1) return PyErr_Format(PyExc_ValueError, "maximum must be at least 1, not %lld", maximum);
  ModuleState* state = StateOfType(Py_TYPE(self));
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  PyRef list = PyRef::Steal(PyList_New(0));
  while (list && PyList_GET_SIZE(list.get()) < maximum) {
    GilWait gil;
    absl::StatusOr<Message> message = queue->Pop(gil.Until(deadline));
    if (!message.ok()) {
      if (PyList_GET_SIZE(list.get()) != 0 && !PyErr_Occurred()) break;  // have some; an error comes back with the next get
      return SetPopError(state, message.status());
    }
    PyRef object = PyRef::Steal(UnpickleMessage(state, *std::move(message)));
    if (!object) return RaiseWithReceived(list.get());
    if (PyList_Append(list.get(), object.get()) < 0) return nullptr;
    deadline = Deadline::Now();
  }
  return list.release();
}

// ---- state ----------------------------------------------------------------------------------------------------------

PyObject* Size(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  return queue ? PyLong_FromUnsignedLongLong(queue->depth()) : nullptr;
}
PyObject* Empty(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  return queue ? PyBool_FromLong(queue->empty()) : nullptr;
}
PyObject* Full(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  return queue ? PyBool_FromLong(queue->max_items() != 0 && queue->depth() >= queue->max_items()) : nullptr;
}
PyObject* EndPuts(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  queue->Close();
  Py_RETURN_NONE;
}
PyObject* WaitReadable(PyObject* self, PyObject* args) {
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "|O:wait_readable", &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  GilWait gil;
  const absl::Status status = queue->WaitReadable(gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

PyMethodDef kMethods[] = {
    {"put", AsMethod(Put), METH_VARARGS | METH_KEYWORDS,
     "put(obj, block=True, timeout=None, on_error=None)\n\nPickles `obj` and puts it in; raises queue.Full.\n"
     "An object that cannot be pickled goes to on_error(exception, obj), if given."},
    {"put_many", AsMethod(PutMany), METH_VARARGS | METH_KEYWORDS,
     "put_many(objects, block=True, timeout=None) -> number put\n\nAll are pickled before the first is put."},
    {"put_bytes", AsMethod(PutBytes), METH_VARARGS | METH_KEYWORDS, "put_bytes(data, block=True, timeout=None)"},
    {"get", AsMethod(Get), METH_VARARGS | METH_KEYWORDS, "get(block=True, timeout=None); raises queue.Empty."},
    {"get_many", AsMethod(GetMany), METH_VARARGS | METH_KEYWORDS,
     "get_many(maximum, block=True, timeout=None) -> list\n\nAt least one object; waits only for the first.\n"
     "When one cannot be unpickled, the exception has those before it as `received`; the rest stays inside."},
    {"get_bytes", AsMethod(GetBytes), METH_VARARGS | METH_KEYWORDS, "get_bytes(block=True, timeout=None) -> bytes"},
    {"qsize", Size, METH_NOARGS, "qsize() -> messages inside at this moment"},
    {"empty", Empty, METH_NOARGS, "empty() -> bool"},
    {"full", Full, METH_NOARGS, "full() -> bool"},
    {"end_puts", EndPuts, METH_NOARGS,
     "end_puts(): no process can put any more; get() raises EOFError once the queue is drained."},
    {"wait_readable", WaitReadable, METH_VARARGS, "wait_readable(timeout=None) -> bool"},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Queue(maxsize=0): first in, first out, between all processes of the session.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Queue", sizeof(SharedObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

int BindQueue(PyObject* module, ModuleState* state) {
  state->queue_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->queue_type ? PyModule_AddObjectRef(module, "Queue", state->queue_type.get()) : -1;
}

}  // namespace pyhost::native
