// _pyhost.Calls: one submission (an apply, a map, an imap), waited for and received.

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modules/native/call_objects.h"
#include "modules/native/call_outcome.h"
#include "modules/native/call_submit.h"
#include "modules/native/gil_wait.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"

namespace pyhost::native {
namespace {

constexpr size_t kArrivalsAtOnce = 64;

CallClient* ClientOf(PyObject* self) { return UseClient(AsCalls(self)->owner.get()); }

CallId FirstOf(const CallsState& calls) { return calls.ids.empty() ? CallId() : calls.ids.front().first; }

// The methods and getters below do `act(client, calls)`, unless the client may not be used: then null with an error.
template <typename Act>
PyObject* WithClient(PyObject* self, Act act) {
  CallClient* client = ClientOf(self);
  return client == nullptr ? nullptr : act(*client, *AsCalls(self));
}

// The same for a method whose only argument is a timeout.
template <typename Act>
PyObject* WithDeadline(PyObject* self, PyObject* args, const char* format, Act act) {
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, format, &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  return WithClient(self, [&](CallClient& client, CallsState& calls) { return act(client, calls, deadline); });
}

// ---- Life -----------------------------------------------------------------------------------------------------------

void DeallocCalls(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  if (CallsState* state = AsCalls(self); state != nullptr) {
    Session* session = Session::Current();
    CallClient* client = AsClient(state->owner.get())->client.get();
    if (session != nullptr && client != nullptr && client->me() == session->me()) client->Abandon(*state->group);
    delete state;
  }
  type->tp_free(self);
  Py_DECREF(type);
}

// ---- Waiting --------------------------------------------------------------------------------------------------------

// 1: the group has something or is finished; 0: not until the deadline; -1 with a Python error.
int AwaitArrival(CallClient& client, CallsState& calls, Deadline deadline) {
  GilWait gil;
  const absl::Status status = client.WaitForArrival(*calls.group, gil.Until(deadline));
  if (status.ok()) return 1;
  if (absl::IsDeadlineExceeded(status)) return 0;
  SetError(status);
  return -1;
}

// Makes calls.result of the arrival; false with a Python error.
bool ReceiveResult(CallClient& client, CallsState& calls) {
  std::vector<Arrival> arrivals = client.Take(*calls.group, 1);
  if (arrivals.empty()) {
    PyErr_SetString(PyExc_RuntimeError, "the outcome of this call was taken before");
    return false;
  }
  calls.decoding = true;
  Outcome outcome;
  if (Decode(&calls, std::move(arrivals.front()), &outcome)) calls.result = PyRef::Steal(OutcomeTuple(outcome));
  calls.decoding = false;
  if (calls.decode_waiters != 0) client.WakeWaiters();
  return static_cast<bool>(calls.result);
}

// Until the thread that makes the result has done so; results as AwaitArrival().
int AwaitDecoding(CallClient& client, CallsState& calls, Deadline deadline) {
  GilWait gil;
  ++calls.decode_waiters;
  const absl::Status status =
      client.WaitForAllOr(nullptr, [&] { return !calls.decoding.load(); }, gil.Until(deadline));
  --calls.decode_waiters;
  if (status.ok()) return 1;
  if (absl::IsDeadlineExceeded(status)) return 0;
  SetError(status);
  return -1;
}

PyObject* WaitAll(PyObject* self, PyObject* args) {
  return WithDeadline(self, args, "|O:wait",
                      [](CallClient& client, CallsState& calls, Deadline deadline) -> PyObject* {
                        GilWait gil;
                        const absl::Status status = client.WaitForAll(*calls.group, gil.Until(deadline));
                        if (status.ok()) Py_RETURN_TRUE;
                        if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
                        return SetError(status);
                      });
}

PyObject* AwaitOne(PyObject* self, PyObject* args) {
  return WithDeadline(self, args, "|O:outcome", AwaitOutcome);
}

// ---- Taking ---------------------------------------------------------------------------------------------------------

// take(): the outcome of a single call that has arrived, for the first who asks.
PyObject* TakeOutcome(CallClient& client, CallsState& calls) {
  std::vector<Arrival> arrivals = client.Take(*calls.group, 1);
  if (arrivals.empty()) Py_RETURN_NONE;
  Outcome outcome;
  if (!Decode(&calls, std::move(arrivals.front()), &outcome)) {
    PyRef error = TakeException();
    calls.outcome = PyRef::Steal(Py_BuildValue("(iO)", static_cast<int>(Ending::kUnreadable), error.get()));
    RaiseException(std::move(error));
    return nullptr;
  }
  calls.outcome = PyRef::Steal(Py_BuildValue("(iO)", static_cast<int>(outcome.ending), outcome.value.get()));
  return Py_XNewRef(calls.outcome.get());
}
PyObject* Take(PyObject* self, PyObject*) { return WithClient(self, TakeOutcome); }

// drop(): forgets what take() gave.  An exception there holds frames, which may hold us.
PyObject* Drop(PyObject* self, PyObject*) {
  PyRef dropped = std::move(AsCalls(self)->outcome);
  AsCalls(self)->outcome = PyRef();
  Py_RETURN_NONE;
}

// ---- A map ----------------------------------------------------------------------------------------------------------

// Puts call `index`'s list of results in its place.
bool PlaceResults(CallsState& calls, uint64_t index, PyObject* values) {
  PyObject* results = calls.results.get();
  const Py_ssize_t start = calls.bounds[index], count = calls.bounds[index + 1] - start;
  if (calls.single) return PyList_SetItem(results, start, Py_NewRef(values)) == 0;
  if (!PyList_CheckExact(values) || PyList_GET_SIZE(values) != count) {
    // An iterable whose slice yields another number of items than its length says; python3 keeps them in order, too.
    SetError(absl::DataLossError(absl::StrCat("a chunk of ", count, " items gave another number of results")));
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {  // Exchanged: no count changes, and `values` is ours alone.
    PyObject* none = PyList_GET_ITEM(results, start + i);
    PyList_SET_ITEM(results, start + i, PyList_GET_ITEM(values, i));
    PyList_SET_ITEM(values, i, none);
  }
  return true;
}

bool PlaceArrival(CallsState& calls, Arrival arrival) {
  const uint64_t index = arrival.index;
  Outcome outcome;
  if (!Decode(&calls, std::move(arrival), &outcome)) return false;
  if (index + 1 < calls.bounds.size()) {
    calls.placed += static_cast<uint64_t>(calls.bounds[index + 1] - calls.bounds[index]);
  }
  if (outcome.ok) return index + 1 >= calls.bounds.size() || PlaceResults(calls, index, outcome.value.get());
  if (!calls.failure) calls.failure = std::move(outcome.value);
  return true;
}

PyObject* CollectAll(CallClient& client, CallsState& calls, Deadline deadline) {
  for (;;) {
    const int ready = AwaitArrival(client, calls, deadline);
    if (ready < 0) return nullptr;
    if (ready == 0) Py_RETURN_NONE;
    std::vector<Arrival> arrivals = client.Take(*calls.group, kArrivalsAtOnce);
    if (arrivals.empty()) break;
    for (Arrival& arrival : arrivals) {
      if (!PlaceArrival(calls, std::move(arrival))) return nullptr;
    }
  }
  PyObject* value = calls.failure ? calls.failure.get() : calls.results.get();
  return PyTuple_Pack(2, calls.failure ? Py_False : Py_True, value);
}
PyObject* Collect(PyObject* self, PyObject* args) { return WithDeadline(self, args, "|O:collect", CollectAll); }

// ---- An iteration ---------------------------------------------------------------------------------------------------

// The next arrival of those that are here; false when there is none.
bool PopArrival(CallsState& calls, bool ordered, Arrival* arrival) {
  while (calls.taken < calls.waiting.size()) {
    Arrival first = std::move(calls.waiting[calls.taken++]);
    if (!ordered || first.index == calls.next_index) {
      *arrival = std::move(first);
      return true;
    }
    const uint64_t index = first.index;
    calls.early[index] = std::move(first);
  }
  auto early = calls.early.find(calls.next_index);
  if (!ordered || early == calls.early.end()) return false;
  *arrival = std::move(early->second);
  calls.early.erase(early);
  return true;
}

// The next arrival of an iteration in `arrival`.  1: there; 0: timed out; 2: at the end; -1 with a Python error.
int NextArrival(CallClient& client, CallsState& calls, bool ordered, Deadline deadline, Arrival* arrival) {
  while (!PopArrival(calls, ordered, arrival)) {
    const int ready = AwaitArrival(client, calls, deadline);
    if (ready != 1) return ready;
    std::vector<Arrival> arrivals = client.Take(*calls.group, kArrivalsAtOnce);
    if (arrivals.empty()) return 2;
    calls.waiting = std::move(arrivals);
    calls.taken = 0;
  }
  return 1;
}

PyObject* Next(PyObject* self, PyObject* args) {
  int ordered = 0;
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "p|O:next", &ordered, &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  return WithClient(self, [&](CallClient& client, CallsState& calls) -> PyObject* {
    Arrival arrival;
    switch (NextArrival(client, calls, ordered != 0, deadline, &arrival)) {
      case 0:
        Py_RETURN_NONE;
      case 1:
        break;
      case 2:
        return PyTuple_New(0);
      default:
        return nullptr;
    }
    ++calls.next_index;
    Outcome outcome;
    return Decode(&calls, std::move(arrival), &outcome) ? OutcomeTuple(outcome) : nullptr;
  });
}

// extend(function, star, items, chunksize)
PyObject* Extend(PyObject* self, PyObject* args) {
  Task task;
  PyObject* items = nullptr;
  int star = 0;
  Py_ssize_t chunk_size = 1;
  if (!PyArg_ParseTuple(args, "OpOn:extend", &task.callable, &star, &items, &chunk_size)) return nullptr;
  chunk_size = std::max<Py_ssize_t>(chunk_size, 1);
  task.star = star != 0;
  task.single = chunk_size == 1;
  return WithClient(self, [&](CallClient& client, CallsState& calls) -> PyObject* {
    const Py_ssize_t length = PySequence_Size(items);
    if (length < 0) return nullptr;
    task.offset = calls.submitted * static_cast<size_t>(chunk_size);
    const std::vector<Py_ssize_t> bounds = SplitLength(length, chunk_size, 1);
    if (!SubmitChunks(&calls, &client, task, items, bounds)) return nullptr;
    Py_RETURN_NONE;
  });
}

// refuse(exception): one more call, whose outcome is this exception.
PyObject* Refuse(PyObject* self, PyObject* exception) {
  return WithClient(self, [&](CallClient& client, CallsState& calls) -> PyObject* {
    absl::StatusOr<CallId> id = Register(&calls, &client, 1);
    if (!id.ok()) return SetError(id.status());
    calls.refused[calls.submitted - 1] = PyRef::Borrow(exception);
    client.Withdraw(*id, 1);
    Py_RETURN_NONE;
  });
}

PyObject* End(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client, CallsState& calls) -> PyObject* {
    client.CloseGroup(calls.group);
    Py_RETURN_NONE;
  });
}

// ---- A single call --------------------------------------------------------------------------------------------------

PyObject* Cancel(PyObject* self, PyObject*) {
  return WithClient(
      self, [](CallClient& client, CallsState& calls) { return PyBool_FromLong(client.Cancel(FirstOf(calls))); });
}

// cancel_all(verdict)
PyObject* CancelAll(PyObject* self, PyObject* verdict) {
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(verdict, &bytes, &size) < 0) return nullptr;
  return WithClient(self, [&](CallClient& client, CallsState& calls) {
    unsigned long long cancelled = 0;
    const std::string text(bytes, static_cast<size_t>(size));
    for (const auto& [first, count] : calls.ids) cancelled += client.CancelRange(first, count, text);
    return PyLong_FromUnsignedLongLong(cancelled);
  });
}

