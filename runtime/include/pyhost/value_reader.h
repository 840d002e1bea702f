// ValueReader: one value of a pickle that came from Python, and the way to its parts.
//
// Most code uses DecodeValue (codec.h).  A codec of your own (codec.h) reads its type through these methods:
//
//   static bool Read(ValueReader reader, Money* money) {
//     std::pair<int64_t, std::string> parts;
//     if (!CodecOf<decltype(parts)>::Read(reader, &parts)) return false;
//     if (parts.second.size() != 3) return reader.Expected("(cents, currency of three letters)");
//     *money = {parts.first, parts.second};
//     return true;
//   }
//
// The bytes are never trusted: whatever they are, reading ends in a value or an error, in memory that is proportional to
// them (DecodeContext has the limits).  Nothing that a pickle names is ever imported or called: plain types, numpy's
// arrays and numbers and shared arrays are understood, any other object is an error that names its type.
//
// A reader is a small value that points into its ValueDecoder, which must outlive it.  Not thread-safe.

#ifndef PYHOST_VALUE_READER_H_
#define PYHOST_VALUE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "pyhost/shared_array.h"

namespace pyhost {

namespace internal {
class DecodeState;
}

enum class ValueKind : uint8_t {
  kNone, kBool, kInteger, kFloat, kComplex, kString, kBytes, kByteArray, kList, kTuple, kDict, kSet, kFrozenSet, kArray,
  kOther,  // an object of a type that only Python has
};

// What came with a pickle, and how far to go with it.
struct DecodeContext {
  std::span<const SharedHandle> buffers;  // the pickle's out-of-band buffers, in their order
  std::span<const SharedHandle> handles;  // shared memory that it may refer to by handle
  // Lists in lists in lists ...
  int max_depth = 1000;
  // A pickle may refer to one part many times.  Unfolded it may take about this many bytes, or 128 times its own size if that
  // is more.
  uint64_t max_unfolded_bytes = uint64_t{256} << 20;
};

class ValueReader {
 public:
  ValueKind kind() const;
  bool is_none() const { return kind() == ValueKind::kNone; }
  // Items of a list, tuple, set or array (elements), pairs of a dict; 0 otherwise.
  size_t size() const;
  // For people: `str "x"`, `list of 3 items`.
  std::string Describe() const;

  // True: *out was set.  False: it is something else, and the error is noted.  A bool is no integer; an integer that a float
  // holds exactly is one, unless strict().
  bool ReadNone();
  bool ReadBool(bool* out);
  bool ReadInt64(int64_t* out) { return ReadInt(INT64_MIN, INT64_MAX, out); }
  bool ReadInt(int64_t least, int64_t greatest, int64_t* out);
  bool ReadUint64(uint64_t* out);
  // Any integer, as two's complement bytes, little-endian.
  bool ReadBigInteger(std::string* out);
  bool ReadDouble(double* out);
  bool ReadFloat(float* out);  // out of range when it is finite and a float's would not be
  bool ReadComplex(double* real, double* imaginary);
  // Views are valid as long as the decoder.
  bool ReadString(std::string_view* out);
  bool ReadBytes(std::span<const std::byte>* out);  // bytes or bytearray
  bool ReadArray(AnyArray* out);

  // False, always; `expected`, like "a list of points".
  bool Expected(std::string_view expected);
  bool Fail(std::string_view why);
  // For codecs that try one type after another: forgets the failure of the last try.
  void Forgive();
  // While strict, integers are no floats.
  bool strict() const;
  void set_strict(bool strict);

 private:
  friend class ValueDecoder;
  friend class ValueItems;
  ValueReader(internal::DecodeState* state, uint32_t node) : state_(state), node_(node) {}
  internal::DecodeState* state_;
  uint32_t node_;
};

// Goes through the items of a container, one level deeper.
//
//   ValueItems items(reader, ValueItems::kSequence, "a list of integers");
//   while (items.Next()) if (!items.value().ReadInt64(&number)) return items.Fail();
//   return items.ok();
class ValueItems {
 public:
  enum Containers { kSequence, kSet, kDict };  // kSequence: list or tuple

  ValueItems(ValueReader reader, Containers containers, std::string_view expected);
  ~ValueItems();
  ValueItems(const ValueItems&) = delete;
  ValueItems& operator=(const ValueItems&) = delete;

  // False: it is no such container, nested too deep, or unfolds to too much; the error is noted.
  bool ok() const { return ok_; }
  size_t size() const { return size_; }
  bool Next();
  ValueReader value() const;
  ValueReader key() const;  // of a dict
  // False, always: puts this item's index or key in front of the way to the culprit.
  bool Fail();

 private:
  void Step(uint32_t* node);
  ValueReader reader_;
  bool ok_ = false;
  bool entered_ = false;
  bool is_dict_ = false;
  size_t size_ = 0;
  size_t done_ = 0;
  uint32_t run_ = 0;
  uint32_t at_ = 0;
  uint32_t key_ = 0;
  uint32_t value_ = 0;
};

// Parses a pickle; root() is its value.  Views and readers point into it and into `pickle`.
class ValueDecoder {
 public:
  ValueDecoder(std::string_view pickle, const DecodeContext& context);
  ~ValueDecoder();
  ValueDecoder(const ValueDecoder&) = delete;
  ValueDecoder& operator=(const ValueDecoder&) = delete;

  // DataLoss: malformed pickle; InvalidArgument: another shape than asked for; ResourceExhausted: a limit.
  absl::Status status() const;
  bool ok() const { return ok_; }
  ValueReader root() const;

 private:
  bool ok_ = false;
  std::unique_ptr<internal::DecodeState> state_;
};

}  // namespace pyhost

#endif  // PYHOST_VALUE_READER_H_
