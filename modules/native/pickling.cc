#include "modules/native/pickling.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "modules/native/buffer_view.h"
#include "modules/native/builtin_writer.h"
#include "modules/native/memory_object.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"

namespace pyhost::native {
namespace {

constexpr uint64_t kReadOnly = uint64_t{1} << 63;
constexpr size_t kGilFreeCopyBytes = 256 * 1024;
constexpr int kProtocol = 5;

void CopyBytes(std::span<std::byte> to, std::span<const std::byte> from) {
  if (from.size() < kGilFreeCopyBytes) {
    std::memcpy(to.data(), from.data(), from.size());
    return;
  }
  Py_BEGIN_ALLOW_THREADS
  std::memcpy(to.data(), from.data(), from.size());
  Py_END_ALLOW_THREADS
}

// ---- Writer: a pickler's file and its buffer callback -----------------------------------------------------------

struct WriterState {
  std::vector<BufferView> chunks;
  std::vector<uint64_t> buffer_sizes;  // with kReadOnly
  std::vector<Handle> buffers;         // counted in segment.refs()
  std::vector<size_t> given;           // of these: they are the object's own
  bool may_give = false;
};

struct WriterObject {
  PyObject_HEAD
  WriterState* state;
};

PyObject* Write(PyObject* self, PyObject* bytes) {
  auto* state = reinterpret_cast<WriterObject*>(self)->state;
  BufferView view;
  if (!view.Acquire(bytes)) return nullptr;
  const size_t size = view.bytes().size();
  state->chunks.push_back(std::move(view));
  return PyLong_FromSize_t(size);
}

// A new Memory object with these bytes, counted in segment.refs(); none with a Python error.
Handle CopyToMemory(Session* session, std::span<const std::byte> bytes) {
  Segment& segment = session->segment();
  absl::StatusOr<Handle> handle = segment.objects().Create(ObjectKind::kMemory, bytes.size(), session->me());
  if (!handle.ok()) {
    SetError(handle.status());
    return {};
  }
  segment.refs().Adopt(*handle, session->me());
  absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(*handle);
  if (!block.ok()) {
    segment.refs().Release(*handle, session->me());
    SetError(block.status());
    return {};
  }
  CopyBytes(*block, bytes);
  return *handle;
}

// Takes the buffer along without a copy, if it is the whole of a message's out-of-band buffer; each once.
bool GiveBuffer(ModuleState* state, Session* session, WriterState* writer, std::span<const std::byte> bytes) {
  if (state == nullptr) return false;
  const auto found = state->received.find(bytes.data());
  if (found == state->received.end()) return false;
  const Handle handle = found->second;
  Segment& segment = session->segment();
  const absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(handle);
  if (!block.ok() || block->size() != bytes.size()) return false;
  if (std::find(writer->buffers.begin(), writer->buffers.end(), handle) != writer->buffers.end()) return false;
  if (!segment.refs().Retain(handle, session->me()).ok()) return false;
  writer->given.push_back(writer->buffers.size());
  writer->buffers.push_back(handle);
  return true;
}

// The pickler's buffer_callback: true keeps the buffer in the pickle, false says that we took it.
PyObject* TakeBuffer(PyObject* self, PyObject* args, PyObject*) {
  auto* writer = reinterpret_cast<WriterObject*>(self)->state;
  PyObject* buffer = nullptr;
  if (!PyArg_ParseTuple(args, "O", &buffer)) return nullptr;
  BufferView view;
  if (!view.Acquire(buffer, PyBUF_ANY_CONTIGUOUS)) {
    PyErr_Clear();  // Not contiguous: the pickler says so in its own words.
    Py_RETURN_TRUE;
  }
  if (view.bytes().size() < kOutOfBandBytes) Py_RETURN_TRUE;
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  const uint64_t size = view.bytes().size() | (view.readonly() ? kReadOnly : 0);
  if (writer->may_give && GiveBuffer(StateOfType(Py_TYPE(self)), session, writer, view.bytes())) {
    writer->buffer_sizes.push_back(size);
    Py_RETURN_FALSE;
  }
  const Handle copy = CopyToMemory(session, view.bytes());
  if (!copy) return nullptr;
  writer->buffers.push_back(copy);
  writer->buffer_sizes.push_back(size);
  Py_RETURN_FALSE;
}

void DropBuffers(std::span<const Handle> buffers) {
  Session* session = Session::Current();
  if (session == nullptr) return;
  for (Handle handle : buffers) session->segment().refs().Release(handle, session->me());
}

void DeallocWriter(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  auto* state = reinterpret_cast<WriterObject*>(self)->state;
  if (state != nullptr) DropBuffers(state->buffers);
  delete state;
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef kWriterMethods[] = {
    {"write", Write, METH_O, "Keeps a piece of the pickle."},
    {nullptr, nullptr, 0, nullptr},
};
PyType_Slot kWriterSlots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocWriter)},
    {Py_tp_call, reinterpret_cast<void*>(TakeBuffer)},
    {Py_tp_methods, kWriterMethods},
    {0, nullptr},
};
PyType_Spec kWriterSpec = {"_pyhost._PickleWriter", sizeof(WriterObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           kWriterSlots};

PyRef NewWriter(ModuleState* state) {
  auto* type = reinterpret_cast<PyTypeObject*>(state->writer_type.get());
  PyRef writer = PyRef::Steal(type->tp_alloc(type, 0));
  if (writer) reinterpret_cast<WriterObject*>(writer.get())->state = new WriterState();
  return writer;
}

// ---- Payload: a received message as a read-only buffer ------------------------------------------------------------

struct PayloadObject {
  PyObject_HEAD
  Message* message;
  std::span<const std::byte> bytes;
};

int GetPayloadBuffer(PyObject* self, Py_buffer* view, int flags) {
  auto* payload = reinterpret_cast<PayloadObject*>(self);
  return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(payload->bytes.data()),
                           static_cast<Py_ssize_t>(payload->bytes.size()), 1, flags);
}

