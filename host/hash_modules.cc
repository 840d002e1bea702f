// The extension modules _md5, _sha1, _sha2 and _sha3 over nettle, for a libpython whose own cannot be linked
// (host/missing_builtins.py).  hashlib takes these where OpenSSL may not or cannot serve.
//
// Types, attributes and errors are those of CPython 3.14.  For thread safety see hash_object.h.

#include <nettle/md5.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <nettle/sha3.h>

#include <type_traits>

#include "host/hash_object.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// ---- The algorithms --------------------------------------------------------------------------------------------

// nettle's function that writes a digest: up to its version 3 it is told the size.
template <typename State>
void CallDigest(void (*function)(State*, size_t, uint8_t*), State* state, size_t size, uint8_t* digest) {
  function(state, size, digest);
}
template <typename State>
void CallDigest(void (*function)(State*, uint8_t*), State* state, size_t, uint8_t* digest) {
  function(state, digest);
}

template <typename StateType, auto kInit, auto kUpdate, auto kDigest, size_t kSize, size_t kBlock>
struct Algorithm {
  using State = StateType;
  static constexpr size_t kMaxDigestSize = kSize;
  static constexpr size_t kDigestSize = kSize;
  static constexpr size_t kBlockSize = kBlock;
  static void Begin(State* state) { kInit(state); }
  static void Update(State* state, const uint8_t* data, size_t size) { kUpdate(state, size, data); }
  static size_t Finish(State* state, uint8_t* digest) {
    CallDigest(kDigest, state, kSize, digest);
    return kSize;
  }
};

// kName: what hashlib calls it.  kType: the type's name in the module, and in full.
struct Md5 : Algorithm<md5_ctx, md5_init, md5_update, md5_digest, MD5_DIGEST_SIZE, MD5_BLOCK_SIZE> {
  static constexpr const char *kName = "md5", *kType = "MD5Type", *kFullType = "_md5.md5", *kFormat = "|O$pO:md5";
};
struct Sha1 : Algorithm<sha1_ctx, sha1_init, sha1_update, sha1_digest, SHA1_DIGEST_SIZE, SHA1_BLOCK_SIZE> {
  static constexpr const char *kName = "sha1", *kType = "SHA1Type", *kFullType = "_sha1.sha1", *kFormat = "|O$pO:sha1";
};
struct Sha224 : Algorithm<sha256_ctx, sha224_init, sha256_update, sha224_digest, SHA224_DIGEST_SIZE, SHA224_BLOCK_SIZE> {
  static constexpr const char *kName = "sha224", *kType = "SHA224Type", *kFullType = "_sha2.SHA224Type",
                              *kFormat = "|O$pO:sha224";
};
struct Sha256 : Algorithm<sha256_ctx, sha256_init, sha256_update, sha256_digest, SHA256_DIGEST_SIZE, SHA256_BLOCK_SIZE> {
  static constexpr const char *kName = "sha256", *kType = "SHA256Type", *kFullType = "_sha2.SHA256Type",
                              *kFormat = "|O$pO:sha256";
};
struct Sha384 : Algorithm<sha512_ctx, sha384_init, sha512_update, sha384_digest, SHA384_DIGEST_SIZE, SHA384_BLOCK_SIZE> {
  static constexpr const char *kName = "sha384", *kType = "SHA384Type", *kFullType = "_sha2.SHA384Type",
                              *kFormat = "|O$pO:sha384";
};
struct Sha512 : Algorithm<sha512_ctx, sha512_init, sha512_update, sha512_digest, SHA512_DIGEST_SIZE, SHA512_BLOCK_SIZE> {
  static constexpr const char *kName = "sha512", *kType = "SHA512Type", *kFullType = "_sha2.SHA512Type",
                              *kFormat = "|O$pO:sha512";
};

