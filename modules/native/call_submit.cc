#include "modules/native/call_submit.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "modules/native/status.h"

namespace pyhost::native {
namespace {

constexpr size_t kCallsAtOnce = 32;  // pushed together when they are small
constexpr size_t kBytesAtOnce = 16 * 1024;
constexpr size_t kCallsAtFirst = 8;          // pushed one by one, so that the workers begin at once
constexpr size_t kMaxKnownFunctions = 1024;  // per pool; then it starts anew

bool MayBeKnown(PyObject* callable) {
  return PyFunction_Check(callable) || PyCFunction_Check(callable) || PyType_Check(callable);
}

}  // namespace

PyRef NameOf(ClientState* state, PyObject* callable) {
  if (auto known = state->known.find(callable); known != state->known.end()) {
    return PyRef::Borrow(known->second.name.get());
  }
  PyRef name = PyRef::Steal(PyObject_GetAttrString(callable, "__qualname__"));
  if (name && PyUnicode_Check(name.get())) return name;
  PyErr_Clear();
  return PyRef::Borrow(reinterpret_cast<PyObject*>(Py_TYPE(callable)));
}

namespace {

bool PrepareFunction(ClientState* state, PyObject* callable, Function* function) {
  if (auto known = state->known.find(callable); known != state->known.end()) {
    function->Use(callable, known->second.pickle);
    return true;
  }
  if (!function->Prepare(state->module, callable)) return false;
  if (!function->is_global() || function->memory() || !MayBeKnown(callable)) return true;
  PyRef name = NameOf(state, callable);
  if (state->known.size() >= kMaxKnownFunctions) state->known.clear();
  const std::span<const std::byte> pickle = function->pickle();
  state->known[callable] = {
      PyRef::Borrow(callable), std::move(name),
      std::make_shared<const std::string>(reinterpret_cast<const char*>(pickle.data()), pickle.size())};
  return true;
}

// What was to be pickled.
struct Attempt {
  PyObject* callable;
  CallKind kind;
  PyObject* arguments = nullptr;  // null: it did not come to them
  size_t first_item = 0;          // where a chunk begins in what its caller maps over
};

// The Python error that is set, with the way to what cannot be pickled.  Null, with the error still set, when it is none
// that a call may have as outcome (KeyboardInterrupt, ...).
PyRef TakePicklingError(ModuleState* module, const Attempt& attempt) {
  if (!PyErr_ExceptionMatches(PyExc_Exception)) return {};
  PyRef error = TakeException();
  PyRef kind = PyRef::Steal(PyLong_FromLong(static_cast<long>(attempt.kind)));
  PyRef first_item = PyRef::Steal(PyLong_FromSize_t(attempt.first_item));
  if (!kind || !first_item) return {};
  PyObject* const arguments = attempt.arguments == nullptr ? Py_None : attempt.arguments;
  return CallOutcomes(module, "unpicklable_call",
                      {error.get(), attempt.callable, kind.get(), arguments, first_item.get()});
}

// The call cannot be submitted: the Python error that is set is its outcome.  False with a Python error.
bool Refuse(CallsState* calls, CallClient* client, CallId id, uint64_t index, const Attempt& attempt) {
  PyRef error = TakePicklingError(ModuleOf(calls), attempt);
  const bool is_outcome = static_cast<bool>(error);
  if (is_outcome) calls->refused[index] = std::move(error);
  client->Withdraw(id, 1);
  return is_outcome;
}

// Pushes what the batch holds; false with a Python error, and `rest` more calls from `next` on withdrawn.
bool FlushOrWithdraw(CallBatch* batch, CallClient* client, CallId next, uint64_t rest) {
  const absl::Status status = batch->Flush();
  if (status.ok()) return true;
  client->Withdraw(next, rest);
  SetError(status);
  return false;
}

// Sizes of chunks: all of `fixed`, or (0) guided: a share of what is left, so that the first ones are
// big (cheap) and the last ones small (even).
class ChunkSizes {
 public:
  ChunkSizes(Py_ssize_t length, Py_ssize_t fixed, Py_ssize_t workers)
      : left_(length), fixed_(fixed), share_(std::max<Py_ssize_t>(1, workers) * 3) {}

  Py_ssize_t Next() {
    Py_ssize_t size = fixed_ != 0 ? fixed_ : (left_ + share_ - 1) / share_;
    size = std::min(size, left_);
    left_ -= size;
    return size;
  }

