#include "modules/native/scalar_pickle.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace pyhost::native {
namespace {

// Opcodes of the pickle format (see the standard library's pickletools).
enum Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kAppends = 'e',
  kEmptyList = ']',
  kNone = 'N',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinInt = 'J',
  kBinFloat = 'G',
  kShortBytes = 'C',
  kEmptyTuple = ')',
  kTuple = 't',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kTrue = 0x88,
  kFalse = 0x89,
  kLong1 = 0x8a,
  kShortUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

constexpr size_t kHeaderBytes = sizeof(uint64_t);  // the number of out-of-band buffers: none
constexpr Py_ssize_t kMaxTuple = 16;
constexpr int kMaxDepth = 3;
constexpr Py_ssize_t kMaxShort = 255;

void Put(std::string* out, unsigned char byte) { out->push_back(static_cast<char>(byte)); }

constexpr uint64_t BigEndian(uint64_t value) { return __builtin_bswap64(value); }

template <typename T>
void PutRaw(std::string* out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

// ---- Writing -----------------------------------------------------------------------------------------------------

bool AppendInt(PyObject* object, std::string* out) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow != 0) return false;
  if (value >= 0 && value <= 0xff) {
    Put(out, kBinInt1);
    Put(out, static_cast<unsigned char>(value));
  } else if (value >= 0 && value <= 0xffff) {
    Put(out, kBinInt2);
    PutRaw(out, static_cast<uint16_t>(value));
  } else if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
    Put(out, kBinInt);
    PutRaw(out, static_cast<int32_t>(value));
  } else {
    Put(out, kLong1);
    Put(out, sizeof(value));
    PutRaw(out, value);
  }
  return true;
}

void AppendFloat(double value, std::string* out) {
  Put(out, kBinFloat);
  PutRaw(out, BigEndian(std::bit_cast<uint64_t>(value)));
}

bool AppendShort(Opcode opcode, const char* data, Py_ssize_t size, std::string* out) {
  if (size > kMaxShort) return false;
  Put(out, opcode);
  Put(out, static_cast<unsigned char>(size));
  out->append(data, static_cast<size_t>(size));
  return true;
}

bool AppendOne(PyObject* object, int depth, std::string* out);

bool AppendTuple(PyObject* tuple, int depth, std::string* out) {
  const Py_ssize_t size = PyTuple_GET_SIZE(tuple);
  if (size > kMaxTuple || depth == 0) return false;
  if (size == 0) {
    Put(out, kEmptyTuple);
    return true;
  }
  if (size > 3) Put(out, kMark);
  for (Py_ssize_t i = 0; i < size; ++i) {
    if (!AppendOne(PyTuple_GET_ITEM(tuple, i), depth - 1, out)) return false;
  }
  Put(out, static_cast<unsigned char>(size > 3 ? kTuple : kTuple1 + static_cast<int>(size) - 1));
  return true;
}

bool AppendOne(PyObject* object, int depth, std::string* out) {
  if (PyLong_CheckExact(object)) return AppendInt(object, out);
  if (object == Py_None || object == Py_True || object == Py_False) {
    Put(out, object == Py_None ? kNone : object == Py_True ? kTrue : kFalse);
    return true;
  }
  if (PyFloat_CheckExact(object)) {
    AppendFloat(PyFloat_AS_DOUBLE(object), out);
    return true;
  }
  if (PyUnicode_CheckExact(object)) {
    return PyUnicode_IS_COMPACT_ASCII(object) &&
           AppendShort(kShortUnicode, static_cast<const char*>(PyUnicode_DATA(object)), PyUnicode_GET_LENGTH(object),
                       out);
  }
  if (PyBytes_CheckExact(object)) {
    return AppendShort(kShortBytes, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object), out);
  }
  return PyTuple_CheckExact(object) && AppendTuple(object, depth, out);
}

// Writes numbers without asking for room each time: the caller has made room for kMaxNumberBytes.
constexpr size_t kMaxNumberBytes = 2 + sizeof(long long);
constexpr Py_ssize_t kNumbersAtOnce = 1024;

template <typename T>
char* WriteRaw(char* to, unsigned char opcode, T value) {
  *to++ = static_cast<char>(opcode);
  std::memcpy(to, &value, sizeof(value));
  return to + sizeof(value);
}

// Where the next one goes; null when it is no number of at most 64 bits.
char* WriteNumber(char* to, PyObject* object) {
  if (PyLong_CheckExact(object)) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) return nullptr;
    if (value >= 0 && value <= 0xff) return WriteRaw(to, kBinInt1, static_cast<uint8_t>(value));
    if (value >= 0 && value <= 0xffff) return WriteRaw(to, kBinInt2, static_cast<uint16_t>(value));
    if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
      return WriteRaw(to, kBinInt, static_cast<int32_t>(value));
    }
    *to++ = static_cast<char>(kLong1);
    return WriteRaw(to, sizeof(value), value);
  }
  if (PyFloat_CheckExact(object)) {
    return WriteRaw(to, kBinFloat, BigEndian(std::bit_cast<uint64_t>(PyFloat_AS_DOUBLE(object))));
  }
  if (object != Py_None && object != Py_True && object != Py_False) return nullptr;
  *to++ = static_cast<char>(object == Py_None ? kNone : object == Py_True ? kTrue : kFalse);
  return to;
}

