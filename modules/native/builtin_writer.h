// BuiltinWriter: writes standard pickles of plain builtins (None, bool, int of 64 bits, float, str, bytes, tuple, list,
// dict, set, frozenset, nested; no subclasses) several times as fast as the pickler.  What it cannot write, it leaves.
//
//   BuiltinWriter writer;
//   if (writer.Write(object)) use(writer.pickle());         // else: the pickler's
//
// What a pickle promises, it promises too: an object that occurs twice is one object after loading.  Only objects with
// more than one reference can occur twice; these are looked up in a memo and written as MEMOIZE and GET.  An object
// inside of itself is left to the pickler where that takes more than a GET.
//
// No reducer can change how these exact types are pickled, so nothing that a program registers is bypassed.
// No Python code runs, and nothing is changed.  Needs the GIL; lives on the stack of one call.

#ifndef PYHOST_MODULES_NATIVE_BUILTIN_WRITER_H_
#define PYHOST_MODULES_NATIVE_BUILTIN_WRITER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Which objects were written, and as which entry of the reader's memo: open addressing, without allocation at first.
class WriterMemo {
 public:
  // The entry of `object`, none when it is new: then the caller may fill it in.
  struct Entry {
    PyObject* object = nullptr;
    uint32_t index = 0;
  };
  Entry& Find(PyObject* object);
  // After a new entry was filled in.
  void Added();

 private:
  static constexpr size_t kInline = 32;
  void Grow();

  size_t used_ = 0;
  size_t size_ = kInline;  // a power of two
  std::array<Entry, kInline> inline_{};
  std::vector<Entry> large_;
};

class BuiltinWriter {
 public:
  // False, with no Python error, when the pickler must do it.  Once only.
  bool Write(PyObject* object);
  // Preceded by `kHeader` bytes of zero: "no out-of-band buffers" (pickling.h).
  std::span<const std::byte> payload() const {
    return std::as_bytes(std::span(begin_, static_cast<size_t>(at_ - begin_)));
  }
  std::span<const std::byte> pickle() const { return payload().subspan(kHeader); }

 private:
  static constexpr size_t kInline = 480;
  static constexpr size_t kHeader = sizeof(uint64_t);
  static constexpr int kMaxDepth = 100;
  static constexpr Py_ssize_t kMaxText = 16 * 1024;  // beyond, the pickler saves a copy
  static constexpr size_t kAtomBytes = 16;           // what an opcode with a number takes at most
  static constexpr uint32_t kTop = ~uint32_t{0};

  void Reserve(size_t bytes) {
    if (static_cast<size_t>(end_ - at_) < bytes) Grow(bytes);
  }
  void Grow(size_t bytes);
  void Put(unsigned char byte) { *at_++ = static_cast<char>(byte); }
  template <typename T>
  void PutRaw(T value);
  void PutOpcode(unsigned char opcode) {
    Reserve(kAtomBytes);
    Put(opcode);
  }

  bool WriteObject(PyObject* object);
  bool WriteScalar(PyObject* object, bool* done);
  bool WriteInt(PyObject* object);
  bool WriteText(unsigned char short_opcode, unsigned char opcode, const char* data, Py_ssize_t size);
  bool WriteString(PyObject* string);
  bool WriteContainer(PyObject* object);
  bool WriteTuple(PyObject* tuple);
  bool WriteList(PyObject* list);
  bool WriteDict(PyObject* dict);
  bool WriteSet(PyObject* set);
  bool WriteFrozenSet(PyObject* set);
  bool WriteItems(PyObject* set);

  // Writes a GET if `object` was written before.
  bool WriteKnown(PyObject* object);
  // After the opcode that makes it.  False when it was made meanwhile, by way of itself.
  bool Remember(PyObject* object);

  char* begin_ = inline_;
  char* at_ = inline_;
  char* end_ = inline_ + kInline;
  int depth_ = 0;
  uint32_t remembered_ = 0;
  PyObject* top_ = nullptr;
  WriterMemo memo_;
  std::unique_ptr<char[]> heap_;
  char inline_[kInline];
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_BUILTIN_WRITER_H_