 private:
  Py_ssize_t left_;
  const Py_ssize_t fixed_;
  const Py_ssize_t share_;
};

// The argument of the call for items[start, end): one item, or a slice.
PyRef ChunkOf(PyObject* items, Py_ssize_t start, Py_ssize_t end, bool single) {
  if (single) return PyRef::Steal(PySequence_GetItem(items, start));
  return PyRef::Steal(PySequence_GetSlice(items, start, end));
}

CallKind KindFor(const Task& task) {
  if (task.single) return task.star ? CallKind::kStar : CallKind::kOne;
  return task.star ? CallKind::kStarMap : CallKind::kMap;
}

// No call of the submission can be pushed: what pickling its function raised is the outcome of each.
bool RefuseAll(CallsState* calls, CallClient* client, PyObject* callable, CallId first, uint64_t first_index,
               size_t count) {
  PyRef error = TakePicklingError(ModuleOf(calls), {callable, CallKind::kMap});
  for (size_t i = 0; error && i < count; ++i) calls->refused[first_index + i] = PyRef::Borrow(error.get());
  client->Withdraw(first, count);
  return static_cast<bool>(error);
}

bool IsFull(const CallBatch& batch, size_t pushed) {
  return batch.size() >= kCallsAtOnce || batch.bytes() >= kBytesAtOnce ||
         (pushed < kCallsAtFirst && batch.size() != 0);
}

}  // namespace

absl::StatusOr<CallId> Register(CallsState* calls, CallClient* client, uint64_t count) {
  absl::StatusOr<CallId> first = client->Register(calls->group, count, calls->submitted);
  if (!first.ok()) return first;
  calls->submitted += count;
  if (!calls->keeps_ids) return first;
  const bool follows =
      !calls->ids.empty() && calls->ids.back().first.value() + calls->ids.back().second == first->value();
  if (follows) {
    calls->ids.back().second += count;
  } else {
    calls->ids.emplace_back(*first, count);
  }
  return first;
}

std::vector<Py_ssize_t> SplitLength(Py_ssize_t length, Py_ssize_t chunk_size, Py_ssize_t workers) {
  std::vector<Py_ssize_t> bounds = {0};
  ChunkSizes sizes(length, chunk_size, workers);
  while (bounds.back() < length) bounds.push_back(bounds.back() + sizes.Next());
  return bounds;
}

bool SubmitOne(CallsState* calls, CallClient* client, PyObject* callable, CallKind kind, PyObject* arguments) {
  Function function;
  absl::StatusOr<CallId> id = Register(calls, client, 1);
  if (!id.ok()) return SetError(id.status()) != nullptr;
  const uint64_t index = calls->submitted - 1;
  if (!PrepareFunction(AsClient(calls->owner.get()), callable, &function)) {
    return Refuse(calls, client, *id, index, {callable, kind});
  }
  // A function with state goes together with its arguments: what they share stays shared.
  CallBatch batch(*client, function, !function.is_global(), calls->options);
  if (!batch.Add(ModuleOf(calls), kind, *id, arguments)) {
    return Refuse(calls, client, *id, index, {callable, kind, arguments});
  }
  return FlushOrWithdraw(&batch, client, CallId(), 0);
}

bool SubmitChunks(CallsState* calls, CallClient* client, const Task& task, PyObject* items,
                  const std::vector<Py_ssize_t>& bounds) {
  const size_t count = bounds.size() - 1;
  if (count == 0) return true;
  const uint64_t first_index = calls->submitted;
  absl::StatusOr<CallId> first = Register(calls, client, count);
  if (!first.ok()) return SetError(first.status()) != nullptr;
  Function function;
  if (!PrepareFunction(AsClient(calls->owner.get()), task.callable, &function)) {
    return RefuseAll(calls, client, task.callable, *first, first_index, count);
  }
  const CallKind kind = KindFor(task);
  CallBatch batch(*client, function, function.must_go_inside(), calls->options);
  for (size_t i = 0; i < count; ++i) {
    const CallId id = CallId::FromValue(first->value() + i), next = CallId::FromValue(id.value() + 1);
    PyRef chunk = ChunkOf(items, bounds[i], bounds[i + 1], task.single);
    const bool added = chunk && batch.Add(ModuleOf(calls), kind, id, chunk.get());
    const Attempt attempt = {task.callable, kind, chunk.get(), task.offset + static_cast<size_t>(bounds[i])};
    if (!added && !Refuse(calls, client, id, first_index + i, attempt)) {
      client->Withdraw(next, count - i - 1);
      return false;
    }
    const bool flush = IsFull(batch, i) || (i + 1 == count && batch.size() != 0);
    if (flush && !FlushOrWithdraw(&batch, client, next, count - i - 1)) return false;
  }
  return true;
}

}  // namespace pyhost::native
