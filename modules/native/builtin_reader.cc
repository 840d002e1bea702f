#include "modules/native/builtin_reader.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "absl/container/inlined_vector.h"
#include "modules/native/pickle_bytes.h"
#include "runtime/values/pickle_opcodes.h"

namespace pyhost::native {
namespace {

using enum pickle::Opcode;

class BuiltinReader {
 public:
  explicit BuiltinReader(std::span<const std::byte> pickle) : bytes_(pickle) {}
  BuiltinReader(const BuiltinReader&) = delete;
  BuiltinReader& operator=(const BuiltinReader&) = delete;
  ~BuiltinReader() {
    for (PyObject* object : stack_) Py_DECREF(object);
    for (PyObject* object : memo_) Py_DECREF(object);
  }

  PyObject* Read() {
    if (!bytes_.Skip(kProto) || !bytes_.SkipBytes(1)) return nullptr;
    unsigned char opcode = 0;
    while (bytes_.Byte(&opcode) && opcode != kStop) {
      if (!Step(opcode) || !IsInFrame()) return nullptr;
    }
    if (opcode != kStop || !bytes_.AtEnd() || stack_.size() != 1 || !marks_.empty()) return nullptr;
    PyObject* object = stack_.back();
    stack_.pop_back();
    return object;
  }

 private:
  bool Push(PyObject* object) {
    if (object == nullptr) return false;
    stack_.push_back(object);
    return true;
  }
  size_t Above() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  bool Step(unsigned char opcode);
  bool StepScalar(unsigned char opcode);
  bool StepContainer(unsigned char opcode);

  template <typename T>
  bool Int() {
    T value = 0;
    return bytes_.Raw(&value) && Push(PyLong_FromLongLong(value));
  }
  bool Long();
  bool Float();
  bool Frame();
  bool IsInFrame();
  template <typename Size>
  bool String();
  template <typename Size>
  bool Bytes();

  // What lies above the last mark, which is removed: its place in the stack.  False: there is no mark.
  bool TakeMark(size_t* first);
  bool Tuple(size_t first);
  bool MarkedTuple();
  bool Appends(size_t first);
  bool SetItems(size_t first);
  bool AddItems();
  bool FrozenSet();
  void DropFrom(size_t first);

  bool Memoize();
  template <typename Index>
  bool Get();

  PickleBytes bytes_;
  bool has_frame_ = false;  // that has not ended
  size_t left_at_frame_end_ = 0;
  // Each holds a reference to each.
  absl::InlinedVector<PyObject*, 32> stack_;
  absl::InlinedVector<PyObject*, 32> memo_;
  absl::InlinedVector<size_t, 8> marks_;
};

// ---- Scalars --------------------------------------------------------------------------------------------------------

// Two's complement in as few bytes as it takes.
bool BuiltinReader::Long() {
  unsigned char size = 0;
  const char* text = bytes_.Byte(&size) && size <= sizeof(int64_t) ? bytes_.Text(size) : nullptr;
  if (text == nullptr) return false;
  int64_t value = size != 0 && (text[size - 1] & 0x80) != 0 ? -1 : 0;
  std::memcpy(&value, text, size);  // little-endian, as the pickle
  return Push(PyLong_FromLongLong(value));
}

bool BuiltinReader::Float() {
  uint64_t bits = 0;
  return bytes_.Raw(&bits) && Push(PyFloat_FromDouble(std::bit_cast<double>(__builtin_bswap64(bits))));
}

template <typename Size>
bool BuiltinReader::String() {
  Size size = 0;
  const char* text = bytes_.Raw(&size) ? bytes_.Text(size) : nullptr;
  return text != nullptr && Push(PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(size), "surrogatepass"));
}

// A frame must be there as a whole, and end where an opcode does, which not every pickle.loads asks for.
bool BuiltinReader::Frame() {
  uint64_t size = 0;
  if (has_frame_ || !bytes_.Raw(&size) || size > bytes_.Left()) return false;
  has_frame_ = true;
  left_at_frame_end_ = bytes_.Left() - static_cast<size_t>(size);
  return true;
}

// Whether what was read did not go beyond the end of the frame.
bool BuiltinReader::IsInFrame() {
  if (!has_frame_) return true;
  if (bytes_.Left() == left_at_frame_end_) has_frame_ = false;
  return bytes_.Left() >= left_at_frame_end_;
}

template <typename Size>
bool BuiltinReader::Bytes() {
  Size size = 0;
  const char* text = bytes_.Raw(&size) ? bytes_.Text(size) : nullptr;
  return text != nullptr && Push(PyBytes_FromStringAndSize(text, static_cast<Py_ssize_t>(size)));
}

bool BuiltinReader::StepScalar(unsigned char opcode) {
  switch (opcode) {
    case kNone:
      return Push(Py_NewRef(Py_None));
    case kNewTrue:
      return Push(Py_NewRef(Py_True));
    case kNewFalse:
      return Push(Py_NewRef(Py_False));
    case kBinInt1:
      return Int<uint8_t>();
    case kBinInt2:
      return Int<uint16_t>();
    case kBinInt:
      return Int<int32_t>();
    case kLong1:
      return Long();
    case kBinFloat:
      return Float();
    case kShortBinUnicode:
      return String<uint8_t>();
    case kBinUnicode:
      return String<uint32_t>();
    case kShortBinBytes:
      return Bytes<uint8_t>();
    case kBinBytes:
      return Bytes<uint32_t>();
    case kFrame:
      return Frame();
    default:
      return false;
  }
}

// ---- Containers -----------------------------------------------------------------------------------------------------

bool BuiltinReader::TakeMark(size_t* first) {
  if (marks_.empty()) return false;
  *first = marks_.back();
  marks_.pop_back();
  return true;
}

void BuiltinReader::DropFrom(size_t first) {
  for (size_t i = first; i < stack_.size(); ++i) Py_DECREF(stack_[i]);
  stack_.resize(first);
}

bool BuiltinReader::Tuple(size_t first) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(stack_.size() - first));
  if (tuple == nullptr) return false;
  for (size_t i = first; i < stack_.size(); ++i) {
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i - first), stack_[i]);
  }
  stack_.resize(first);
  return Push(tuple);
}

