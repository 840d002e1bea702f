// _pyhost.CallServer: a worker's loop.  Take a call, unpickle, run, pickle, reply; the GIL is given up only
// while there is nothing to do.

#include <array>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "modules/native/bind_pool.h"
#include "modules/native/gil_wait.h"
#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/broker/call_server.h"
#include "runtime/os/process.h"
#include "runtime/segment/object_table.h"

namespace pyhost::native {
namespace {

absl::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct WorkerOptions {
  unsigned long long max_calls = 0;   // then the worker ends; 0 = no limit
  unsigned long long max_memory = 0;  // bytes: the worker ends after a call that leaves it larger; 0 = no limit
  // Whatever a call raises, SystemExit too, is its outcome and does not end the worker; and what kept its arguments from
  // being read, or its result from being sent, is told as such (an executor's way).
  bool contain = false;
};

// Serves the calls of one pool on one thread.
class Worker {
 public:
  Worker(ModuleState* state, Session* session, CallServer& server, const WorkerOptions& options)
      : state_(state), session_(session), server_(server), options_(options), contain_(options.contain) {}

  // Serves until the pool ends or a limit is reached; false with a Python error.
  bool Run();
  unsigned long long served() const { return served_; }

 private:
  enum class Taken { kCall, kEnd, kError };
  Taken Take(Message* message);
  bool BeginCall();
  bool ReachedLimit() const;
  bool Serve(Message message);
  // Null with a Python error; *decoded: the error is the function's, not one of reading the call.
  PyRef Execute(Message message, bool* decoded);
  // The callable and its arguments; false with a Python error.
  bool Decode(Message message, CallView* call, PyRef* function, PyRef* arguments);
  PyRef LoadFunction(const CallView& call, const Message& message);
  static bool Split(PyRef both, PyRef* function, PyRef* arguments);
  PyRef Loads(std::span<const std::byte> pickle);
  PyRef Apply(const CallView& call, PyObject* function, PyObject* arguments);
  PyRef MapOver(const CallView& call, PyObject* function, PyObject* items);
  bool Sent(const absl::Status& status);
  bool ReplyValue(PyRef value);
  bool ReplyError(PyRef packed);
  bool ReplyException(PyRef exception);
  bool ReplyUnsendable(PyRef exception, PyObject* value);
  // The worker ends with this exception in the middle of a call.
  bool EndBy(PyRef exception);

