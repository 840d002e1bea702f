#include "host/fork_server.h"

#include "modules/native/python_ref.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "host/child.h"
#include "host/child_exit.h"
#include "host/internal_arguments.h"
#include "host/interpreter.h"
#include "host/interpreter_state.h"
#include "host/process_title.h"
#include "host/spare_child.h"
#include "host/warm_modules.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/session/session.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/reaper.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// What a child of the package needs before it knows what it is to do.  Modules of the standard library's and ours only.
constexpr std::string_view kAlwaysImported[] = {"_pyhost", "multiprocessing.spawn", "multiprocessing.child_main",
                                                "multiprocessing.forkserver"};
// ... what most of them need soon; it brings modules that children of python3 do not begin with.
constexpr std::string_view kImportedAhead[] = {"multiprocessing._output",           "multiprocessing.connection",
                                               "multiprocessing.pool_faults",       "multiprocessing.pool_worker",
                                               "multiprocessing.popen_spawn_posix", "multiprocessing.queues",
                                               "multiprocessing.synchronize"};
// ... and a worker of a C++ engine, which is to be up soon.
constexpr std::string_view kImportedForEngines[] = {"_pyhost", "pyhost.engine"};

constexpr int kGroupSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

// The signals that a terminal or a user sends to everybody stay pending: a server ends when its supervisor lets go of it.
// Their dispositions are those that most children want, not the supervisor's, who ignores them.
void BlockGroupSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : kGroupSignals) sigaddset(&set, number);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  for (int number : kGroupSignals) signal(number, SIG_DFL);
}

absl::Status ImportAllOf(std::span<const std::string_view> names) {
  for (std::string_view name : names) {
    if (!PyRef::Steal(PyImport_ImportModule(name.data()))) return TakePythonError(name.data());
  }
  return absl::OkStatus();
}

PyRef TextList(const std::vector<std::string>& texts) {
  PyRef list = PyRef::Steal(PyList_New(0));
  for (const std::string& text : texts) {
    PyRef item = PyRef::Steal(PyUnicode_DecodeFSDefault(text.c_str()));
    if (!list || !item || PyList_Append(list.get(), item.get()) < 0) return {};
  }
  return list;
}

// Nobody asked for the main module to be preloaded but us: a thread that it starts is no error of the program's.  Without
// finalization, which would wait for that thread.
[[noreturn]] void LeaveMainToChildren() { _exit(kExitToLeaveMainToChildren); }

// multiprocessing.forkserver.preload() for one module, so that a thread can be blamed on it.
absl::Status Preload(const ServerSpec& spec, const std::string& name) {
  PyRef module = PyRef::Steal(PyImport_ImportModule("multiprocessing.forkserver"));
  PyRef names = TextList({name});
  PyRef path = spec.has_sys_path ? TextList(spec.sys_path) : PyRef::Borrow(Py_None);
  PyRef argv = TextList(spec.sys_argv);
  PyRef main_path = PyRef::Steal(PyUnicode_DecodeFSDefault(spec.main_path.c_str()));
  PyRef main_name = PyRef::Steal(PyUnicode_DecodeFSDefault(spec.main_name.c_str()));
  if (!module || !names || !path || !main_path || !main_name || !argv) return TakePythonError("preload");
  PyRef done = PyRef::Steal(PyObject_CallMethod(module.get(), "preload", "OOOOO", names.get(), main_path.get(),
                                                main_name.get(), path.get(), argv.get()));
  // A module that fails shows why, as in python3, and is left to the children.
  if (!done) PyErr_Print();
  // A library's own threads (OpenBLAS starts some at import) are its own business, as in python3: those libraries stop
  // them before a fork and start them again after it.
  if (!HasOtherThreads()) return absl::OkStatus();
  if (name == ServerSpec::kMain) LeaveMainToChildren();
  return absl::FailedPreconditionError(
      absl::StrCat("preloaded module '", name, "' started a thread, which no fork would have; start it in a function"));
}

