// QueueObject: the Python object of a queue, and what its methods (queue_put.cc, queue_get.cc, bind_queue.cc) share.

#ifndef PYHOST_MODULES_NATIVE_QUEUE_OBJECT_H_
#define PYHOST_MODULES_NATIVE_QUEUE_OBJECT_H_

#include <optional>

#include "modules/native/queue_poller.h"
#include "modules/native/shared_object.h"
#include "runtime/queue/queue.h"

namespace pyhost::native {

struct QueueObject {
  SharedObject shared;
  // This object's own state, not the queue's: another process, or another object here, goes on.
  bool puts_closed;
  bool gets_closed;
  bool was_put;         // something was put through this object
  QueuePoller* poller;  // owned; null until somebody asked for a descriptor
  int always_writable;  // a descriptor, or 0
};

inline QueueObject* AsQueue(PyObject* self) { return reinterpret_cast<QueueObject*>(self); }

// The queue, for putting or getting through this object; none with OSError when that end is closed.
std::optional<Queue> OpenForPut(PyObject* self);
std::optional<Queue> OpenForGet(PyObject* self);

// After something was taken or was not there: a polled descriptor must not say for ever that there is something.
inline void TellPoller(PyObject* self, const Queue& queue) {
  QueuePoller* poller = AsQueue(self)->poller;
  if (poller != nullptr && queue.empty() && poller->InThisProcess()) poller->LookedEmpty();
}

// queue.Full where the status is DeadlineExceeded, else the exception of the status; likewise queue.Empty.
PyObject* SetPushError(ModuleState* state, const absl::Status& status);
PyObject* SetPopError(ModuleState* state, const absl::Status& status);

// The methods, see the table in bind_queue.cc.
PyObject* QueuePut(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords);
PyObject* QueuePutMany(PyObject* self, PyObject* args, PyObject* kwargs);
PyObject* QueuePutBytes(PyObject* self, PyObject* args, PyObject* kwargs);
PyObject* QueuePutPickle(PyObject* self, PyObject* pickle);
PyObject* QueueGet(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords);
PyObject* QueueGetMany(PyObject* self, PyObject* args, PyObject* kwargs);
PyObject* QueueGetBytes(PyObject* self, PyObject* args, PyObject* kwargs);
PyObject* QueueGetPickle(PyObject* self, PyObject* unused);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_QUEUE_OBJECT_H_
