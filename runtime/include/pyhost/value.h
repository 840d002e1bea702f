// Value: a Python value whose type is known at run time only.
//
//   pyhost::Value config = *pool->Call<pyhost::Value>("settings:load").Get();
//   if (const pyhost::Value* speed = config.Find("speed")) use(speed->Get<double>());
//   pool->Call<void>("settings:save", pyhost::Value::Dict({{"speed", 3.5}, {"tags", pyhost::Value::List({"fast", 7})}}));
//
// Integer: an integer of any size.
//
// Values own all they have; copying copies (but arrays: a SharedArray is a handle).  Thread safety: as a std::string.

#ifndef PYHOST_VALUE_H_
#define PYHOST_VALUE_H_

#include <compare>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "pyhost/codec.h"
#include "pyhost/shared_array.h"

namespace pyhost {

// An integer as Python has them.
class Integer {
 public:
  Integer() = default;
  Integer(int64_t value);  // NOLINT: implicit
  static Integer FromUint64(uint64_t value);
  // Two's complement, little-endian; empty is 0.
  static Integer FromTwosComplement(std::string_view bytes);
  // Sign, "0x", digits: what Python's hex() writes.  InvalidArgument for anything else.
  static absl::StatusOr<Integer> FromHex(std::string_view text);

  // As few bytes as hold the sign; empty for 0.
  const std::string& twos_complement() const { return bytes_; }
  bool is_negative() const { return !bytes_.empty() && (static_cast<unsigned char>(bytes_.back()) & 0x80) != 0; }
  // nullopt when it does not fit.
  std::optional<int64_t> ToInt64() const;
  std::optional<uint64_t> ToUint64() const;
  std::string ToHex() const;

  friend bool operator==(const Integer&, const Integer&) = default;

 private:
  std::string bytes_;
};

template <>
struct Codec<Integer> {
  static constexpr std::string_view kName = "an integer";
  static bool Write(ValueWriter& writer, const Integer& value) { return writer.BigInteger(value.twos_complement()); }
  static bool Read(ValueReader reader, Integer* out);
};

class Value {
 public:
  using Bytes = std::vector<std::byte>;
  struct ByteArrayItems { Bytes bytes; };
  using ListItems = std::vector<Value>;
  struct TupleItems { std::vector<Value> items; };
  struct SetItems { std::vector<Value> items; };
  struct FrozenSetItems { std::vector<Value> items; };
  using Pair = std::pair<Value, Value>;
  struct DictItems { std::vector<Pair> items; };  // in the dict's order

  Value() = default;  // None
  Value(std::nullptr_t) {}  // NOLINT: implicit, here and below
  template <std::same_as<bool> B>
  Value(B value) : data_(value) {}
  template <IntegerLike I>
  Value(I value) : data_(MakeInteger(value)) {}
  Value(const Integer& value);
  Value(double value) : data_(value) {}
  Value(std::complex<double> value) : data_(value) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(Bytes value) : data_(std::move(value)) {}
  Value(AnyArray value) : data_(std::move(value)) {}
  template <typename T>
  Value(const SharedArray<T>& value) : data_(value.any()) {}

  static Value List(std::vector<Value> items);
  static Value Tuple(std::vector<Value> items);
  static Value Set(std::vector<Value> items);
  static Value FrozenSet(std::vector<Value> items);
  static Value Dict(std::vector<Pair> items);
  static Value ByteArray(Bytes bytes);

  ValueKind kind() const;
  bool is_none() const { return kind() == ValueKind::kNone; }
  // Items of a list, tuple, set or dict; bytes of a text; 0 otherwise.
  size_t size() const;

  // The value as a C++ type, by the rules of codec.h.  InvalidArgument says what it is instead.
  template <typename T>
  absl::StatusOr<T> Get() const;
  // Null when it is of another kind.
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const Bytes* bytes() const;
  // Of a list, tuple, set or frozenset.
  const std::vector<Value>* items() const;
  const std::vector<Pair>* pairs() const;
  const AnyArray* array() const { return std::get_if<AnyArray>(&data_); }
  // A dict's value for a key; null when there is none, or this is no dict.
  const Value* Find(const Value& key) const;

  // As Python compares them, but for the order of sets and dicts, which counts, and 1 == 1.0 == True, which are not equal.
  // Arrays are equal when they are the same memory.
  friend bool operator==(const Value& a, const Value& b);

 private:
  friend struct Codec<Value>;
  using Data = std::variant<std::monostate, bool, int64_t, Integer, double, std::complex<double>, std::string, Bytes,
                            ByteArrayItems, ListItems, TupleItems, DictItems, SetItems, FrozenSetItems, AnyArray>;
  template <typename I>
  static Data MakeInteger(I value) {
    if constexpr (sizeof(I) == 8 && !std::is_signed_v<I>) {
      if (value > static_cast<uint64_t>(INT64_MAX)) return Integer::FromUint64(value);
    }
    return static_cast<int64_t>(value);
  }
  Data data_;
};

template <>
struct Codec<Value> {
  static constexpr std::string_view kName = "a value";
  static bool Write(ValueWriter& writer, const Value& value);
  static bool Read(ValueReader reader, Value* out);
};

template <typename T>
absl::StatusOr<T> Value::Get() const {
  absl::StatusOr<EncodedValue> encoded = EncodeValue(*this);
  if (!encoded.ok()) return encoded.status();
  DecodeContext context;
  context.handles = encoded->handles;
  return DecodeValue<T>(encoded->bytes, context);
}

}  // namespace pyhost

#endif  // PYHOST_VALUE_H_
