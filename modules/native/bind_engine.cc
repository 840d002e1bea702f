// What a C++ engine's worker needs: the loop that takes its calls, calls and answers.  What a call names, and how an error
// is told, is decided by the module pyhost.engine.

#include <unistd.h>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "modules/native/bind_pool.h"
#include "modules/native/engine_link.h"
#include "modules/native/gil_wait.h"
#include "modules/native/module_state.h"
#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/broker/lane_server.h"
#include "runtime/engine/program.h"

namespace pyhost::native {
namespace {

absl::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A module was reloaded: what names resolved to before is old.
bool& Forget() {
  static bool forget = false;
  return forget;
}

// Serves the calls of one pool on one thread.  Whatever a call raises is its outcome and does not end the worker.  A process that
// a script forked, and that comes back here, is no worker: it leaves.
class EngineWorker {
 public:
  EngineWorker(ModuleState* state, LaneServer& server, PyObject* resolve, PyObject* describe)
      : state_(state), server_(server), resolve_(PyRef::Borrow(resolve)), describe_(PyRef::Borrow(describe)) {}

  // Serves until the pool ends; false with a Python error.
  bool Run();

 private:
  enum class Taken { kCall, kEnd, kError };
  Taken Take(Message* message);
  bool Serve(Message message);
  PyRef Execute(Message message);
  PyRef FunctionOf(absl::string_view name);
  PyRef ArgumentsOf(const CallView& call, Message& message);
  bool ReplyValue(PyObject* value);
  // `result`: what the exception says cannot be passed on; null if it is of the call.
  bool ReplyError(PyRef exception, PyObject* result = nullptr);

  ModuleState* const state_;
  LaneServer& server_;
  const PyRef resolve_;
  const PyRef describe_;
  const pid_t pid_ = getpid();
  absl::flat_hash_map<std::string, PyRef> functions_;  // by name
  std::string scalar_;                                 // the reply being built
};

EngineWorker::Taken EngineWorker::Take(Message* message) {
  for (;;) {
    GilWait gil;
    absl::StatusOr<Message> next = server_.Next(gil.Until(Deadline::Never()));
    if (next.ok()) {
      *message = *std::move(next);
      return Taken::kCall;
    }
    if (absl::IsOutOfRange(next.status())) return Taken::kEnd;
    SetError(next.status());
    if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return Taken::kError;
    PyErr_Clear();  // Whether the pool ends is the engine's decision.
  }
}

bool EngineWorker::Run() {
  for (;;) {
    Message message;
    switch (Take(&message)) {
      case Taken::kEnd:
        return true;
      case Taken::kError:
        return false;
      case Taken::kCall:
        if (!Serve(std::move(message))) return false;
    }
  }
}

bool EngineWorker::Serve(Message message) {
  PyRef result = Execute(std::move(message));
  if (getpid() != pid_) _exit(0);
  return result ? ReplyValue(result.get()) : ReplyError(TakeException());
}

PyRef EngineWorker::Execute(Message message) {
  const absl::StatusOr<CallView> call = ParseCall(message.payload());
  if (!call.ok()) {
    SetError(call.status());
    return {};
  }
  PyRef function = FunctionOf(AsText(call->function));
  PyRef arguments = function ? ArgumentsOf(*call, message) : PyRef();
  return arguments ? PyRef::Steal(PyObject_CallObject(function.get(), arguments.get())) : PyRef();
}

PyRef EngineWorker::FunctionOf(absl::string_view name) {
  if (std::exchange(Forget(), false)) functions_.clear();
  if (auto known = functions_.find(name); known != functions_.end()) return PyRef::Borrow(known->second.get());
  PyRef text = PyRef::Steal(PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "backslashreplace"));
  PyRef function = PyRef::Steal(text ? PyObject_CallOneArg(resolve_.get(), text.get()) : nullptr);
  if (function) functions_[std::string(name)] = PyRef::Borrow(function.get());
  return function;
}

// A tuple, or null with a Python error.  `call` points into the message, which may be taken.
PyRef EngineWorker::ArgumentsOf(const CallView& call, Message& message) {
  PyRef arguments = PyRef::Steal(ReadScalarPickle(call.arguments));
  if (!arguments && !PyErr_Occurred()) {
    arguments = PyRef::Steal(Unpickle(state_, std::move(message), call.arguments));
  }
  if (arguments && !PyTuple_CheckExact(arguments.get())) {
    SetError(absl::DataLossError("malformed call: its arguments are no tuple"));
    return {};
  }
  return arguments;
}

bool EngineWorker::ReplyValue(PyObject* value) {
  scalar_.clear();
  absl::Status status;
  if (AppendScalarPickle(value, &scalar_)) {
    const std::span<const std::byte> part = std::as_bytes(std::span(scalar_));
    status = server_.current().Reply(ReplyKind::kValue, {&part, 1}, {});
  } else {
    Pickled pickled;
    if (!Pickle(state_, value, &pickled)) return ReplyError(TakeException(), value);
    status = server_.current().Reply(ReplyKind::kValue, pickled.parts(), pickled.handles());
  }
  if (status.ok()) return true;
  SetError(status);  // No memory for the result: its call fails.
  return ReplyError(TakeException());
}

bool EngineWorker::ReplyError(PyRef exception, PyObject* result) {
  PyRef packed = PyRef::Steal(PyObject_CallFunctionObjArgs(describe_.get(), exception.get(), result, nullptr));
  if (!packed) return false;
  if (!PyBytes_Check(packed.get())) {
    PyErr_SetString(PyExc_TypeError, "a described error must be bytes");
    return false;
  }
  const auto part = std::as_bytes(
      std::span(PyBytes_AS_STRING(packed.get()), static_cast<size_t>(PyBytes_GET_SIZE(packed.get()))));
  const absl::Status status = server_.current().Reply(ReplyKind::kError, {&part, 1}, {});
  if (status.ok()) return true;
  SetError(status);
  return false;
}

// ---- The functions -------------------------------------------------------------------------------------------------

// What this process serves, while it does.  Guarded by the GIL, as Forget() is.
EngineLink*& Link() {
  static EngineLink* link = nullptr;
  return link;
}

PyObject* ServeEngine(PyObject*, PyObject* args) {
  PyObject *lanes = nullptr, *resolve = nullptr, *describe = nullptr;
  Py_ssize_t wait_at = 0;
  int hot = 0;
  if (!PyArg_ParseTuple(args, "O!npOO:serve_engine", &PyTuple_Type, &lanes, &wait_at, &hot, &resolve, &describe)) {
    return nullptr;
  }
  std::vector<Handle> handles;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(lanes); ++i) {
    handles.push_back(Handle::FromValue(PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(lanes, i))));
  }
  Session* session = PyErr_Occurred() ? nullptr : RequireSession();
  ModuleState* state = session == nullptr ? nullptr : GetState();
  if (state == nullptr) return nullptr;
  auto server = LaneServer::Open(session->segment(), session->me(), handles, static_cast<size_t>(wait_at), hot != 0);
  if (!server.ok()) return SetError(server.status());
  auto link = EngineLink::Open(session, (*server)->current());
  if (!link.ok()) return SetError(link.status());
  Link() = link->get();
  EngineWorker worker(state, **server, resolve, describe);
  const bool served = worker.Run();
  Link() = nullptr;
  if (served) Py_RETURN_NONE;
  // The call in its hand is lost with this process, and reported as that; a server that is closed would be no part of it any more.
  static_cast<void>(server->release());
  return nullptr;
}