// running(): [(host, call)]
PyObject* Running(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client, CallsState& calls) -> PyObject* {
    PyRef list = PyRef::Steal(PyList_New(0));
    for (const WorkerFigures& figures : client.Figures()) {
      const uint64_t call = figures.in_hand.value();
      const bool ours = std::any_of(calls.ids.begin(), calls.ids.end(), [&](const auto& range) {
        return call - range.first.value() < range.second;
      });
      if (call == 0 || !ours) continue;
      PyRef pair = PyRef::Steal(Py_BuildValue("(IK)", figures.worker.value(), static_cast<unsigned long long>(call)));
      if (!list || !pair || PyList_Append(list.get(), pair.get()) < 0) return nullptr;
    }
    return list.release();
  });
}

PyObject* IsTaken(PyObject* self, PyObject*) {
  return WithClient(
      self, [](CallClient& client, CallsState& calls) { return PyBool_FromLong(client.Taken(FirstOf(calls))); });
}

PyObject* Notify(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client, CallsState& calls) -> PyObject* {
    client.Notify(calls.group);
    Py_RETURN_NONE;
  });
}

// ---- The type -------------------------------------------------------------------------------------------------------

PyObject* Key(PyObject* self, void*) { return PyLong_FromVoidPtr(AsCalls(self)->group.get()); }
PyObject* Placed(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(AsCalls(self)->placed); }
PyObject* Submitted(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(AsCalls(self)->submitted); }
PyObject* Taken(PyObject* self, void*) {
  PyObject* outcome = AsCalls(self)->outcome.get();
  return Py_NewRef(outcome == nullptr ? Py_None : outcome);
}
PyObject* Unanswered(PyObject* self, void*) {
  return WithClient(self, [](CallClient& client, CallsState& calls) {
    return PyLong_FromUnsignedLongLong(client.CountUnanswered(*calls.group));
  });
}
PyObject* FunctionName(PyObject* self, void*) { return Py_NewRef(AsCalls(self)->function_name.get()); }
PyObject* First(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(FirstOf(*AsCalls(self)).value()); }