// The suffix is what separates these families of Keccak: the bits after the message, and the first of the padding.
template <typename StateType, auto kInit, auto kUpdate, auto kDigest, size_t kSize, size_t kBlock>
struct Sha3 : Algorithm<StateType, kInit, kUpdate, kDigest, kSize, kBlock> {
  static constexpr char kSuffix = '\x06';
};
struct Sha3_224 : Sha3<sha3_224_ctx, sha3_224_init, sha3_224_update, sha3_224_digest, SHA3_224_DIGEST_SIZE,
                       SHA3_224_BLOCK_SIZE> {
  static constexpr const char *kName = "sha3_224", *kFullType = "_sha3.sha3_224", *kFormat = "|O$pO:sha3_224";
};
struct Sha3_256 : Sha3<sha3_256_ctx, sha3_256_init, sha3_256_update, sha3_256_digest, SHA3_256_DIGEST_SIZE,
                       SHA3_256_BLOCK_SIZE> {
  static constexpr const char *kName = "sha3_256", *kFullType = "_sha3.sha3_256", *kFormat = "|O$pO:sha3_256";
};
struct Sha3_384 : Sha3<sha3_384_ctx, sha3_384_init, sha3_384_update, sha3_384_digest, SHA3_384_DIGEST_SIZE,
                       SHA3_384_BLOCK_SIZE> {
  static constexpr const char *kName = "sha3_384", *kFullType = "_sha3.sha3_384", *kFormat = "|O$pO:sha3_384";
};
struct Sha3_512 : Sha3<sha3_512_ctx, sha3_512_init, sha3_512_update, sha3_512_digest, SHA3_512_DIGEST_SIZE,
                       SHA3_512_BLOCK_SIZE> {
  static constexpr const char *kName = "sha3_512", *kFullType = "_sha3.sha3_512", *kFormat = "|O$pO:sha3_512";
};

// Digests of any length.
template <typename StateType, auto kInit, auto kUpdate, auto kShake, size_t kBlock>
struct Shake {
  using State = StateType;
  static constexpr size_t kDigestSize = 0;
  static constexpr size_t kBlockSize = kBlock;
  static constexpr char kSuffix = '\x1f';
  static void Begin(State* state) { kInit(state); }
  static void Update(State* state, const uint8_t* data, size_t size) { kUpdate(state, size, data); }
  static void Squeeze(State* state, uint8_t* digest, size_t size) { kShake(state, size, digest); }
};
struct Shake128 : Shake<sha3_128_ctx, sha3_128_init, sha3_128_update, sha3_128_shake, SHA3_128_BLOCK_SIZE> {
  static constexpr const char *kName = "shake_128", *kFullType = "_sha3.shake_128", *kFormat = "|O$pO:shake_128";
};
struct Shake256 : Shake<sha3_256_ctx, sha3_256_init, sha3_256_update, sha3_256_shake, SHA3_256_BLOCK_SIZE> {
  static constexpr const char *kName = "shake_256", *kFullType = "_sha3.shake_256", *kFormat = "|O$pO:shake_256";
};

// ---- Objects ---------------------------------------------------------------------------------------------------

template <typename Variant>
PyObject* Make(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"data", "usedforsecurity", "string", nullptr};
  PyObject *data = nullptr, *string = nullptr;  // borrowed
  int used_for_security = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, Variant::kFormat, const_cast<char**>(keywords), &data,
                                   &used_for_security, &string)) {
    return nullptr;
  }
  Buffer buffer;
  if (!buffer.ReadEither(data, string)) return nullptr;
  Hash<Variant>* hash = NewHash<Variant>(type);
  if (hash == nullptr) return nullptr;
  Variant::Begin(&hash->state);
  if (buffer.size() > 0) Feed(hash, buffer);
  return reinterpret_cast<PyObject*>(hash);
}

template <typename Variant>
PyObject* GetDigestSize(PyObject*, void*) {
  return PyLong_FromSize_t(Variant::kDigestSize);
}

// Of the sponge's 1600 bits, those that take in data.
template <typename Variant>
PyObject* GetRate(PyObject*, void*) {
  return PyLong_FromSize_t(8 * Variant::kBlockSize);
}

template <typename Variant>
PyObject* GetCapacity(PyObject*, void*) {
  return PyLong_FromSize_t(1600 - 8 * Variant::kBlockSize);
}

template <typename Variant>
PyObject* GetSuffix(PyObject*, void*) {
  return PyBytes_FromStringAndSize(&Variant::kSuffix, 1);
}

// The length that shake's digests are asked for; -1 with a Python error set.
Py_ssize_t LengthFrom(PyObject* args, PyObject* kwargs, const char* format) {
  constexpr Py_ssize_t kMost = (Py_ssize_t{1} << 29) - 1;
  static const char* keywords[] = {"length", nullptr};
  Py_ssize_t length;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, const_cast<char**>(keywords), &length)) return -1;
  if (length >= 0 && length <= kMost) return length;
  PyErr_SetString(PyExc_ValueError, length < 0 ? "value must be positive" : "length is too large");
  return -1;
}

template <typename Variant>
PyRef Squeezed(PyObject* self, Py_ssize_t length) {
  PyRef bytes = PyRef::Steal(PyBytes_FromStringAndSize(nullptr, length));
  if (!bytes) return bytes;
  typename Variant::State state = StateOf<Variant>(self);
  Variant::Squeeze(&state, reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes.get())), static_cast<size_t>(length));
  return bytes;
}