bool AppendNumbers(PyObject* list, std::string* out) {
  const Py_ssize_t size = PyList_GET_SIZE(list);
  Put(out, kEmptyList);
  if (size == 0) return true;
  Put(out, kMark);
  for (Py_ssize_t first = 0; first < size; first += kNumbersAtOnce) {
    const Py_ssize_t end = std::min(size, first + kNumbersAtOnce);
    const size_t before = out->size();
    out->resize(before + static_cast<size_t>(end - first) * kMaxNumberBytes);
    char* to = out->data() + before;
    for (Py_ssize_t i = first; i < end; ++i) {
      to = WriteNumber(to, PyList_GET_ITEM(list, i));
      if (to == nullptr) return false;
    }
    out->resize(static_cast<size_t>(to - out->data()));
  }
  Put(out, kAppends);
  return true;
}

// ---- Reading -----------------------------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes)
      : at_(reinterpret_cast<const unsigned char*>(bytes.data())), end_(at_ + bytes.size()) {}

  bool Skip(unsigned char expected) {
    if (at_ == end_ || *at_ != expected) return false;
    ++at_;
    return true;
  }
  bool SkipBytes(size_t count) {
    if (static_cast<size_t>(end_ - at_) < count) return false;
    at_ += count;
    return true;
  }
  bool SkipShortString() {
    unsigned char size = 0;
    return Skip(kShortUnicode) && Byte(&size) && SkipBytes(size);
  }
  bool Byte(unsigned char* byte) {
    if (at_ == end_) return false;
    *byte = *at_++;
    return true;
  }
  bool AtEnd() const { return at_ == end_; }
  template <typename T>
  bool Raw(T* value) {
    if (static_cast<size_t>(end_ - at_) < sizeof(T)) return false;
    std::memcpy(value, at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }
  bool Short(std::span<const unsigned char>* bytes) {
    unsigned char size = 0;
    if (!Byte(&size) || static_cast<size_t>(end_ - at_) < size) return false;
    *bytes = {at_, size};
    at_ += size;
    return true;
  }

 private:
  const unsigned char* at_;
  const unsigned char* end_;
};

template <typename T>
PyObject* ReadInt(Reader& reader) {
  T value = 0;
  return reader.Raw(&value) ? PyLong_FromLongLong(value) : nullptr;
}

PyObject* ReadLong(Reader& reader) {
  unsigned char size = 0;
  long long value = 0;
  if (!reader.Byte(&size) || size != sizeof(value) || !reader.Raw(&value)) return nullptr;
  return PyLong_FromLongLong(value);
}

PyObject* ReadFloat(Reader& reader) {
  uint64_t bits = 0;
  return reader.Raw(&bits) ? PyFloat_FromDouble(std::bit_cast<double>(BigEndian(bits))) : nullptr;
}

PyObject* ReadString(Reader& reader) {
  std::span<const unsigned char> bytes;
  if (!reader.Short(&bytes)) return nullptr;
  for (unsigned char byte : bytes) {
    if (byte >= 0x80) return nullptr;
  }
  return PyUnicode_DecodeASCII(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()),
                               nullptr);
}

PyObject* ReadBytes(Reader& reader) {
  std::span<const unsigned char> bytes;
  if (!reader.Short(&bytes)) return nullptr;
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* ReadAtom(unsigned char opcode, Reader& reader) {
  switch (opcode) {
    case kNone:
      return Py_NewRef(Py_None);
    case kTrue:
      return Py_NewRef(Py_True);
    case kFalse:
      return Py_NewRef(Py_False);
    case kBinInt1:
      return ReadInt<uint8_t>(reader);
    case kBinInt2:
      return ReadInt<uint16_t>(reader);
    case kBinInt:
      return ReadInt<int32_t>(reader);
    case kLong1:
      return ReadLong(reader);
    case kBinFloat:
      return ReadFloat(reader);
    case kShortUnicode:
      return ReadString(reader);
    case kShortBytes:
      return ReadBytes(reader);
    case kEmptyTuple:
      return PyTuple_New(0);
    default:
      return nullptr;
  }
}

using Stack = std::vector<PyRef>;  // a null element is a mark

bool PopTuple(Stack* stack, size_t size) {
  if (stack->size() < size) return false;
  PyRef tuple = PyRef::Steal(PyTuple_New(static_cast<Py_ssize_t>(size)));
  if (!tuple) return false;
  const size_t first = stack->size() - size;
  for (size_t i = 0; i < size; ++i) {
    PyObject* item = (*stack)[first + i].release();
    if (item == nullptr) return false;
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), item);
  }
  stack->resize(first);
  stack->push_back(std::move(tuple));
  return true;
}