void DeallocPayload(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<PayloadObject*>(self)->message;
  type->tp_free(self);
  Py_DECREF(type);
}

PyType_Slot kPayloadSlots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocPayload)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(GetPayloadBuffer)},
    {0, nullptr},
};
PyType_Spec kPayloadSpec = {"_pyhost._Payload", sizeof(PayloadObject), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                            kPayloadSlots};

// ---- The reducers ---------------------------------------------------------------------------------------------------

PyRef ImportAttribute(const char* module_name, const char* name) {
  PyRef module = PyRef::Steal(PyImport_ImportModule(module_name));
  return module ? PyRef::Steal(PyObject_GetAttrString(module.get(), name)) : PyRef();
}

bool Prepare(ModuleState* state) {
  if (state->merged_table) return true;
  state->pickler_type = ImportAttribute("_pickle", "Pickler");
  state->loads = ImportAttribute("_pickle", "loads");
  state->copyreg_table = ImportAttribute("copyreg", "dispatch_table");
  state->reduction_module = PyRef::Steal(PyImport_ImportModule("multiprocessing.reduction"));
  if (!state->pickler_type || !state->loads || !state->copyreg_table || !state->reduction_module) return false;
  state->forking_pickler = PyRef::Steal(PyObject_GetAttrString(state->reduction_module.get(), "_own_pickler"));
  if (!state->forking_pickler) return false;
  state->plain_table = PyRef::Steal(PyDict_New());
  state->forking_pickler_name = PyRef::Steal(PyUnicode_InternFromString("ForkingPickler"));
  state->socket_name = PyRef::Steal(PyUnicode_InternFromString("socket"));
  if (!state->forking_pickler_name || !state->socket_name) return false;
  state->merged_table = PyRef::Steal(PyDict_New());
  return state->plain_table && state->merged_table;
}

// Does every entry of `table` stand in `merged` with the same reducer (or is overridden in `above`)?
bool IsMerged(PyObject* table, PyObject* above, PyObject* merged) {
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(table, &position, &key, &value);) {
    if (above != nullptr && PyDict_GetItemWithError(above, key) != nullptr) continue;
    if (PyDict_GetItemWithError(merged, key) != value) return false;
  }
  return true;
}

