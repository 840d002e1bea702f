#include "modules/native/server_settings.h"

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "modules/native/gil_wait.h"
#include "modules/native/interpreter_flags.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/supervision/child_start.h"

namespace pyhost::native {
namespace {

// What set_server_preload said, by method.  Of this process; guarded by the GIL.
std::map<std::string, ServerSpec>& Preloads() {
  static auto* preloads = new std::map<std::string, ServerSpec>;
  return *preloads;
}

bool TakeText(PyObject* text, std::string* result) {
  PyRef bytes = PyRef::Steal(PyUnicode_EncodeFSDefault(text));
  if (!bytes) return false;
  result->assign(PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get())));
  return true;
}

bool TakeTexts(PyObject* iterable, std::vector<std::string>* texts) {
  PyRef items = PyRef::Steal(PySequence_Fast(iterable, "expected a list of texts"));
  if (!items) return false;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.get()); ++i) {
    texts->emplace_back();
    if (!TakeText(PySequence_Fast_GET_ITEM(items.get(), i), &texts->back())) return false;
  }
  return true;
}

PyObject* SetServerPreload(PyObject*, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"method", "modules", "main_path", "main_name", "sys_path", "sys_argv",
                                          nullptr};
  const char* method = nullptr;
  PyObject *modules, *main_path = nullptr, *main_name = nullptr, *sys_path = Py_None, *sys_argv = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|OOOO:set_server_preload", const_cast<char**>(kKeywords), &method,
                                   &modules, &main_path, &main_name, &sys_path, &sys_argv)) {
    return nullptr;
  }
  ServerSpec spec;
  spec.has_sys_path = sys_path != Py_None;
  if (!TakeTexts(modules, &spec.preload) || (main_path != nullptr && !TakeText(main_path, &spec.main_path)) ||
      (main_name != nullptr && !TakeText(main_name, &spec.main_name)) ||
      (spec.has_sys_path && !TakeTexts(sys_path, &spec.sys_path)) ||
      (sys_argv != Py_None && !TakeTexts(sys_argv, &spec.sys_argv))) {
    return nullptr;
  }
  Preloads()[method] = std::move(spec);
  Py_RETURN_NONE;
}

// The server that would serve a start by this method now, if it is up.
std::optional<HostInfo> FindServer(Session* session, const std::string& method) {
  std::optional<HostInfo> newest;
  for (HostInfo& info : session->segment().hosts().List()) {
    bool lives = info.pid != 0 && !info.exit.ended() &&
                 (info.state == HostState::kEmbryo || info.state == HostState::kRunning);
    bool fits = info.has(HostFlag::kServer) && info.name == absl::StrCat("fork server for ", method) && lives;
    if (fits && (!newest || info.start_time >= newest->start_time)) newest = std::move(info);
  }
  return newest;
}

PyObject* ServerPid(PyObject*, PyObject* argument) {
  std::string method;
  if (!TakeText(argument, &method)) return nullptr;
  Session* session = Session::Current();
  std::optional<HostInfo> server = session == nullptr ? std::nullopt : FindServer(session, method);
  if (!server) Py_RETURN_NONE;
  return PyLong_FromLong(server->pid);
}

