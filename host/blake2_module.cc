// The extension module _blake2 over libb2, for a libpython whose own cannot be linked (host/missing_builtins.py).
//
// hashlib takes blake2b and blake2s from here: all their parameters, attributes and errors are those of CPython 3.14.
//
// Thread safety: a hash object may be used from any thread; its mutex guards the state.  The GIL is released while
// much data is hashed, and while waiting for the mutex: no thread waits for the GIL and holds the mutex but one that
// has just got the mutex, and only holders of the GIL try the mutex.

#include <blake2.h>
#include <string.h>

#include <cstddef>
#include <cstring>
#include <mutex>
#include <new>
#include <type_traits>

#include "modules/native/python_ref.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// Less data than this is hashed before another thread would have got the GIL.
constexpr Py_ssize_t kGilMinSize = 2048;

// The two variants, as the template below wants them.
struct Blake2b {
  using State = blake2b_state;
  using Parameters = blake2b_param;
  static constexpr const char* kName = "blake2b";
  static constexpr const char* kTitle = "Blake2b";
  static constexpr const char* kTypeName = "_blake2.blake2b";
  static constexpr const char* kFormat = "|O$O&y*y*y*O&O&O&O&O&O&ppO:blake2b";
  static constexpr const char* kDoc =
      "blake2b(data=b'', *, digest_size=64, key=b'', salt=b'', person=b'', fanout=1,\n        depth=1, leaf_size=0, "
      "node_offset=0, node_depth=0, inner_size=0,\n        last_node=False, usedforsecurity=True, string=None)\n--\n\n"
      "Return a new BLAKE2b hash object.";
  static constexpr size_t kBlockSize = BLAKE2B_BLOCKBYTES;
  static constexpr int kMaxDigestSize = BLAKE2B_OUTBYTES;
  static constexpr int kMaxKeySize = BLAKE2B_KEYBYTES;
  static constexpr int kSaltSize = BLAKE2B_SALTBYTES;
  static constexpr int kPersonSize = BLAKE2B_PERSONALBYTES;
  static constexpr unsigned long long kMaxNodeOffset = ~0ULL;
  static constexpr auto Init = blake2b_init_param;
  static constexpr auto Update = blake2b_update;
  static constexpr auto Final = blake2b_final;
  static void SetNodeOffset(Parameters& parameters, unsigned long long offset) { parameters.node_offset = offset; }
};

struct Blake2s {
  using State = blake2s_state;
  using Parameters = blake2s_param;
  static constexpr const char* kName = "blake2s";
  static constexpr const char* kTitle = "Blake2s";
  static constexpr const char* kTypeName = "_blake2.blake2s";
  static constexpr const char* kFormat = "|O$O&y*y*y*O&O&O&O&O&O&ppO:blake2s";
  static constexpr const char* kDoc =
      "blake2s(data=b'', *, digest_size=32, key=b'', salt=b'', person=b'', fanout=1,\n        depth=1, leaf_size=0, "
      "node_offset=0, node_depth=0, inner_size=0,\n        last_node=False, usedforsecurity=True, string=None)\n--\n\n"
      "Return a new BLAKE2s hash object.";
  static constexpr size_t kBlockSize = BLAKE2S_BLOCKBYTES;
  static constexpr int kMaxDigestSize = BLAKE2S_OUTBYTES;
  static constexpr int kMaxKeySize = BLAKE2S_KEYBYTES;
  static constexpr int kSaltSize = BLAKE2S_SALTBYTES;
  static constexpr int kPersonSize = BLAKE2S_PERSONALBYTES;
  static constexpr unsigned long long kMaxNodeOffset = (1ULL << 48) - 1;
  static constexpr auto Init = blake2s_init_param;
  static constexpr auto Update = blake2s_update;
  static constexpr auto Final = blake2s_final;
  static void SetNodeOffset(Parameters& parameters, unsigned long long offset) {
    for (size_t i = 0; i < sizeof(parameters.node_offset); ++i) {
      parameters.node_offset[i] = static_cast<uint8_t>(offset >> (8 * i));
    }
  }
};