// What every child begins with: all that is imported by now.
absl::StatusOr<InterpreterSnapshot> TakeSnapshot() {
  absl::StatusOr<InterpreterSnapshot> snapshot = InterpreterSnapshot::Take();
  // Nothing of this is garbage, and a collection in a child would copy its pages.
  PyRef gc = PyRef::Steal(PyImport_ImportModule("gc"));
  if (!gc || !PyRef::Steal(PyObject_CallMethod(gc.get(), "freeze", nullptr))) return TakePythonError("gc.freeze");
  return snapshot;
}

absl::Status ImportOurs(const ServerSpec& spec) {
  if (spec.method == "engine") return ImportAllOf(kImportedForEngines);
  PYHOST_RETURN_IF_ERROR(ImportAllOf(kAlwaysImported));
  if (spec.shadowed) return absl::OkStatus();
  PYHOST_RETURN_IF_ERROR(ImportAllOf(kImportedAhead));
  // An error is left alone: then the children import for themselves.
  if (!spec.script.empty()) WarmModules::ImportFor(spec.script).IgnoreError();
  return absl::OkStatus();
}

// What all children of this server have in common: our own modules first, then what the program wants preloaded.
absl::StatusOr<InterpreterSnapshot> ImportAll(const ServerSpec& spec) {
  PyGC_Disable();  // A tenth of the time would go into collections that find nothing.
  const absl::Status imported = ImportOurs(spec);
  PyGC_Enable();
  PYHOST_RETURN_IF_ERROR(imported);
  for (const std::string& name : spec.preload) PYHOST_RETURN_IF_ERROR(Preload(spec, name));
  if (HasOtherThreads()) return absl::FailedPreconditionError("threads started with the interpreter: they would be lost in a fork");
  return TakeSnapshot();
}

absl::StatusOr<ServerState> GetReady(const ServerSpec& spec, const StandardFiles& streams) {
  PYHOST_ASSIGN_OR_RETURN(InterpreterSnapshot interpreter, ImportAll(spec));
  return ServerState::Capture(streams, std::move(interpreter));
}

// Milliseconds without a start, after which a server has time for itself: the starts of a pool come faster.
constexpr int kQuiet = 2;
// Who has started so many children is likely to start more: only then do imports pay.
constexpr int kStartsBeforeImports = 4;

class ForkServer {
 public:
  ForkServer(Session* session, UniqueFd socket, UniqueFd children, absl::StatusOr<ServerState> state,
             WarmModules warm_modules)
      : session_(session),
        socket_(std::move(socket)),
        children_(std::move(children)),
        state_(std::move(state)),
        warm_modules_(std::move(warm_modules)),
        spare_(session) {}

  // Until the supervisor closes its end.
  void Serve() {
    for (bool open = true; open;) {
      std::vector<pollfd> events = {
          {socket_.get(), POLLIN, 0}, {children_.get(), POLLIN, 0}, {warm_modules_.fd(), POLLIN, 0}};
      const size_t others = events.size();
      for (const HandedOver& handed : handed_over_) events.push_back({handed.socket.get(), POLLIN, 0});
      int ready = poll(events.data(), events.size(), wants_spare_ ? 0 : HasImports() ? kQuiet : -1);
      if (ready < 0 && errno != EINTR) return;
      if (ready == 0) wants_spare_ ? ForkSpare() : ImportWarmModules();
      if (events[2].revents != 0) warm_modules_.Receive();
      for (size_t i = others; i < events.size(); ++i) {
        if (events[i].revents == 0) continue;
        SettleIf([fd = events[i].fd](const HandedOver& handed) { return handed.socket.get() == fd; });
      }
      if (events[1].revents != 0) Reap();
      if (events[0].revents != 0) open = Receive();
    }
    Reap();  // a supervisor that was killed will not do it
  }

 private:
  // A spare child that has its orders, with what another would need that takes its place.
  struct HandedOver {
    pid_t pid;
    HostId host;
    std::vector<UniqueFd> fds;
    UniqueFd socket;
  };

  bool Receive() {
    ControlMessage message = {};
    auto received = ReceiveDatagram(socket_.get(), std::as_writable_bytes(std::span(&message, 1)));
    if (!received.ok()) return absl::IsDataLoss(received.status());
    if (received->would_block) return true;
    if (received->end_of_file) return false;
    if (received->size != sizeof(message) || message.type != MessageType::kStart) return true;
    HostId host = HostId::FromValue(message.host);
    absl::Status status = state_.ok() ? received->descriptors : state_.status();
    if (status.ok()) {
      Fork(host, std::move(received->fds));
    } else {
      Refuse(host, status);
    }
    return true;
  }

