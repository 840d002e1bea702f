#include "modules/native/builtin_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "runtime/values/pickle_opcodes.h"

namespace pyhost::native {

using enum pickle::Opcode;

// It has all opcodes that are used here, and peers of every Python that there is read it.
static constexpr unsigned char kProtocol = 4;

// ---- Memo -----------------------------------------------------------------------------------------------------------

WriterMemo::Entry& WriterMemo::Find(PyObject* object) {
  Entry* const entries = large_.empty() ? inline_.data() : large_.data();
  // Objects lie 16 bytes apart at least; the multiplication spreads those that lie in a row.
  size_t slot = (reinterpret_cast<uintptr_t>(object) >> 4) * size_t{0x9E3779B97F4A7C15} >> 32;
  for (;; ++slot) {
    Entry& entry = entries[slot & (size_ - 1)];
    if (entry.object == object || entry.object == nullptr) return entry;
  }
}

void WriterMemo::Added() {
  if (++used_ * 2 > size_) Grow();
}

void WriterMemo::Grow() {
  std::vector<Entry> old = std::move(large_);
  if (old.empty()) old.assign(inline_.begin(), inline_.end());
  size_ *= 4;
  large_.assign(size_, Entry());
  for (const Entry& entry : old) {
    if (entry.object != nullptr) Find(entry.object) = entry;
  }
}

// ---- Bytes ----------------------------------------------------------------------------------------------------------

void BuiltinWriter::Grow(size_t bytes) {
  const size_t used = static_cast<size_t>(at_ - begin_);
  const size_t room = std::max(2 * (used + bytes), size_t{4096});
  std::unique_ptr<char[]> larger(new char[room]);
  std::memcpy(larger.get(), begin_, used);
  heap_ = std::move(larger);
  begin_ = heap_.get();
  at_ = begin_ + used;
  end_ = begin_ + room;
}

template <typename T>
void BuiltinWriter::PutRaw(T value) {
  std::memcpy(at_, &value, sizeof(value));
  at_ += sizeof(value);
}

bool BuiltinWriter::Write(PyObject* object) {
  std::memset(at_, 0, kHeader);
  at_ += kHeader;
  Put(kProto);
  Put(kProtocol);
  top_ = object;
  if (!WriteObject(object)) return false;
  PutOpcode(kStop);
  return true;
}

// ---- References -----------------------------------------------------------------------------------------------------

bool BuiltinWriter::WriteKnown(PyObject* object) {
  if (Py_REFCNT(object) == 1 || remembered_ == 0) return false;
  const WriterMemo::Entry& entry = memo_.Find(object);
  if (entry.object == nullptr) return false;
  Reserve(kAtomBytes);
  if (entry.index <= 0xff) {
    Put(kBinGet);
    Put(static_cast<unsigned char>(entry.index));
  } else {
    Put(kLongBinGet);
    PutRaw(entry.index);
  }
  return true;
}

bool BuiltinWriter::Remember(PyObject* object) {
  // The caller's reference to the outermost object says nothing; WriteContainer sees it if it comes again.
  if (Py_REFCNT(object) == 1 || object == top_) return true;
  WriterMemo::Entry& entry = memo_.Find(object);
  if (entry.object != nullptr) return false;
  entry = {object, remembered_++};
  memo_.Added();
  PutOpcode(kMemoize);
  return true;
}

// ---- Scalars --------------------------------------------------------------------------------------------------------

bool BuiltinWriter::WriteInt(PyObject* object) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow != 0) return false;
  Reserve(kAtomBytes);
  if (value >= 0 && value <= 0xff) {
    Put(kBinInt1);
    Put(static_cast<unsigned char>(value));
  } else if (value >= 0 && value <= 0xffff) {
    Put(kBinInt2);
    PutRaw(static_cast<uint16_t>(value));
  } else if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
    Put(kBinInt);
    PutRaw(static_cast<int32_t>(value));
  } else {
    Put(kLong1);
    Put(sizeof(value));
    PutRaw(value);
  }
  return true;
}

bool BuiltinWriter::WriteText(unsigned char short_opcode, unsigned char opcode, const char* data, Py_ssize_t size) {
  if (size > kMaxText) return false;
  Reserve(kAtomBytes + static_cast<size_t>(size));
  if (size <= 0xff) {
    Put(short_opcode);
    Put(static_cast<unsigned char>(size));
  } else {
    Put(opcode);
    PutRaw(static_cast<uint32_t>(size));
  }
  std::memcpy(at_, data, static_cast<size_t>(size));
  at_ += size;
  return true;
}