bool BuiltinReader::MarkedTuple() {
  size_t first = 0;
  return TakeMark(&first) && Tuple(first);
}

// The items from `first` on go into the list below them.
bool BuiltinReader::Appends(size_t first) {
  if (first == 0 || !PyList_CheckExact(stack_[first - 1])) return false;
  PyObject* list = stack_[first - 1];
  if (PyList_GET_SIZE(list) == 0 && Py_REFCNT(list) == 1) {
    // Nobody knows the empty one: one of the right size takes its place.
    PyObject* filled = PyList_New(static_cast<Py_ssize_t>(stack_.size() - first));
    if (filled == nullptr) return false;
    for (size_t i = first; i < stack_.size(); ++i) {
      PyList_SET_ITEM(filled, static_cast<Py_ssize_t>(i - first), stack_[i]);
    }
    stack_.resize(first);
    stack_.back() = filled;
    Py_DECREF(list);
    return true;
  }
  for (size_t i = first; i < stack_.size(); ++i) {
    if (PyList_Append(list, stack_[i]) < 0) return false;
  }
  DropFrom(first);
  return true;
}

bool BuiltinReader::SetItems(size_t first) {
  if (first == 0 || !PyDict_CheckExact(stack_[first - 1]) || (stack_.size() - first) % 2 != 0) return false;
  for (size_t i = first; i < stack_.size(); i += 2) {
    if (PyDict_SetItem(stack_[first - 1], stack_[i], stack_[i + 1]) < 0) return false;
  }
  DropFrom(first);
  return true;
}

bool BuiltinReader::AddItems() {
  size_t first = 0;
  if (!TakeMark(&first) || first == 0 || !PySet_CheckExact(stack_[first - 1])) return false;
  for (size_t i = first; i < stack_.size(); ++i) {
    if (PySet_Add(stack_[first - 1], stack_[i]) < 0) return false;
  }
  DropFrom(first);
  return true;
}

bool BuiltinReader::FrozenSet() {
  size_t first = 0;
  if (!TakeMark(&first) || !Tuple(first)) return false;
  PyObject* set = PyFrozenSet_New(stack_.back());
  if (set == nullptr) return false;
  DropFrom(first);
  return Push(set);
}

bool BuiltinReader::StepContainer(unsigned char opcode) {
  size_t first = 0;
  switch (opcode) {
    case kEmptyTuple:
      return Push(PyTuple_New(0));
    case kTuple1:
    case kTuple2:
    case kTuple3:
      return Above() >= opcode - kTuple1 + 1u && Tuple(stack_.size() - (opcode - kTuple1 + 1u));
    case kTuple:
      return MarkedTuple();
    case kEmptyList:
      return Push(PyList_New(0));
    case kAppend:
      return Above() >= 2 && Appends(stack_.size() - 1);
    case kAppends:
      return TakeMark(&first) && Appends(first);
    case kEmptyDict:
      return Push(PyDict_New());
    case kSetItem:
      return Above() >= 3 && SetItems(stack_.size() - 2);
    case kSetItems:
      return TakeMark(&first) && SetItems(first);
    case kEmptySet:
      return Push(PySet_New(nullptr));
    case kAddItems:
      return AddItems();
    case kFrozenSet:
      return FrozenSet();
    default:
      return StepScalar(opcode);
  }
}

// ---- References -----------------------------------------------------------------------------------------------------

bool BuiltinReader::Memoize() {
  if (Above() == 0) return false;
  memo_.push_back(Py_NewRef(stack_.back()));
  return true;
}

template <typename Index>
bool BuiltinReader::Get() {
  Index index = 0;
  return bytes_.Raw(&index) && index < memo_.size() && Push(Py_NewRef(memo_[index]));
}

bool BuiltinReader::Step(unsigned char opcode) {
  switch (opcode) {
    case kMark:
      marks_.push_back(stack_.size());
      return true;
    case kMemoize:
      return Memoize();
    case kBinGet:
      return Get<uint8_t>();
    case kLongBinGet:
      return Get<uint32_t>();
    default:
      return StepContainer(opcode);
  }
}

}  // namespace

PyObject* ReadBuiltinPickle(std::span<const std::byte> pickle) {
  PyObject* object = BuiltinReader(pickle).Read();
  if (object == nullptr && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError)) PyErr_Clear();
  return object;
}

}  // namespace pyhost::native
