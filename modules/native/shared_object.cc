#include "modules/native/shared_object.h"

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "modules/native/status.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/session/session.h"

namespace pyhost::native {
namespace {

thread_local HandleCollector* current_collector = nullptr;

using TypeMember = PyRef ModuleState::*;

// The base type that stands for objects of a kind.
constexpr std::array<std::pair<ObjectKind, TypeMember>, 8> kTypes = {{
    {ObjectKind::kMemory, &ModuleState::memory_type},
    {ObjectKind::kQueue, &ModuleState::queue_type},
    {ObjectKind::kMutex, &ModuleState::lock_type},
    {ObjectKind::kSemaphore, &ModuleState::semaphore_type},
    {ObjectKind::kCondition, &ModuleState::condition_type},
    {ObjectKind::kEvent, &ModuleState::event_type},
    {ObjectKind::kBarrier, &ModuleState::barrier_type},
    {ObjectKind::kPool, &ModuleState::call_server_type},
}};

bool IsTypeOfKind(ModuleState* state, PyObject* type, ObjectKind kind) {
  if (!PyType_Check(type)) return false;
  for (const auto& [candidate, member] : kTypes) {
    auto* base = reinterpret_cast<PyTypeObject*>((state->*member).get());
    if (candidate == kind) return PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type), base);
  }
  return false;
}

// `share(obj)` of the popen that is pickling a new process on this thread, or null (maybe with an error).
PyRef SpawningShare() {
  PyRef context = PyRef::Steal(PyImport_ImportModule("multiprocessing.context"));
  if (!context) return {};
  PyRef popen = PyRef::Steal(PyObject_CallMethod(context.get(), "get_spawning_popen", nullptr));
  if (!popen || popen.get() == Py_None) return {};
  return PyRef::Steal(PyObject_GetAttrString(popen.get(), "share"));
}

// False with a Python error.
bool MayNotTravel(PyObject* self) {
  // Without our module's name, which is none of the program's.
  const char* name = Py_TYPE(self)->tp_name;
  const char* const dot = std::strrchr(name, '.');
  PyErr_Format(PyExc_RuntimeError, "%s objects should only be shared between processes through inheritance",
               dot == nullptr ? name : dot + 1);
  return false;
}

bool LetTravel(PyObject* self, Handle handle) {
  if (HandleCollector* collector = HandleCollector::Current(); collector != nullptr) {
    collector->handles().push_back(handle);
    return true;
  }
  PyRef share = SpawningShare();
  if (share) return static_cast<bool>(PyRef::Steal(PyObject_CallOneArg(share.get(), self)));
  return PyErr_Occurred() ? false : MayNotTravel(self);
}

// check_travels(obj): for what is pickled in parts, so that an error names the whole.
PyObject* CheckTravels(PyObject*, PyObject* obj) {
  if (HandleCollector::Current() == nullptr && !SpawningShare() && (PyErr_Occurred() || !MayNotTravel(obj))) return nullptr;
  Py_RETURN_NONE;
}

// _rebuild(type, session id, handle): the other end of ReduceShared.
PyObject* Rebuild(PyObject* module, PyObject* args) {
  PyObject* type = nullptr;
  unsigned long long session_id = 0, value = 0;
  if (!PyArg_ParseTuple(args, "OKK:_rebuild", &type, &session_id, &value)) return nullptr;
  const Handle handle = Handle::FromValue(value);
  Session* session = Session::Current();
  if (session == nullptr || session->segment().session_id() != session_id) {
    return PyErr_Format(PyExc_RuntimeError,
                        "%s belongs to another pyhost session (%llx): it was pickled outside of this one",
                        handle.ToString().c_str(), session_id);
  }
  if (!IsTypeOfKind(StateOfModule(module), type, handle.kind())) {
    return PyErr_Format(PyExc_TypeError, "%s cannot be unpickled as %R", handle.ToString().c_str(), type);
  }
  auto* object_type = reinterpret_cast<PyTypeObject*>(type);
  PyRef object = PyRef::Steal(object_type->tp_alloc(object_type, 0));
  if (!object || !AttachHandle(reinterpret_cast<SharedObject*>(object.get()), handle)) return nullptr;
  return object.release();
}

