// _pyhost.Queue: pickled objects through a queue of the segment; what multiprocessing's queues ride.

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "modules/native/gil_wait.h"
#include "modules/native/queue_object.h"
#include "runtime/base/status_util.h"

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

void CloseDescriptors(QueueObject* self) {
  delete std::exchange(self->poller, nullptr);
  if (self->always_writable != 0) close(std::exchange(self->always_writable, 0));
}

void Dealloc(PyObject* self) {
  CloseDescriptors(AsQueue(self));
  DeallocShared(self);
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

std::optional<Queue> OpenUnless(bool closed, PyObject* self) {
  if (!closed) return OpenShared<Queue>(self);
  PyErr_SetString(PyExc_OSError, "handle is closed: this process has closed its end of the queue");
  return std::nullopt;
}

// ---- State ----------------------------------------------------------------------------------------------------------

PyObject* Size(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  return queue ? PyLong_FromUnsignedLongLong(queue->depth()) : nullptr;
}
PyObject* Empty(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenShared<Queue>(self);
  if (!queue) return nullptr;
  TellPoller(self, *queue);
  return PyBool_FromLong(queue->empty());
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

// ---- The ends of this process ---------------------------------------------------------------------------------------

PyObject* ClosePuts(PyObject* self, PyObject*) {
  AsQueue(self)->puts_closed = true;
  Py_RETURN_NONE;
}
PyObject* CloseGets(PyObject* self, PyObject*) {
  AsQueue(self)->gets_closed = true;
  Py_RETURN_NONE;
}
PyObject* PutsClosed(PyObject* self, void*) { return PyBool_FromLong(AsQueue(self)->puts_closed); }
PyObject* GetsClosed(PyObject* self, void*) { return PyBool_FromLong(AsQueue(self)->gets_closed); }
PyObject* WasPut(PyObject* self, void*) { return PyBool_FromLong(AsQueue(self)->was_put); }

// ---- Waiting together with other things -----------------------------------------------------------------------------

PyObject* WaitReadable(PyObject* self, PyObject* args) {
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "|O:wait_readable", &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  std::optional<Queue> queue = OpenForGet(self);
  if (!queue) return nullptr;
  GilWait gil;
  const absl::Status status = queue->WaitReadable(gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (!absl::IsDeadlineExceeded(status)) return SetError(status);
  TellPoller(self, *queue);
  Py_RETURN_FALSE;
}

PyObject* PollDescriptor(PyObject* self, PyObject*) {
  std::optional<Queue> queue = OpenForGet(self);
  if (!queue) return nullptr;
  QueueObject* object = AsQueue(self);
  if (object->poller != nullptr && !object->poller->InThisProcess()) delete std::exchange(object->poller, nullptr);
  if (object->poller == nullptr) {
    absl::StatusOr<std::unique_ptr<QueuePoller>> poller = QueuePoller::Start(*queue);
    if (!poller.ok()) return SetError(poller.status());
    object->poller = poller->release();
  }
  return PyLong_FromLong(object->poller->descriptor());
}

PyObject* WritableDescriptor(PyObject* self, PyObject*) {
  QueueObject* object = AsQueue(self);
  if (object->always_writable == 0) {
    const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0) return SetError(ErrnoStatus(errno, "eventfd for a queue's writing end"));
    object->always_writable = descriptor;
  }
  return PyLong_FromLong(object->always_writable);
}

PyObject* StopPolling(PyObject* self, PyObject*) {
  CloseDescriptors(AsQueue(self));
  Py_RETURN_NONE;
}

PyMethodDef kMethods[] = {
    {"put", AsMethod(QueuePut), METH_FASTCALL | METH_KEYWORDS,
     "put(obj, block=True, timeout=None, owner=None)\n\nPickles `obj` and puts it in; raises queue.Full.\n"
     "An object that cannot be pickled goes to owner._on_queue_feeder_error(exception, obj), if given."},
    {"put_many", AsMethod(QueuePutMany), METH_VARARGS | METH_KEYWORDS,
     "put_many(objects, block=True, timeout=None) -> number put\n\nAll are pickled before the first is put."},
    {"put_bytes", AsMethod(QueuePutBytes), METH_VARARGS | METH_KEYWORDS, "put_bytes(data, block=True, timeout=None)"},
    {"put_pickle", QueuePutPickle, METH_O, "put_pickle(data): puts the object of which `data` is the pickle."},
    {"get", AsMethod(QueueGet), METH_FASTCALL | METH_KEYWORDS, "get(block=True, timeout=None); raises queue.Empty."},
    {"get_many", AsMethod(QueueGetMany), METH_VARARGS | METH_KEYWORDS,
     "get_many(maximum, block=True, timeout=None) -> list\n\nAt least one object; waits only for the first.\n"
     "When one cannot be unpickled, the exception has those before it as `received`; the rest stays inside."},
    {"get_bytes", AsMethod(QueueGetBytes), METH_VARARGS | METH_KEYWORDS, "get_bytes(block=True, timeout=None) -> bytes"},
    {"get_pickle", QueueGetPickle, METH_NOARGS, "get_pickle() -> bytes: takes an object, as its pickle."},
    {"qsize", Size, METH_NOARGS, "qsize() -> messages inside at this moment"},
    {"empty", Empty, METH_NOARGS, "empty() -> bool"},
    {"full", Full, METH_NOARGS, "full() -> bool"},
    {"end_puts", EndPuts, METH_NOARGS,
     "end_puts(): no process can put any more; get() raises EOFError once the queue is drained."},
    {"close_puts", ClosePuts, METH_NOARGS, "close_puts(): put() of this object raises OSError from now on."},
    {"close_gets", CloseGets, METH_NOARGS, "close_gets(): get() of this object raises OSError from now on."},
    {"wait_readable", WaitReadable, METH_VARARGS, "wait_readable(timeout=None) -> bool"},
    {"poll_descriptor", PollDescriptor, METH_NOARGS,
     "poll_descriptor() -> int: readable while something is inside, or was until a moment ago; this process's own."},
    {"writable_descriptor", WritableDescriptor, METH_NOARGS, "writable_descriptor() -> int: always writable."},
    {"stop_polling", StopPolling, METH_NOARGS, "stop_polling(): closes the descriptors of the two above."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kAttributes[] = {
    {"puts_closed", PutsClosed, nullptr, "Was close_puts() called?", nullptr},
    {"gets_closed", GetsClosed, nullptr, "Was close_gets() called?", nullptr},
    {"was_put", WasPut, nullptr, "Was anything put through this object?", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Queue(maxsize=0): first in, first out, between all processes of the session.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kAttributes},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Queue", sizeof(QueueObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

std::optional<Queue> OpenForPut(PyObject* self) { return OpenUnless(AsQueue(self)->puts_closed, self); }
std::optional<Queue> OpenForGet(PyObject* self) { return OpenUnless(AsQueue(self)->gets_closed, self); }

PyObject* SetPushError(ModuleState* state, const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return SetFromQueueModule(&state->queue_full, "Full");
  return SetError(status);
}

PyObject* SetPopError(ModuleState* state, const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return SetFromQueueModule(&state->queue_empty, "Empty");
  return SetError(status);
}

int BindQueue(PyObject* module, ModuleState* state) {
  state->queue_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->queue_type ? PyModule_AddObjectRef(module, "Queue", state->queue_type.get()) : -1;
}

}  // namespace pyhost::native
