// How objects come out of a queue.

#include <array>
#include <cstring>
#include <utility>

#include "modules/native/fast_arguments.h"
#include "modules/native/gil_wait.h"
#include "modules/native/message_pickle.h"
#include "modules/native/pickling.h"
#include "modules/native/queue_object.h"

namespace pyhost::native {
namespace {

// Cancelled with a Python error when there is one already.
absl::StatusOr<Message> PopUntil(PyObject* self, Deadline deadline) {
  std::optional<Queue> queue = OpenForGet(self);
  if (!queue) return absl::CancelledError();
  GilWait gil;
  absl::StatusOr<Message> message = queue->Pop(gil.Until(deadline));
  TellPoller(self, *queue);
  return message;
}

PyObject* BytesOf(std::span<const std::byte> bytes) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()));
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

}  // namespace

PyObject* QueueGet(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr std::array kNames = {"block", "timeout"};
  FastArguments<kNames.size()> given;
  Deadline deadline = Deadline::Never();
  if (!given.Parse("get", kNames, 0, args, count, keywords) || !ParseBlockTimeout(given[0], given[1], &deadline)) {
    return nullptr;
  }
  ModuleState* state = StateOfType(Py_TYPE(self));
  absl::StatusOr<Message> message = PopUntil(self, deadline);
  return message.ok() ? UnpickleMessage(state, *std::move(message)) : SetPopError(state, message.status());
}

PyObject* QueueGetBytes(PyObject* self, PyObject* args, PyObject* kwargs) {
  Deadline deadline = Deadline::Never();
  if (!ParseAcquireArguments(args, kwargs, &deadline)) return nullptr;
  absl::StatusOr<Message> message = PopUntil(self, deadline);
  return message.ok() ? BytesOf(message->payload()) : SetPopError(StateOfType(Py_TYPE(self)), message.status());
}

// The pickle as it is, where it says everything; else, with buffers or objects of the segment beside it, one anew.
PyObject* QueueGetPickle(PyObject* self, PyObject*) {
  ModuleState* state = StateOfType(Py_TYPE(self));
  absl::StatusOr<Message> message = PopUntil(self, Deadline::Never());
  if (!message.ok()) return SetPopError(state, message.status());
  const std::span<const std::byte> payload = message->payload();
  uint64_t buffers = 0;
  if (message->handles().empty() && payload.size() >= sizeof(buffers)) {
    std::memcpy(&buffers, payload.data(), sizeof(buffers));
    if (buffers == 0) return BytesOf(payload.subspan(sizeof(buffers)));
  }
  PyRef object = PyRef::Steal(UnpickleMessage(state, *std::move(message)));
  if (!object) return nullptr;
  PyRef pickle = PyRef::Steal(PyObject_CallMethod(state->forking_pickler.get(), "dumps", "O", object.get()));
  return pickle ? PyBytes_FromObject(pickle.get()) : nullptr;
}

PyObject* QueueGetMany(PyObject* self, PyObject* args, PyObject* kwargs) {
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
  PyRef list = PyRef::Steal(PyList_New(0));
  while (list && PyList_GET_SIZE(list.get()) < maximum) {
    absl::StatusOr<Message> message = PopUntil(self, deadline);
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

}  // namespace pyhost::native