  ModuleState* const state_;
  Session* const session_;
  CallServer& server_;
  const WorkerOptions options_;
  const bool contain_;
  absl::flat_hash_map<std::string, PyRef> globals_;  // by pickle
  PyRef loads_;         // _pickle.loads
  std::string scalar_;  // the reply being built
  unsigned long long served_ = 0;
  bool unwanted_ = false;  // the caller has condemned the call in hand, and with it this worker
};

// ---- Taking ---------------------------------------------------------------------------------------------------------

Worker::Taken Worker::Take(Message* message) {
  for (;;) {
    GilWait gil;
    absl::StatusOr<Message> next = server_.Next(gil.Until(Deadline::Never()));
    if (next.ok()) {
      *message = *std::move(next);
      return BeginCall() ? Taken::kCall : Taken::kError;
    }
    if (absl::IsOutOfRange(next.status())) return Taken::kEnd;
    SetError(next.status());
    // Ctrl-C reaches all processes of a terminal.  A worker with nothing in hand has nothing to interrupt:
    // whether the pool ends is the caller's decision.
    if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return Taken::kError;
    PyErr_Clear();
  }
}

// A signal that came before the call began is handled before it begins.
bool Worker::BeginCall() {
  if (PyErr_CheckSignals() == 0) return true;
  if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return EndBy(TakeException());
  PyErr_Clear();
  return true;
}

bool Worker::ReachedLimit() const {
  return unwanted_ || (options_.max_calls != 0 && served_ >= options_.max_calls) ||
         (options_.max_memory != 0 && served_ != 0 && PrivateMemoryBytes() > options_.max_memory);
}

bool Worker::Run() {
  while (!ReachedLimit()) {
    Message message;
    switch (Take(&message)) {
      case Taken::kEnd:
        return true;
      case Taken::kError:
        return false;
      case Taken::kCall:
        if (!Serve(std::move(message))) return false;
        ++served_;
    }
  }
  return true;
}

bool Worker::Serve(Message message) {
  bool decoded = false;
  PyRef result = Execute(std::move(message), &decoded);
  if (result) return ReplyValue(std::move(result));
  PyRef exception = TakeException();
  const bool ordinary = PyErr_GivenExceptionMatches(exception.get(), PyExc_Exception);
  if (ordinary && !decoded) {
    const char* pack = contain_ ? "pack_unreadable_call" : "pack_unread_call";
    return ReplyError(CallOutcomes(state_, pack, {exception.get()}));
  }
  if (ordinary || (contain_ && decoded)) return ReplyException(std::move(exception));
  return EndBy(std::move(exception));
}

// ---- Running --------------------------------------------------------------------------------------------------------

PyRef Worker::Execute(Message message, bool* decoded) {
  CallView call;
  PyRef function, arguments;
  *decoded = Decode(std::move(message), &call, &function, &arguments);
  if (!*decoded) return {};
  server_.Begin(call.limit_millis);
  PyRef result = Apply(call, function.get(), arguments.get());
  server_.End();
  return result;
}

bool Worker::Decode(Message message, CallView* parsed, PyRef* function, PyRef* arguments) {
  const absl::StatusOr<CallView> call = ParseCall(message.payload());
  if (!call.ok()) {
    SetError(call.status());
    return false;
  }
  *parsed = *call;  // Of which only what is no view is used later.
  const Buffers buffers = (call->flags & kMayRunAgain) != 0 ? Buffers::kPrivate : Buffers::kShared;
  if ((call->flags & kFunctionInside) != 0) {
    return Split(PyRef::Steal(Unpickle(state_, std::move(message), call->arguments, buffers)), function, arguments);
  }
  *function = LoadFunction(*call, message);
  if (!*function) return false;
  *arguments = PyRef::Steal(ReadScalarPickle(call->arguments));
  if (!*arguments && !PyErr_Occurred()) {
    *arguments = PyRef::Steal(Unpickle(state_, std::move(message), call->arguments, buffers));
  }
  return static_cast<bool>(*arguments);
}

// A pickle of (function, arguments).
bool Worker::Split(PyRef both, PyRef* function, PyRef* arguments) {
  if (!both) return false;
  if (!PyTuple_CheckExact(both.get()) || PyTuple_GET_SIZE(both.get()) != 2) {
    SetError(absl::DataLossError("malformed call: not a pair of function and arguments"));
    return false;
  }
  *function = PyRef::Borrow(PyTuple_GET_ITEM(both.get(), 0));
  *arguments = PyRef::Borrow(PyTuple_GET_ITEM(both.get(), 1));
  return true;
}

PyRef Worker::Loads(std::span<const std::byte> pickle) {
  if (!loads_) {
    PyRef module = PyRef::Steal(PyImport_ImportModule("_pickle"));
    if (!module) return {};
    loads_ = PyRef::Steal(PyObject_GetAttrString(module.get(), "loads"));
    if (!loads_) return {};
  }
  PyRef bytes = PyRef::Steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(pickle.data()),
                                                       static_cast<Py_ssize_t>(pickle.size())));
  return bytes ? PyRef::Steal(PyObject_CallOneArg(loads_.get(), bytes.get())) : PyRef();
}

PyRef Worker::LoadFunction(const CallView& call, const Message& message) {
  if ((call.flags & kFunctionInMemory) != 0) {
    if (message.handles().empty()) {
      SetError(absl::DataLossError("malformed call: its function is missing"));
      return {};
    }
    absl::StatusOr<std::span<std::byte>> block = session_->segment().objects().Block(message.handles().back());
    if (block.ok() && block->size() >= call.function_size) return Loads(block->first(call.function_size));
    SetError(block.ok() ? absl::DataLossError("malformed call: its function is cut off") : block.status());
    return {};
  }
  if (auto known = globals_.find(AsText(call.function)); known != globals_.end()) {
    return PyRef::Borrow(known->second.get());
  }
  PyRef function = Loads(call.function);
  // Anything but a global may carry state, which must not leak from one call into the next.
  if (function && IsGlobalReference(call.function)) {
    globals_[std::string(AsText(call.function))] = PyRef::Borrow(function.get());
  }
  return function;
}