PyObject* ReportToEngine(PyObject*, PyObject* args) {
  unsigned long long lane = 0;
  const char* data = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(args, "Ky#:report_to_engine", &lane, &data, &size)) return nullptr;
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  auto server = CallServer::Open(session->segment(), session->me(), Handle::FromValue(lane));
  if (!server.ok()) return SetError(server.status());
  const absl::Status status = (*server)->Report(std::as_bytes(std::span(data, static_cast<size_t>(size))));
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* CallEngine(PyObject*, PyObject* args) {
  const char* name = nullptr;
  Py_ssize_t size = 0;
  PyObject* arguments = nullptr;
  if (!PyArg_ParseTuple(args, "s#O!:call_engine", &name, &size, &PyTuple_Type, &arguments)) return nullptr;
  if (Link() == nullptr) {
    PyErr_SetString(PyExc_RuntimeError,
                    "no engine to call: this is no worker of an engine, or one that has not begun to take calls");
    return nullptr;
  }
  ModuleState* state = GetState();
  return state == nullptr ? nullptr : Link()->Call(state, {name, static_cast<size_t>(size)}, arguments);
}

PyObject* ForgetFunctions(PyObject*, PyObject*) {
  Forget() = true;
  Py_RETURN_NONE;
}

PyMethodDef kFunctions[] = {
    {"serve_engine", ServeEngine, METH_VARARGS,
     "serve_engine(lanes, wait_at, hot, resolve, describe)\n\nServes a C++ engine's calls until its pool ends.  lanes: "
     "handles, the preferred first; resolve(name) -> callable; describe(exception) and describe(exception, "
     "unpicklable result) -> bytes for the engine."},
    {"report_to_engine", ReportToEngine, METH_VARARGS,
     "report_to_engine(lane, data): tells a C++ engine why this worker cannot begin."},
    {"call_engine", CallEngine, METH_VARARGS,
     "call_engine(name, arguments) -> (0, value) or (status code, message)\n\nCalls a function that the engine has exposed."},
    {"forget_functions", ForgetFunctions, METH_NOARGS, "The functions of the next calls are resolved anew."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindEngine(PyObject* module, ModuleState*) {
  if (PyModule_AddFunctions(module, kFunctions) < 0) return -1;
  return PyModule_AddStringConstant(module, "engine_version", EngineVersion().c_str());
}

}  // namespace pyhost::native
