#include "host/interpreter_state.h"

#include "modules/native/python_ref.h"

#include <signal.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// The dictionary of bytes behind os.environ, or null.
PyRef EnvironmentData() {
  PyRef os = PyRef::Steal(PyImport_ImportModule("os"));
  PyRef environ = PyRef::Steal(os ? PyObject_GetAttrString(os.get(), "environ") : nullptr);
  return PyRef::Steal(environ ? PyObject_GetAttrString(environ.get(), "_data") : nullptr);
}

bool FillEnvironment(PyObject* data, const std::vector<std::string>& entries) {
  PyDict_Clear(data);
  for (const std::string& entry : entries) {
    size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    PyRef name = PyRef::Steal(PyBytes_FromStringAndSize(entry.data(), static_cast<Py_ssize_t>(equals)));
    PyRef value = PyRef::Steal(PyBytes_FromString(entry.c_str() + equals + 1));
    if (!name || !value || PyDict_SetItem(data, name.get(), value.get()) < 0) return false;
  }
  return true;
}

// As Python sets its own up at start: SIGPIPE and the like are ignored by Python itself, in any child.
bool AdoptSignal(PyObject* module, int number, bool ignored) {
  PyRef now = PyRef::Steal(PyObject_CallMethod(module, "getsignal", "i", number));
  if (!now) return false;
  PyRef ignore = PyRef::Steal(PyObject_GetAttrString(module, "SIG_IGN"));
  int is_ignored = ignore ? PyObject_RichCompareBool(now.get(), ignore.get(), Py_EQ) : -1;
  if (is_ignored < 0) return false;
  if (static_cast<bool>(is_ignored) == ignored) return true;
  const char* handler = ignored ? "SIG_IGN" : number == SIGINT ? "default_int_handler" : "SIG_DFL";
  PyRef wanted = PyRef::Steal(PyObject_GetAttrString(module, handler));
  if (!wanted) return false;
  return static_cast<bool>(PyRef::Steal(PyObject_CallMethod(module, "signal", "iO", number, wanted.get())));
}

// The attribute of the old stream as a text, or what is given where it has none.
std::string TextOf(PyObject* stream, const char* attribute, const char* otherwise) {
  PyRef value = PyRef::Steal(stream == nullptr || stream == Py_None ? nullptr : PyObject_GetAttrString(stream, attribute));
  const char* text = value && PyUnicode_Check(value.get()) ? PyUnicode_AsUTF8(value.get()) : nullptr;
  std::string result = text == nullptr ? otherwise : text;
  PyErr_Clear();
  return result;
}

PyRef OpenBinary(PyObject* io, int number, bool buffered) {
  return PyRef::Steal(PyObject_CallMethod(io, "open", "isiOOOO", number, number == 0 ? "rb" : "wb", buffered ? -1 : 0,
                                          Py_None, Py_None, Py_None, Py_False));
}

PyRef OpenText(PyObject* io, PyObject* binary, int number, bool unbuffered) {
  static const char* const kNames[] = {"stdin", "stdout", "stderr"};
  PyObject* old = PySys_GetObject(absl::StrCat("__", kNames[number], "__").c_str());
  std::string encoding = TextOf(old, "encoding", "utf-8");
  std::string errors = TextOf(old, "errors", number == 2 ? "backslashreplace" : "strict");
  bool by_line = !unbuffered && (number == 2 || isatty(number));
  return PyRef::Steal(PyObject_CallMethod(io, "TextIOWrapper", "OsssOO", binary, encoding.c_str(), errors.c_str(), "\n",
                                          by_line ? Py_True : Py_False, unbuffered ? Py_True : Py_False));
}

