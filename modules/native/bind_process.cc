// Processes: who we are in the session, starts, forks, and the fork rule around every fork of the interpreter.

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "modules/native/child_object.h"
#include "modules/native/child_start_object.h"
#include "modules/native/fork_hooks.h"
#include "modules/native/memory_object.h"
#include "modules/native/module_state.h"
#include "modules/native/server_settings.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/object_table.h"
#include "runtime/session/session.h"
#include "runtime/supervision/child_process.h"

namespace pyhost::native {
namespace {

// ---- Around fork --------------------------------------------------------------------------------------------------

// No Python error: a fork cannot be refused from here, and its child without a place in the session says so when it
// wants one.
PyObject* BeforeFork(PyObject*, PyObject*) {
  Session::BeforeFork().IgnoreError();
  Py_RETURN_NONE;
}
PyObject* AfterForkParent(PyObject*, PyObject*) {
  Session::AfterForkParent();
  Py_RETURN_NONE;
}
PyObject* AfterForkChild(PyObject*, PyObject*) {
  Session::AfterForkChild().IgnoreError();
  Py_RETURN_NONE;
}

PyMethodDef kHooks[] = {
    {"before", BeforeFork, METH_NOARGS, nullptr},
    {"after_in_parent", AfterForkParent, METH_NOARGS, nullptr},
    {"after_in_child", AfterForkChild, METH_NOARGS, nullptr},
};

absl::Status ForkError(int error) {
  rlimit limit = {};
  getrlimit(RLIMIT_NPROC, &limit);
  std::string bound = limit.rlim_cur == RLIM_INFINITY ? "unlimited" : absl::StrCat(limit.rlim_cur);
  return ErrnoStatus(error, absl::StrCat("fork (the limit of processes RLIMIT_NPROC is ", bound, ")"));
}

// fork() with the interpreter's hooks around it, ours among them.  The result, and errno where it failed.
std::pair<pid_t, int> ForkInterpreter(Session* session) {
  PyOS_BeforeFork();
  if (!session->fork_status().ok()) {
    session->NoteForkResult(-1);
    PyOS_AfterFork_Parent();
    return {-1, 0};
  }
  pid_t pid = fork();
  int error = errno;
  if (pid == 0) {
    PyOS_AfterFork_Child();
    return {0, 0};
  }
  session->NoteForkResult(pid);
  PyOS_AfterFork_Parent();
  return {pid, error};
}

// A child of ours that nobody could control.
void KillAndReap(pid_t pid) {
  kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

PyObject* ForkChild(PyObject* module, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"name", "daemon", nullptr};
  const char* name;
  int daemon = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|p:fork_child", const_cast<char**>(kKeywords), &name, &daemon)) {
    return nullptr;
  }
  Session* session = EnsureSession(SessionUse::kFork);
  if (session == nullptr || PySys_Audit("os.fork", nullptr) < 0) return nullptr;
  session->NameNextFork(name, daemon ? static_cast<uint32_t>(HostFlag::kDaemon) : 0);
  auto [pid, error] = ForkInterpreter(session);
  if (pid < 0) return SetError(error == 0 ? session->fork_status() : ForkError(error));
  if (pid == 0) {
    if (session->me()) Py_RETURN_NONE;
    return SetError(absl::UnavailableError("this forked process found no place in the pyhost session"));
  }
  absl::StatusOr<std::unique_ptr<ChildProcess>> child =
      ChildProcess::Open(session, session->last_forked(), pid, ChildProcess::Reaper::kUs);
  if (child.ok()) return NewChild(StateOfModule(module), *std::move(child));
  KillAndReap(pid);
  return SetError(child.status());
}

// ---- In a child ---------------------------------------------------------------------------------------------------

PyObject* ChildPayload(PyObject* module, PyObject*) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  HostTable& hosts = session->segment().hosts();
  Handle handle = hosts.payload(session->me());
  if (!handle) {
    PyErr_SetString(PyExc_RuntimeError, "this process has no start payload, or has taken it already");
    return nullptr;
  }
  absl::StatusOr<std::span<std::byte>> block = session->segment().objects().Block(handle);
  absl::StatusOr<StartPayload> payload = block.ok() ? StartPayload::Parse(*block) : block.status();
  if (!payload.ok()) return SetError(payload.status());
  PyRef memory = PyRef::Steal(NewMemory(StateOfModule(module), handle, /*readonly=*/true));
  PyRef view = PyRef::Steal(memory ? PyMemoryView_FromObject(memory.get()) : nullptr);
  if (!view) return nullptr;
  hosts.SetPayload(session->me(), Handle());
  Py_ssize_t begin = payload->body.data() - block->data();
  return PySequence_GetSlice(view.get(), begin, begin + static_cast<Py_ssize_t>(payload->body.size()));
}

PyObject* ChildExit(PyObject*, PyObject* code) {
  long number = PyLong_AsLong(code);
  if (number == -1 && PyErr_Occurred()) return nullptr;
  if (Session* session = Session::Current(); session != nullptr) session->Leave(static_cast<int>(number));
  Py_RETURN_NONE;
}

// ---- Who we are ---------------------------------------------------------------------------------------------------

PyObject* CurrentHostId(PyObject*, PyObject*) {
  Session* session = Session::Current();
  return PyLong_FromUnsignedLong(session == nullptr ? 0 : session->me().value());
}