PyMethodDef kFunctions[] = {
    {"_rebuild", Rebuild, METH_VARARGS, "Unpickles a shared object from (type, session id, handle)."},
    {"check_travels", CheckTravels, METH_O,
     "check_travels(obj): RuntimeError, naming obj's type, unless what is pickled now goes to a process of the session."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

HandleCollector::HandleCollector() : previous_(current_collector) { current_collector = this; }
HandleCollector::~HandleCollector() { current_collector = previous_; }
HandleCollector* HandleCollector::Current() { return current_collector; }

bool GetSharedHandle(PyObject* object, Handle* handle) {
  ModuleState* state = GetState();
  if (state == nullptr) return false;
  for (const auto& [kind, member] : kTypes) {
    auto* type = reinterpret_cast<PyTypeObject*>((state->*member).get());
    if (type != nullptr && PyObject_TypeCheck(object, type)) {
      *handle = reinterpret_cast<SharedObject*>(object)->handle;
      return static_cast<bool>(*handle);
    }
  }
  return false;
}

bool AttachHandle(SharedObject* self, Handle handle) {
  Session* session = Session::Current();
  absl::Status status = session == nullptr ? absl::FailedPreconditionError("this process is in no pyhost session")
                                           : session->segment().refs().Retain(handle, session->me());
  if (!status.ok()) {
    SetError(status);
    return false;
  }
  self->handle = handle;
  return true;
}

void DetachHandle(SharedObject* self) {
  Session* session = Session::Current();
  if (self->handle && session != nullptr) session->segment().refs().Release(self->handle, session->me());
  self->handle = Handle();
  self->state = nullptr;
}

PyObject* ReduceShared(PyObject* self, PyObject*) {
  const Handle handle = reinterpret_cast<SharedObject*>(self)->handle;
  Session* session = Session::Current();
  if (!handle || session == nullptr) {
    return PyErr_Format(PyExc_ValueError, "%s object is closed", Py_TYPE(self)->tp_name);
  }
  if (!LetTravel(self, handle)) return nullptr;
  PyRef module = PyRef::Steal(PyImport_ImportModule("_pyhost"));
  if (!module) return nullptr;
  PyRef rebuild = PyRef::Steal(PyObject_GetAttrString(module.get(), "_rebuild"));
  if (!rebuild) return nullptr;
  PyRef attributes = PyRef::Steal(PyObject_GetAttrString(self, "__dict__"));
  if (!attributes) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return nullptr;
    PyErr_Clear();
    attributes = PyRef::Borrow(Py_None);
  }
  return Py_BuildValue("O(OKK)O", rebuild.get(), reinterpret_cast<PyObject*>(Py_TYPE(self)),
                       static_cast<unsigned long long>(session->segment().session_id()),
                       static_cast<unsigned long long>(handle.value()), attributes.get());
}

void DeallocShared(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  DetachHandle(reinterpret_cast<SharedObject*>(self));
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* ReprShared(PyObject* self) {
  return PyUnicode_FromFormat("<%s %s>", Py_TYPE(self)->tp_name,
                              reinterpret_cast<SharedObject*>(self)->handle.ToString().c_str());
}

PyObject* AdoptShared(PyTypeObject* type, Session* session, Handle handle) {
  session->segment().refs().Adopt(handle, session->me());
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) {
    session->segment().refs().Release(handle, session->me());
    return nullptr;
  }
  reinterpret_cast<SharedObject*>(self)->handle = handle;
  return self;
}

int BindShared(PyObject* module, ModuleState*) { return PyModule_AddFunctions(module, kFunctions); }

}  // namespace pyhost::native