PyMethodDef kMethods[] = {
    {"take", Take, METH_NOARGS,
     "take() -> (ending, value) of a single call that has arrived, None when it has not or somebody took it\n\n"
     "What unpickling raised (and no Exception is) it raises; `taken` has it then, too."},
    {"drop", Drop, METH_NOARGS, "drop(): forgets what take() gave"},
    {"cancel_all", CancelAll, METH_O,
     "cancel_all(verdict) -> how many calls no worker will run now: their outcome is the verdict (pool_outcomes)"},
    {"running", Running, METH_NOARGS, "running() -> [(host, call)] of those in the hands of workers"},
    {"cancel", Cancel, METH_NOARGS, "cancel() -> was the single call kept from being run?"},
    {"is_taken", IsTaken, METH_NOARGS, "is_taken() -> did a worker take the single call?"},
    {"notify", Notify, METH_NOARGS, "notify(): CallClient.wait_finished() is to name these calls"},
    {"wait", WaitAll, METH_VARARGS, "wait(timeout=None) -> have all calls arrived?"},
    {"outcome", AwaitOne, METH_VARARGS,
     "outcome(timeout=None) -> (ok, value) of a single call, None when it has not arrived until then"},
    {"collect", Collect, METH_VARARGS,
     "collect(timeout=None) -> (True, list of results) or (False, first failure); None when not all have arrived"},
    {"next", Next, METH_VARARGS,
     "next(ordered, timeout=None) -> (ok, value), () at the end, None when none has arrived until then"},
    {"extend", Extend, METH_VARARGS,
     "extend(function, star, items, chunksize): more calls of an open submission\n\n"
     "The chunksize is the same each time; only the very last chunk may be smaller."},
    {"refuse", Refuse, METH_O, "refuse(exception): one more call, which ends with this exception"},
    {"end", End, METH_NOARGS, "end(): no more calls come to an open submission"},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kProperties[] = {
    {"key", Key, nullptr, "what CallClient.wait_finished() names these calls by", nullptr},
    {"taken", Taken, nullptr, "what take() returned, None before", nullptr},
    {"function", FunctionName, nullptr, "what messages call the function", nullptr},
    {"first", First, nullptr, "the number of the first call, as in CallClient.stats()", nullptr},
    {"placed", Placed, nullptr, "items of a map whose outcome collect() has seen", nullptr},
    {"unanswered", Unanswered, nullptr, "number of calls that have no outcome yet", nullptr},
    {"submitted", Submitted, nullptr, "number of calls so far", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("The calls of one submission, and their outcomes.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocCalls)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kProperties},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Calls", sizeof(CallsObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                          kSlots};

}  // namespace

PyObject* NewCalls(PyObject* client, PyObject* callable, GroupOptions group, const CallOptions& options) {
  auto* type = reinterpret_cast<PyTypeObject*>(AsClient(client)->module->calls_type.get());
  PyRef self = PyRef::Steal(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  auto* state = new CallsState();
  reinterpret_cast<CallsObject*>(self.get())->state = state;
  state->owner = PyRef::Borrow(client);
  state->function_name = NameOf(AsClient(client), callable);
  state->group = AsClient(client)->client->NewGroup(group.notify, group.open);
  state->options = options;
  return self.release();
}

PyObject* AwaitOutcome(CallClient& client, CallsState& calls, Deadline deadline) {
  while (!calls.result) {
    const int ready = calls.decoding ? AwaitDecoding(client, calls, deadline) : AwaitArrival(client, calls, deadline);
    if (ready < 0) return nullptr;
    if (ready == 0) Py_RETURN_NONE;
    // Another thread may have come first while this one waited.
    if (!calls.result && !calls.decoding && !ReceiveResult(client, calls)) return nullptr;
  }
  return Py_NewRef(calls.result.get());
}

int BindCalls(PyObject* module, ModuleState* state) {
  state->calls_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->calls_type ? 0 : -1;
}

}  // namespace pyhost::native