// A contiguous buffer while it is read.
class Buffer {
 public:
  Buffer() { view_.obj = nullptr; }
  ~Buffer() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Py_buffer* view() { return &view_; }
  const uint8_t* data() const { return static_cast<const uint8_t*>(view_.buf); }
  Py_ssize_t size() const { return view_.obj == nullptr ? 0 : view_.len; }

  // What may be hashed; false with a Python error set.
  bool Read(PyObject* data) {
    if (PyUnicode_Check(data)) {
      PyErr_SetString(PyExc_TypeError, "Strings must be encoded before hashing");
      return false;
    }
    if (!PyObject_CheckBuffer(data)) {
      PyErr_SetString(PyExc_TypeError, "object supporting the buffer API required");
      return false;
    }
    if (PyObject_GetBuffer(data, &view_, PyBUF_SIMPLE) < 0) return false;
    if (view_.ndim <= 1) return true;
    PyErr_SetString(PyExc_BufferError, "Buffer must be single dimension");
    return false;
  }

 private:
  Py_buffer view_;
};

template <typename Variant>
struct Hash {
  PyObject_HEAD
  std::mutex mutex;
  typename Variant::State state;  // guarded by mutex
};

template <typename Variant>
Hash<Variant>* HashOf(PyObject* self) {
  return reinterpret_cast<Hash<Variant>*>(self);
}

void LockWithGil(std::mutex& mutex) {
  if (mutex.try_lock()) return;
  Py_BEGIN_ALLOW_THREADS
  mutex.lock();
  Py_END_ALLOW_THREADS
}

// A copy of the state, to be finished or to become another object's.
template <typename Variant>
typename Variant::State StateOf(PyObject* self) {
  Hash<Variant>* hash = HashOf<Variant>(self);
  LockWithGil(hash->mutex);
  std::lock_guard<std::mutex> lock(hash->mutex, std::adopt_lock);
  return hash->state;
}

template <typename Variant>
void Feed(Hash<Variant>* hash, const Buffer& buffer) {
  size_t size = static_cast<size_t>(buffer.size());
  if (buffer.size() < kGilMinSize) {
    LockWithGil(hash->mutex);
    std::lock_guard<std::mutex> lock(hash->mutex, std::adopt_lock);
    Variant::Update(&hash->state, buffer.data(), size);
    return;
  }
  Py_BEGIN_ALLOW_THREADS
  {
    std::lock_guard<std::mutex> lock(hash->mutex);
    Variant::Update(&hash->state, buffer.data(), size);
  }
  Py_END_ALLOW_THREADS
}

template <typename Variant>
Hash<Variant>* NewHash(PyTypeObject* type) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  Hash<Variant>* hash = HashOf<Variant>(self);
  new (&hash->mutex) std::mutex();
  return hash;
}

// ---- The constructor -------------------------------------------------------------------------------------------

struct Arguments {
  PyObject* data = nullptr;    // borrowed
  PyObject* string = nullptr;  // borrowed: the older name of data
  int digest_size;
  Buffer key, salt, person;
  int fanout = 1, depth = 1;
  unsigned long leaf_size = 0;
  unsigned long long node_offset = 0;
  int node_depth = 0, inner_size = 0;
  int last_node = 0, used_for_security = 1;
};

// Converters for PyArg_Parse: 1, or 0 with a Python error set.
int ToInt(PyObject* object, void* value) {
  int overflow;
  long number = PyLong_AsLongAndOverflow(object, &overflow);
  if (number == -1 && PyErr_Occurred()) return 0;
  *static_cast<int*>(value) = static_cast<int>(number);
  if (overflow == 0 && number == static_cast<int>(number)) return 1;
  PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
  return 0;
}

template <typename Unsigned>
int ToUnsigned(PyObject* object, void* value) {
  int overflow;
  PyRef integer = PyRef::Steal(PyNumber_Index(object));
  if (!integer) return 0;
  long low = PyLong_AsLongAndOverflow(integer.get(), &overflow);
  if (overflow < 0 || (overflow == 0 && low < 0)) {
    PyErr_SetString(PyExc_ValueError, "Cannot convert negative int");
    return 0;
  }
  unsigned long long number = PyLong_AsUnsignedLongLong(integer.get());
  *static_cast<Unsigned*>(value) = static_cast<Unsigned>(number);
  if (!PyErr_Occurred() && number == static_cast<Unsigned>(number)) return 1;
  PyErr_Format(PyExc_OverflowError, "Python int too large for C unsigned long%s",
               std::is_same_v<Unsigned, unsigned long> ? "" : " long");
  return 0;
}

