#include <cstddef>
#include <span>

#include "modules/native/buffer_view.h"
#include "modules/native/memory_object.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/os/memory_file.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"

namespace pyhost::native {
namespace {

struct MemoryObject {
  SharedObject head;
  bool readonly;
  std::span<std::byte> block;  // set by the first use; the segment stays mapped as long as the process lives
  PrivateMapping* copy;        // where `block` lies, of a private one
  bool received;               // it stands in ModuleState::received
};

MemoryObject* AsMemory(PyObject* self) { return reinterpret_cast<MemoryObject*>(self); }

bool FindBlock(MemoryObject* self) {
  if (self->block.data() != nullptr) return true;
  Session* session = RequireSession();
  if (session == nullptr) return false;
  absl::StatusOr<std::span<std::byte>> block = session->segment().objects().Block(self->head.handle);
  if (!block.ok()) {
    SetError(block.status());
    return false;
  }
  self->block = *block;
  return true;
}

void ForgetReceived(PyObject* self) {
  if (!AsMemory(self)->received) return;
  if (ModuleState* state = StateOfType(Py_TYPE(self))) state->received.erase(AsMemory(self)->block.data());
}

void Dealloc(PyObject* self) {
  ForgetReceived(self);
  delete AsMemory(self)->copy;
  DeallocShared(self);
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"size", nullptr};
  Py_ssize_t size = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n:Memory", const_cast<char**>(kKeywords), &size)) return nullptr;
  if (size <= 0) return PyErr_Format(PyExc_ValueError, "Memory size must be positive, not %zd", size);
  ModuleState* state = StateOfType(type);
  Session* session = state == nullptr ? nullptr : EnsureSession();
  return session == nullptr ? nullptr : CreateMemory(state, session, static_cast<uint64_t>(size));
}

int GetBuffer(PyObject* self, Py_buffer* view, int flags) {
  MemoryObject* memory = AsMemory(self);
  if (!FindBlock(memory)) {
    view->obj = nullptr;
    return -1;
  }
  return PyBuffer_FillInfo(view, self, memory->block.data(), static_cast<Py_ssize_t>(memory->block.size()),
                           memory->readonly ? 1 : 0, flags);
}

Py_ssize_t Length(PyObject* self) {
  return FindBlock(AsMemory(self)) ? static_cast<Py_ssize_t>(AsMemory(self)->block.size()) : -1;
}

// offset_of(buffer): where a buffer begins in this memory, or None when it is elsewhere.
PyObject* OffsetOf(PyObject* self, PyObject* object) {
  MemoryObject* memory = AsMemory(self);
  BufferView view;
  if (!FindBlock(memory) || !view.Acquire(object, PyBUF_FULL_RO)) return nullptr;
  const std::byte* begin = view.bytes().data();
  const std::byte* end = memory->block.data() + memory->block.size();
  if (begin < memory->block.data() || begin > end || view.bytes().size() > static_cast<size_t>(end - begin))
    Py_RETURN_NONE;
  return PyLong_FromSsize_t(begin - memory->block.data());
}

PyMethodDef kMethods[] = {
    {"offset_of", OffsetOf, METH_O,
     "offset_of(buffer): where the buffer begins in this memory, in bytes; None when it lies elsewhere."},
    {"__reduce__", ReduceShared, METH_NOARGS, "Travels by handle, inside the session only."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Memory(size): bytes in the session's shared memory, as a writable buffer.\n\n"
                                  "Contents start undefined.  Shared with a child or through a queue by pickling;\n"
                                  "freed when no process has it any more.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {Py_sq_length, reinterpret_cast<void*>(Length)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(GetBuffer)},
    {0, nullptr},
};

PyType_Spec kSpec = {"_pyhost.Memory", sizeof(MemoryObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

PyObject* CreateMemory(ModuleState* state, Session* session, uint64_t size) {
  const absl::StatusOr<Handle> handle =
      session->segment().objects().Create(ObjectKind::kMemory, size, session->me());
  if (!handle.ok()) return SetError(handle.status());
  auto* type = reinterpret_cast<PyTypeObject*>(state->memory_type.get());
  PyRef self = PyRef::Steal(AdoptShared(type, session, *handle));
  if (!self) return nullptr;
  return FindBlock(AsMemory(self.get())) ? self.release() : nullptr;
}

PyObject* NewMemory(ModuleState* state, Handle handle, bool readonly) {
  auto* type = reinterpret_cast<PyTypeObject*>(state->memory_type.get());
  PyRef self = PyRef::Steal(type->tp_alloc(type, 0));
  if (!self || !AttachHandle(&AsMemory(self.get())->head, handle)) return nullptr;
  AsMemory(self.get())->readonly = readonly;
  return FindBlock(AsMemory(self.get())) ? self.release() : nullptr;
}

PyObject* NewReceivedMemory(ModuleState* state, Handle handle, bool readonly) {
  PyObject* self = NewMemory(state, handle, readonly);
  if (self == nullptr) return nullptr;
  AsMemory(self)->received = state->received.try_emplace(AsMemory(self)->block.data(), handle).second;
  return self;
}

PyObject* NewPrivateMemory(ModuleState* state, Handle handle, bool readonly) {
  PyRef self = PyRef::Steal(NewMemory(state, handle, readonly));
  Session* session = self ? RequireSession() : nullptr;
  if (session == nullptr) return nullptr;
  absl::StatusOr<PrivateMapping> copy = session->segment().MapPrivately(AsMemory(self.get())->block);
  if (!copy.ok()) return SetError(copy.status());
  AsMemory(self.get())->copy = new PrivateMapping(*std::move(copy));
  AsMemory(self.get())->block = AsMemory(self.get())->copy->bytes();
  return self.release();
}

int BindMemory(PyObject* module, ModuleState* state) {
  state->memory_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return state->memory_type ? PyModule_AddObjectRef(module, "Memory", state->memory_type.get()) : -1;
}

}  // namespace pyhost::native
