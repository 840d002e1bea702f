// How objects get into a queue.

#include <array>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "modules/native/buffer_view.h"
#include "modules/native/fast_arguments.h"
#include "modules/native/gil_wait.h"
#include "modules/native/message_pickle.h"
#include "modules/native/queue_object.h"
#include "modules/native/scalar_pickle.h"

namespace pyhost::native {
namespace {

// An object that cannot be pickled: the method `_on_queue_feeder_error(exception, object)` of `owner` is told and the
// put ends without effect, as python3's feeder thread does it; without `owner` the exception is raised.
PyObject* ReportPickleError(PyObject* owner, PyObject* object) {
  if (owner == nullptr || owner == Py_None) return nullptr;
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  PyRef type_ref = PyRef::Steal(type), value_ref = PyRef::Steal(value), traceback_ref = PyRef::Steal(traceback);
  if (!PyErr_GivenExceptionMatches(value, PyExc_Exception)) {
    PyErr_SetObject(type, value);
    return nullptr;
  }
  return PyObject_CallMethod(owner, "_on_queue_feeder_error", "OO", value, object);
}

PyObject* Push(PyObject* self, const MessageView& message, Deadline deadline) {
  std::optional<Queue> queue = OpenForPut(self);
  if (!queue) return nullptr;
  AsQueue(self)->was_put = true;
  GilWait gil;
  const absl::Status status = queue->Push(message, gil.Until(deadline));
  if (!status.ok()) return SetPushError(StateOfType(Py_TYPE(self)), status);
  Py_RETURN_NONE;
}

// One object of a batch.  Never moves.
class PickledOne {
 public:
  bool Take(ModuleState* state, PyObject* object) {
    if (!MayDoWithoutPickler(state) || !AppendScalarPickle(object, &plain_)) return Pickle(state, object, &pickled_);
    part_ = std::as_bytes(std::span(plain_));
    return true;
  }
  MessageView message() const {
    if (plain_.empty()) return {.parts = pickled_.parts(), .handles = pickled_.handles()};
    return {.parts = {&part_, 1}, .handles = {}};
  }

 private:
  std::string plain_;
  std::span<const std::byte> part_;
  Pickled pickled_;
};

}  // namespace

PyObject* QueuePut(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr std::array kNames = {"obj", "block", "timeout", "owner"};
  FastArguments<kNames.size()> given;
  Deadline deadline = Deadline::Never();
  if (!given.Parse("put", kNames, 1, args, count, keywords) || !ParseBlockTimeout(given[1], given[2], &deadline)) {
    return nullptr;
  }
  ModuleState* state = StateOfType(Py_TYPE(self));
  PickledMessage pickled;
  if (!pickled.Take(state, given[0])) return ReportPickleError(given[3], given[0]);
  return Push(self, pickled.message(), deadline);
}

PyObject* QueuePutMany(PyObject* self, PyObject* args, PyObject* kwargs) {
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
  std::deque<PickledOne> pickled;
  while (PyRef object = PyRef::Steal(PyIter_Next(iterator.get()))) {
    if (!pickled.emplace_back().Take(state, object.get())) return nullptr;
  }
  if (PyErr_Occurred()) return nullptr;
  std::optional<Queue> queue = OpenForPut(self);
  if (!queue) return nullptr;
  std::vector<MessageView> messages;
  messages.reserve(pickled.size());
  for (const PickledOne& one : pickled) messages.push_back(one.message());
  GilWait gil;
  absl::Status status;
  const size_t pushed = queue->PushBatch(messages, gil.Until(deadline), &status);
  if (pushed != 0) AsQueue(self)->was_put = true;
  // A full queue after some were taken is told by the count; any other error is raised.
  if (!status.ok() && (pushed == 0 || !absl::IsDeadlineExceeded(status))) return SetPushError(state, status);
  return PyLong_FromSize_t(pushed);
}

PyObject* QueuePutBytes(PyObject* self, PyObject* args, PyObject* kwargs) {
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
  const std::span<const std::byte> part = view.bytes();
  return Push(self, {.parts = {&part, 1}, .handles = {}}, deadline);
}

PyObject* QueuePutPickle(PyObject* self, PyObject* pickle) {
  BufferView view;
  if (!view.Acquire(pickle)) return nullptr;
  constexpr uint64_t kNoBuffers = 0;
  const std::array<std::span<const std::byte>, 2> parts = {std::as_bytes(std::span(&kNoBuffers, 1)), view.bytes()};
  return Push(self, {.parts = parts, .handles = {}}, Deadline::Never());
}

}  // namespace pyhost::native