template <typename Variant>
PyObject* ShakeDigest(PyObject* self, PyObject* args, PyObject* kwargs) {
  Py_ssize_t length = LengthFrom(args, kwargs, "n:digest");
  return length < 0 ? nullptr : Squeezed<Variant>(self, length).release();
}

template <typename Variant>
PyObject* ShakeHexDigest(PyObject* self, PyObject* args, PyObject* kwargs) {
  Py_ssize_t length = LengthFrom(args, kwargs, "n:hexdigest");
  if (length < 0) return nullptr;
  PyRef bytes = Squeezed<Variant>(self, length);
  if (!bytes) return nullptr;
  return AsHexDigits(reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(bytes.get())), static_cast<size_t>(length));
}

// ---- Types -----------------------------------------------------------------------------------------------------

template <typename Variant>
PyMethodDef* DigestMethods() {
  static PyMethodDef methods[] = {
      {"copy", CopyHash<Variant>, METH_NOARGS, kCopyDoc},
      {"digest", Finished<Variant, AsBytes>, METH_NOARGS, kDigestDoc},
      {"hexdigest", Finished<Variant, AsHexDigits>, METH_NOARGS, kHexDigestDoc},
      {"update", UpdateHash<Variant>, METH_O, kUpdateDoc},
      {nullptr, nullptr, 0, nullptr},
  };
  return methods;
}

template <typename Variant>
PyMethodDef* ShakeMethods() {
  static PyMethodDef methods[] = {
      {"copy", CopyHash<Variant>, METH_NOARGS, kCopyDoc},
      {"digest", native::AsMethod(ShakeDigest<Variant>), METH_VARARGS | METH_KEYWORDS,
       PyDoc_STR("digest($self, /, length)\n--\n\nReturn `length` bytes of digest.")},
      {"hexdigest", native::AsMethod(ShakeHexDigest<Variant>), METH_VARARGS | METH_KEYWORDS,
       PyDoc_STR("hexdigest($self, /, length)\n--\n\nReturn `length` bytes of digest as hexadecimal digits.")},
      {"update", UpdateHash<Variant>, METH_O, kUpdateDoc},
      {nullptr, nullptr, 0, nullptr},
  };
  return methods;
}

template <typename Variant>
PyGetSetDef* Attributes() {
  static PyGetSetDef attributes[] = {
      {"name", GetName<Variant>, nullptr, nullptr, nullptr},
      {"block_size", GetBlockSize<Variant>, nullptr, nullptr, nullptr},
      {"digest_size", GetDigestSize<Variant>, nullptr, nullptr, nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr},
  };
  return attributes;
}

template <typename Variant>
PyGetSetDef* Sha3Attributes() {
  static PyGetSetDef attributes[] = {
      {"name", GetName<Variant>, nullptr, nullptr, nullptr},
      {"block_size", GetBlockSize<Variant>, nullptr, nullptr, nullptr},
      {"digest_size", GetDigestSize<Variant>, nullptr, nullptr, nullptr},
      {"_capacity_bits", GetCapacity<Variant>, nullptr, nullptr, nullptr},
      {"_rate_bits", GetRate<Variant>, nullptr, nullptr, nullptr},
      {"_suffix", GetSuffix<Variant>, nullptr, nullptr, nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr},
  };
  return attributes;
}

// `make` is __new__; without it objects come from the module's function alone.
template <typename Variant>
PyRef MakeType(PyObject* module, PyMethodDef* methods, PyGetSetDef* attributes, newfunc make) {
  PyType_Slot slots[] = {
      {Py_tp_dealloc, reinterpret_cast<void*>(DeallocateHash<Variant>)},
      {Py_tp_traverse, reinterpret_cast<void*>(TraverseHash)},
      {Py_tp_methods, methods},
      {Py_tp_getset, attributes},
      {make == nullptr ? 0 : Py_tp_new, reinterpret_cast<void*>(make)},
      {0, nullptr},
  };
  unsigned long flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC;
  if (make == nullptr) flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
  PyType_Spec spec = {Variant::kFullType, sizeof(Hash<Variant>), 0, static_cast<unsigned>(flags), slots};
  return PyRef::Steal(PyType_FromModuleAndSpec(module, &spec, nullptr));
}

// ---- _md5, _sha1, _sha2: a function for each algorithm -----------------------------------------------------------