bool PopMarkedTuple(Stack* stack) {
  size_t size = 0;
  while (size < stack->size() && (*stack)[stack->size() - 1 - size]) ++size;
  if (size == stack->size() || !PopTuple(stack, size)) return false;
  (*stack)[stack->size() - 2] = std::move(stack->back());
  stack->pop_back();
  return true;
}

bool Step(unsigned char opcode, Reader& reader, Stack* stack) {
  if (opcode >= kTuple1 && opcode <= kTuple3) return PopTuple(stack, opcode - kTuple1 + 1u);
  if (opcode == kMark) {
    stack->emplace_back();
    return true;
  }
  if (opcode == kTuple) return PopMarkedTuple(stack);
  PyRef atom = PyRef::Steal(ReadAtom(opcode, reader));
  if (!atom) return false;
  stack->push_back(std::move(atom));
  return true;
}

// Bytes behind a number's opcode; -1 for another opcode.
int NumberBytes(unsigned char opcode) {
  switch (opcode) {
    case kNone:
    case kTrue:
    case kFalse:
      return 0;
    case kBinInt1:
      return 1;
    case kBinInt2:
      return 2;
    case kBinInt:
      return 4;
    case kBinFloat:
      return 8;
    case kLong1:
      return 1 + sizeof(long long);
    default:
      return -1;
  }
}

// How many numbers follow, up to the end of the list and of the pickle; -1 when something else does.
Py_ssize_t CountNumbers(Reader reader) {
  unsigned char opcode = 0;
  Py_ssize_t count = 0;
  while (reader.Byte(&opcode) && opcode != kAppends) {
    const int bytes = NumberBytes(opcode);
    if (bytes < 0 || !reader.SkipBytes(static_cast<size_t>(bytes))) return -1;
    ++count;
  }
  return opcode == kAppends && reader.Skip(kStop) && reader.AtEnd() ? count : -1;
}

PyObject* ReadNumbers(Reader reader) {
  if (reader.Skip(kStop)) return reader.AtEnd() ? PyList_New(0) : nullptr;
  const Py_ssize_t count = reader.Skip(kMark) ? CountNumbers(reader) : -1;
  PyRef list = count < 0 ? PyRef() : PyRef::Steal(PyList_New(count));
  for (Py_ssize_t i = 0; list && i < count; ++i) {
    unsigned char opcode = 0;
    PyObject* number = reader.Byte(&opcode) ? ReadAtom(opcode, reader) : nullptr;
    if (number == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), i, number);
  }
  return list.release();
}

}  // namespace

bool AppendScalarPickle(PyObject* object, std::string* out) {
  const size_t before = out->size();
  out->append(kHeaderBytes, '\0');
  Put(out, kProto);
  Put(out, 5);
  if (PyList_CheckExact(object) ? !AppendNumbers(object, out) : !AppendOne(object, kMaxDepth, out)) {
    out->resize(before);
    return false;
  }
  Put(out, kStop);
  return true;
}

PyObject* ReadScalarPickle(std::span<const std::byte> payload) {
  Reader reader(payload);
  uint64_t buffers = 0;
  unsigned char opcode = 0;
  if (!reader.Raw(&buffers) || buffers != 0 || !reader.Skip(kProto) || !reader.Skip(5) || !reader.Byte(&opcode)) {
    return nullptr;
  }
  if (opcode == kEmptyList) return ReadNumbers(reader);
  PyRef atom = PyRef::Steal(ReadAtom(opcode, reader));
  if (atom && reader.Skip(kStop)) return atom.release();
  if (PyErr_Occurred()) return nullptr;
  Stack stack;
  if (!atom && opcode != kMark) return nullptr;
  stack.push_back(std::move(atom));  // Null: the mark.
  while (reader.Byte(&opcode)) {
    if (opcode == kStop) return stack.size() == 1 && reader.AtEnd() ? stack.back().release() : nullptr;
    if (!Step(opcode, reader, &stack)) return nullptr;
  }
  return nullptr;
}

bool IsGlobalReference(std::span<const std::byte> pickle) {
  Reader reader(pickle);
  if (!reader.Skip(kProto) || !reader.SkipBytes(1)) return false;
  if (reader.Skip(kFrame) && !reader.SkipBytes(sizeof(uint64_t))) return false;
  for (int name = 0; name < 2; ++name) {  // module, qualified name
    if (!reader.SkipShortString() || !reader.Skip(kMemoize)) return false;
  }
  return reader.Skip(kStackGlobal) && reader.Skip(kMemoize) && reader.Skip(kStop) && reader.AtEnd();
}

}  // namespace pyhost::native