bool BuiltinWriter::WriteString(PyObject* string) {
  if (PyUnicode_IS_COMPACT_ASCII(string)) {
    return WriteText(kShortBinUnicode, kBinUnicode, static_cast<const char*>(PyUnicode_DATA(string)),
                     PyUnicode_GET_LENGTH(string));
  }
  if (PyUnicode_GET_LENGTH(string) > kMaxText) return false;
  // Not PyUnicode_AsUTF8: the string would keep the copy for ever.
  PyRef encoded = PyRef::Steal(PyUnicode_AsUTF8String(string));
  if (!encoded) {
    PyErr_Clear();  // A lone surrogate.
    return false;
  }
  return WriteText(kShortBinUnicode, kBinUnicode, PyBytes_AS_STRING(encoded.get()), PyBytes_GET_SIZE(encoded.get()));
}

bool BuiltinWriter::WriteObject(PyObject* object) {
  if (PyLong_CheckExact(object)) return WriteInt(object);
  if (object == Py_None || object == Py_True || object == Py_False) {
    PutOpcode(object == Py_None ? kNone : object == Py_True ? kNewTrue : kNewFalse);
    return true;
  }
  if (PyFloat_CheckExact(object)) {
    PutOpcode(kBinFloat);
    PutRaw(__builtin_bswap64(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(object))));
    return true;
  }
  if (WriteKnown(object)) return true;
  if (PyUnicode_CheckExact(object)) return WriteString(object) && Remember(object);
  if (PyBytes_CheckExact(object)) {
    return WriteText(kShortBinBytes, kBinBytes, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object)) && Remember(object);
  }
  if (depth_ == kMaxDepth || (object == top_ && depth_ != 0)) return false;
  ++depth_;
  const bool written = WriteContainer(object);
  --depth_;
  return written;
}

// ---- Containers -----------------------------------------------------------------------------------------------------

bool BuiltinWriter::WriteContainer(PyObject* object) {
  if (PyDict_CheckExact(object)) return WriteDict(object);
  if (PyList_CheckExact(object)) return WriteList(object);
  if (PyTuple_CheckExact(object)) return WriteTuple(object);
  if (PyAnySet_CheckExact(object)) return PyFrozenSet_CheckExact(object) ? WriteFrozenSet(object) : WriteSet(object);
  return false;
}

bool BuiltinWriter::WriteTuple(PyObject* tuple) {
  const Py_ssize_t size = PyTuple_GET_SIZE(tuple);
  if (size == 0) {
    PutOpcode(kEmptyTuple);
    return true;
  }
  if (size > 3) PutOpcode(kMark);
  for (Py_ssize_t i = 0; i < size; ++i) {
    if (!WriteObject(PyTuple_GET_ITEM(tuple, i))) return false;
  }
  PutOpcode(static_cast<unsigned char>(size > 3 ? kTuple : kTuple1 + static_cast<int>(size) - 1));
  return Remember(tuple);
}

bool BuiltinWriter::WriteList(PyObject* list) {
  PutOpcode(kEmptyList);
  if (!Remember(list)) return false;
  if (PyList_GET_SIZE(list) == 0) return true;
  PutOpcode(kMark);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    if (!WriteObject(PyList_GET_ITEM(list, i))) return false;
  }
  PutOpcode(kAppends);
  return true;
}

bool BuiltinWriter::WriteDict(PyObject* dict) {
  PutOpcode(kEmptyDict);
  if (!Remember(dict)) return false;
  if (PyDict_GET_SIZE(dict) == 0) return true;
  PutOpcode(kMark);
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(dict, &position, &key, &value);) {
    if (!WriteObject(key) || !WriteObject(value)) return false;
  }
  PutOpcode(kSetItems);
  return true;
}

// There is no public way to walk a set but an iterator, and making one may start a garbage collection, which could
// change what is being written.
bool BuiltinWriter::WriteItems(PyObject* set) {
  const bool collects = PyGC_Disable() != 0;
  PyRef iterator = PyRef::Steal(PyObject_GetIter(set));
  if (collects) PyGC_Enable();
  while (PyRef item = iterator ? PyRef::Steal(PyIter_Next(iterator.get())) : PyRef()) {
    // The reference that we hold must not look like a second one of the program's.
    PyObject* borrowed = item.get();
    item = PyRef();
    if (!WriteObject(borrowed)) return false;
  }
  if (!PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

bool BuiltinWriter::WriteSet(PyObject* set) {
  PutOpcode(kEmptySet);
  if (!Remember(set)) return false;
  if (PySet_GET_SIZE(set) == 0) return true;
  PutOpcode(kMark);
  if (!WriteItems(set)) return false;
  PutOpcode(kAddItems);
  return true;
}

bool BuiltinWriter::WriteFrozenSet(PyObject* set) {
  PutOpcode(kMark);
  if (!WriteItems(set)) return false;
  PutOpcode(kFrozenSet);
  return Remember(set);
}

}  // namespace pyhost::native
