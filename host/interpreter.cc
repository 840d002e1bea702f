#include "host/interpreter.h"

#include "modules/native/python_ref.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "host/arena_cache.h"
#include "host/builtin_modules.h"
#include "host/drop_in_finder.h"
#include "host/early_start.h"
#include "host/help.h"
#include "host/modules_dir.h"
#include "host/virtual_env.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// What python3 exits with when it cannot flush the standard streams.
constexpr int kFlushFailed = 120;

// PyConfig with its clean-up.
class Config {
 public:
  Config() { PyConfig_InitPythonConfig(&config_); }
  ~Config() { PyConfig_Clear(&config_); }
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;
  PyConfig* operator->() { return &config_; }
  PyConfig* get() { return &config_; }

 private:
  PyConfig config_;
};

std::vector<char*> Pointers(const std::vector<std::string>& argv) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  return pointers;
}

PyStatus SetString(Config& config, wchar_t** field, const std::string& value) {
  return PyConfig_SetBytesString(config.get(), field, value.c_str());
}

// The standard library is the one that this libpython was built for, wherever pyhost is installed: Python's own
// way, a search upward from the program, could find another build's (pyhost in /usr/local beside a Python there).
// A program that was copied away from its modules, say together with a standard library, searches as python3.
PyStatus SetPrefix(Config& config) {
  if (FindModulesDir("").path.empty()) return PyStatus_Ok();
  PyStatus status = SetString(config, &config->prefix, PYHOST_PYTHON_PREFIX);
  if (PyStatus_Exception(status)) return status;
  return SetString(config, &config->exec_prefix, PYHOST_PYTHON_EXEC_PREFIX);
}

PyStatus SetProgramName(Config& config, const std::string& argv0) {
  const std::string program = NamesAnotherProgram(argv0) ? ProgramPath(argv0) : "";
  return program.empty() ? PyStatus_Ok() : SetString(config, &config->program_name, program);
}

// What sys._base_executable is to be, from which environments are made, where Python would not find it.
PyStatus SetBaseExecutable(Config& config, const std::string& argv0) {
  std::optional<std::string> original = CopiedFrom(ProgramPath(argv0));
  return original ? SetString(config, &config->base_executable, *original) : PyStatus_Ok();
}

// Python finds a virtual environment by its program's place.  So while it starts, an activated environment's
// program is given out as ours; RestoreExecutable puts sys.executable right.
PyStatus EnterActivatedEnvironment(Config& config, const std::string& argv0, StartedBy started_by,
                                   std::string* program) {
  PyStatus status = PyConfig_Read(config.get());
  if (PyStatus_Exception(status) || config->use_environment == 0) return status;
  *program = ProgramPath(argv0);
  std::optional<std::string> environment = ActivatedEnvironment(*program, started_by == StartedBy::kUser);
  if (!environment) {
    program->clear();
    return status;
  }
  status = SetString(config, &config->executable, *environment + "/bin/pyhost");
  if (PyStatus_Exception(status)) return status;
  return SetString(config, &config->base_executable, *program);
}

bool RestoreExecutable(const std::string& program) {
  PyRef value = PyRef::Steal(PyUnicode_DecodeFSDefault(program.c_str()));
  return value && PySys_SetObject("executable", value.get()) == 0;
}

// Initialises Python from the command line; *program is set where sys.executable has to be put right.
PyStatus Initialize(const std::vector<std::string>& argv, StartedBy started_by, std::string* program) {
  std::vector<char*> arguments = Pointers(argv);
  Py_ssize_t count = static_cast<Py_ssize_t>(arguments.size());
  PyPreConfig preconfig;
  PyPreConfig_InitPythonConfig(&preconfig);
  PyStatus status = Py_PreInitializeFromBytesArgs(&preconfig, count, arguments.data());
  if (PyStatus_Exception(status)) return status;
  KeepFreedArenas();
  const bool has_session = started_by == StartedBy::kUser && StartServersEarly(argv);
  Config config;
  status = SetProgramName(config, argv[0]);
  if (!PyStatus_Exception(status)) status = PyConfig_SetBytesArgv(config.get(), count, arguments.data());
  if (!PyStatus_Exception(status)) status = SetPrefix(config);
  if (!PyStatus_Exception(status)) status = SetBaseExecutable(config, argv[0]);
  if (!PyStatus_Exception(status) && std::getenv("VIRTUAL_ENV") != nullptr) {
    status = EnterActivatedEnvironment(config, argv[0], started_by, program);
  }
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(config.get());
  if (PyStatus_Exception(status) || !has_session) return status;
  return PyRef::Steal(PyImport_ImportModule("_pyhost")) ? status : PyStatus_Error("the module _pyhost cannot be imported");
}

// The exit code of the current SystemExit, whose text (where its code is no number) goes to stderr.
int SystemExitCode() {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyRef owned_type = PyRef::Steal(type), exception = PyRef::Steal(value), owned_traceback = PyRef::Steal(traceback);
  PyRef code = PyRef::Steal(PyObject_GetAttrString(exception.get(), "code"));
  if (!code) {
    PyErr_Print();
    return 1;
  }
  if (code.get() == Py_None) return 0;
  if (PyLong_Check(code.get())) {
    // As in python3, what does not fit becomes -1 without a word.
    int number = static_cast<int>(PyLong_AsLong(code.get()));
    PyErr_Clear();
    return number;
  }
  PyObject* stream = PySys_GetObject("stderr");  // borrowed
  if (stream == nullptr || stream == Py_None) {
    PyObject_Print(code.get(), stderr, Py_PRINT_RAW);
    std::fputc('\n', stderr);
  } else if (PyFile_WriteObject(code.get(), stream, Py_PRINT_RAW) < 0 || PyFile_WriteString("\n", stream) < 0) {
    PyErr_Clear();
  }
  return 1;
}

// Prints the current exception, or what a SystemExit carries; returns the exit code it stands for.
int ReportException() {
  if (PyErr_ExceptionMatches(PyExc_SystemExit)) return SystemExitCode();
  PyErr_Print();
  return 1;
}

}  // namespace

std::optional<int> StartInterpreter(const std::vector<std::string>& argv, StartedBy started_by) {
  AddBuiltinModules();
  InstallDropInFinder();
  std::string program;
  PyStatus status = Initialize(argv, started_by, &program);
  if (PyStatus_IsExit(status)) {
    if (status.exitcode == 0) PrintHelpOfPyhost(argv);
    return status.exitcode;
  }
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
  if (!program.empty() && !RestoreExecutable(program)) return FinalizeInterpreter(ReportException());
  return std::nullopt;
}

int RunMainJob() { return Py_RunMain(); }

int CallEntry(const char* module, const char* function) {
  PyRef imported = PyRef::Steal(PyImport_ImportModule(module));
  if (!imported) return ReportException();
  PyRef result = PyRef::Steal(PyObject_CallMethod(imported.get(), function, nullptr));
  return result ? 0 : ReportException();
}

bool HasOtherThreads() {
  PyThreadState* first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  return first != nullptr && PyThreadState_Next(first) != nullptr;
}

int FinalizeInterpreter(int exit_code) { return Py_FinalizeEx() < 0 ? kFlushFailed : exit_code; }

}  // namespace pyhost::host
