#include "modules/native/child_object.h"

#include <new>
#include <optional>
#include <string>
#include <utility>

#include "modules/native/gil_wait.h"
#include "modules/native/status.h"

namespace pyhost::native {
namespace {

struct ChildObject {
  PyObject_HEAD
  std::unique_ptr<ChildProcess> child;
};

ChildProcess& Process(PyObject* self) { return *reinterpret_cast<ChildObject*>(self)->child; }

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  reinterpret_cast<ChildObject*>(self)->child.~unique_ptr();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* ExitCode(std::optional<ExitStatus> status) {
  if (!status) Py_RETURN_NONE;
  return PyLong_FromLong(status->ExitCode());
}

PyObject* Poll(PyObject* self, PyObject*) { return ExitCode(Process(self).Poll()); }

PyObject* Wait(PyObject* self, PyObject* timeout) {
  Deadline deadline = Deadline::Never();
  if (!ParseTimeout(timeout, &deadline)) return nullptr;
  GilWait gil;
  absl::StatusOr<ExitStatus> status = Process(self).Wait(gil.Until(deadline));
  if (status.ok()) return ExitCode(*status);
  if (absl::IsDeadlineExceeded(status.status())) Py_RETURN_NONE;
  return SetError(status.status());
}

PyObject* Signal(PyObject* self, PyObject* argument) {
  long number = PyLong_AsLong(argument);
  if (number == -1 && PyErr_Occurred()) return nullptr;
  absl::Status status = Process(self).Signal(static_cast<int>(number));
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* ExitReason(PyObject* self, PyObject*) {
  std::string text = Process(self).ExitReason();
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}

PyObject* Close(PyObject* self, PyObject*) {
  Process(self).Close();
  Py_RETURN_NONE;
}

PyObject* Pid(PyObject* self, void*) { return PyLong_FromLong(Process(self).pid()); }
PyObject* Id(PyObject* self, void*) { return PyLong_FromUnsignedLong(Process(self).id().value()); }
PyObject* Sentinel(PyObject* self, void*) { return PyLong_FromLong(Process(self).sentinel()); }

PyMethodDef kMethods[] = {
    {"poll", Poll, METH_NOARGS, "The exit code (or minus the signal), or None while it runs."},
    {"wait", Wait, METH_O, "wait(timeout): the exit code; None if it still runs after `timeout` seconds (None: no limit)."},
    {"signal", Signal, METH_O, "Sends a signal; ProcessLookupError when it has ended."},
    {"exit_reason", ExitReason, METH_NOARGS, "Who it was and how it ended, in words."},
    {"close", Close, METH_NOARGS, "Gives the sentinel and the session's record of it back."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef kAttributes[] = {
    {"pid", Pid, nullptr, "The process id.", nullptr},
    {"host_id", Id, nullptr, "The id in the session.", nullptr},
    {"sentinel", Sentinel, nullptr, "A descriptor that is readable when the process has ended.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("A started process, as its starter sees it.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kAttributes},
    {0, nullptr},
};

PyType_Spec kSpec = {"_pyhost.Child", sizeof(ChildObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, kSlots};

}  // namespace

PyObject* NewChild(ModuleState* state, std::unique_ptr<ChildProcess> child) {
  auto* type = reinterpret_cast<PyTypeObject*>(state->child_type.get());
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  new (&reinterpret_cast<ChildObject*>(self)->child) std::unique_ptr<ChildProcess>(std::move(child));
  return self;
}

int BindChild(PyObject* module, ModuleState* state) {
  state->child_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->child_type ? PyModule_AddObjectRef(module, "Child", state->child_type.get()) : -1;
}

}  // namespace pyhost::native