PyObject* EnsureServer(PyObject*, PyObject* argument) {
  std::string method;
  Session* session = EnsureSession();
  ServerSpec spec;
  if (session == nullptr || !TakeText(argument, &method) || !MakeServerSpec(session, method, &spec)) return nullptr;
  GilWait gil;
  absl::Status status = ChildStart::EnsureServer(session, spec, gil.Until(Deadline::Never()));
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* StopServer(PyObject*, PyObject* argument) {
  std::string method;
  if (!TakeText(argument, &method)) return nullptr;
  Session* session = Session::Current();
  std::optional<HostInfo> server = session == nullptr ? std::nullopt : FindServer(session, method);
  if (!server) Py_RETURN_NONE;
  GilWait gil;
  ControlMessage message = {.type = MessageType::kStop, .host = server->id.value()};
  absl::Status status = session->SendToSupervisor(message, {}, gil.Until(Deadline::Never()));
  if (status.ok()) status = session->segment().hosts().WaitForExit(server->id, gil.Until(Deadline::Never())).status();
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyMethodDef kFunctions[] = {
    {"set_server_preload", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(SetServerPreload)),
     METH_VARARGS | METH_KEYWORDS,
     "set_server_preload(method, modules, main_path='', main_name='', sys_path=None, sys_argv=None)\n\n"
     "What a fork server that is started from now on, for this process, imports first, and with which sys.path and sys.argv."},
    {"server_pid", ServerPid, METH_O, "The pid of the session's fork server for a method, or None."},
    {"ensure_server", EnsureServer, METH_O, "Returns when a fork server for the method has a process, or no server may serve this one; raises why it has none."},
    {"stop_server", StopServer, METH_O, "Ends the fork server for the method; the next start begins another."},
    {nullptr, nullptr, 0, nullptr},
};

// The start method that the program has chosen so far: "" where it has not.
std::string ChosenMethod() {
  PyRef module = PyRef::Steal(PyImport_GetModule(PyRef::Steal(PyUnicode_FromString("multiprocessing")).get()));
  PyRef method = PyRef::Steal(
      module ? PyObject_CallMethod(module.get(), "get_start_method", "O", Py_True) : nullptr);
  std::string text;
  if (method && PyUnicode_Check(method.get())) TakeText(method.get(), &text);
  PyErr_Clear();
  return text;
}

// The modules of the option -X preload=NAME,NAME: every server imports them.
bool AddPreloads(std::vector<std::string>* preload) {
  PyObject* options = PySys_GetObject("_xoptions");  // borrowed
  PyObject* value = options != nullptr && PyDict_Check(options) ? PyDict_GetItemString(options, "preload") : nullptr;
  if (value == nullptr || !PyUnicode_Check(value)) return true;
  std::string text;
  if (!TakeText(value, &text)) return false;
  for (absl::string_view name : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    std::string module(absl::StripAsciiWhitespace(name));
    if (std::find(preload->begin(), preload->end(), module) == preload->end()) preload->push_back(std::move(module));
  }
  return true;
}

// Where a server that preloads looks for modules: where this program does.
bool TakeSysPath(ServerSpec* spec) {
  PyObject* path = PySys_GetObject("path");  // borrowed
  spec->has_sys_path = path != nullptr && PyList_Check(path);
  for (Py_ssize_t i = 0; spec->has_sys_path && i < PyList_GET_SIZE(path); ++i) {
    if (!PyUnicode_Check(PyList_GET_ITEM(path, i))) continue;
    spec->sys_path.emplace_back();
    if (!TakeText(PyList_GET_ITEM(path, i), &spec->sys_path.back())) return false;
  }
  return true;
}

}  // namespace

bool MakeServerSpec(Session* session, const std::string& method, ServerSpec* spec) {
  if (method == "forkserver") {
    auto found = Preloads().find(method);
    if (found != Preloads().end()) *spec = found->second;
  } else if (method != "spawn") {
    PyErr_Format(PyExc_ValueError, "start method '%s' has no server: spawn and forkserver have", method.c_str());
    return false;
  }
  spec->method = method;
  spec->program = session->program();
  if (!AddPreloads(&spec->preload)) return false;
  if (!spec->preload.empty() && !spec->has_sys_path && !TakeSysPath(spec)) return false;
  return InterpreterFlags(&spec->flags);
}

void WarmServer(Session* session) {
  std::string chosen = ChosenMethod();
  ServerSpec spec;
  if ((chosen.empty() || chosen == "spawn") && MakeServerSpec(session, "spawn", &spec)) {
    ChildStart::Warm(session, spec).IgnoreError();
  }
  PyErr_Clear();
}

int BindServers(PyObject* module) { return PyModule_AddFunctions(module, kFunctions); }

}  // namespace pyhost::native
