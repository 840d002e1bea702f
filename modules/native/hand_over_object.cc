#include "modules/native/hand_over_object.h"

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "modules/native/buffer_view.h"
#include "modules/native/memory_object.h"
#include "modules/native/module_state.h"
#include "modules/native/session_access.h"

namespace pyhost::native {
namespace {

constexpr size_t kLanes = 2;
constexpr size_t kBlockBytes = kLanes * sizeof(HandOverLane);

HandOverObject* AsHandOver(PyObject* self) { return reinterpret_cast<HandOverObject*>(self); }

// The lanes in a Memory; null with a Python error.
HandOverLane* LanesIn(PyObject* memory) {
  BufferView view;
  if (!view.Acquire(memory, PyBUF_WRITABLE)) return nullptr;
  if (view.bytes().size() >= kBlockBytes) return reinterpret_cast<HandOverLane*>(view.bytes().data());
  PyErr_Format(PyExc_ValueError, "a HandOver needs %zu bytes of memory, not %zu", kBlockBytes, view.bytes().size());
  return nullptr;
}

PyObject* NewEnd(PyTypeObject* type, PyObject* memory, int side, bool duplex) {
  HandOverLane* lanes = LanesIn(memory);
  PyRef self = lanes == nullptr ? PyRef() : PyRef::Steal(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  HandOverObject* end = AsHandOver(self.get());
  end->memory = Py_NewRef(memory);
  end->to_peer = &lanes[side];
  end->from_peer = &lanes[1 - side];
  end->kind = duplex ? StreamKind::kSocket : StreamKind::kPipe;
  return self.release();
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"memory", "side", "duplex", nullptr};
  ModuleState* state = StateOfType(type);
  PyObject* memory;
  int side, duplex;
  if (state == nullptr ||
      !PyArg_ParseTupleAndKeywords(args, kwargs, "O!ip:HandOver", const_cast<char**>(kKeywords),
                                   reinterpret_cast<PyTypeObject*>(state->memory_type.get()), &memory, &side, &duplex)) {
    return nullptr;
  }
  if (side == 0 || side == 1) return NewEnd(type, memory, side, duplex != 0);
  return PyErr_Format(PyExc_ValueError, "side must be 0 or 1, not %d", side);
}

PyObject* NewPair(PyObject* module, PyObject* duplex) {
  ModuleState* state = StateOfModule(module);
  const int is_duplex = PyObject_IsTrue(duplex);
  // A pipe alone is no reason for a fork server.
  Session* session = is_duplex < 0 ? nullptr : EnsureSession(SessionUse::kFork);
  PyRef memory = PyRef::Steal(session == nullptr ? nullptr : CreateMemory(state, session, kBlockBytes));
  HandOverLane* lanes = memory ? LanesIn(memory.get()) : nullptr;
  if (lanes == nullptr) return nullptr;
  for (size_t i = 0; i < kLanes; ++i) new (&lanes[i]) HandOverLane();
  auto* type = reinterpret_cast<PyTypeObject*>(state->hand_over_type.get());
  PyRef first = PyRef::Steal(NewEnd(type, memory.get(), 0, is_duplex != 0));
  PyRef second = PyRef::Steal(NewEnd(type, memory.get(), 1, is_duplex != 0));
  return first && second ? PyTuple_Pack(2, first.get(), second.get()) : nullptr;
}

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(AsHandOver(self)->memory);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* IsLeftBehind(PyObject* self, PyObject*) {
  const std::optional<HandOver> lane = OpenLane(AsHandOver(self)->from_peer);
  return PyBool_FromLong(lane && lane->IsLeftBehind());
}

// Where its memory can be pickled.
PyObject* Reduce(PyObject* self, PyObject*) {
  const HandOverObject* end = AsHandOver(self);
  return Py_BuildValue("O(OiO)", Py_TYPE(self), end->memory, end->to_peer < end->from_peer ? 0 : 1,
                       end->kind == StreamKind::kSocket ? Py_True : Py_False);
}

PyMethodDef kMethods[] = {
    {"is_left_behind", IsLeftBehind, METH_NOARGS,
     "Whether a message is to be received that was handed over to a process that has died since."},
    {"__reduce__", Reduce, METH_NOARGS, "Travels with its memory, inside the session only."},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("HandOver(memory, side, duplex): one end of a pipe, beside its descriptor.\n\n"
                                  "Made in pairs, by new_hand_over_pair().")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_methods, kMethods},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.HandOver", sizeof(HandOverObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

PyMethodDef kFunctions[] = {
    {"new_hand_over_pair", NewPair, METH_O,
     "new_hand_over_pair(duplex) -> (HandOver, HandOver), for the two ends of a pipe (duplex: a pair of sockets)"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool ParseHandOver(PyObject* object, HandOverObject** hand_over) {
  *hand_over = nullptr;
  if (object == nullptr || object == Py_None) return true;
  if (Py_TYPE(object)->tp_dealloc != Dealloc) {
    PyErr_Format(PyExc_TypeError, "a HandOver or None is wanted, not '%s'", Py_TYPE(object)->tp_name);
    return false;
  }
  *hand_over = AsHandOver(object);
  return true;
}

std::optional<HandOver> OpenLane(HandOverLane* lane) {
  Session* session = Session::Current();
  if (session == nullptr || !session->me()) return std::nullopt;
  return HandOver(lane, session->segment().hosts(), session->me());
}

int BindHandOver(PyObject* module, ModuleState* state) {
  state->hand_over_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  if (!state->hand_over_type || PyModule_AddObjectRef(module, "HandOver", state->hand_over_type.get()) < 0) return -1;
  return PyModule_AddFunctions(module, kFunctions);
}

}  // namespace pyhost::native