  void Fork(HostId host, std::vector<UniqueFd> fds) {
    // Given up meanwhile, or started by a server that died before it could say so.
    if (session_->segment().hosts().Exit(host).ended()) return Answer(MessageType::kFailed, host, 0);
    // Who started one process is likely to start another.
    wants_spare_ = true;
    ++starts_;
    if (!HandOver(host, &fds)) ForkNow(host, std::move(fds));
  }

  void ForkNow(HostId host, std::vector<UniqueFd> fds) {
    PYHOST_CRASH_POINT("server-before-fork");
    session_->PrepareFork(host);
    PyOS_BeforeFork();
    pid_t pid = fork();
    int error = errno;
    if (pid == 0) BecomeChild(host, std::move(fds));
    PYHOST_CRASH_POINT("server-forked");
    session_->NoteForkResult(pid);
    if (pid > 0) pids_[pid] = host;
    PyOS_AfterFork_Parent();
    if (pid < 0) return Refuse(host, ForkError(error));
    PYHOST_CRASH_POINT("server-before-answer");
    Answer(MessageType::kForked, host, pid);
  }

  bool HandOver(HostId host, std::vector<UniqueFd>* fds) {
    std::vector<int> numbers;
    for (const UniqueFd& fd : *fds) numbers.push_back(fd.get());
    const pid_t pid = spare_.pid();
    absl::StatusOr<UniqueFd> socket = spare_.HandOver(host, numbers);
    if (!socket.ok()) return false;
    pids_[pid] = host;
    handed_over_.push_back({pid, host, std::move(*fds), *std::move(socket)});
    return true;
  }

  // A spare child has its place, or died before it had.  Then its record has a fork, not the next spare child: that may go
  // the same way.
  void Settle(std::vector<HandedOver>::iterator found) {
    HandedOver handed = std::move(*found);
    handed_over_.erase(found);
    absl::StatusOr<HostInfo> info = session_->segment().hosts().Info(handed.host);
    if (!info.ok() || info->pid != 0) {
      PYHOST_CRASH_POINT("server-before-answer");
      return Answer(MessageType::kForked, handed.host, handed.pid);
    }
    pids_.erase(handed.pid);
    if (info->exit.ended()) return Answer(MessageType::kFailed, handed.host, 0);
    ForkNow(handed.host, std::move(handed.fds));
  }

  template <typename Is>
  void SettleIf(Is is) {
    auto found = std::find_if(handed_over_.begin(), handed_over_.end(), is);
    if (found != handed_over_.end()) Settle(found);
  }

  // When nothing else is to be done.
  void ForkSpare() {
    wants_spare_ = false;
    if (spare_.pid() != 0) return;
    spare_.Fork(state_->warm.get(), [this] { LetGo(); },
                [this](std::vector<UniqueFd> fds, bool in_time) { RunForkedChild(std::move(fds), *state_, in_time); });
  }

  bool HasImports() const { return warm_modules_.reported() && starts_ >= kStartsBeforeImports; }

  // An error is left alone: then the children import for themselves.
  void ImportWarmModules() {
    warm_modules_.Import().IgnoreError();
    absl::StatusOr<InterpreterSnapshot> interpreter = TakeSnapshot();
    if (interpreter.ok()) state_->interpreter = *std::move(interpreter);
    spare_.Forget();  // it knows nothing of them
    wants_spare_ = true;
  }

  // In a child.
  void LetGo() {
    socket_.reset();
    children_.reset();
    warm_modules_.LetGo();
    handed_over_.clear();
  }

  [[noreturn]] void BecomeChild(HostId host, std::vector<UniqueFd> fds) {
    LetGo();
    spare_.Forget();
    PyOS_AfterFork_Child();
    // Another fork has adopted the record already: this one was never asked for.
    if (!(session_->me() == host)) _exit(0);
    RunForkedChild(std::move(fds), *state_, /*defer_unmap=*/false);
  }