// `base`, `arrays` (or null) and `extra` on top of each other, as one plain dict, which the C pickler looks up fastest.
// `merged` is rebuilt when one of them changed; all are small.
PyObject* Merge(PyObject* base, PyObject* arrays, PyObject* extra, PyObject* merged) {
  if (!PyDict_Check(extra)) {
    PyErr_SetString(PyExc_TypeError, "ForkingPickler._extra_reducers must be a dict");
    return nullptr;
  }
  if (!IsMerged(extra, nullptr, merged) || (arrays != nullptr && !IsMerged(arrays, extra, merged)) ||
      !IsMerged(base, extra, merged)) {
    PyDict_Clear(merged);
    if (PyDict_Update(merged, base) < 0 || (arrays != nullptr && PyDict_Update(merged, arrays) < 0) ||
        PyDict_Update(merged, extra) < 0) {
      return nullptr;
    }
  }
  return PyErr_Occurred() ? nullptr : merged;
}

// Once `socket` is there, so are its reducer and no more questions.
bool KnowSockets(ModuleState* state) {
  if (state->knows_sockets) return true;
  if (PyDict_GetItemWithError(PyImport_GetModuleDict(), state->socket_name.get()) == nullptr) return !PyErr_Occurred();
  PyRef known = PyRef::Steal(PyObject_CallMethod(state->reduction_module.get(), "know_sockets", nullptr));
  state->knows_sockets = known && PyObject_IsTrue(known.get()) == 1;
  return known && !PyErr_Occurred();
}

PyRef ExtraReducers(ModuleState* state) {
  if (!KnowSockets(state)) return {};
  return PyRef::Steal(PyObject_GetAttrString(state->forking_pickler.get(), "_extra_reducers"));
}

// Once numpy is there, its arrays have a reducer.
bool KnowNumpy(ModuleState* state) {
  PyObject* numpy = state->knows_numpy ? nullptr : PyDict_GetItemString(PyImport_GetModuleDict(), "numpy");
  if (numpy == nullptr) return true;
  PyRef type = PyRef::Steal(PyObject_GetAttrString(numpy, "ndarray"));
  if (!type) {
    PyErr_Clear();  // It is being imported.
    return true;
  }
  PyRef reducer = ImportAttribute("pyhost.arrays", "by_value");
  // Not in place of one that knows shared arrays.
  if (!reducer || PyDict_SetDefault(state->array_reducers.get(), type.get(), reducer.get()) == nullptr) return false;
  state->knows_numpy = true;
  return true;
}

// For messages: copyreg's table, the reducers of arrays, and ForkingPickler's own.
PyObject* DispatchTable(ModuleState* state) {
  PyRef extra = KnowNumpy(state) ? ExtraReducers(state) : PyRef();
  return extra ? Merge(state->copyreg_table.get(), state->array_reducers.get(), extra.get(), state->merged_table.get())
               : nullptr;
}

// For bytes that may go anywhere: shared arrays go by value.
PyObject* PlainDispatchTable(ModuleState* state) {
  PyRef extra = ExtraReducers(state);
  return extra ? Merge(state->copyreg_table.get(), nullptr, extra.get(), state->plain_table.get()) : nullptr;
}

// The program may have put a class of its own in the place of ForkingPickler.
bool UsesOwnPickler(ModuleState* state, PyRef* current) {
  *current = PyRef::Steal(PyObject_GetAttr(state->reduction_module.get(), state->forking_pickler_name.get()));
  return current->get() != state->forking_pickler.get();
}

PyRef NewPickler(ModuleState* state, PyObject* writer) {
  PyRef current;
  const bool own = UsesOwnPickler(state, &current);
  if (!current) return {};
  PyRef protocol = PyRef::Steal(PyLong_FromLong(kProtocol));
  if (!protocol) return {};
  PyObject* const arguments[] = {writer, protocol.get(), Py_True, writer};
  if (own) return PyRef::Steal(PyObject_Vectorcall(current.get(), arguments, 2, nullptr));
  PyRef pickler = PyRef::Steal(PyObject_Vectorcall(state->pickler_type.get(), arguments, 4, nullptr));
  PyObject* table = pickler ? DispatchTable(state) : nullptr;
  if (table == nullptr || PyObject_SetAttrString(pickler.get(), "dispatch_table", table) < 0) return {};
  return pickler;
}

absl::Status BadPayload(const char* what) { return absl::DataLossError(absl::StrCat("malformed message: ", what)); }

}  // namespace

// ---- Pickle ---------------------------------------------------------------------------------------------------------