bool InRange(const char* name, int value, int least, int most) {
  if (value >= least && value <= most) return true;
  PyErr_Format(PyExc_ValueError, "%s must be between %d and %d", name, least, most);
  return false;
}

bool FitsInto(const char* name, const Buffer& buffer, int most) {
  if (buffer.size() <= most) return true;
  PyErr_Format(PyExc_ValueError, "maximum %s length is %d bytes", name, most);
  return false;
}

bool NotTooLarge(const char* name, unsigned long long value, unsigned long long most) {
  if (value <= most) return true;
  PyErr_Format(PyExc_OverflowError, "%s is too large", name);
  return false;
}

template <typename Variant>
bool Parse(PyObject* args, PyObject* kwargs, Arguments* out) {
  static const char* keywords[] = {"data",   "digest_size", "key",         "salt",       "person",
                                   "fanout", "depth",       "leaf_size",   "node_offset", "node_depth",
                                   "inner_size", "last_node", "usedforsecurity", "string", nullptr};
  out->digest_size = Variant::kMaxDigestSize;
  return PyArg_ParseTupleAndKeywords(args, kwargs, Variant::kFormat, const_cast<char**>(keywords), &out->data, ToInt,
                                     &out->digest_size, out->key.view(), out->salt.view(), out->person.view(), ToInt,
                                     &out->fanout, ToInt, &out->depth, ToUnsigned<unsigned long>, &out->leaf_size,
                                     ToUnsigned<unsigned long long>, &out->node_offset, ToInt, &out->node_depth, ToInt,
                                     &out->inner_size, &out->last_node, &out->used_for_security, &out->string);
}

template <typename Variant>
bool Check(const Arguments& arguments) {
  if (arguments.data != nullptr && arguments.string != nullptr) {
    PyErr_SetString(PyExc_TypeError,
                    "'data' and 'string' are mutually exclusive and support for 'string' keyword parameter is slated "
                    "for removal in a future version.");
    return false;
  }
  if (arguments.digest_size <= 0 || arguments.digest_size > Variant::kMaxDigestSize) {
    PyErr_Format(PyExc_ValueError, "digest_size for %s must be between 1 and %d bytes, here it is %d", Variant::kTitle,
                 Variant::kMaxDigestSize, arguments.digest_size);
    return false;
  }
  if (arguments.inner_size < 0 || arguments.inner_size > Variant::kMaxDigestSize) {
    PyErr_Format(PyExc_ValueError, "inner_size must be between 0 and is %d", Variant::kMaxDigestSize);
    return false;
  }
  return FitsInto("salt", arguments.salt, Variant::kSaltSize) &&
         FitsInto("person", arguments.person, Variant::kPersonSize) && InRange("fanout", arguments.fanout, 0, 255) &&
         InRange("depth", arguments.depth, 1, 255) && NotTooLarge("leaf_size", arguments.leaf_size, 0xFFFFFFFFu) &&
         NotTooLarge("node_offset", arguments.node_offset, Variant::kMaxNodeOffset) &&
         InRange("node_depth", arguments.node_depth, 0, 255) && FitsInto("key", arguments.key, Variant::kMaxKeySize);
}

void CopyBytes(uint8_t* to, const Buffer& from) {
  if (from.size() > 0) std::memcpy(to, from.data(), static_cast<size_t>(from.size()));
}

