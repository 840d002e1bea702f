#include "pyhost/embedded_interpreter.h"

#include "modules/native/python_ref.h"

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <span>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "host/drop_in_finder.h"
#include "host/modules_dir.h"
#include "runtime/broker/object_kinds.h"
#include "runtime/engine/program.h"
#include "runtime/engine/reply_error.h"

PyMODINIT_FUNC PyInit__pyhost();

namespace pyhost {
namespace {

namespace fs = std::filesystem;
using native::PyRef;

class GilScope {
 public:
  GilScope() : state_(PyGILState_Ensure()) {}
  ~GilScope() { PyGILState_Release(state_); }
  GilScope(const GilScope&) = delete;
  GilScope& operator=(const GilScope&) = delete;

 private:
  PyGILState_STATE state_;
};

// PyConfig with its clean-up, and one error for all of its steps.
class Config {
 public:
  explicit Config(bool use_environment) {
    if (use_environment) {
      PyConfig_InitPythonConfig(&config_);
    } else {
      PyConfig_InitIsolatedConfig(&config_);
    }
    config_.parse_argv = 0;
  }
  ~Config() { PyConfig_Clear(&config_); }
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;
  PyConfig* operator->() { return &config_; }

  void Set(wchar_t* PyConfig::*field, const std::string& value) {
    if (!Failed()) status_ = PyConfig_SetBytesString(&config_, &(config_.*field), value.c_str());
  }
  void SetArguments(const std::vector<std::string>& arguments) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    if (!Failed()) status_ = PyConfig_SetBytesArgv(&config_, static_cast<Py_ssize_t>(pointers.size()), pointers.data());
  }
  absl::Status Initialize() {
    if (!Failed()) status_ = Py_InitializeFromConfig(&config_);
    if (!Failed()) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("Python does not start: ", status_.func == nullptr ? "" : status_.func,
                                            status_.func == nullptr ? "" : ": ",
                                            status_.err_msg == nullptr ? "no reason given" : status_.err_msg));
  }

 private:
  bool Failed() const { return PyStatus_Exception(status_) != 0; }
  PyConfig config_;
  PyStatus status_ = PyStatus_Ok();
};

absl::Status CheckVirtualEnvironment(const std::string& folder) {
  std::error_code error;
  if (folder.empty() || fs::is_regular_file(fs::path(folder) / "pyvenv.cfg", error)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("InterpreterOptions::virtual_env '", folder,
                                          "' is no virtual environment: it has no pyvenv.cfg"));
}

// The text of the current Python error, which is cleared.
std::string TakeError() {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyRef owned_type = PyRef::Steal(type), owned_value = PyRef::Steal(value), owned_traceback = PyRef::Steal(traceback);
  PyRef text = owned_value ? PyRef::Steal(PyObject_Repr(owned_value.get())) : PyRef();
  const char* characters = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (characters == nullptr) PyErr_Clear();
  return characters == nullptr ? "an error without a text" : characters;
}

absl::Status PythonFailed(std::string_view doing) {
  return absl::InternalError(absl::StrCat(std::string(doing), ": ", TakeError()));
}

// Calls a function of pyhost.embedded; `what` is what the engine asked for, for errors.  Needs the GIL.
template <typename... Arguments>
absl::StatusOr<std::string> CallSupport(std::string_view what, const char* function, const char* format,
                                        Arguments... arguments) {
  PyRef module = PyRef::Steal(PyImport_ImportModule("pyhost.embedded"));
  if (!module) return PythonFailed("pyhost.embedded cannot be imported");
  PyRef outcome = PyRef::Steal(PyObject_CallMethod(module.get(), function, format, arguments...));
  if (!outcome) return PythonFailed(what);
  int good = 0;
  const char* data = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(outcome.get(), "py#", &good, &data, &size)) return PythonFailed(what);
  if (good != 0) return std::string(data, static_cast<size_t>(size));
  return ExceptionStatus(what, std::as_bytes(std::span(data, static_cast<size_t>(size))));
}

