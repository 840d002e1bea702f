// _pyhost.CallClient and _pyhost.Calls: the caller's side of a pool.
//
// Calls is one submission (an apply, a map, an imap): it decodes what arrives for it.  Decoding runs user code, so it
// happens here, on the thread that asked, never while draining for others.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "modules/native/bind_pool.h"
#include "modules/native/call_batch.h"
#include "modules/native/gil_wait.h"
#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/broker/call_client.h"

namespace pyhost::native {
namespace {

constexpr size_t kCallsAtOnce = 32;          // pushed together when they are small
constexpr size_t kBytesAtOnce = 16 * 1024;
constexpr size_t kArrivalsAtOnce = 64;
constexpr size_t kMaxKnownFunctions = 1024;  // per pool; then it starts anew

// ---- CallClient -----------------------------------------------------------------------------------------------------

// A function or class that pickles to a reference to a global, and that pickle.
struct KnownFunction {
  PyRef object;
  PyRef name;
  std::string pickle;
};

struct ClientState {
  ModuleState* module;  // lives as long as our type
  std::unique_ptr<CallClient> client;
  absl::flat_hash_map<PyObject*, KnownFunction> known;
};

struct ClientObject {
  PyObject_HEAD
  ClientState* state;
};

ClientState* AsClient(PyObject* self) { return reinterpret_cast<ClientObject*>(self)->state; }

// The client for one operation; null with a Python error in a process forked from the pool's owner.
CallClient* UseClient(PyObject* self) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  CallClient* client = AsClient(self)->client.get();
  if (client->me() == session->me()) return client;
  PyErr_SetString(PyExc_RuntimeError,
                  "this pool belongs to the process that made it; a forked copy cannot use it: make a pool here");
  return nullptr;
}

PyObject* NewClient(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"cancellable", nullptr};
  unsigned int cancellable = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I:CallClient", const_cast<char**>(kKeywords), &cancellable)) {
    return nullptr;
  }
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<std::unique_ptr<CallClient>> client =
      CallClient::Create(session->segment(), session->me(), cancellable);
  if (!client.ok()) return SetError(client.status());
  PyObject* module = PyType_GetModuleByDef(type, &kModuleDef);
  PyObject* self = module == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  reinterpret_cast<ClientObject*>(self)->state = new ClientState{StateOfModule(module), *std::move(client), {}};
  return self;
}

void DeallocClient(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  ClientState* state = AsClient(self);
  if (state != nullptr) {
    Session* session = Session::Current();
    const HostId me = session == nullptr ? HostId() : session->me();
    if (state->client->me() != me) CallClient::ReleaseInherited(std::move(state->client), me);
    delete state;
  }
  type->tp_free(self);
  Py_DECREF(type);
}

bool MayBeKnown(PyObject* callable) {
  return PyFunction_Check(callable) || PyCFunction_Check(callable) || PyType_Check(callable);
}

// What messages call the function.  Not the function itself: it may hold whoever holds its calls.
PyRef NameOf(ClientState* state, PyObject* callable) {
  if (auto known = state->known.find(callable); known != state->known.end()) {
    return PyRef::Borrow(known->second.name.get());
  }
  PyRef name = PyRef::Steal(PyObject_GetAttrString(callable, "__qualname__"));
  if (name && PyUnicode_Check(name.get())) return name;
  PyErr_Clear();
  return PyRef::Borrow(reinterpret_cast<PyObject*>(Py_TYPE(callable)));
}

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
  state->known[callable] = {PyRef::Borrow(callable), std::move(name),
                            std::string(reinterpret_cast<const char*>(pickle.data()), pickle.size())};
  return true;
}

// ---- Calls ----------------------------------------------------------------------------------------------------------