  static absl::Status ForkError(int error) {
    rlimit limit = {};
    getrlimit(RLIMIT_NPROC, &limit);
    std::string bound = limit.rlim_cur == RLIM_INFINITY ? "unlimited" : absl::StrCat(limit.rlim_cur);
    return ErrnoStatus(error, absl::StrCat("fork (the limit of processes RLIMIT_NPROC is ", bound, ")"));
  }

  void Refuse(HostId host, const absl::Status& why) {
    HostTable& hosts = session_->segment().hosts();
    hosts.SetRunning(host, std::string(why.message()));
    hosts.SetExit(host, {ExitStatus::Kind::kNotStarted, ErrnoOf(why)}, /*truth=*/true);
    Answer(MessageType::kFailed, host, 0);
  }

  void Answer(MessageType type, HostId host, pid_t pid) {
    ControlMessage answer = {.type = type, .host = host.value(), .pid = pid};
    // Gone: the next receive says so.
    SendDatagram(socket_.get(), AsBytes(answer), {}, Wait::Forever()).IgnoreError();
  }

  void Reap() {
    ReapChildren(children_.get(), [this](pid_t pid, ExitStatus status) {
      if (pid == spare_.pid()) spare_.Forget();
      SettleIf([pid](const HandedOver& handed) { return handed.pid == pid; });
      auto found = pids_.find(pid);
      if (found == pids_.end()) return;
      session_->segment().hosts().SetExit(found->second, status, /*truth=*/true);
      pids_.erase(found);
    });
  }

  Session* const session_;
  UniqueFd socket_;
  UniqueFd children_;
  absl::StatusOr<ServerState> state_;  // or why nothing can be started
  std::map<pid_t, HostId> pids_;
  std::vector<HandedOver> handed_over_;
  WarmModules warm_modules_;
  SpareChild spare_;
  bool wants_spare_ = false;
  int starts_ = 0;
};

// Children bring their own; ours would keep the files of the first one open.
void LeaveStandardStreams() {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2 && null >= 0; ++fd) dup2(null, fd);
  if (null > 2) close(null);
}

void EnterWorkingDirectory(int argc, char** argv) {
  UniqueFd directory = TakeDescriptorArgument(argc, argv, "working-directory");
  if (directory.valid() && fchdir(directory.get()) != 0) ReportInternalError("fork server", ErrnoStatus(errno, "fchdir"));
}

}  // namespace

int ForkServerMain(int argc, char** argv) {
  FillStandardStreams();
  BlockGroupSignals();
  absl::StatusOr<SessionTicket> ticket = SessionTicket::FromArguments(argc, argv);
  if (!ticket.ok()) return ReportInternalError("fork server", ticket.status());
  ServerSpec spec = ServerSpec::FromArguments(argc, argv);
  UniqueFd socket = TakeDescriptorArgument(argc, argv, "server-end");
  EnterWorkingDirectory(argc, argv);
  absl::StatusOr<Session*> session = Session::Join(*ticket);
  if (!session.ok()) return ReportInternalError("fork server", session.status());
  std::vector<std::string> command = {spec.program};
  command.insert(command.end(), spec.flags.begin(), spec.flags.end());
  KeepCommandLine(argc, argv);
  SetProcessTitle(absl::StrCat("pyhost-", spec.method, "-server"));
  ArmCrashPoint(spec.method);
  StandardFiles streams = StandardFiles::Now();
  if (std::optional<int> code = StartInterpreter(command, StartedBy::kPyhost)) return *code;
  absl::StatusOr<ServerState> state = GetReady(spec, streams);
  absl::StatusOr<UniqueFd> children = OpenChildSignal();
  if (!children.ok()) return ReportInternalError("fork server", children.status());
  LeaveStandardStreams();
  // They spare time and nothing else: where they cannot be had (no descriptor is left), children import for themselves.
  WarmModules warm_modules =
      state.ok() && spec.method == "spawn" && !spec.shadowed ? WarmModules::Serve().value_or(WarmModules()) : WarmModules();
  ForkServer(*session, std::move(socket), *std::move(children), std::move(state), std::move(warm_modules)).Serve();
  int code = spec.preload.empty() ? 0 : FinalizeInterpreter(0);
  (*session)->Leave(code);
  _exit(code);
}

}  // namespace pyhost::host