Pickled::Pickled(Pickled&& other) noexcept = default;

Pickled::~Pickled() = default;

size_t Pickled::size() const {
  size_t total = 0;
  for (const auto& part : parts_) total += part.size();
  return total;
}

bool MayDoWithoutPickler(ModuleState* state) {
  PyRef current;
  if (Prepare(state) && !UsesOwnPickler(state, &current)) return true;
  PyErr_Clear();
  return false;
}

bool Pickle(ModuleState* state, PyObject* object, Pickled* out, Give give) {
  if (!Prepare(state)) return false;
  HandleCollector collector;
  PyRef writer = NewWriter(state);
  if (!writer) return false;
  reinterpret_cast<WriterObject*>(writer.get())->state->may_give = give == Give::kAsItIs;
  PyRef pickler = NewPickler(state, writer.get());
  if (!pickler) return false;
  PyRef done = PyRef::Steal(PyObject_CallMethod(pickler.get(), "dump", "(O)", object));
  if (!done) return false;

  const WriterState& written = *reinterpret_cast<WriterObject*>(writer.get())->state;
  out->header_.push_back(written.buffers.size());
  out->header_.insert(out->header_.end(), written.buffer_sizes.begin(), written.buffer_sizes.end());
  out->parts_.push_back(std::as_bytes(std::span<const uint64_t>(out->header_)));
  for (const BufferView& chunk : written.chunks) out->parts_.push_back(chunk.bytes());
  out->handles_ = written.buffers;
  out->handles_.insert(out->handles_.end(), collector.handles().begin(), collector.handles().end());
  out->given_ = written.given;
  out->writer_ = std::move(writer);
  return true;
}

bool Pickled::CopyWhatWasKept() {
  Session* session = RequireSession();
  if (session == nullptr) return false;
  Segment& segment = session->segment();
  std::vector<Handle>& held = reinterpret_cast<WriterObject*>(writer_.get())->state->buffers;
  for (const size_t index : std::exchange(given_, {})) {
    const Handle given = held[index];
    if (segment.refs().IsOnlyOwner(given, session->me())) continue;
    const absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(given);
    if (!block.ok()) return SetError(block.status()) != nullptr;
    const Handle copy = CopyToMemory(session, *block);
    if (!copy) return false;
    held[index] = handles_[index] = copy;
    segment.refs().Release(given, session->me());
  }
  return true;
}

// ---- Plain pickles ------------------------------------------------------------------------------------------------

namespace {

PyObject* JoinChunks(const std::vector<BufferView>& chunks) {
  size_t size = 0;
  for (const BufferView& chunk : chunks) size += chunk.bytes().size();
  PyObject* joined = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (joined == nullptr) return nullptr;
  char* to = PyBytes_AS_STRING(joined);
  for (const BufferView& chunk : chunks) {
    std::memcpy(to, chunk.bytes().data(), chunk.bytes().size());
    to += chunk.bytes().size();
  }
  return joined;
}

PyObject* PickleBytes(PyObject* module, PyObject* args) {
  PyObject *object = nullptr, *protocol = Py_None;
  if (!PyArg_ParseTuple(args, "O|O:pickle_bytes", &object, &protocol)) return nullptr;
  if (BuiltinWriter writer; protocol == Py_None && writer.Write(object)) {
    const std::span<const std::byte> pickle = writer.pickle();
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(pickle.data()),
                                     static_cast<Py_ssize_t>(pickle.size()));
  }
  ModuleState* state = StateOfModule(module);
  if (!Prepare(state)) return nullptr;
  PyRef writer = NewWriter(state);
  PyObject* table = writer ? PlainDispatchTable(state) : nullptr;
  if (table == nullptr) return nullptr;
  PyObject* const arguments[] = {writer.get(), protocol};
  PyRef pickler = PyRef::Steal(PyObject_Vectorcall(state->pickler_type.get(), arguments, 2, nullptr));
  if (!pickler || PyObject_SetAttrString(pickler.get(), "dispatch_table", table) < 0) return nullptr;
  PyRef done = PyRef::Steal(PyObject_CallMethod(pickler.get(), "dump", "(O)", object));
  return done ? JoinChunks(reinterpret_cast<WriterObject*>(writer.get())->state->chunks) : nullptr;
}