// f(*arguments), f(*arguments, **keywords)
PyRef CallStar(PyObject* function, PyObject* arguments, PyObject* keywords) {
  PyRef tuple = PyTuple_CheckExact(arguments) ? PyRef::Borrow(arguments) : PyRef::Steal(PySequence_Tuple(arguments));
  if (!tuple) return {};
  if (keywords == nullptr || keywords == Py_None) return PyRef::Steal(PyObject_CallObject(function, tuple.get()));
  if (PyDict_CheckExact(keywords)) return PyRef::Steal(PyObject_Call(function, tuple.get(), keywords));
  if (!PyObject_HasAttrString(keywords, "keys")) {  // As f(**keywords) says it; dict.update() would take pairs, too.
    PyErr_Format(PyExc_TypeError, "argument after ** must be a mapping, not %.200s", Py_TYPE(keywords)->tp_name);
    return {};
  }
  PyRef dict = PyRef::Steal(PyDict_New());
  if (!dict || PyDict_Update(dict.get(), keywords) < 0) return {};
  return PyRef::Steal(PyObject_Call(function, tuple.get(), dict.get()));
}

// Over a list, which is the most common: nothing but the calls.
PyRef MapOverList(PyObject* function, PyObject* items) {
  const Py_ssize_t size = PyList_GET_SIZE(items);
  PyRef results = PyRef::Steal(PyList_New(size));
  if (!results) return {};
  PyObject_GC_UnTrack(results.get());  // The functions must not come across a half-filled list (gc.get_objects()).
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* result = PyObject_CallOneArg(function, PyList_GET_ITEM(items, i));
    if (result == nullptr) return {};
    PyList_SET_ITEM(results.get(), i, result);
  }
  PyObject_GC_Track(results.get());
  return results;
}

PyRef Worker::MapOver(const CallView& call, PyObject* function, PyObject* items) {
  const bool star = call.kind == CallKind::kStarMap, limited = call.limit_millis != 0;
  if (!star && !limited) {
    if (PyList_CheckExact(items)) return MapOverList(function, items);
    if (PyRange_Check(items) || PyTuple_CheckExact(items)) {
      PyRef list = PyRef::Steal(PySequence_List(items));
      return list ? MapOverList(function, list.get()) : PyRef();
    }
  }
  PyRef iterator = PyRef::Steal(PyObject_GetIter(items));
  PyRef results = PyRef::Steal(PyList_New(0));
  if (!iterator || !results) return {};
  while (PyRef item = PyRef::Steal(PyIter_Next(iterator.get()))) {
    if (limited) server_.BeginItem();
    PyRef result = star ? CallStar(function, item.get(), nullptr)
                        : PyRef::Steal(PyObject_CallOneArg(function, item.get()));
    if (!result || PyList_Append(results.get(), result.get()) < 0) return {};
  }
  return PyErr_Occurred() ? PyRef() : std::move(results);
}

PyRef Worker::Apply(const CallView& call, PyObject* function, PyObject* arguments) {
  switch (call.kind) {
    case CallKind::kOne:
      return PyRef::Steal(PyObject_CallOneArg(function, arguments));
    case CallKind::kStar:
      return CallStar(function, arguments, nullptr);
    case CallKind::kMap:
    case CallKind::kStarMap:
      return MapOver(call, function, arguments);
    case CallKind::kCall:
      break;
  }
  PyRef positional, keywords;
  if (!Split(PyRef::Borrow(arguments), &positional, &keywords)) return {};
  return CallStar(function, positional.get(), keywords.get());
}

// ---- Replying -------------------------------------------------------------------------------------------------------

bool Worker::ReplyValue(PyRef value) {
  scalar_.clear();
  absl::Status status;
  if (AppendScalarPickle(value.get(), &scalar_)) {
    const std::span<const std::byte> part = std::as_bytes(std::span(scalar_));
    status = server_.Reply(ReplyKind::kValue, {&part, 1}, {});
  } else {
    Pickled pickled;
    if (!Pickle(state_, value.get(), &pickled, Give::kAsItIs)) {
      return ReplyUnsendable(TakeException(), value.get());
    }
    if (pickled.gives()) {
      value = PyRef();
      if (!pickled.CopyWhatWasKept()) return ReplyException(TakeException());
    }
    status = server_.Reply(ReplyKind::kValue, pickled.parts(), pickled.handles());
  }
  if (Sent(status)) return true;
  SetError(status);  // No memory for the result: its call fails.
  return ReplyException(TakeException());
}

// Whether this call needs no other answer.
bool Worker::Sent(const absl::Status& status) {
  unwanted_ = unwanted_ || absl::IsAborted(status);
  return status.ok() || unwanted_;
}

