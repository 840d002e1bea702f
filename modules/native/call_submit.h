// Submitting calls: functions are pickled once, arguments for each call, chunks of a sequence are cut off as they go.
//
// A call that cannot be pickled is no error of the submission: it is its own call's outcome.

#ifndef PYHOST_MODULES_NATIVE_CALL_SUBMIT_H_
#define PYHOST_MODULES_NATIVE_CALL_SUBMIT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "modules/native/call_objects.h"
#include "runtime/broker/call_frame.h"

namespace pyhost::native {

// What messages call the function.  Not the function itself: it may hold whoever holds its calls.
PyRef NameOf(ClientState* state, PyObject* callable);

// `count` more calls of a submission.
absl::StatusOr<CallId> Register(CallsState* calls, CallClient* client, uint64_t count);

// Chunk i is items [bounds[i], bounds[i + 1]) of `length`: each of `chunk_size`, or (0) guided by the number of workers.
std::vector<Py_ssize_t> SplitLength(Py_ssize_t length, Py_ssize_t chunk_size, Py_ssize_t workers);

// What a submission applies to its items, and how.
struct Task {
  PyObject* callable;
  bool star = false;    // f(*item)
  bool single = false;  // each call is for one item, not for a chunk
  size_t offset = 0;    // how many items earlier submissions to the same Calls had
};

// Each returns false with a Python error; the calls that were not pushed are withdrawn.
bool SubmitOne(CallsState* calls, CallClient* client, PyObject* callable, CallKind kind, PyObject* arguments);
// A call for each chunk of `items`.
bool SubmitChunks(CallsState* calls, CallClient* client, const Task& task, PyObject* items,
                  const std::vector<Py_ssize_t>& bounds);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CALL_SUBMIT_H_