PyMethodDef kPickleBytes[] = {
    {"pickle_bytes", PickleBytes, METH_VARARGS,
     "pickle_bytes(obj, protocol=None) -> bytes\n\nAs multiprocessing.reduction.ForkingPickler pickles."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

// ---- Unpickle -------------------------------------------------------------------------------------------------------

namespace {

// A tuple of buffers for pickle.loads, or null with a Python error.
PyRef OpenBuffers(ModuleState* state, const Message& message, std::span<const std::byte> sizes, Buffers access) {
  auto* const open = access == Buffers::kPrivate ? NewPrivateMemory : NewReceivedMemory;
  const size_t count = sizes.size() / sizeof(uint64_t);
  if (count > message.handles().size()) {
    SetError(BadPayload("more out-of-band buffers than handles"));
    return {};
  }
  PyRef buffers = PyRef::Steal(PyTuple_New(static_cast<Py_ssize_t>(count)));
  for (size_t i = 0; buffers && i < count; ++i) {
    uint64_t size = 0;
    std::memcpy(&size, sizes.data() + i * sizeof(size), sizeof(size));
    PyObject* memory = open(state, message.handles()[i], (size & kReadOnly) != 0);
    if (memory == nullptr) return {};
    PyTuple_SET_ITEM(buffers.get(), static_cast<Py_ssize_t>(i), memory);
    if (static_cast<uint64_t>(PyObject_Size(memory)) != (size & ~kReadOnly)) {
      if (!PyErr_Occurred()) SetError(BadPayload("an out-of-band buffer has another size than announced"));
      return {};
    }
  }
  return buffers;
}

// The payload object owns the message from now on.  Moving a message may move an inline payload with it.
void PinMessage(PyObject* payload, Message&& message) {
  auto* self = reinterpret_cast<PayloadObject*>(payload);
  const std::ptrdiff_t offset = self->bytes.data() - message.payload().data();
  self->message = new Message(std::move(message));
  self->bytes = {self->message->payload().data() + offset, self->bytes.size()};
}

PyRef WrapPayload(ModuleState* state, std::span<const std::byte> pickle) {
  auto* type = reinterpret_cast<PyTypeObject*>(state->payload_type.get());
  PyRef payload = PyRef::Steal(type->tp_alloc(type, 0));
  if (payload) reinterpret_cast<PayloadObject*>(payload.get())->bytes = pickle;
  return payload;
}

}  // namespace

PyObject* Unpickle(ModuleState* state, Message&& message, std::span<const std::byte> payload, Buffers access) {
  if (!Prepare(state)) return nullptr;
  uint64_t count = 0;
  if (payload.size() < sizeof(count)) return SetError(BadPayload("shorter than its header"));
  std::memcpy(&count, payload.data(), sizeof(count));
  payload = payload.subspan(sizeof(count));
  if (count > payload.size() / sizeof(uint64_t)) return SetError(BadPayload("its header is cut off"));
  PyRef keywords, buffers;
  if (count != 0) {
    buffers = OpenBuffers(state, message, payload.first(count * sizeof(uint64_t)), access);
    if (!buffers) return nullptr;
  }
  PyRef pickle = WrapPayload(state, payload.subspan(count * sizeof(uint64_t)));
  if (!pickle) return nullptr;
  PinMessage(pickle.get(), std::move(message));
  if (!buffers) return PyObject_CallOneArg(state->loads.get(), pickle.get());
  PyRef arguments = PyRef::Steal(PyTuple_Pack(1, pickle.get()));
  keywords = PyRef::Steal(Py_BuildValue("{sO}", "buffers", buffers.get()));
  if (!arguments || !keywords) return nullptr;
  return PyObject_Call(state->loads.get(), arguments.get(), keywords.get());
}

int BindPickling(PyObject* module, ModuleState* state) {
  state->writer_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kWriterSpec, nullptr));
  state->payload_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kPayloadSpec, nullptr));
  state->array_reducers = PyRef::Steal(PyDict_New());
  if (!state->writer_type || !state->payload_type || !state->array_reducers) return -1;
  if (PyModule_AddFunctions(module, kPickleBytes) < 0) return -1;
  return PyModule_AddObjectRef(module, "_array_reducers", state->array_reducers.get());
}

}  // namespace pyhost::native