PyObject* OpenSegmentFile(PyObject*, PyObject*) {
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<UniqueFd> file = session->OpenSegmentFile();
  return file.ok() ? PyLong_FromLong(file->release()) : SetError(file.status());
}

PyObject* EnsureSessionFunction(PyObject*, PyObject*) {
  if (EnsureSession() == nullptr) return nullptr;
  Py_RETURN_NONE;
}

PyObject* SetName(PyObject*, PyObject* argument) {
  const char* name = PyUnicode_AsUTF8(argument);
  if (name == nullptr) return nullptr;
  Session* session = Session::Current();
  if (session != nullptr && session->me()) session->segment().hosts().SetName(session->me(), name);
  Py_RETURN_NONE;
}

PyObject* WarnOnce(PyObject*, PyObject* argument) {
  long key = PyLong_AsLong(argument);
  if (key == -1 && PyErr_Occurred()) return nullptr;
  if (key < 0 || key > 63) return PyErr_Format(PyExc_ValueError, "warn_once: key %ld is not in 0 ... 63", key);
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  return PyBool_FromLong(session->segment().FirstTime(static_cast<int>(key)));
}

PyObject* RootAlive(PyObject*, PyObject*) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  return PyBool_FromLong(!session->segment().hosts().ProcessIsGone(session->root()));
}

PyObject* RootPid(PyObject*, PyObject*) {
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<HostInfo> root = session->segment().hosts().Info(session->root());
  return PyLong_FromLong(root.ok() ? root->pid : 0);
}

PyObject* SupervisorPid(PyObject*, PyObject*) {
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<HostInfo> supervisor = session->segment().hosts().Info(session->supervisor());
  return PyLong_FromLong(supervisor.ok() ? supervisor->pid : 0);
}

#ifdef PYHOST_CRASH_POINTS
PyObject* ArmCrashPoint(PyObject*, PyObject* args) {
  const char* name = nullptr;
  int signal = SIGKILL;
  if (!PyArg_ParseTuple(args, "s|i:arm_crash_point", &name, &signal)) return nullptr;
  crash_point::Arm(name, 1, signal);
  Py_RETURN_NONE;
}
#endif

// Of the program, or of the one that a fork copied.
const double kProgramStart = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());

PyMethodDef kFunctions[] = {
#ifdef PYHOST_CRASH_POINTS
    {"arm_crash_point", ArmCrashPoint, METH_VARARGS,
     "arm_crash_point(name, signal=SIGKILL), for tests: the next arrival at this point sends the process the signal."},
#endif
    {"fork_child", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(ForkChild)), METH_VARARGS | METH_KEYWORDS,
     "fork_child(name, daemon=False): forks.  None in the child, its Child in the parent."},
    {"child_payload", ChildPayload, METH_NOARGS, "In a child: the payload that its starter committed, once."},
    {"child_exit", ChildExit, METH_O, "Says with which code this process is about to leave."},
    {"host_id", CurrentHostId, METH_NOARGS, "Our id in the session; 0 without one."},
    {"open_segment_file", OpenSegmentFile, METH_NOARGS,
     "A new descriptor of the file that all processes of the session share: to be locked (flock), not to be changed."},
    {"ensure_session", EnsureSessionFunction, METH_NOARGS, "Creates the session if there is none."},
    {"set_name", SetName, METH_O, "The name by which messages call this process."},
    {"warn_once", WarnOnce, METH_O, "warn_once(key): True for the first caller in the whole session; key 0 ... 63."},
    {"root_alive", RootAlive, METH_NOARGS, "Whether the process that the user started still runs."},
    {"root_pid", RootPid, METH_NOARGS, "The pid of the process that the user started; 0 when it is gone."},
    {"supervisor_pid", SupervisorPid, METH_NOARGS, "The pid of the session's supervisor; 0 until it is up."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindProcess(PyObject* module, ModuleState* state) {
  if (PyModule_AddFunctions(module, kFunctions) < 0 || BindServers(module) < 0 || BindChild(module, state) < 0 ||
      BindChildStart(module, state) < 0) {
    return -1;
  }
  PyRef start = PyRef::Steal(PyFloat_FromDouble(kProgramStart));
  if (!start || PyModule_AddObjectRef(module, "program_start", start.get()) < 0) return -1;
  // Where the host has not done so, as it starts: _pyhost is a loadable module of another program.
  PyRef posix = PyRef::Steal(PyImport_ImportModule("posix"));
  return posix ? RegisterForkHooks(posix.get()) : -1;
}

int RegisterForkHooks(PyObject* posix) {
  static bool registered = false;
  if (registered || PyInterpreterState_Get() != PyInterpreterState_Main()) return 0;
  PyRef function = PyRef::Steal(PyObject_GetAttrString(posix, "register_at_fork"));
  PyRef arguments = PyRef::Steal(PyDict_New()), none = PyRef::Steal(PyTuple_New(0));
  if (!function || !arguments || !none) return -1;
  for (PyMethodDef& hook : kHooks) {
    PyRef callable = PyRef::Steal(PyCFunction_New(&hook, nullptr));
    if (!callable || PyDict_SetItemString(arguments.get(), hook.ml_name, callable.get()) < 0) return -1;
  }
  registered = static_cast<bool>(PyRef::Steal(PyObject_Call(function.get(), none.get(), arguments.get())));
  return registered ? 0 : -1;
}

}  // namespace pyhost::native
