#include "host/child.h"

#include "modules/native/python_ref.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "host/internal_arguments.h"
#include "host/interpreter.h"
#include "host/interpreter_state.h"
#include "host/process_title.h"
#include "host/thread_exit.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/deferred_unmap.h"
#include "runtime/segment/object_table.h"
#include "runtime/session/session.h"
#include "runtime/supervision/process_status.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/start_attributes.h"

namespace pyhost::host {
namespace {

using native::PyRef;

struct ChildMainCall {
  PyObject* module;
  PyObject* code;
};

void CallChildMain(void* context) {
  ChildMainCall* call = static_cast<ChildMainCall*>(context);
  call->code = PyObject_CallMethod(call->module, "_child_main", nullptr);
}

// As a process ends whose last thread does.
void LeaveWithoutMainThread(void*) {
  Session::Current()->Leave(0);
  std::exit(0);
}

// Runs the child's Python; the exit code it wants.
int CallMain(std::string_view method) {
  const char* name = method == "engine" ? "pyhost.engine" : "multiprocessing.spawn";
  PyRef module = PyRef::Steal(PyImport_ImportModule(name));
  ChildMainCall call = {module.get(), nullptr};
  if (module) RunEndingThread(CallChildMain, LeaveWithoutMainThread, &call);
  PyRef code = PyRef::Steal(call.code);
  long number = code ? PyLong_AsLong(code.get()) : -1;
  if (!PyErr_Occurred()) return static_cast<int>(number);
  if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
    // Before multiprocessing/child_main.py could catch it.  The main process is the one that speaks.
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
  }
  PyErr_Print();  // ends the process for a SystemExit
  return 1;
}

// "pyhost Process-2"
void SetTitleOf(Session& session) {
  absl::StatusOr<HostInfo> info = session.segment().hosts().Info(session.me());
  SetProcessTitle(absl::StrCat("pyhost ", info.ok() ? info->name : ""));
}

absl::StatusOr<StartPayload> ReadPayload(Session& session) {
  Handle handle = session.segment().hosts().payload(session.me());
  PYHOST_ASSIGN_OR_RETURN(auto block, session.segment().objects().Block(handle));
  return StartPayload::Parse(block);
}

absl::StatusOr<std::string> TakeOver(Session& session, std::vector<UniqueFd> received, const ServerState& server) {
  PYHOST_ASSIGN_OR_RETURN(StartPayload payload, ReadPayload(session));
  PYHOST_ASSIGN_OR_RETURN(StartAttributes attributes, StartAttributes::Decode(payload.attributes));
  PYHOST_ASSIGN_OR_RETURN(ServerSpec spec, ServerSpec::Decode(payload.server));
  // Any Python ignores these from its start, whatever it inherits.
  for (int signal : {SIGPIPE, SIGXFSZ}) attributes.ignored_signals |= uint64_t{1} << (signal - 1);
  const StartAttributes& before = server.attributes;
  PYHOST_RETURN_IF_ERROR(attributes.Apply(std::move(received), before));
  if (attributes.environment != before.environment) PYHOST_RETURN_IF_ERROR(AdoptEnvironment(attributes.environment));
  PYHOST_RETURN_IF_ERROR(AdoptSignals(attributes.ignored_signals, before.ignored_signals));
  StandardFiles now = StandardFiles::Now();
  for (int number = 0; number <= 2; ++number) {
    if (!now.Same(server.streams, number)) PYHOST_RETURN_IF_ERROR(RemakeStream(number, now.open[number]));
  }
  PYHOST_RETURN_IF_ERROR(attributes.ApplySignalMask());
  return spec.method;
}

}  // namespace

StandardFiles StandardFiles::Now() {
  StandardFiles result = {};
  for (int number = 0; number <= 2; ++number) result.open[number] = fstat(number, &result.files[number]) == 0;
  return result;
}

bool StandardFiles::Same(const StandardFiles& other, int number) const {
  if (open[number] != other.open[number]) return false;
  const struct stat &mine = files[number], &theirs = other.files[number];
  return !open[number] ||
         (mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino && mine.st_rdev == theirs.st_rdev);
}

absl::StatusOr<ServerState> ServerState::Capture(const StandardFiles& streams, InterpreterSnapshot interpreter) {
  PYHOST_ASSIGN_OR_RETURN(ProcessStatus status, ProcessStatus::Read());
  PYHOST_ASSIGN_OR_RETURN(StartAttributes attributes, StartAttributes::Capture(status));
  absl::StatusOr<std::unique_ptr<WarmPages>> warm = WarmPages::Create();
  return ServerState{streams, std::move(attributes), std::move(interpreter), warm.ok() ? *std::move(warm) : nullptr};
}

void RunForkedChild(std::vector<UniqueFd> received, ServerState& server, bool defer_unmap) {
  Session* session = Session::Current();
  absl::StatusOr<std::string> method = TakeOver(*session, std::move(received), server);
  if (!method.ok()) {
    int code = ReportInternalError("a new process", method.status());
    session->Leave(code);
    _exit(code);
  }
  SetTitleOf(*session);
  PYHOST_CRASH_POINT("child-before-main");
  int code = CallMain(*method);
  // As in python3: a child of the forkserver method leaves without taking the server's modules apart.
  const bool finalize = *method != "forkserver";
  if (finalize) code = *method == "spawn" ? server.interpreter.End(code) : FinalizeInterpreter(code);
  session->Leave(code);
  if (server.warm != nullptr) server.warm->Note();
  if (defer_unmap) DeferUnmap();
  if (finalize) std::exit(code);
  _exit(code);
}

int ChildMain(int argc, char** argv) {
  absl::StatusOr<SessionTicket> ticket = SessionTicket::FromArguments(argc, argv);
  if (!ticket.ok()) return ReportInternalError("a new process", ticket.status());
  absl::StatusOr<Session*> session = Session::Join(*ticket);
  if (!session.ok()) return ReportInternalError("a new process", session.status());
  absl::StatusOr<StartPayload> payload = ReadPayload(**session);
  absl::StatusOr<ServerSpec> spec = payload.ok() ? ServerSpec::Decode(payload->server) : payload.status();
  if (!spec.ok()) return ReportInternalError("a new process", spec.status());
  std::vector<std::string> command = {spec->program};
  command.insert(command.end(), spec->flags.begin(), spec->flags.end());
  KeepCommandLine(argc, argv);
  SetTitleOf(**session);
  if (std::optional<int> code = StartInterpreter(command, StartedBy::kPyhost)) return *code;
  int code = FinalizeInterpreter(CallMain(spec->method));
  (*session)->Leave(code);
  return code;
}

}  // namespace pyhost::host
