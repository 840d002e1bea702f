#include "modules/native/interpreter_flags.h"

#include "modules/native/python_ref.h"

#include <algorithm>
#include <iterator>

namespace pyhost::native {
namespace {

// sys.flags.<name>, 0 where there is none or it is no number.
long Flag(PyObject* flags, const char* name) {
  PyRef value = PyRef::Steal(PyObject_GetAttrString(flags, name));
  long number = value ? PyLong_AsLong(value.get()) : 0;
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return 0;
  }
  return number;
}

bool Encode(PyObject* text, std::string* result) {
  PyRef bytes = PyRef::Steal(PyUnicode_EncodeFSDefault(text));
  if (!bytes) return false;
  result->assign(PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get())));
  return true;
}

void AddRepeated(long count, char letter, std::vector<std::string>* flags) {
  if (count > 0) flags->emplace_back("-").append(static_cast<size_t>(count), letter);
}

void AddSimpleFlags(PyObject* sys_flags, std::vector<std::string>* flags) {
  struct Row {
    const char* name;
    char letter;
  };
  constexpr Row kRows[] = {{"optimize", 'O'},           {"debug", 'd'},   {"dont_write_bytecode", 'B'},
                           {"no_site", 'S'},            {"verbose", 'v'}, {"bytes_warning", 'b'},
                           {"quiet", 'q'}};
  for (const Row& row : kRows) AddRepeated(Flag(sys_flags, row.name), row.letter, flags);
  if (Flag(sys_flags, "isolated") != 0) {
    flags->push_back("-I");  // includes the other three
    return;
  }
  constexpr Row kIsolation[] = {{"ignore_environment", 'E'}, {"no_user_site", 's'}, {"safe_path", 'P'}};
  for (const Row& row : kIsolation) AddRepeated(std::min(Flag(sys_flags, row.name), 1L), row.letter, flags);
}

// Options that others already imply are left out, so that the child's sys.warnoptions equals ours.
bool AddWarnings(PyObject* sys_flags, std::vector<std::string>* flags) {
  PyObject* options = PySys_GetObject("warnoptions");
  if (options == nullptr || !PyList_Check(options)) return true;
  std::vector<std::string> warnings;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(options); ++i) {
    PyObject* item = PyList_GET_ITEM(options, i);
    std::string text;
    if (!PyUnicode_Check(item)) continue;
    if (!Encode(item, &text)) return false;
    warnings.push_back(text);
  }
  auto leave_out = [&](const char* implied) {
    auto found = std::find(warnings.begin(), warnings.end(), implied);
    if (found != warnings.end()) warnings.erase(found);
  };
  long bytes_warning = Flag(sys_flags, "bytes_warning");
  if (bytes_warning > 1) leave_out("error::BytesWarning");
  if (bytes_warning == 1) leave_out("default::BytesWarning");
  if (Flag(sys_flags, "dev_mode") != 0) leave_out("default");
  for (const std::string& text : warnings) flags->push_back("-W" + text);
  return true;
}

bool AddXOptions(std::vector<std::string>* flags) {
  PyObject* options = PySys_GetObject("_xoptions");
  if (options == nullptr || !PyDict_Check(options)) return true;
  PyObject *key, *value;
  Py_ssize_t position = 0;
  while (PyDict_Next(options, &position, &key, &value)) {
    std::string text, argument;
    if (!PyUnicode_Check(key)) continue;
    if (!Encode(key, &text)) return false;
    if (PyUnicode_Check(value)) {
      if (!Encode(value, &argument)) return false;
      text += "=" + argument;
    }
    flags->push_back("-X" + text);
  }
  return true;
}

}  // namespace

bool InterpreterFlags(std::vector<std::string>* flags) {
  PyObject* sys_flags = PySys_GetObject("flags");
  if (sys_flags == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "lost sys.flags");
    return false;
  }
  flags->clear();
  AddSimpleFlags(sys_flags, flags);
  return AddWarnings(sys_flags, flags) && AddXOptions(flags);
}

}  // namespace pyhost::native