template <typename... Variants>
struct FunctionModule {
  // The types, in the order of Variants.
  struct State {
    PyObject* types[sizeof...(Variants)];
  };
  static State* StateOfModule(PyObject* module) { return static_cast<State*>(PyModule_GetState(module)); }

  template <typename Variant>
  static constexpr size_t Index() {
    size_t index = 0;
    bool found = false;
    ((found = found || std::is_same_v<Variant, Variants>, index += found ? 0 : 1), ...);
    return index;
  }

  template <typename Variant>
  static PyObject* Call(PyObject* module, PyObject* args, PyObject* kwargs) {
    PyObject* type = StateOfModule(module)->types[Index<Variant>()];
    return Make<Variant>(reinterpret_cast<PyTypeObject*>(type), args, kwargs);
  }

  template <typename Variant>
  static bool AddType(PyObject* module) {
    PyObject*& type = StateOfModule(module)->types[Index<Variant>()];
    type = MakeType<Variant>(module, DigestMethods<Variant>(), Attributes<Variant>(), nullptr).release();
    return type != nullptr && PyModule_AddObjectRef(module, Variant::kType, type) == 0;
  }

  static int Execute(PyObject* module) {
    bool added = PyModule_AddIntConstant(module, "_GIL_MINSIZE", kGilMinSize) == 0 && (AddType<Variants>(module) && ...);
    return added ? 0 : -1;
  }

  static int Traverse(PyObject* module, visitproc visit, void* arg) {
    for (PyObject* type : StateOfModule(module)->types) Py_VISIT(type);
    return 0;
  }

  static int Clear(PyObject* module) {
    for (PyObject*& type : StateOfModule(module)->types) Py_CLEAR(type);
    return 0;
  }

  static void Free(void* module) { Clear(static_cast<PyObject*>(module)); }

  static PyObject* Init(const char* name) {
    static PyMethodDef methods[] = {
        {Variants::kName, native::AsMethod(Call<Variants>), METH_VARARGS | METH_KEYWORDS,
         PyDoc_STR("A hash object: (data=b'', *, usedforsecurity=True, string=None).")}...,
        {nullptr, nullptr, 0, nullptr},
    };
    static PyModuleDef_Slot slots[] = {
        {Py_mod_exec, reinterpret_cast<void*>(Execute)},
        PYHOST_HASH_MODULE_SLOTS,
    };
    static PyModuleDef module = {PyModuleDef_HEAD_INIT, name, nullptr, sizeof(State), methods, slots,
                                 Traverse, Clear, Free};
    return PyModuleDef_Init(&module);
  }
};

// ---- _sha3: a type for each algorithm --------------------------------------------------------------------------

template <typename Variant>
bool AddSha3(PyObject* module, PyMethodDef* methods) {
  PyRef type = MakeType<Variant>(module, methods, Sha3Attributes<Variant>(), Make<Variant>);
  return type && PyModule_AddObjectRef(module, Variant::kName, type.get()) == 0;
}

int ExecuteSha3(PyObject* module) {
  bool added = PyModule_AddIntConstant(module, "_GIL_MINSIZE", kGilMinSize) == 0 &&
               PyModule_AddStringConstant(module, "implementation", "nettle") == 0 &&
               AddSha3<Sha3_224>(module, DigestMethods<Sha3_224>()) &&
               AddSha3<Sha3_256>(module, DigestMethods<Sha3_256>()) &&
               AddSha3<Sha3_384>(module, DigestMethods<Sha3_384>()) &&
               AddSha3<Sha3_512>(module, DigestMethods<Sha3_512>()) &&
               AddSha3<Shake128>(module, ShakeMethods<Shake128>()) &&
               AddSha3<Shake256>(module, ShakeMethods<Shake256>());
  return added ? 0 : -1;
}

PyModuleDef_Slot kSha3Slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(ExecuteSha3)},
    PYHOST_HASH_MODULE_SLOTS,
};

PyModuleDef kSha3Module = {PyModuleDef_HEAD_INIT, "_sha3", PyDoc_STR("SHA-3 and SHAKE for hashlib."), 0, nullptr,
                           kSha3Slots, nullptr, nullptr, nullptr};

}  // namespace

PyObject* InitMd5() { return FunctionModule<Md5>::Init("_md5"); }
PyObject* InitSha1() { return FunctionModule<Sha1>::Init("_sha1"); }
PyObject* InitSha2() { return FunctionModule<Sha224, Sha256, Sha384, Sha512>::Init("_sha2"); }
PyObject* InitSha3() { return PyModuleDef_Init(&kSha3Module); }

}  // namespace pyhost::host
