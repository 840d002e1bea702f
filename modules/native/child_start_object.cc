#include "modules/native/child_start_object.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "modules/native/child_object.h"
#include "modules/native/gil_wait.h"
#include "modules/native/server_settings.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/supervision/child_start.h"

namespace pyhost::native {
namespace {

struct StartState {
  std::string method;
  std::unique_ptr<ChildStart> start;  // null once committed or aborted
};

struct ChildStartObject {
  PyObject_HEAD
  StartState state;
};

StartState& State(PyObject* self) { return reinterpret_cast<ChildStartObject*>(self)->state; }

// Null with ValueError when the start is over.
ChildStart* Open(PyObject* self) {
  if (State(self).start == nullptr) PyErr_SetString(PyExc_ValueError, "this start was committed or aborted");
  return State(self).start.get();
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"method", "name", "daemon", "worker", nullptr};
  const char *method, *name;
  int daemon = 0, worker = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss|pp:ChildStart", const_cast<char**>(kKeywords), &method, &name,
                                   &daemon, &worker)) {
    return nullptr;
  }
  Session* session = EnsureSession();
  ServerSpec checked;
  if (session == nullptr || !MakeServerSpec(session, method, &checked)) return nullptr;
  uint32_t flags = (daemon ? static_cast<uint32_t>(HostFlag::kDaemon) : 0) |
                   (worker ? static_cast<uint32_t>(HostFlag::kWorker) : 0);
  absl::StatusOr<std::unique_ptr<ChildStart>> start = ChildStart::Create(session, name, flags);
  if (!start.ok()) return SetError(start.status());
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  new (&State(self)) StartState{method, *std::move(start)};
  return self;
}

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  State(self).~StartState();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* Share(PyObject* self, PyObject* object) {
  ChildStart* start = Open(self);
  if (start == nullptr) return nullptr;
  Handle handle;
  if (!GetSharedHandle(object, &handle)) {
    if (PyErr_Occurred()) return nullptr;
    return PyErr_Format(PyExc_TypeError, "%s is no object of the session's shared memory", Py_TYPE(object)->tp_name);
  }
  absl::Status status = start->Share(handle);
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* AddFd(PyObject* self, PyObject* argument) {
  ChildStart* start = Open(self);
  int fd = start == nullptr ? -1 : PyObject_AsFileDescriptor(argument);
  if (fd < 0) return nullptr;
  start->AddDescriptor(fd);
  return PyLong_FromLong(fd);
}

PyObject* Commit(PyObject* self, PyTypeObject* defining_class, PyObject* const* args, Py_ssize_t count, PyObject*) {
  ChildStart* start = Open(self);
  Session* session = start == nullptr ? nullptr : RequireSession();
  ServerSpec spec;
  if (session == nullptr || !MakeServerSpec(session, State(self).method, &spec)) return nullptr;
  Py_buffer view;
  if (count != 2) return PyErr_Format(PyExc_TypeError, "commit() takes the payload, and whether standard modules are shadowed");
  const int shadowed = PyObject_IsTrue(args[1]);
  if (shadowed < 0) return nullptr;
  spec.shadowed = shadowed != 0;
  if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) return nullptr;
  GilWait gil;
  auto body = std::as_bytes(std::span(static_cast<const char*>(view.buf), static_cast<size_t>(view.len)));
  absl::StatusOr<std::unique_ptr<ChildProcess>> child = start->Commit(spec, body, gil.Until(Deadline::Never()));
  PyBuffer_Release(&view);
  State(self).start.reset();
  if (!child.ok()) return SetError(child.status());
  return NewChild(StateOfType(defining_class), *std::move(child));
}

PyObject* Abort(PyObject* self, PyObject*) {
  State(self).start.reset();
  Py_RETURN_NONE;
}

PyObject* Id(PyObject* self, void*) {
  ChildStart* start = Open(self);
  return start == nullptr ? nullptr : PyLong_FromUnsignedLong(start->id().value());
}

PyMethodDef kMethods[] = {
    {"share", Share, METH_O, "The child will hold this object of the session's shared memory."},
    {"add_fd", AddFd, METH_O, "Passes a descriptor; returns its number in the child, which is the same."},
    {"commit", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(Commit)),
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, "commit(payload, shadowed): starts the process; returns its Child.\n\n"
     "shadowed: the child may find modules of the program's in place of standard ones, so none are imported ahead for it."},
    {"abort", Abort, METH_NOARGS, "Gives the start up.  Nothing happens after commit()."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef kAttributes[] = {
    {"host_id", Id, nullptr, "The id that the child will have in the session.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("ChildStart(method, name, daemon=False, worker=False): the start of a process.\n\n"
                                  "Reserves its place in the session; commit() has it run.  Dropping it aborts.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kAttributes},
    {0, nullptr},
};

PyType_Spec kSpec = {"_pyhost.ChildStart", sizeof(ChildStartObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                     kSlots};

}  // namespace

int BindChildStart(PyObject* module, ModuleState* state) {
  state->child_start_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->child_start_type ? PyModule_AddObjectRef(module, "ChildStart", state->child_start_type.get()) : -1;
}

}  // namespace pyhost::native
