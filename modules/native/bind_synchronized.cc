// _pyhost.Synchronized: what multiprocessing.Value and Array derive from: a ctypes object and the lock that goes with it.
// _pyhost.SynchronizedArray has items besides, _pyhost.SynchronizedAttribute is a property that is read and written under the lock.
//
// The lock may be any object with acquire() and release(), as in python3.  One of ours, which it nearly always is, is taken
// without a call through Python: an increment is three acquisitions.

#include "modules/native/bind_pool.h"
#include "modules/native/lock_object.h"
#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"

namespace pyhost::native {
namespace {

struct SynchronizedObject {
  PyObject_HEAD
  PyObject* object;   // null until set
  PyObject* lock;     // null until set
  bool own_locking;   // HasOwnLocking(lock), when it was set
};

SynchronizedObject* AsSynchronized(PyObject* self) { return reinterpret_cast<SynchronizedObject*>(self); }

// ---- The object and its lock ------------------------------------------------------------------------------------------

PyObject* GetMember(PyObject* self, PyObject* member, const char* name) {
  if (member != nullptr) return Py_NewRef(member);
  return PyErr_Format(PyExc_AttributeError, "'%s' object has no attribute '%s'", Py_TYPE(self)->tp_name, name);
}

PyObject* GetObject(PyObject* self, void*) { return GetMember(self, AsSynchronized(self)->object, "_obj"); }
PyObject* GetLock(PyObject* self, void*) { return GetMember(self, AsSynchronized(self)->lock, "_lock"); }
PyObject* ObjectMethod(PyObject* self, PyObject*) { return GetObject(self, nullptr); }
PyObject* LockMethod(PyObject* self, PyObject*) { return GetLock(self, nullptr); }

int SetObject(PyObject* self, PyObject* value, void*) {
  Py_XSETREF(AsSynchronized(self)->object, Py_XNewRef(value));
  return 0;
}

int SetLock(PyObject* self, PyObject* value, void*) {
  AsSynchronized(self)->own_locking = value != nullptr && HasOwnLocking(value);
  Py_XSETREF(AsSynchronized(self)->lock, Py_XNewRef(value));
  return 0;
}

// ---- Holding the lock -------------------------------------------------------------------------------------------------

bool Acquire(PyObject* self) {
  if (AsSynchronized(self)->own_locking) return AcquireLock(AsSynchronized(self)->lock);
  return static_cast<bool>(PyRef::Steal(PyObject_CallMethod(self, "acquire", nullptr)));
}

bool Release(PyObject* self) {
  if (AsSynchronized(self)->own_locking) return ReleaseLock(AsSynchronized(self)->lock);
  return static_cast<bool>(PyRef::Steal(PyObject_CallMethod(self, "release", nullptr)));
}

// Calls `access` with the wrapped object, under the lock.  It returns false with a Python error, as this does.
template <typename Access>
bool UnderLock(PyObject* self, Access&& access) {
  if (!Acquire(self)) return false;
  // Kept: a signal handler, or who had the lock before, may have exchanged it.
  PyRef object = PyRef::Steal(GetObject(self, nullptr));
  if (object && access(object.get())) return Release(self);
  PyRef error = TakeException();
  if (!Release(self)) PyErr_WriteUnraisable(self);
  RaiseException(std::move(error));
  return false;
}

// The same for an access that makes an object.
template <typename Make>
PyObject* MadeUnderLock(PyObject* self, Make&& make) {
  PyRef made;
  const bool done = UnderLock(self, [&](PyObject* object) {
    made = PyRef::Steal(make(object));
    return static_cast<bool>(made);
  });
  return done ? made.release() : nullptr;
}

PyObject* Enter(PyObject* self, PyObject*) {
  if (AsSynchronized(self)->own_locking) return AcquireLock(AsSynchronized(self)->lock) ? Py_NewRef(Py_True) : nullptr;
  PyRef lock = PyRef::Steal(GetLock(self, nullptr));
  return lock ? PyObject_CallMethod(lock.get(), "__enter__", nullptr) : nullptr;
}

PyObject* Exit(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (AsSynchronized(self)->own_locking) return ReleaseLock(AsSynchronized(self)->lock) ? Py_NewRef(Py_None) : nullptr;
  PyRef lock = PyRef::Steal(GetLock(self, nullptr));
  PyRef exit = lock ? PyRef::Steal(PyObject_GetAttrString(lock.get(), "__exit__")) : PyRef();
  return exit ? PyObject_Vectorcall(exit.get(), args, static_cast<size_t>(count), nullptr) : nullptr;
}

// ---- Items ------------------------------------------------------------------------------------------------------------

Py_ssize_t Length(PyObject* self) {
  PyRef object = PyRef::Steal(GetObject(self, nullptr));
  return object ? PyObject_Size(object.get()) : -1;
}

PyObject* GetItem(PyObject* self, PyObject* key) {
  return MadeUnderLock(self, [&](PyObject* object) { return PyObject_GetItem(object, key); });
}

// What iteration calls.
PyObject* ItemAt(PyObject* self, Py_ssize_t index) {
  return MadeUnderLock(self, [&](PyObject* object) { return PySequence_GetItem(object, index); });
}

int SetItem(PyObject* self, PyObject* key, PyObject* value) {
  const bool done = UnderLock(self, [&](PyObject* object) {
    return (value != nullptr ? PyObject_SetItem(object, key, value) : PyObject_DelItem(object, key)) == 0;
  });
  return done ? 0 : -1;
}

// ---- Attributes -------------------------------------------------------------------------------------------------------

struct AttributeObject {
  PyObject_HEAD
  PyObject* name;        // interned
  PyTypeObject* owners;  // _pyhost.Synchronized: looking it up would take as long as the lock
};

AttributeObject* AsAttribute(PyObject* self) { return reinterpret_cast<AttributeObject*>(self); }
PyObject* NameOf(PyObject* attribute) { return AsAttribute(attribute)->name; }

PyObject* NewAttribute(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"name", nullptr};
  PyObject* name = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U:SynchronizedAttribute", const_cast<char**>(kKeywords), &name)) {
    return nullptr;
  }
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  Py_INCREF(name);
  PyUnicode_InternInPlace(&name);
  AsAttribute(self)->name = name;
  AsAttribute(self)->owners =
      reinterpret_cast<PyTypeObject*>(Py_NewRef(StateOfType(type)->synchronized_type.get()));
  return self;
}

