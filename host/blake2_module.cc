// The extension module _blake2 over libb2, for a libpython whose own cannot be linked (host/missing_builtins.py).
//
// hashlib takes blake2b and blake2s from here: all their parameters, attributes and errors are those of CPython 3.14.

#include <blake2.h>
#include <string.h>

#include <cstddef>
#include <cstring>
#include <type_traits>

#include "host/hash_object.h"

namespace pyhost::host {
namespace {

using native::PyRef;

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
  static size_t Finish(State* state, uint8_t* digest) {
    size_t size = state->outlen;
    blake2b_final(state, digest, size);
    return size;
  }
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
  static size_t Finish(State* state, uint8_t* digest) {
    size_t size = state->outlen;
    blake2s_final(state, digest, size);
    return size;
  }
  static void SetNodeOffset(Parameters& parameters, unsigned long long offset) {
    for (size_t i = 0; i < sizeof(parameters.node_offset); ++i) {
      parameters.node_offset[i] = static_cast<uint8_t>(offset >> (8 * i));
    }
  }
};

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
  Buffer buffer;
  if (!buffer.ReadEither(arguments.data, arguments.string)) return nullptr;
  Hash<Variant>* hash = NewHash<Variant>(type);
  if (hash == nullptr) return nullptr;
  Start<Variant>(arguments, &hash->state);
  if (buffer.size() > 0) Feed(hash, buffer);
  return reinterpret_cast<PyObject*>(hash);
}

template <typename Variant>
PyObject* GetDigestSize(PyObject* self, void*) {
  return PyLong_FromLong(HashOf<Variant>(self)->state.outlen);  // constant after construction
}

// ---- The module ------------------------------------------------------------------------------------------------

bool SetConstant(PyObject* dict, const char* name, int number) {
  PyRef value = PyRef::Steal(PyLong_FromLong(number));
  return value && PyDict_SetItemString(dict, name, value.get()) == 0;
}

template <typename Variant>
PyRef MakeType(PyObject* module) {
  static PyMethodDef methods[] = {
      {"copy", CopyHash<Variant>, METH_NOARGS, kCopyDoc},
      {"digest", Finished<Variant, AsBytes>, METH_NOARGS, kDigestDoc},
      {"hexdigest", Finished<Variant, AsHexDigits>, METH_NOARGS, kHexDigestDoc},
      {"update", UpdateHash<Variant>, METH_O, kUpdateDoc},
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
      {Py_tp_dealloc, reinterpret_cast<void*>(DeallocateHash<Variant>)},
      {Py_tp_traverse, reinterpret_cast<void*>(TraverseHash)},
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
    PYHOST_HASH_MODULE_SLOTS,
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_blake2", PyDoc_STR("BLAKE2b and BLAKE2s for hashlib."),
                       0, nullptr, kModuleSlots, nullptr, nullptr, nullptr};

}  // namespace

PyObject* InitBlake2() { return PyModuleDef_Init(&kModule); }

}  // namespace pyhost::host