bool Worker::ReplyUnsendable(PyRef exception, PyObject* value) {
  const bool ordinary = PyErr_GivenExceptionMatches(exception.get(), PyExc_Exception);
  if (!ordinary && !contain_) return EndBy(std::move(exception));
  if (!ordinary) return ReplyException(std::move(exception));
  const char* pack = contain_ ? "pack_unsendable_result" : "pack_unpicklable_result";
  return ReplyError(CallOutcomes(state_, pack, {exception.get(), value}));
}

bool Worker::ReplyException(PyRef exception) {
  return ReplyError(CallOutcomes(state_, "pack_exception", {exception.get()}));
}

bool Worker::ReplyError(PyRef packed) {
  if (!packed) return false;
  if (!PyBytes_Check(packed.get())) {
    PyErr_SetString(PyExc_TypeError, "a packed error must be bytes");
    return false;
  }
  const auto part = std::as_bytes(
      std::span(PyBytes_AS_STRING(packed.get()), static_cast<size_t>(PyBytes_GET_SIZE(packed.get()))));
  const absl::Status status = server_.Reply(ReplyKind::kError, {&part, 1}, {});
  if (Sent(status)) return true;
  SetError(status);
  return false;
}

bool Worker::EndBy(PyRef exception) {
  PyRef code = CallOutcomes(state_, "exit_code", {exception.get()});
  const long value = code ? PyLong_AsLong(code.get()) : 1;
  PyErr_Clear();
  // The caller learns it from here: a process that leaves in good order gives back what it holds.
  const ExitStatus status = value < 0 ? ExitStatus{ExitStatus::Kind::kSignaled, static_cast<int>(-value)}
                                      : ExitStatus{ExitStatus::Kind::kExited, static_cast<int>(value)};
  server_.ReportLost(status).IgnoreError();
  RaiseException(std::move(exception));
  return false;
}

// ---- The type -------------------------------------------------------------------------------------------------------

PyObject* Run(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"max_calls", "contain", "max_memory", nullptr};
  WorkerOptions options;
  int contain = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|KpK:run", const_cast<char**>(kKeywords), &options.max_calls, &contain,
                                   &options.max_memory)) {
    return nullptr;
  }
  options.contain = contain != 0;
  Session* session = RequireSession();
  ModuleState* state = GetState();
  if (session == nullptr || state == nullptr) return nullptr;
  absl::StatusOr<std::unique_ptr<CallServer>> server =
      CallServer::Open(session->segment(), session->me(), reinterpret_cast<SharedObject*>(self)->handle);
  if (!server.ok()) return SetError(server.status());
  Worker worker(state, session, **server, options);
  return worker.Run() ? PyLong_FromUnsignedLongLong(worker.served()) : nullptr;
}

PyObject* Report(PyObject* self, PyObject* args) {
  const char* data = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(args, "y#:report", &data, &size)) return nullptr;
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<std::unique_ptr<CallServer>> server =
      CallServer::Open(session->segment(), session->me(), reinterpret_cast<SharedObject*>(self)->handle);
  if (!server.ok()) return SetError(server.status());
  bool first = false;
  const absl::Status status = (*server)->Report(std::as_bytes(std::span(data, static_cast<size_t>(size))), &first);
  return status.ok() ? PyBool_FromLong(first) : SetError(status);
}

PyMethodDef kMethods[] = {
    {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(Run)), METH_VARARGS | METH_KEYWORDS,
     "run(max_calls=0, contain=False, max_memory=0) -> calls served\n\nServes calls until the pool ends, max_calls (0: no "
     "limit) were served, or a call left the process with more than max_memory bytes of its own.  contain: whatever a call "
     "raises is its outcome; SystemExit too."},
    {"report", Report, METH_VARARGS,
     "report(data) -> is this worker the first of its pool?\n\nTells the caller why this worker cannot begin."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("The workers' end of a pool; goes to a worker with its start.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.CallServer", sizeof(SharedObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, kSlots};

}  // namespace

PyObject* NewCallServer(ModuleState* state, Handle pool) {
  auto* type = reinterpret_cast<PyTypeObject*>(state->call_server_type.get());
  PyRef self = PyRef::Steal(type->tp_alloc(type, 0));
  if (!self || !AttachHandle(reinterpret_cast<SharedObject*>(self.get()), pool)) return nullptr;
  return self.release();
}

int BindCallServer(PyObject* module, ModuleState* state) {
  state->call_server_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->call_server_type ? PyModule_AddObjectRef(module, "CallServer", state->call_server_type.get()) : -1;
}

}  // namespace pyhost::native