bool NameStream(PyObject* binary, PyObject* text, int number) {
  static const char* const kNames[] = {"<stdin>", "<stdout>", "<stderr>"};
  PyRef name = PyRef::Steal(PyUnicode_FromString(kNames[number]));
  PyRef mode = PyRef::Steal(PyUnicode_FromString(number == 0 ? "r" : "w"));
  PyRef raw = PyRef::Steal(PyObject_GetAttrString(binary, "raw"));
  if (!raw) {
    PyErr_Clear();
    raw = PyRef::Borrow(binary);
  }
  return name && mode && PyObject_SetAttrString(raw.get(), "name", name.get()) == 0 &&
         PyObject_SetAttrString(text, "mode", mode.get()) == 0;
}

bool Install(int number, PyObject* stream) {
  static const char* const kNames[] = {"stdin", "stdout", "stderr"};
  return PySys_SetObject(kNames[number], stream) == 0 &&
         PySys_SetObject(absl::StrCat("__", kNames[number], "__").c_str(), stream) == 0;
}

// Option -u and PYTHONUNBUFFERED show in the streams that the interpreter made at its start, and nowhere else.
bool IsUnbuffered(int number) {
  if (number == 0) return false;
  for (const char* name : {"__stdout__", "__stderr__"}) {
    PyObject* stream = PySys_GetObject(name);
    if (stream == nullptr || stream == Py_None) continue;
    PyRef value = PyRef::Steal(PyObject_GetAttrString(stream, "write_through"));
    int unbuffered = value ? PyObject_IsTrue(value.get()) : 0;
    PyErr_Clear();
    return unbuffered > 0;
  }
  return false;
}

}  // namespace

absl::Status TakePythonError(const char* doing) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyRef owned_type = PyRef::Steal(type), error = PyRef::Steal(value), owned_traceback = PyRef::Steal(traceback);
  PyRef text = PyRef::Steal(error ? PyObject_Str(error.get()) : nullptr);
  const char* message = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  std::string kind = error ? Py_TYPE(error.get())->tp_name : "error";
  absl::Status status = absl::InternalError(absl::StrCat(doing, ": ", kind, ": ", message == nullptr ? "" : message));
  PyErr_Clear();
  return status;
}

absl::Status AdoptEnvironment(const std::vector<std::string>& entries) {
  PyRef data = EnvironmentData();
  if (!data || !PyDict_Check(data.get()) || !FillEnvironment(data.get(), entries)) return TakePythonError("os.environ");
  PyRef posix = PyRef::Steal(PyImport_ImportModule("posix"));
  PyRef original = PyRef::Steal(posix ? PyObject_GetAttrString(posix.get(), "environ") : nullptr);
  if (!original || !PyDict_Check(original.get()) || !FillEnvironment(original.get(), entries)) {
    return TakePythonError("posix.environ");
  }
  return absl::OkStatus();
}

absl::Status AdoptSignals(uint64_t ignored, uint64_t before) {
  if (ignored == before) return absl::OkStatus();
  PyRef module = PyRef::Steal(PyImport_ImportModule("_signal"));
  if (!module) return TakePythonError("import _signal");
  for (int number = 1; number < NSIG; ++number) {
    bool reserved = number == SIGKILL || number == SIGSTOP || (number >= 32 && number < SIGRTMIN);
    if (reserved || (((ignored ^ before) >> (number - 1)) & 1) == 0) continue;
    if (!AdoptSignal(module.get(), number, (ignored >> (number - 1)) & 1)) return TakePythonError("signal dispositions");
  }
  return absl::OkStatus();
}

absl::Status RemakeStream(int number, bool is_open) {
  if (!is_open) return Install(number, Py_None) ? absl::OkStatus() : TakePythonError("a closed standard stream");
  PyRef io = PyRef::Steal(PyImport_ImportModule("io"));
  bool unbuffered = IsUnbuffered(number);
  PyRef binary = io ? OpenBinary(io.get(), number, !unbuffered) : PyRef();
  PyRef text = binary ? OpenText(io.get(), binary.get(), number, unbuffered) : PyRef();
  if (!text || !NameStream(binary.get(), text.get(), number) || !Install(number, text.get())) {
    return TakePythonError("a standard stream");
  }
  return absl::OkStatus();
}

}  // namespace pyhost::host