void DeallocAttribute(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(NameOf(self));
  Py_XDECREF(AsAttribute(self)->owners);
  type->tp_free(self);
  Py_DECREF(type);
}

bool CheckOwner(PyObject* attribute, PyObject* owner) {
  if (PyObject_TypeCheck(owner, AsAttribute(attribute)->owners)) return true;
  PyErr_Format(PyExc_TypeError, "attribute %R is for Synchronized objects, not for '%s'", NameOf(attribute),
               Py_TYPE(owner)->tp_name);
  return false;
}

PyObject* GetAttribute(PyObject* self, PyObject* owner, PyObject*) {
  if (owner == nullptr || owner == Py_None) return Py_NewRef(self);
  if (!CheckOwner(self, owner)) return nullptr;
  return MadeUnderLock(owner, [&](PyObject* object) { return PyObject_GetAttr(object, NameOf(self)); });
}

int SetAttribute(PyObject* self, PyObject* owner, PyObject* value) {
  if (!CheckOwner(self, owner)) return -1;
  if (value == nullptr) {
    PyErr_Format(PyExc_AttributeError, "attribute %R of '%s' object cannot be deleted", NameOf(self),
                 Py_TYPE(owner)->tp_name);
    return -1;
  }
  const bool done =
      UnderLock(owner, [&](PyObject* object) { return PyObject_SetAttr(object, NameOf(self), value) == 0; });
  return done ? 0 : -1;
}

// ---- Types ------------------------------------------------------------------------------------------------------------

int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(AsSynchronized(self)->object);
  Py_VISIT(AsSynchronized(self)->lock);
  return 0;
}

int Clear(PyObject* self) {
  AsSynchronized(self)->own_locking = false;
  Py_CLEAR(AsSynchronized(self)->object);
  Py_CLEAR(AsSynchronized(self)->lock);
  return 0;
}

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef kMethods[] = {
    {"__enter__", Enter, METH_NOARGS, nullptr},
    {"__exit__", AsMethod(Exit), METH_FASTCALL, nullptr},
    {"get_obj", ObjectMethod, METH_NOARGS, "The wrapped ctypes object, to be used under the lock."},
    {"get_lock", LockMethod, METH_NOARGS, "The lock."},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kMembers[] = {
    {"_obj", GetObject, SetObject, "The wrapped object.", nullptr},
    {"_lock", GetLock, SetLock, "The lock.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

constexpr unsigned kBaseFlags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE;

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("An object (`_obj`) and its lock (`_lock`).")},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(Traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(Clear)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kMembers},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Synchronized", sizeof(SynchronizedObject), 0, kBaseFlags | Py_TPFLAGS_HAVE_GC, kSlots};

PyType_Slot kArraySlots[] = {
    {Py_tp_doc, const_cast<char*>("A Synchronized whose items are read and written under the lock.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(Traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(Clear)},
    {Py_mp_length, reinterpret_cast<void*>(Length)},
    {Py_mp_subscript, reinterpret_cast<void*>(GetItem)},
    {Py_mp_ass_subscript, reinterpret_cast<void*>(SetItem)},
    {Py_sq_length, reinterpret_cast<void*>(Length)},
    {Py_sq_item, reinterpret_cast<void*>(ItemAt)},
    {0, nullptr},
};
PyType_Spec kArraySpec = {"_pyhost.SynchronizedArray", sizeof(SynchronizedObject), 0, kBaseFlags | Py_TPFLAGS_HAVE_GC,
                          kArraySlots};

PyType_Slot kAttributeSlots[] = {
    {Py_tp_doc, const_cast<char*>("SynchronizedAttribute(name): an attribute of a Synchronized's object, under the lock.")},
    {Py_tp_new, reinterpret_cast<void*>(NewAttribute)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocAttribute)},
    {Py_tp_descr_get, reinterpret_cast<void*>(GetAttribute)},
    {Py_tp_descr_set, reinterpret_cast<void*>(SetAttribute)},
    {0, nullptr},
};
PyType_Spec kAttributeSpec = {"_pyhost.SynchronizedAttribute", sizeof(AttributeObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kAttributeSlots};

}  // namespace

int BindSynchronized(PyObject* module, ModuleState* state) {
  state->synchronized_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  if (!state->synchronized_type) return -1;
  PyRef array = PyRef::Steal(PyType_FromModuleAndSpec(module, &kArraySpec, state->synchronized_type.get()));
  PyRef attribute = PyRef::Steal(PyType_FromModuleAndSpec(module, &kAttributeSpec, nullptr));
  if (!array || !attribute || PyModule_AddObjectRef(module, "Synchronized", state->synchronized_type.get()) < 0 ||
      PyModule_AddObjectRef(module, "SynchronizedArray", array.get()) < 0) {
    return -1;
  }
  return PyModule_AddObjectRef(module, "SynchronizedAttribute", attribute.get());
}

}  // namespace pyhost::native