template <typename Variant>
void Start(const Arguments& arguments, typename Variant::State* state) {
  typename Variant::Parameters parameters;
  std::memset(&parameters, 0, sizeof(parameters));
  parameters.digest_length = static_cast<uint8_t>(arguments.digest_size);
  parameters.key_length = static_cast<uint8_t>(arguments.key.size());
  parameters.fanout = static_cast<uint8_t>(arguments.fanout);
  parameters.depth = static_cast<uint8_t>(arguments.depth);
  parameters.leaf_length = static_cast<uint32_t>(arguments.leaf_size);
  Variant::SetNodeOffset(parameters, arguments.node_offset);
  parameters.node_depth = static_cast<uint8_t>(arguments.node_depth);
  parameters.inner_length = static_cast<uint8_t>(arguments.inner_size);
  CopyBytes(parameters.salt, arguments.salt);
  CopyBytes(parameters.personal, arguments.person);
  Variant::Init(state, &parameters);
  state->last_node = arguments.last_node ? 1 : 0;
  if (arguments.key.size() == 0) return;
  // A key is the first block.
  uint8_t block[Variant::kBlockSize] = {};
  CopyBytes(block, arguments.key);
  Variant::Update(state, block, sizeof(block));
  explicit_bzero(block, sizeof(block));
}

template <typename Variant>
PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  Arguments arguments;
  if (!Parse<Variant>(args, kwargs, &arguments) || !Check<Variant>(arguments)) return nullptr;
  PyObject* data = arguments.data != nullptr ? arguments.data : arguments.string;
  Buffer buffer;
  if (data != nullptr && !buffer.Read(data)) return nullptr;
  Hash<Variant>* hash = NewHash<Variant>(type);
  if (hash == nullptr) return nullptr;
  Start<Variant>(arguments, &hash->state);
  if (buffer.size() > 0) Feed(hash, buffer);
  return reinterpret_cast<PyObject*>(hash);
}

// ---- Methods and attributes ------------------------------------------------------------------------------------

template <typename Variant>
PyObject* Update(PyObject* self, PyObject* data) {
  Buffer buffer;
  if (!buffer.Read(data)) return nullptr;
  Feed(HashOf<Variant>(self), buffer);
  Py_RETURN_NONE;
}

template <typename Variant>
PyObject* Copy(PyObject* self, PyObject*) {
  Hash<Variant>* copy = NewHash<Variant>(Py_TYPE(self));
  if (copy == nullptr) return nullptr;
  copy->state = StateOf<Variant>(self);
  return reinterpret_cast<PyObject*>(copy);
}

// The digest so far; returns its size.
template <typename Variant>
size_t Finish(PyObject* self, uint8_t* digest) {
  typename Variant::State state = StateOf<Variant>(self);
  size_t size = state.outlen;
  Variant::Final(&state, digest, size);
  return size;
}

template <typename Variant>
PyObject* Digest(PyObject* self, PyObject*) {
  uint8_t digest[Variant::kMaxDigestSize];
  size_t size = Finish<Variant>(self, digest);
  return PyBytes_FromStringAndSize(reinterpret_cast<char*>(digest), static_cast<Py_ssize_t>(size));
}

template <typename Variant>
PyObject* HexDigest(PyObject* self, PyObject*) {
  constexpr char kDigits[] = "0123456789abcdef";
  uint8_t digest[Variant::kMaxDigestSize];
  char text[2 * Variant::kMaxDigestSize];
  size_t size = Finish<Variant>(self, digest);
  for (size_t i = 0; i < size; ++i) {
    text[2 * i] = kDigits[digest[i] >> 4];
    text[2 * i + 1] = kDigits[digest[i] & 15];
  }
  return PyUnicode_FromStringAndSize(text, static_cast<Py_ssize_t>(2 * size));
}

template <typename Variant>
PyObject* GetName(PyObject*, void*) {
  return PyUnicode_FromString(Variant::kName);
}

template <typename Variant>
PyObject* GetBlockSize(PyObject*, void*) {
  return PyLong_FromSize_t(Variant::kBlockSize);
}

template <typename Variant>
PyObject* GetDigestSize(PyObject* self, void*) {
  return PyLong_FromLong(HashOf<Variant>(self)->state.outlen);  // constant after construction
}

int Traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return 0;
}

template <typename Variant>
void Deallocate(PyObject* self) {
  Hash<Variant>* hash = HashOf<Variant>(self);
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  explicit_bzero(&hash->state, sizeof(hash->state));  // it may hold a key
  hash->mutex.~mutex();
  type->tp_free(self);
  Py_DECREF(type);
}

// ---- The module ------------------------------------------------------------------------------------------------

bool SetConstant(PyObject* dict, const char* name, int number) {
  PyRef value = PyRef::Steal(PyLong_FromLong(number));
  return value && PyDict_SetItemString(dict, name, value.get()) == 0;
}

