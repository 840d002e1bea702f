// CallClient and Calls, the Python objects of a pool's caller, as the files that implement them see them.
//
//   bind_call_client.cc   CallClient: one pool, its calls submitted and ended
//   bind_calls.cc         Calls: one submission (an apply, a map, an imap), waited for and received
//   call_submit.cc        pickles and pushes what is submitted
//   call_outcome.cc       makes Python objects of what arrives
//
// All of it needs the GIL.

#ifndef PYHOST_MODULES_NATIVE_CALL_OBJECTS_H_
#define PYHOST_MODULES_NATIVE_CALL_OBJECTS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "modules/native/bind_pool.h"
#include "modules/native/call_batch.h"
#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/base/deadline.h"
#include "runtime/broker/call_client.h"

namespace pyhost::native {

// A function or class that pickles to a reference to a global, and that pickle.
struct KnownFunction {
  PyRef object;
  PyRef name;
  std::shared_ptr<const std::string> pickle;
};

struct ClientState {
  ModuleState* module;  // lives as long as our type
  std::unique_ptr<CallClient> client;
  absl::flat_hash_map<PyObject*, KnownFunction> known;
  PyRef faults;  // dict: host in words -> what tells the fault that a worker died of; see pool_faults.py
};

struct ClientObject {
  PyObject_HEAD
  ClientState* state;
};

struct CallsState {
  PyRef owner;  // the CallClient object
  std::shared_ptr<CallGroup> group;
  PyRef function_name;
  CallOptions options;
  bool single = false;                 // each call of a map is for one item
  uint64_t submitted = 0;              // the index of the next call
  // The ids of its calls: from, and how many.  An iteration has none: nobody cancels it, and it may go on for ever.
  absl::InlinedVector<std::pair<CallId, uint64_t>, 1> ids;
  bool keeps_ids = true;
  PyRef outcome;                       // what take() gave
  PyRef result;                        // what outcome() gives: a single call's (ok, value)
  std::atomic<bool> decoding{false};   // a thread makes that of the arrival; it may give up the GIL meanwhile
  int decode_waiters = 0;              // threads that wait for it
  std::map<uint64_t, PyRef> refused;   // index -> the exception that kept the call from being submitted
  // A map's results, filled as they arrive: results[bounds[i]] to results[bounds[i + 1]] belong to call i.
  PyRef results;
  std::vector<Py_ssize_t> bounds;
  PyRef failure;                       // the first to arrive
  uint64_t placed = 0;                 // items whose call has arrived
  // An iteration's arrivals that were not asked for yet: as they came, or (ordered) those that came too early.
  std::vector<Arrival> waiting;
  size_t taken = 0;  // of those
  std::map<uint64_t, Arrival> early;
  uint64_t next_index = 0;
};

struct CallsObject {
  PyObject_HEAD
  CallsState* state;
};

inline ClientState* AsClient(PyObject* self) { return reinterpret_cast<ClientObject*>(self)->state; }
inline CallsState* AsCalls(PyObject* self) { return reinterpret_cast<CallsObject*>(self)->state; }

inline ModuleState* ModuleOf(const CallsState* calls) { return AsClient(calls->owner.get())->module; }

// The client for one operation; null with a Python error in a process forked from the pool's owner.
CallClient* UseClient(PyObject* client);

// A new Calls object of `client` for `callable`; see CallClient::NewGroup.
struct GroupOptions {
  bool notify = false;
  bool open = false;
};
PyObject* NewCalls(PyObject* client, PyObject* callable, GroupOptions group, const CallOptions& options);

// (ok, value) of a single call, for every thread that asks; None when it is not there until the deadline; null with a Python
// error.
PyObject* AwaitOutcome(CallClient& client, CallsState& calls, Deadline deadline);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CALL_OBJECTS_H_