struct CallsState {
  PyRef owner;  // the CallClient object
  std::shared_ptr<CallGroup> group;
  PyRef function_name;
  CallKind kind = CallKind::kCall;
  uint64_t submitted = 0;              // the index of the next call
  CallId first;                        // the first call of the first Register()
  PyRef outcome;                       // what take() gave
  std::map<uint64_t, PyRef> refused;   // index -> the exception that kept the call from being submitted
  // A map's results, filled as they arrive: results[starts[i]...] belong to call i.
  PyRef results;
  std::vector<Py_ssize_t> starts;
  PyRef failure;                       // the first to arrive
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

CallsState* AsCalls(PyObject* self) { return reinterpret_cast<CallsObject*>(self)->state; }

CallClient* ClientOf(PyObject* self) { return UseClient(AsCalls(self)->owner.get()); }
ModuleState* ModuleOf(const CallsState* calls) { return AsClient(calls->owner.get())->module; }

PyObject* NewCalls(PyObject* owner, PyObject* callable, bool notify, bool open) {
  auto* type = reinterpret_cast<PyTypeObject*>(AsClient(owner)->module->calls_type.get());
  PyRef self = PyRef::Steal(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  auto* state = new CallsState();
  reinterpret_cast<CallsObject*>(self.get())->state = state;
  state->owner = PyRef::Borrow(owner);
  state->function_name = NameOf(AsClient(owner), callable);
  state->group = AsClient(owner)->client->NewGroup(notify, open);
  return self.release();
}

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

// ---- Submitting -----------------------------------------------------------------------------------------------------

// The Python error that is set, with the way to what cannot be pickled.  Null, with the error still set, when it is none
// that a call may have as outcome (KeyboardInterrupt, ...).
PyRef TakePicklingError(ModuleState* module, PyObject* callable, CallKind kind, PyObject* arguments) {
  if (!PyErr_ExceptionMatches(PyExc_Exception)) return {};
  PyRef error = TakeException();
  PyRef kind_number = PyRef::Steal(PyLong_FromLong(static_cast<long>(kind)));
  if (!kind_number) return {};
  return CallOutcomes(module, "unpicklable_call",
                      {error.get(), callable, kind_number.get(), arguments == nullptr ? Py_None : arguments});
}

// The call cannot be submitted: the Python error that is set is its outcome.  False with a Python error.
bool Refuse(ModuleState* module, CallsState* calls, CallClient* client, CallId id, uint64_t index,
            PyObject* callable, CallKind kind, PyObject* arguments) {
  PyRef error = TakePicklingError(module, callable, kind, arguments);
  const bool is_outcome = static_cast<bool>(error);
  if (is_outcome) calls->refused[index] = std::move(error);
  client->Withdraw(id, 1);
  return is_outcome;
}

absl::StatusOr<CallId> Register(CallsState* calls, CallClient* client, uint64_t count) {
  absl::StatusOr<CallId> first = client->Register(calls->group, count, calls->submitted);
  if (first.ok() && calls->submitted == 0) calls->first = *first;
  if (first.ok()) calls->submitted += count;
  return first;
}

// Pushes what the batch holds; false with a Python error, and `rest` more calls from `next` on withdrawn.
bool FlushOrWithdraw(CallBatch* batch, CallClient* client, CallId next, uint64_t rest) {
  const absl::Status status = batch->Flush();
  if (status.ok()) return true;
  client->Withdraw(next, rest);
  SetError(status);
  return false;
}

bool SubmitOne(ModuleState* module, CallsState* calls, CallClient* client, PyObject* callable, CallKind kind,
               PyObject* arguments) {
  Function function;
  absl::StatusOr<CallId> id = Register(calls, client, 1);
  if (!id.ok()) return SetError(id.status()) != nullptr;
  const uint64_t index = calls->submitted - 1;
  if (!PrepareFunction(AsClient(calls->owner.get()), callable, &function)) {
    return Refuse(module, calls, client, *id, index, callable, kind, nullptr);
  }
  // A function with state goes together with its arguments: what they share stays shared.
  CallBatch batch(*client, function, !function.is_global());
  if (!batch.Add(module, kind, *id, arguments)) {
    return Refuse(module, calls, client, *id, index, callable, kind, arguments);
  }
  return FlushOrWithdraw(&batch, client, CallId(), 0);
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

std::vector<Py_ssize_t> SplitLength(Py_ssize_t length, Py_ssize_t chunk_size, Py_ssize_t workers) {
  std::vector<Py_ssize_t> starts;
  ChunkSizes sizes(length, chunk_size, workers);
  for (Py_ssize_t start = 0; start < length; start += sizes.Next()) starts.push_back(start);
  return starts;
}

// The argument of the call for items[start, end): one item, or a slice.
PyRef ChunkOf(PyObject* items, Py_ssize_t start, Py_ssize_t end, bool single) {
  if (single) return PyRef::Steal(PySequence_GetItem(items, start));
  return PyRef::Steal(PySequence_GetSlice(items, start, end));
}

CallKind KindFor(bool star, bool single) {
  if (single) return star ? CallKind::kStar : CallKind::kOne;
  return star ? CallKind::kStarMap : CallKind::kMap;
}

// Submits a call for each chunk of `items`; an argument that cannot be pickled fails its own call only.
bool SubmitChunks(ModuleState* module, CallsState* calls, CallClient* client, PyObject* callable, bool star,
                  bool single, PyObject* items, const std::vector<Py_ssize_t>& starts, Py_ssize_t length) {
  Function function;
  if (starts.empty()) return true;
  const uint64_t first_index = calls->submitted;
  absl::StatusOr<CallId> first = Register(calls, client, starts.size());
  if (!first.ok()) return SetError(first.status()) != nullptr;
  if (!PrepareFunction(AsClient(calls->owner.get()), callable, &function)) {
    PyRef error = TakePicklingError(module, callable, CallKind::kMap, nullptr);
    for (size_t i = 0; error && i < starts.size(); ++i) calls->refused[first_index + i] = PyRef::Borrow(error.get());
    client->Withdraw(*first, starts.size());
    return static_cast<bool>(error);
  }
  CallBatch batch(*client, function, function.must_go_inside());
  for (size_t i = 0; i < starts.size(); ++i) {
    const CallId id = CallId::FromValue(first->value() + i);
    const Py_ssize_t end = i + 1 < starts.size() ? starts[i + 1] : length;
    PyRef chunk = ChunkOf(items, starts[i], end, single);
    const CallKind kind = KindFor(star, single);
    const bool added = chunk && batch.Add(module, kind, id, chunk.get());
    if (!added && !Refuse(module, calls, client, id, first_index + i, callable, kind, chunk.get())) {
      client->Withdraw(CallId::FromValue(id.value() + 1), starts.size() - i - 1);
      return false;
    }
    // The first few go one by one, so that the workers begin at once.
    const bool full = batch.size() >= kCallsAtOnce || batch.bytes() >= kBytesAtOnce || i < 8;
    if ((full || i + 1 == starts.size()) && batch.size() != 0 &&
        !FlushOrWithdraw(&batch, client, CallId::FromValue(id.value() + 1), starts.size() - i - 1)) {
      return false;
    }
  }
  return true;
}

// ---- Decoding -------------------------------------------------------------------------------------------------------

// How a call ended, for take(); the values are known to Python (concurrent/futures/_process_future.py).
enum class Ending { kValue = 0, kRaised = 1, kUnreadable = 2, kLost = 3, kNotRun = 4 };

struct Outcome {
  bool ok = false;
  Ending ending = Ending::kNotRun;
  PyRef value;  // the result, or what to raise: an exception, or a Failure (pool_outcomes) that makes one each time
};

PyRef DecodeLost(ModuleState* module, CallsState* calls, std::span<const std::byte> bytes) {
  LostWorker lost;
  std::memcpy(&lost, bytes.data(), sizeof(lost));
  const ExitStatus exit = ExitStatus::Decode(lost.exit);
  PyRef arguments[] = {PyRef::Steal(PyLong_FromLong(lost.pid)),
                       PyRef::Steal(PyUnicode_FromString(HostId::FromValue(lost.host).ToString().c_str())),
                       PyRef::Steal(PyLong_FromLong(exit.ExitCode())),
                       PyRef::Steal(PyUnicode_FromString(exit.ToString().c_str()))};
  for (const PyRef& argument : arguments) {
    if (!argument) return {};
  }
  return CallOutcomes(module, "lost_call",
                      {calls->function_name.get(), arguments[0].get(), arguments[1].get(), arguments[2].get(),
                       arguments[3].get()});
}

PyRef DecodeStatus(ModuleState* module, CallsState* calls, const Arrival& arrival) {
  if (auto refused = calls->refused.find(arrival.index); refused != calls->refused.end()) {
    PyRef error = std::move(refused->second);
    calls->refused.erase(refused);
    return error;
  }
  PyRef lost = PyRef::Borrow(absl::IsAborted(arrival.status) ? Py_True : Py_False);
  PyRef message = PyRef::Steal(PyUnicode_FromString(std::string(arrival.status.message()).c_str()));
  if (!message) return {};
  return CallOutcomes(module, "call_without_outcome", {calls->function_name.get(), message.get(), lost.get()});
}

PyRef DecodeValue(ModuleState* module, Message&& message, std::span<const std::byte> bytes) {
  PyRef value = PyRef::Steal(ReadScalarPickle(bytes));
  if (value || PyErr_Occurred()) return value;
  return PyRef::Steal(Unpickle(module, std::move(message), bytes));
}

// False with a Python error (an interrupt, mostly).
bool Decode(ModuleState* module, CallsState* calls, Arrival arrival, Outcome* outcome) {
  if (!arrival.status.ok()) {
    outcome->ending = absl::IsAborted(arrival.status) ? Ending::kLost : Ending::kNotRun;
    outcome->value = DecodeStatus(module, calls, arrival);
    return static_cast<bool>(outcome->value);
  }
  const absl::StatusOr<ReplyView> reply = ParseReply(arrival.message.payload());
  if (!reply.ok()) return SetError(reply.status()) != nullptr;
  if (reply->kind == ReplyKind::kLost) {
    outcome->ending = Ending::kLost;
    outcome->value = DecodeLost(module, calls, reply->outcome);
  } else if (reply->kind == ReplyKind::kError) {
    outcome->ending = Ending::kRaised;
    PyRef bytes = PyRef::Steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(reply->outcome.data()),
                                                         static_cast<Py_ssize_t>(reply->outcome.size())));
    if (bytes) outcome->value = CallOutcomes(module, "unpack_exception", {calls->function_name.get(), bytes.get()});
  } else {
    outcome->value = DecodeValue(module, std::move(arrival.message), reply->outcome);
    outcome->ok = static_cast<bool>(outcome->value);
    outcome->ending = outcome->ok ? Ending::kValue : Ending::kUnreadable;
    if (!outcome->ok && PyErr_ExceptionMatches(PyExc_Exception)) {
      PyRef error = TakeException();
      outcome->value = CallOutcomes(module, "unreadable_result", {calls->function_name.get(), error.get()});
    }
  }
  return static_cast<bool>(outcome->value);
}

// ---- Waiting --------------------------------------------------------------------------------------------------------

// 1: the group has something or is finished; 0: not until the deadline; -1 with a Python error.
int AwaitArrival(CallClient* client, CallsState* calls, Deadline deadline) {
  GilWait gil;
  const absl::Status status = client->WaitForArrival(*calls->group, gil.Until(deadline));
  if (status.ok()) return 1;
  if (absl::IsDeadlineExceeded(status)) return 0;
  SetError(status);
  return -1;
}

PyObject* OutcomeTuple(const Outcome& outcome) {
  return PyTuple_Pack(2, outcome.ok ? Py_True : Py_False, outcome.value.get());
}

// The outcome of a single call; an empty optional when there is none yet (no error set) or with a Python error.
std::optional<Outcome> AwaitOne(ModuleState* module, CallClient* client, CallsState* calls, Deadline deadline) {
  if (AwaitArrival(client, calls, deadline) != 1) return std::nullopt;
  std::vector<Arrival> arrivals = client->Take(*calls->group, 1);
  Outcome outcome;
  if (arrivals.empty()) {
    PyErr_SetString(PyExc_RuntimeError, "the outcome of this call was taken before");
    return std::nullopt;
  }
  if (!Decode(module, calls, std::move(arrivals.front()), &outcome)) return std::nullopt;
  return outcome;
}

// take(): the outcome of a single call that has arrived, for the first who asks.
PyObject* CallsTake(PyObject* self, PyObject*) {
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  CallsState* calls = AsCalls(self);
  std::vector<Arrival> arrivals = client->Take(*calls->group, 1);
  if (arrivals.empty()) Py_RETURN_NONE;
  Outcome outcome;
  if (!Decode(ModuleOf(calls), calls, std::move(arrivals.front()), &outcome)) {
    PyRef error = TakeException();
    calls->outcome = PyRef::Steal(Py_BuildValue("(iO)", static_cast<int>(Ending::kUnreadable), error.get()));
    RaiseException(std::move(error));
    return nullptr;
  }
  calls->outcome = PyRef::Steal(Py_BuildValue("(iO)", static_cast<int>(outcome.ending), outcome.value.get()));
  return Py_XNewRef(calls->outcome.get());
}

// drop(): forgets what take() gave.  An exception there holds frames, which may hold us.
PyObject* CallsDrop(PyObject* self, PyObject*) {
  PyRef dropped = std::move(AsCalls(self)->outcome);
  AsCalls(self)->outcome = PyRef();
  Py_RETURN_NONE;
}

PyObject* CallsCancel(PyObject* self, PyObject*) {
  CallClient* client = ClientOf(self);
  return client == nullptr ? nullptr : PyBool_FromLong(client->Cancel(AsCalls(self)->first));
}

PyObject* CallsIsTaken(PyObject* self, PyObject*) {
  CallClient* client = ClientOf(self);
  return client == nullptr ? nullptr : PyBool_FromLong(client->Taken(AsCalls(self)->first));
}

PyObject* CallsNotify(PyObject* self, PyObject*) {
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  client->Notify(AsCalls(self)->group);
  Py_RETURN_NONE;
}

// Puts call `index`'s list of results in its place.
bool PlaceResults(CallsState* calls, uint64_t index, PyObject* values, bool single) {
  PyObject* results = calls->results.get();
  const Py_ssize_t start = calls->starts[index];
  const Py_ssize_t end =
      index + 1 < calls->starts.size() ? calls->starts[index + 1] : PyList_GET_SIZE(results);
  if (single) return PyList_SetItem(results, start, Py_NewRef(values)) == 0;
  if (!PyList_CheckExact(values) || PyList_GET_SIZE(values) != end - start) {
    // An iterable whose slice yields another number of items than its length says; python3 keeps them in order, too.
    SetError(absl::DataLossError(absl::StrCat("a chunk of ", end - start, " items gave another number of results")));
    return false;
  }
  for (Py_ssize_t i = 0; i < end - start; ++i) {  // Exchanged: no count changes, and `values` is ours alone.
    PyObject* none = PyList_GET_ITEM(results, start + i);
    PyList_SET_ITEM(results, start + i, PyList_GET_ITEM(values, i));
    PyList_SET_ITEM(values, i, none);
  }
  return true;
}

bool PlaceArrival(ModuleState* module, CallsState* calls, Arrival arrival) {
  const uint64_t index = arrival.index;
  Outcome outcome;
  if (!Decode(module, calls, std::move(arrival), &outcome)) return false;
  if (outcome.ok) {
    return index >= calls->starts.size() ||
           PlaceResults(calls, index, outcome.value.get(), calls->kind == CallKind::kOne);
  }
  if (!calls->failure) calls->failure = std::move(outcome.value);
  return true;
}

// ---- Methods of Calls -----------------------------------------------------------------------------------------------

bool ParseTimeoutArgument(PyObject* args, const char* format, Deadline* deadline) {
  PyObject* timeout = nullptr;
  return PyArg_ParseTuple(args, format, &timeout) && ParseTimeout(timeout, deadline);
}

PyObject* CallsWait(PyObject* self, PyObject* args) {
  Deadline deadline = Deadline::Never();
  if (!ParseTimeoutArgument(args, "|O:wait", &deadline)) return nullptr;
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  GilWait gil;
  const absl::Status status = client->WaitForAll(*AsCalls(self)->group, gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

PyObject* CallsOutcome(PyObject* self, PyObject* args) {
  Deadline deadline = Deadline::Never();
  if (!ParseTimeoutArgument(args, "|O:outcome", &deadline)) return nullptr;
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  std::optional<Outcome> outcome = AwaitOne(ModuleOf(AsCalls(self)), client, AsCalls(self), deadline);
  if (outcome) return OutcomeTuple(*outcome);
  if (PyErr_Occurred()) return nullptr;
  Py_RETURN_NONE;
}

PyObject* CallsCollect(PyObject* self, PyObject* args) {
  Deadline deadline = Deadline::Never();
  if (!ParseTimeoutArgument(args, "|O:collect", &deadline)) return nullptr;
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  CallsState* calls = AsCalls(self);
  ModuleState* module = ModuleOf(calls);
  for (;;) {
    const int ready = AwaitArrival(client, calls, deadline);
    if (ready < 0) return nullptr;
    if (ready == 0) Py_RETURN_NONE;
    std::vector<Arrival> arrivals = client->Take(*calls->group, kArrivalsAtOnce);
    if (arrivals.empty()) break;
    for (Arrival& arrival : arrivals) {
      if (!PlaceArrival(module, calls, std::move(arrival))) return nullptr;
    }
  }
  PyObject* value = calls->failure ? calls->failure.get() : calls->results.get();
  return PyTuple_Pack(2, calls->failure ? Py_False : Py_True, value);
}

// The next arrival of those that are here; false when there is none.
bool PopArrival(CallsState* calls, bool ordered, Arrival* arrival) {
  while (calls->taken < calls->waiting.size()) {
    Arrival first = std::move(calls->waiting[calls->taken++]);
    if (!ordered || first.index == calls->next_index) {
      *arrival = std::move(first);
      return true;
    }
    const uint64_t index = first.index;
    calls->early[index] = std::move(first);
  }
  auto early = calls->early.find(calls->next_index);
  if (!ordered || early == calls->early.end()) return false;
  *arrival = std::move(early->second);
  calls->early.erase(early);
  return true;
}

// The next arrival of an iteration in `arrival`.  1: there; 0: timed out; 2: at the end; -1 with a Python error.
int NextArrival(CallClient* client, CallsState* calls, bool ordered, Deadline deadline, Arrival* arrival) {
  while (!PopArrival(calls, ordered, arrival)) {
    const int ready = AwaitArrival(client, calls, deadline);
    if (ready != 1) return ready;
    std::vector<Arrival> arrivals = client->Take(*calls->group, kArrivalsAtOnce);
    if (arrivals.empty()) return 2;
    calls->waiting = std::move(arrivals);
    calls->taken = 0;
  }
  return 1;
}

PyObject* CallsNext(PyObject* self, PyObject* args) {
  int ordered = 0;
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "p|O:next", &ordered, &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  CallsState* calls = AsCalls(self);
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
  ++calls->next_index;
  Outcome outcome;
  return Decode(ModuleOf(calls), calls, std::move(arrival), &outcome) ? OutcomeTuple(outcome) : nullptr;
}

// extend(function, star, items, chunksize)
PyObject* CallsExtend(PyObject* self, PyObject* args) {
  PyObject *callable = nullptr, *items = nullptr;
  int star = 0;
  Py_ssize_t chunk_size = 1;
  if (!PyArg_ParseTuple(args, "OpOn:extend", &callable, &star, &items, &chunk_size)) return nullptr;
  CallClient* client = ClientOf(self);
  const Py_ssize_t length = client == nullptr ? -1 : PySequence_Size(items);
  if (length < 0) return nullptr;
  const std::vector<Py_ssize_t> starts = SplitLength(length, std::max<Py_ssize_t>(chunk_size, 1), 1);
  if (!SubmitChunks(ModuleOf(AsCalls(self)), AsCalls(self), client, callable, star != 0, chunk_size == 1, items, starts, length)) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

// refuse(exception): one more call, whose outcome is this exception.
PyObject* CallsRefuse(PyObject* self, PyObject* exception) {
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  CallsState* calls = AsCalls(self);
  absl::StatusOr<CallId> id = Register(calls, client, 1);
  if (!id.ok()) return SetError(id.status());
  calls->refused[calls->submitted - 1] = PyRef::Borrow(exception);
  client->Withdraw(*id, 1);
  Py_RETURN_NONE;
}

PyObject* CallsEnd(PyObject* self, PyObject*) {
  CallClient* client = ClientOf(self);
  if (client == nullptr) return nullptr;
  client->CloseGroup(AsCalls(self)->group);
  Py_RETURN_NONE;
}

PyObject* CallsKey(PyObject* self, void*) { return PyLong_FromVoidPtr(AsCalls(self)->group.get()); }
PyObject* CallsSubmitted(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(AsCalls(self)->submitted); }

PyObject* CallsTaken(PyObject* self, void*) {
  PyObject* outcome = AsCalls(self)->outcome.get();
  return Py_NewRef(outcome == nullptr ? Py_None : outcome);
}
PyObject* CallsFunction(PyObject* self, void*) { return Py_NewRef(AsCalls(self)->function_name.get()); }
PyObject* CallsFirst(PyObject* self, void*) { return PyLong_FromUnsignedLongLong(AsCalls(self)->first.value()); }

PyMethodDef kCallsMethods[] = {
    {"take", CallsTake, METH_NOARGS,
     "take() -> (ending, value) of a single call that has arrived, None when it has not or somebody took it\n\n"
     "What unpickling raised (and no Exception is) it raises; `taken` has it then, too."},
    {"drop", CallsDrop, METH_NOARGS, "drop(): forgets what take() gave"},
    {"cancel", CallsCancel, METH_NOARGS, "cancel() -> was the single call kept from being run?"},
    {"is_taken", CallsIsTaken, METH_NOARGS, "is_taken() -> did a worker take the single call?"},
    {"notify", CallsNotify, METH_NOARGS, "notify(): CallClient.wait_finished() is to name these calls"},
    {"wait", CallsWait, METH_VARARGS, "wait(timeout=None) -> have all calls arrived?"},
    {"outcome", CallsOutcome, METH_VARARGS,
     "outcome(timeout=None) -> (ok, value) of a single call, None when it has not arrived until then"},
    {"collect", CallsCollect, METH_VARARGS,
     "collect(timeout=None) -> (True, list of results) or (False, first failure); None when not all have arrived"},
    {"next", CallsNext, METH_VARARGS,
     "next(ordered, timeout=None) -> (ok, value), () at the end, None when none has arrived until then"},
    {"extend", CallsExtend, METH_VARARGS, "extend(function, star, items, chunksize): more calls of an open submission"},
    {"refuse", CallsRefuse, METH_O, "refuse(exception): one more call, which ends with this exception"},
    {"end", CallsEnd, METH_NOARGS, "end(): no more calls come to an open submission"},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kCallsProperties[] = {
    {"key", CallsKey, nullptr, "what CallClient.wait_finished() names these calls by", nullptr},
    {"taken", CallsTaken, nullptr, "what take() returned, None before", nullptr},
    {"function", CallsFunction, nullptr, "what messages call the function", nullptr},
    {"first", CallsFirst, nullptr, "the number of the first call, as in CallClient.stats()", nullptr},
    {"submitted", CallsSubmitted, nullptr, "number of calls so far", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kCallsSlots[] = {
    {Py_tp_doc, const_cast<char*>("The calls of one submission, and their outcomes.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocCalls)},
    {Py_tp_methods, kCallsMethods},
    {Py_tp_getset, kCallsProperties},
    {0, nullptr},
};
PyType_Spec kCallsSpec = {"_pyhost.Calls", sizeof(CallsObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                          kCallsSlots};

// ---- Methods of CallClient ------------------------------------------------------------------------------------------

// (args, kwds) as the worker wants it.
PyRef PackArguments(PyObject* args, PyObject* kwds) {
  PyRef tuple = args == nullptr                ? PyRef::Steal(PyTuple_New(0))
                : PyTuple_CheckExact(args)     ? PyRef::Borrow(args)
                                               : PyRef::Steal(PySequence_Tuple(args));
  if (!tuple) return {};
  const bool none = kwds == nullptr || kwds == Py_None || (PyDict_CheckExact(kwds) && PyDict_GET_SIZE(kwds) == 0);
  return PyRef::Steal(PyTuple_Pack(2, tuple.get(), none ? Py_None : kwds));
}

PyObject* SubmitApply(PyObject* self, PyObject* callable, PyObject* args, PyObject* kwds, bool notify) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  ModuleState* module = AsClient(self)->module;
  PyRef arguments = PackArguments(args, kwds);
  if (!arguments) return nullptr;
  PyRef calls = PyRef::Steal(NewCalls(self, callable, notify, false));
  if (!calls) return nullptr;
  CallsState* state = AsCalls(calls.get());
  if (SubmitOne(module, state, client, callable, CallKind::kCall, arguments.get())) return calls.release();
  client->CloseGroup(state->group);  // Nobody is to wait for it.
  return nullptr;
}

bool CheckCount(const char* name, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most) {
  if (count >= least && count <= most) return true;
  PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments, not %zd", name, least, most, count);
  return false;
}

PyObject* ClientSubmit(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!CheckCount("submit", count, 1, 4)) return nullptr;
  const int notify = count > 3 ? PyObject_IsTrue(args[3]) : 0;
  if (notify < 0) return nullptr;
  return SubmitApply(self, args[0], count > 1 ? args[1] : nullptr, count > 2 ? args[2] : nullptr, notify != 0);
}

PyObject* ClientCall(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!CheckCount("call", count, 1, 3)) return nullptr;
  PyRef calls = PyRef::Steal(
      SubmitApply(self, args[0], count > 1 ? args[1] : nullptr, count > 2 ? args[2] : nullptr, false));
  CallClient* client = calls ? UseClient(self) : nullptr;
  if (client == nullptr) return nullptr;
  std::optional<Outcome> outcome =
      AwaitOne(AsClient(self)->module, client, AsCalls(calls.get()), Deadline::Never());
  return outcome ? OutcomeTuple(*outcome) : nullptr;
}

// submit_map(function, star, items, chunksize, workers, notify): chunksize 0 = guided.
PyObject* ClientSubmitMap(PyObject* self, PyObject* args) {
  PyObject *callable = nullptr, *items = nullptr;
  int star = 0, notify = 0;
  Py_ssize_t chunk_size = 0, workers = 1;
  if (!PyArg_ParseTuple(args, "OpOnnp:submit_map", &callable, &star, &items, &chunk_size, &workers, &notify)) {
    return nullptr;
  }
  CallClient* client = UseClient(self);
  const Py_ssize_t length = client == nullptr ? -1 : PySequence_Size(items);
  if (length < 0) return nullptr;
  ModuleState* module = AsClient(self)->module;
  PyRef calls = PyRef::Steal(NewCalls(self, callable, notify != 0, true));
  if (!calls) return nullptr;
  CallsState* state = AsCalls(calls.get());
  state->starts = SplitLength(length, chunk_size, workers);
  const bool single = chunk_size == 1;
  state->kind = single ? CallKind::kOne : CallKind::kMap;
  state->results = PyRef::Steal(PyList_New(length));
  if (!state->results) return nullptr;
  for (Py_ssize_t i = 0; i < length; ++i) PyList_SET_ITEM(state->results.get(), i, Py_NewRef(Py_None));
  const bool submitted = SubmitChunks(module, state, client, callable, star != 0, single, items, state->starts, length);
  client->CloseGroup(state->group);
  return submitted ? calls.release() : nullptr;
}

PyObject* ClientOpenCalls(PyObject* self, PyObject* callable) {
  if (UseClient(self) == nullptr) return nullptr;
  return NewCalls(self, callable, false, true);
}

PyObject* ClientWaitFinished(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  GilWait gil;
  absl::StatusOr<std::vector<std::shared_ptr<CallGroup>>> finished =
      client->WaitForFinished(gil.Until(Deadline::Never()));
  if (!finished.ok()) {
    if (PyErr_Occurred()) return nullptr;
    return absl::IsCancelled(finished.status()) ? Py_NewRef(Py_None) : SetError(finished.status());
  }
  PyRef keys = PyRef::Steal(PyList_New(0));
  for (const std::shared_ptr<CallGroup>& group : *finished) {
    PyRef key = PyRef::Steal(PyLong_FromVoidPtr(group.get()));
    if (!keys || !key || PyList_Append(keys.get(), key.get()) < 0) return nullptr;
  }
  return keys.release();
}

PyObject* ClientWaitForRoom(PyObject* self, PyObject* args) {
  unsigned long long calls = 0;
  if (!PyArg_ParseTuple(args, "K:wait_for_room", &calls)) return nullptr;
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  GilWait gil;
  const absl::Status status = client->WaitForRoom(calls, gil.Until(Deadline::Never()));
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* ClientStopWaiting(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  client->StopWaiting();
  Py_RETURN_NONE;
}

PyObject* ClientClose(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  client->Close();
  Py_RETURN_NONE;
}

PyObject* EndClient(PyObject* self, PyObject* args, const char* format,
                    void (CallClient::*end)(const absl::Status&)) {
  const char* message = nullptr;
  if (!PyArg_ParseTuple(args, format, &message)) return nullptr;
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  (client->*end)(absl::FailedPreconditionError(message));
  Py_RETURN_NONE;
}
PyObject* ClientTerminate(PyObject* self, PyObject* args) {
  return EndClient(self, args, "s:terminate", &CallClient::Terminate);
}
PyObject* ClientFail(PyObject* self, PyObject* args) { return EndClient(self, args, "s:fail", &CallClient::Fail); }

PyObject* ClientStats(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  PyRef list = PyRef::Steal(PyList_New(0));
  for (const WorkerFigures& figures : client->Figures()) {
    PyRef one = PyRef::Steal(Py_BuildValue(
        "{s:I,s:K,s:d,s:d,s:K,s:K,s:K,s:d}", "host", figures.worker.value(), "calls",
        static_cast<unsigned long long>(figures.calls), "busy", static_cast<double>(figures.busy_nanos) * 1e-9, "waiting",
        static_cast<double>(figures.waiting_nanos) * 1e-9, "bytes_in",
        static_cast<unsigned long long>(figures.bytes_in), "bytes_out",
        static_cast<unsigned long long>(figures.bytes_out), "call",
        static_cast<unsigned long long>(figures.in_hand.value()), "running",
        static_cast<double>(figures.running_nanos) * 1e-9));
    if (!list || !one || PyList_Append(list.get(), one.get()) < 0) return nullptr;
  }
  return list.release();
}

PyObject* ClientServer(PyObject* self, void*) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : NewCallServer(AsClient(self)->module, client->handle());
}
PyObject* ClientOutstanding(PyObject* self, void*) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : PyLong_FromUnsignedLongLong(client->outstanding());
}
PyObject* ClientQueued(PyObject* self, void*) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : PyLong_FromUnsignedLongLong(client->queued());
}

PyObject* ClientCancelQueued(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  client->CancelQueued();
  Py_RETURN_NONE;
}

// The first call lost with its worker: (call, pid, host, exit code, end in words) or None.
PyObject* ClientFirstLost(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  GilWait gil;
  // What was pushed is there: this is no wait for anything to come.
  if (absl::Status status = client->Drain(gil.Until(Deadline::After(absl::Seconds(5)))); !status.ok()) {
    return SetError(status);
  }
  const std::optional<LostCall> lost = client->FirstLost();
  if (!lost) Py_RETURN_NONE;
  const ExitStatus exit = ExitStatus::Decode(lost->worker.exit);
  return Py_BuildValue("(Kisis)", static_cast<unsigned long long>(lost->call.value()),
                       static_cast<int>(lost->worker.pid), HostId::FromValue(lost->worker.host).ToString().c_str(),
                       static_cast<int>(exit.ExitCode()), exit.ToString().c_str());
}

// What a worker said about its end, without a call: bytes or None.
PyObject* ClientTakeReport(PyObject* self, PyObject*) {
  CallClient* client = UseClient(self);
  if (client == nullptr) return nullptr;
  const std::string report = client->TakeReport();
  if (report.empty()) Py_RETURN_NONE;
  return PyBytes_FromStringAndSize(report.data(), static_cast<Py_ssize_t>(report.size()));
}

PyObject* ClientAnswered(PyObject* self, void*) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : PyLong_FromUnsignedLongLong(client->answered());
}

PyObject* ClientUnanswered(PyObject* self, void*) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : PyLong_FromUnsignedLongLong(client->unanswered());
}

PyMethodDef kClientMethods[] = {
    {"call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(ClientCall)), METH_FASTCALL, "call(function, args=(), kwds=None) -> (ok, value)"},
    {"submit", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(ClientSubmit)), METH_FASTCALL,
     "submit(function, args=(), kwds=None, notify=False) -> Calls"},
    {"submit_map", ClientSubmitMap, METH_VARARGS,
     "submit_map(function, star, items, chunksize, workers, notify) -> Calls\n\nchunksize 0: guided by `workers`."},
    {"open_calls", ClientOpenCalls, METH_O, "open_calls(function) -> Calls to extend"},
    {"wait_finished", ClientWaitFinished, METH_NOARGS,
     "wait_finished() -> keys of submissions with `notify` that finished; None when there is nothing to wait for"},
    {"wait_for_room", ClientWaitForRoom, METH_VARARGS,
     "wait_for_room(calls): waits until fewer calls than that wait for a worker"},
    {"stop_waiting", ClientStopWaiting, METH_NOARGS, "stop_waiting(): wait_finished() ends when nothing is left"},
    {"close", ClientClose, METH_NOARGS, "close(): no new calls; workers end when the queue is drained"},
    {"terminate", ClientTerminate, METH_VARARGS, "terminate(reason): outstanding calls end with this reason"},
    {"fail", ClientFail, METH_VARARGS, "fail(reason): there are no workers; calls end with this reason"},
    {"take_report", ClientTakeReport, METH_NOARGS,
     "take_report() -> what a worker that could not begin said last (CallServer.report), or None"},
    {"cancel_queued", ClientCancelQueued, METH_NOARGS, "cancel_queued(): calls that no worker has taken end here"},
    {"first_lost", ClientFirstLost, METH_NOARGS,
     "first_lost() -> (call, pid, host, exit code, end) of the first call lost with its worker, or None"},
    {"stats", ClientStats, METH_NOARGS, "stats() -> one dict a worker"},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kClientProperties[] = {
    {"server", ClientServer, nullptr, "a CallServer for a new worker", nullptr},
    {"outstanding", ClientOutstanding, nullptr, "calls that have not arrived", nullptr},
    {"unanswered", ClientUnanswered, nullptr, "calls submitted that were neither answered nor cancelled", nullptr},
    {"queued", ClientQueued, nullptr, "calls that no worker has taken", nullptr},
    {"answered", ClientAnswered, nullptr, "replies of any kind since the pool began", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kClientSlots[] = {
    {Py_tp_doc, const_cast<char*>("CallClient(cancellable=0): a new pool, without workers; the caller's end of it.")},
    {Py_tp_new, reinterpret_cast<void*>(NewClient)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocClient)},
    {Py_tp_methods, kClientMethods},
    {Py_tp_getset, kClientProperties},
    {0, nullptr},
};
PyType_Spec kClientSpec = {"_pyhost.CallClient", sizeof(ClientObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kClientSlots};

}  // namespace

int BindCallClient(PyObject* module, ModuleState* state) {
  state->calls_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kCallsSpec, nullptr));
  state->call_client_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kClientSpec, nullptr));
  if (!state->calls_type || !state->call_client_type) return -1;
  return PyModule_AddObjectRef(module, "CallClient", state->call_client_type.get());
}

}  // namespace pyhost::native