template <typename Variant>
PyRef MakeType(PyObject* module) {
  static PyMethodDef methods[] = {
      {"copy", Copy<Variant>, METH_NOARGS, PyDoc_STR("copy($self, /)\n--\n\nReturn a copy of the hash object.")},
      {"digest", Digest<Variant>, METH_NOARGS,
       PyDoc_STR("digest($self, /)\n--\n\nReturn the digest value as a bytes object.")},
      {"hexdigest", HexDigest<Variant>, METH_NOARGS,
       PyDoc_STR("hexdigest($self, /)\n--\n\nReturn the digest value as a string of hexadecimal digits.")},
      {"update", Update<Variant>, METH_O,
       PyDoc_STR("update($self, data, /)\n--\n\nUpdate this hash object's state with the provided bytes-like object.")},
      {nullptr, nullptr, 0, nullptr},
  };
  static PyGetSetDef attributes[] = {
      {"name", GetName<Variant>, nullptr, nullptr, nullptr},
      {"block_size", GetBlockSize<Variant>, nullptr, nullptr, nullptr},
      {"digest_size", GetDigestSize<Variant>, nullptr, nullptr, nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr},
  };
  static PyType_Slot slots[] = {
      {Py_tp_doc, const_cast<char*>(Variant::kDoc)},
      {Py_tp_new, reinterpret_cast<void*>(New<Variant>)},
      {Py_tp_dealloc, reinterpret_cast<void*>(Deallocate<Variant>)},
      {Py_tp_traverse, reinterpret_cast<void*>(Traverse)},
      {Py_tp_methods, methods},
      {Py_tp_getset, attributes},
      {0, nullptr},
  };
  static PyType_Spec spec = {Variant::kTypeName, sizeof(Hash<Variant>), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyRef type = PyRef::Steal(PyType_FromModuleAndSpec(module, &spec, nullptr));
  if (!type) return type;
  // The type is immutable to everybody else.
  PyObject* dict = reinterpret_cast<PyTypeObject*>(type.get())->tp_dict;
  if (!SetConstant(dict, "SALT_SIZE", Variant::kSaltSize) || !SetConstant(dict, "PERSON_SIZE", Variant::kPersonSize) ||
      !SetConstant(dict, "MAX_KEY_SIZE", Variant::kMaxKeySize) ||
      !SetConstant(dict, "MAX_DIGEST_SIZE", Variant::kMaxDigestSize)) {
    return PyRef();
  }
  PyType_Modified(reinterpret_cast<PyTypeObject*>(type.get()));
  return type;
}

template <typename Variant>
bool AddVariant(PyObject* module, const char* prefix) {
  PyRef type = MakeType<Variant>(module);
  if (!type || PyModule_AddObjectRef(module, Variant::kName, type.get()) < 0) return false;
  struct Constant {
    const char* name;
    int value;
  };
  for (Constant constant : {Constant{"SALT_SIZE", Variant::kSaltSize}, {"PERSON_SIZE", Variant::kPersonSize},
                            {"MAX_KEY_SIZE", Variant::kMaxKeySize}, {"MAX_DIGEST_SIZE", Variant::kMaxDigestSize}}) {
    PyRef name = PyRef::Steal(PyUnicode_FromFormat("%s_%s", prefix, constant.name));
    PyRef value = PyRef::Steal(PyLong_FromLong(constant.value));
    if (!name || !value || PyObject_SetAttr(module, name.get(), value.get()) < 0) return false;
  }
  return true;
}

int Execute(PyObject* module) {
  bool added = PyModule_AddIntConstant(module, "_GIL_MINSIZE", kGilMinSize) == 0 &&
               AddVariant<Blake2b>(module, "BLAKE2B") && AddVariant<Blake2s>(module, "BLAKE2S");
  return added ? 0 : -1;
}

PyModuleDef_Slot kModuleSlots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(Execute)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_blake2", PyDoc_STR("BLAKE2b and BLAKE2s for hashlib."),
                       0, nullptr, kModuleSlots, nullptr, nullptr, nullptr};

}  // namespace

PyObject* InitBlake2() { return PyModuleDef_Init(&kModule); }

}  // namespace pyhost::host
