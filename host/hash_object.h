// hash_object.h: what hash objects of our own have in common, whatever their algorithm (blake2_module.cc, hash_modules.cc).
//
// A Variant is an algorithm:
//   State, Update(State*, const uint8_t*, size_t)
//   kMaxDigestSize, Finish(State*, uint8_t* digest): writes the digest, returns its size; the state is used up
//   kName, kBlockSize
//
// Thread safety: a hash object may be used from any thread; its mutex guards the state.  The GIL is released while
// much data is hashed, and while waiting for the mutex: no thread waits for the GIL and holds the mutex but one that
// has just got the mutex, and only holders of the GIL try the mutex.

#ifndef PYHOST_HOST_HASH_OBJECT_H_
#define PYHOST_HOST_HASH_OBJECT_H_

#include <string.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "modules/native/python_ref.h"

namespace pyhost::host {

// Less data than this is hashed before another thread would have got the GIL.
constexpr Py_ssize_t kGilMinSize = 2048;

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

  // A constructor's data, which has an older name, `string`; both may be null.
  bool ReadEither(PyObject* data, PyObject* string) {
    if (data != nullptr && string != nullptr) {
      PyErr_SetString(PyExc_TypeError,
                      "'data' and 'string' are mutually exclusive and support for 'string' keyword parameter is slated "
                      "for removal in a future version.");
      return false;
    }
    if (data == nullptr) data = string;
    return data == nullptr || Read(data);
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

inline void LockWithGil(std::mutex& mutex) {
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

// An object whose state is not begun; null with a Python error set.
template <typename Variant>
Hash<Variant>* NewHash(PyTypeObject* type) {
  PyObject* self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  Hash<Variant>* hash = HashOf<Variant>(self);
  new (&hash->mutex) std::mutex();
  return hash;
}

// ---- Results ---------------------------------------------------------------------------------------------------

inline PyObject* AsBytes(const uint8_t* digest, size_t size) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(digest), static_cast<Py_ssize_t>(size));
}

inline PyObject* AsHexDigits(const uint8_t* digest, size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  PyObject* text = PyUnicode_New(static_cast<Py_ssize_t>(2 * size), 127);
  if (text == nullptr) return nullptr;
  Py_UCS1* digits = PyUnicode_1BYTE_DATA(text);
  for (size_t i = 0; i < size; ++i) {
    digits[2 * i] = static_cast<Py_UCS1>(kDigits[digest[i] >> 4]);
    digits[2 * i + 1] = static_cast<Py_UCS1>(kDigits[digest[i] & 15]);
  }
  return text;
}

template <typename Variant, PyObject* (*kMake)(const uint8_t*, size_t)>
PyObject* Finished(PyObject* self, PyObject*) {
  typename Variant::State state = StateOf<Variant>(self);
  uint8_t digest[Variant::kMaxDigestSize];
  return kMake(digest, Variant::Finish(&state, digest));
}

// ---- Methods and slots -----------------------------------------------------------------------------------------

template <typename Variant>
PyObject* UpdateHash(PyObject* self, PyObject* data) {
  Buffer buffer;
  if (!buffer.Read(data)) return nullptr;
  Feed(HashOf<Variant>(self), buffer);
  Py_RETURN_NONE;
}

template <typename Variant>
PyObject* CopyHash(PyObject* self, PyObject*) {
  Hash<Variant>* copy = NewHash<Variant>(Py_TYPE(self));
  if (copy == nullptr) return nullptr;
  copy->state = StateOf<Variant>(self);
  return reinterpret_cast<PyObject*>(copy);
}

template <typename Variant>
PyObject* GetName(PyObject*, void*) {
  return PyUnicode_FromString(Variant::kName);
}

template <typename Variant>
PyObject* GetBlockSize(PyObject*, void*) {
  return PyLong_FromSize_t(Variant::kBlockSize);
}

inline int TraverseHash(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return 0;
}

template <typename Variant>
void DeallocateHash(PyObject* self) {
  Hash<Variant>* hash = HashOf<Variant>(self);
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  explicit_bzero(&hash->state, sizeof(hash->state));  // it may hold a key
  hash->mutex.~mutex();
  type->tp_free(self);
  Py_DECREF(type);
}

constexpr const char* kUpdateDoc =
    PyDoc_STR("update($self, data, /)\n--\n\nUpdate this hash object's state with the provided bytes-like object.");
constexpr const char* kCopyDoc = PyDoc_STR("copy($self, /)\n--\n\nReturn a copy of the hash object.");
constexpr const char* kDigestDoc = PyDoc_STR("digest($self, /)\n--\n\nReturn the digest value as a bytes object.");
constexpr const char* kHexDigestDoc =
    PyDoc_STR("hexdigest($self, /)\n--\n\nReturn the digest value as a string of hexadecimal digits.");

// What modules of hashes say of themselves, after their Py_mod_exec.
#if PY_VERSION_HEX >= 0x030D0000
#define PYHOST_HASH_MODULE_SLOTS                                               \
  {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},        \
      {Py_mod_gil, Py_MOD_GIL_NOT_USED}, { 0, nullptr }
#elif PY_VERSION_HEX >= 0x030C0000
#define PYHOST_HASH_MODULE_SLOTS                                               \
  {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, { 0, nullptr }
#else
#define PYHOST_HASH_MODULE_SLOTS \
  { 0, nullptr }
#endif

}  // namespace pyhost::host

#endif  // PYHOST_HOST_HASH_OBJECT_H_
