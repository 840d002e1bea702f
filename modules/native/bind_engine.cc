// What a C++ engine's worker needs: the loop that takes its calls, calls and answers.  What a call names, and how an error
// is told, is decided by the module pyhost.engine.

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "modules/native/bind_pool.h"
#include "modules/native/gil_wait.h"
#include "modules/native/module_state.h"
#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/broker/call_server.h"

namespace pyhost::native {
namespace {

absl::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Serves the calls of one pool on one thread.  Whatever a call raises is its outcome and does not end the worker.
class EngineWorker {
 public:
  EngineWorker(ModuleState* state, CallServer& server, PyObject* resolve, PyObject* describe)
      : state_(state), server_(server), resolve_(PyRef::Borrow(resolve)), describe_(PyRef::Borrow(describe)) {}

  // Serves until the pool ends; false with a Python error.
  bool Run();

 private:
  enum class Taken { kCall, kEnd, kError };
  Taken Take(Message* message);
  bool Serve(Message message);
  PyRef Execute(Message message);
  PyRef FunctionOf(absl::string_view name);
  PyRef ArgumentsOf(const CallView& call, Message message);
  bool ReplyValue(PyObject* value);
  bool ReplyError(PyRef exception);

  ModuleState* const state_;
  CallServer& server_;
  const PyRef resolve_;
  const PyRef describe_;
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
  return result ? ReplyValue(result.get()) : ReplyError(TakeException());
}

PyRef EngineWorker::Execute(Message message) {
  const absl::StatusOr<CallView> call = ParseCall(message.payload());
  if (!call.ok()) {
    SetError(call.status());
    return {};
  }
  PyRef function = FunctionOf(AsText(call->function));
  PyRef arguments = function ? ArgumentsOf(*call, std::move(message)) : PyRef();
  return arguments ? PyRef::Steal(PyObject_CallObject(function.get(), arguments.get())) : PyRef();
}

PyRef EngineWorker::FunctionOf(absl::string_view name) {
  if (auto known = functions_.find(name); known != functions_.end()) return PyRef::Borrow(known->second.get());
  PyRef text = PyRef::Steal(PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), nullptr));
  PyRef function = PyRef::Steal(text ? PyObject_CallOneArg(resolve_.get(), text.get()) : nullptr);
  if (function) functions_[std::string(name)] = PyRef::Borrow(function.get());
  return function;
}

// A tuple, or null with a Python error.
PyRef EngineWorker::ArgumentsOf(const CallView& call, Message message) {
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
    status = server_.Reply(ReplyKind::kValue, {&part, 1}, {});
  } else {
    Pickled pickled;
    if (!Pickle(state_, value, &pickled)) return ReplyError(TakeException());
    status = server_.Reply(ReplyKind::kValue, pickled.parts(), pickled.handles());
  }
  if (status.ok()) return true;
  SetError(status);  // No memory for the result: its call fails.
  return ReplyError(TakeException());
}

bool EngineWorker::ReplyError(PyRef exception) {
  PyRef packed = PyRef::Steal(PyObject_CallOneArg(describe_.get(), exception.get()));
  if (!packed) return false;
  if (!PyBytes_Check(packed.get())) {
    PyErr_SetString(PyExc_TypeError, "a described error must be bytes");
    return false;
  }
  const auto part = std::as_bytes(
      std::span(PyBytes_AS_STRING(packed.get()), static_cast<size_t>(PyBytes_GET_SIZE(packed.get()))));
  const absl::Status status = server_.Reply(ReplyKind::kError, {&part, 1}, {});
  if (status.ok()) return true;
  SetError(status);
  return false;
}

// ---- The functions -------------------------------------------------------------------------------------------------

// Null with a Python error.
std::unique_ptr<CallServer> OpenServer(unsigned long long pool) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<std::unique_ptr<CallServer>> server =
      CallServer::Open(session->segment(), session->me(), Handle::FromValue(pool));
  if (server.ok()) return *std::move(server);
  SetError(server.status());
  return nullptr;
}

PyObject* ServeEngine(PyObject*, PyObject* args) {
  unsigned long long pool = 0;
  PyObject *resolve = nullptr, *describe = nullptr;
  if (!PyArg_ParseTuple(args, "KOO:serve_engine", &pool, &resolve, &describe)) return nullptr;
  ModuleState* state = GetState();
  const std::unique_ptr<CallServer> server = state == nullptr ? nullptr : OpenServer(pool);
  if (server == nullptr) return nullptr;
  if (absl::Status ready = server->Notice(ReplyKind::kReady, {}); !ready.ok()) return SetError(ready);
  EngineWorker worker(state, *server, resolve, describe);
  if (!worker.Run()) return nullptr;
  Py_RETURN_NONE;
}

PyObject* ReportToEngine(PyObject*, PyObject* args) {
  unsigned long long pool = 0;
  const char* data = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(args, "Ky#:report_to_engine", &pool, &data, &size)) return nullptr;
  const std::unique_ptr<CallServer> server = OpenServer(pool);
  if (server == nullptr) return nullptr;
  const absl::Status status = server->Report(std::as_bytes(std::span(data, static_cast<size_t>(size))));
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyMethodDef kFunctions[] = {
    {"serve_engine", ServeEngine, METH_VARARGS,
     "serve_engine(pool, resolve, describe)\n\nServes a C++ engine's calls until its pool ends.  resolve(name) -> "
     "callable; describe(exception) -> bytes for the engine."},
    {"report_to_engine", ReportToEngine, METH_VARARGS,
     "report_to_engine(pool, data): tells a C++ engine why this worker cannot begin."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindEngine(PyObject* module, ModuleState*) { return PyModule_AddFunctions(module, kFunctions); }

}  // namespace pyhost::native