absl::Status PrependPath(const std::vector<std::string>& folders) {
  PyObject* path = PySys_GetObject("path");  // borrowed
  if (path == nullptr || !PyList_Check(path)) return absl::InternalError("sys.path is no list");
  for (size_t i = 0; i < folders.size(); ++i) {
    PyRef folder = PyRef::Steal(PyUnicode_DecodeFSDefault(fs::absolute(folders[i]).c_str()));
    if (!folder || PyList_Insert(path, static_cast<Py_ssize_t>(i), folder.get()) < 0) return PythonFailed("sys.path");
  }
  return absl::OkStatus();
}

// Python finds a virtual environment by its program's place: while it starts, that is given out as ours.
absl::Status SetExecutable(const std::string& program) {
  PyRef executable = PyRef::Steal(PyUnicode_DecodeFSDefault(program.c_str()));
  if (executable && PySys_SetObject("executable", executable.get()) == 0) return absl::OkStatus();
  return PythonFailed("sys.executable");
}

absl::Status Initialize(const InterpreterOptions& options, const std::string& program) {
  Config config(options.use_environment);
  config->install_signal_handlers = options.install_signal_handlers ? 1 : 0;
  config.SetArguments(options.arguments);
  config.Set(&PyConfig::prefix, PYHOST_PYTHON_PREFIX);
  config.Set(&PyConfig::exec_prefix, PYHOST_PYTHON_EXEC_PREFIX);
  config.Set(&PyConfig::base_executable, program);
  config.Set(&PyConfig::executable,
             options.virtual_env.empty() ? program : fs::absolute(options.virtual_env).string() + "/bin/pyhost");
  absl::Status status = config.Initialize();
  if (!status.ok()) return status;
  status = SetExecutable(program);
  return status.ok() ? PrependPath(options.python_path) : status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddedInterpreter>> EmbeddedInterpreter::Start(const InterpreterOptions& options) {
  absl::StatusOr<std::string> program = FindProgram(options.program);
  if (!program.ok()) return program.status();
  absl::Status status = CheckVirtualEnvironment(options.virtual_env);
  if (!status.ok()) return status;
  static std::atomic<bool> used{false};
  if (Py_IsInitialized() != 0 || used.exchange(true)) {
    return absl::FailedPreconditionError("this process has, or has had, a Python interpreter: one life a process");
  }
  RegisterObjectKinds();
  host::SetProgram(*program);
  if (PyImport_AppendInittab("_pyhost", PyInit__pyhost) < 0) return absl::ResourceExhaustedError("out of memory");
  host::InstallDropInFinder();
  status = Initialize(options, *program);
  if (!status.ok()) return status;
  std::unique_ptr<EmbeddedInterpreter> interpreter(new EmbeddedInterpreter);
  interpreter->main_thread_ = PyEval_SaveThread();
  return interpreter;
}

EmbeddedInterpreter::~EmbeddedInterpreter() {
  // The GIL is kept from here on: a daemon thread that asks for it sleeps until the process ends.
  PyEval_RestoreThread(static_cast<PyThreadState*>(main_thread_));
  const absl::StatusOr<std::string> ended = CallSupport("the end of the interpreter", "end", nullptr);
  if (!ended.ok()) absl::FPrintF(stderr, "pyhost: %s\n", ended.status().ToString());
}

absl::Status EmbeddedInterpreter::Run(std::string_view source, std::string_view name) {
  GilScope gil;
  return CallSupport(name, "run", "s#s#", source.data(), static_cast<Py_ssize_t>(source.size()), name.data(),
                     static_cast<Py_ssize_t>(name.size()))
      .status();
}

absl::StatusOr<std::string> EmbeddedInterpreter::CallPickled(std::string_view function, const EncodedValue& arguments) {
  GilScope gil;
  return CallSupport(function, "call", "s#y#", function.data(), static_cast<Py_ssize_t>(function.size()),
                     arguments.bytes.data(), static_cast<Py_ssize_t>(arguments.bytes.size()));
}

}  // namespace pyhost
