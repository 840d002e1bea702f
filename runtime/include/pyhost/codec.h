// C++ values to Python's and back, without an interpreter: as standard pickles.
//
//   C++                                                     Python
//   std::monostate, std::nullopt, std::nullptr_t            None
//   bool                                                    bool
//   integers, enums                                         int      (out of the type's range: an error)
//   double, float                                           float    (an int that is one exactly is read too)
//   std::complex<double>, std::complex<float>               complex
//   std::string, std::string_view, const char*              str      (UTF-8; anything else is an error)
//   std::vector<std::byte>, std::span<const std::byte>      bytes    (a bytearray is read too)
//   std::vector, deque, list, absl::InlinedVector, ...      list     (a tuple is read too)
//   std::tuple, std::pair, std::array                       tuple    (a list of that length is read too)
//   std::map, unordered_map, absl::flat_hash_map, ...       dict
//   std::set, unordered_set, absl::flat_hash_set, ...       set      (a frozenset is read too)
//   std::optional<T>                                        None, or T
//   std::variant<T...>                                      the first T that fits, those that fit exactly before
//   SharedArray<T>, AnyArray                                numpy array (memoryview where numpy is missing); at most 4096 of
//                                                           shared memory in one call or result
//   std::span<T> of numbers                                 numpy array, a copy; written only
//   Value (value.h)                                         any of these
//   a struct with StructFields                              dict
//
// A vector of numbers is read from a one-dimensional array of just that type too, and numpy's numbers as plain ones.
//
//   struct Plan { std::string goal; double urgency; std::optional<int> target; };
//   template <> inline constexpr auto pyhost::StructFields<Plan> = std::tuple{
//       pyhost::Field("goal", &Plan::goal), pyhost::Field("urgency", &Plan::urgency), pyhost::Field("target", &Plan::target)};
//
// In the dict that a script returns, a member may be missing if it is optional; a key that names no member is an error.
//
// For types that are not listed, specialise Codec with Write(), Read() and kName (see value_writer.h, value_reader.h).
// A type that is read must have a default constructor.
//
// Errors are InvalidArgument and say where, what was expected and what came: `[3]["hp"]: expected an integer, got str "x"`.

#ifndef PYHOST_CODEC_H_
#define PYHOST_CODEC_H_

#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "pyhost/shared_array.h"
#include "pyhost/value_reader.h"
#include "pyhost/value_writer.h"

namespace pyhost {

template <typename T>
struct Codec {
  static_assert(sizeof(T) == 0, "no Python type is known for this C++ type: see the table in pyhost/codec.h");
};
template <typename T>
using CodecOf = Codec<std::remove_cvref_t<T>>;

// The members of a struct, as a std::tuple of Field: specialise it.
template <typename T>
inline constexpr auto StructFields = nullptr;
template <typename Struct, typename Member>
struct Field {
  constexpr Field(const char* its_name, Member Struct::*pointer) : name(its_name), member(pointer) {}
  const char* name;
  Member Struct::*member;
};

// The arguments of a call, as a pickled tuple.
template <typename... A>
absl::StatusOr<EncodedValue> EncodeArguments(const A&... arguments);
// One value.
template <typename T>
absl::StatusOr<EncodedValue> EncodeValue(const T& value);
// The C++ value of a pickle.  DataLoss when it is none; InvalidArgument when it has another shape.
template <typename T>
absl::StatusOr<T> DecodeValue(std::string_view pickle, const DecodeContext& context = {});

// ---- Atoms --------------------------------------------------------------------------------------------------------

template <typename T>
concept NoneLike =
    std::same_as<T, std::monostate> || std::same_as<T, std::nullopt_t> || std::same_as<T, std::nullptr_t>;

template <NoneLike T>
struct Codec<T> {
  static constexpr std::string_view kName = "None";
  static bool Write(ValueWriter& writer, const T&) { return writer.None(); }
  static bool Read(ValueReader reader, T*) { return reader.ReadNone(); }
};

template <>
struct Codec<bool> {
  static constexpr std::string_view kName = "a bool";
  static bool Write(ValueWriter& writer, bool value) { return writer.Bool(value); }
  static bool Read(ValueReader reader, bool* out) { return reader.ReadBool(out); }
};

// char is left out: is it a letter or a number?  Say std::string, or int8_t.
template <typename T>
concept IntegerLike = std::integral<T> && sizeof(T) <= 8 && !std::same_as<T, bool> && !std::same_as<T, char> &&
                      !std::same_as<T, wchar_t> && !std::same_as<T, char8_t> && !std::same_as<T, char16_t> &&
                      !std::same_as<T, char32_t>;

template <IntegerLike T>
struct Codec<T> {
  static constexpr std::string_view kName = "an integer";
  static bool Write(ValueWriter& writer, T value) {
    if constexpr (std::is_signed_v<T>) {
      return writer.Int64(value);
    } else {
      return writer.Uint64(value);
    }
  }
  static bool Read(ValueReader reader, T* out) {
    if constexpr (sizeof(T) == 8 && !std::is_signed_v<T>) {
      uint64_t value = 0;
      if (!reader.ReadUint64(&value)) return false;
      *out = value;
    } else {
      int64_t value = 0;
      if (!reader.ReadInt(static_cast<int64_t>(std::numeric_limits<T>::min()),
                          static_cast<int64_t>(std::numeric_limits<T>::max()), &value)) {
        return false;
      }
      *out = static_cast<T>(value);
    }
    return true;
  }
};

template <typename T>
  requires std::is_enum_v<T>
struct Codec<T> {
  // Not the underlying type itself: that may be a char or a bool, and the enum is a number all the same.
  using Number = std::conditional_t<std::is_signed_v<std::underlying_type_t<T>>, std::make_signed_t<T>, std::make_unsigned_t<T>>;
  static constexpr std::string_view kName = "an integer";
  static bool Write(ValueWriter& writer, T value) { return Codec<Number>::Write(writer, static_cast<Number>(value)); }
  static bool Read(ValueReader reader, T* out) {
    Number number{};
    if (!Codec<Number>::Read(reader, &number)) return false;
    *out = static_cast<T>(number);
    return true;
  }
};

template <>
struct Codec<double> {
  static constexpr std::string_view kName = "a float";
  static bool Write(ValueWriter& writer, double value) { return writer.Double(value); }
  static bool Read(ValueReader reader, double* out) { return reader.ReadDouble(out); }
};

template <>
struct Codec<float> {
  static constexpr std::string_view kName = "a float";
  static bool Write(ValueWriter& writer, float value) { return writer.Double(static_cast<double>(value)); }
  static bool Read(ValueReader reader, float* out) { return reader.ReadFloat(out); }
};

template <std::floating_point T>
struct Codec<std::complex<T>> {
  static constexpr std::string_view kName = "a complex number";
  static bool Write(ValueWriter& writer, const std::complex<T>& value) {
    return writer.Complex(value.real(), value.imag());
  }
  static bool Read(ValueReader reader, std::complex<T>* out) {
    double real = 0, imaginary = 0;
    if (!reader.ReadComplex(&real, &imaginary)) return false;
    *out = {static_cast<T>(real), static_cast<T>(imaginary)};
    return true;
  }
};

template <>
struct Codec<std::string> {
  static constexpr std::string_view kName = "a str";
  static bool Write(ValueWriter& writer, std::string_view value) { return writer.String(value); }
  static bool Read(ValueReader reader, std::string* out) {
    std::string_view view;
    if (!reader.ReadString(&view)) return false;
    out->assign(view);
    return true;
  }
};
// Written only: nobody would own what they point to.
template <>
struct Codec<std::string_view> {
  static bool Write(ValueWriter& writer, std::string_view value) { return writer.String(value); }
};
template <>
struct Codec<const char*> {
  static bool Write(ValueWriter& writer, const char* value) { return writer.String(value); }
};
template <>
struct Codec<char*> : Codec<const char*> {};
template <size_t N>
struct Codec<char[N]> : Codec<const char*> {};

template <>
struct Codec<std::vector<std::byte>> {
  static constexpr std::string_view kName = "bytes";
  static bool Write(ValueWriter& writer, std::span<const std::byte> value) { return writer.Bytes(value); }
  static bool Read(ValueReader reader, std::vector<std::byte>* out) {
    std::span<const std::byte> view;
    if (!reader.ReadBytes(&view)) return false;
    out->assign(view.begin(), view.end());
    return true;
  }
};

// ---- Arrays -------------------------------------------------------------------------------------------------------

template <>
struct Codec<AnyArray> {
  static constexpr std::string_view kName = "an array";
  static bool Write(ValueWriter& writer, const AnyArray& array) { return writer.Array(array); }
  static bool Read(ValueReader reader, AnyArray* out) { return reader.ReadArray(out); }
};

template <typename T>
struct Codec<SharedArray<T>> {
  static constexpr std::string_view kName = "an array";
  static bool Write(ValueWriter& writer, const SharedArray<T>& array) { return writer.Array(array.any()); }
  static bool Read(ValueReader reader, SharedArray<T>* out) {
    AnyArray any;
    if (!reader.ReadArray(&any)) return false;
    absl::StatusOr<SharedArray<T>> array = SharedArray<T>::From(std::move(any));
    if (!array.ok()) return reader.Fail(std::string(array.status().message()));
    *out = *std::move(array);
    return true;
  }
};

template <typename T, size_t Extent>
struct Codec<std::span<T, Extent>> {
  static bool Write(ValueWriter& writer, std::span<T, Extent> value) {
    if constexpr (std::same_as<std::remove_const_t<T>, std::byte>) {
      return writer.Bytes(value);
    } else {
      return writer.Array(AnyArray::CopyOf(kDTypeOf<T>, {static_cast<int64_t>(value.size())}, value.data()));
    }
  }
};

// ---- Containers ---------------------------------------------------------------------------------------------------

namespace internal {

template <typename T>
concept Container = requires(T container) {
  typename T::value_type;
  container.begin();
  container.end();
  container.clear();
};
template <typename T>
concept MapLike = Container<T> && requires { typename T::key_type; typename T::mapped_type; };
template <typename T>
concept SetLike = Container<T> && !MapLike<T> && requires { typename T::key_type; };
template <typename T>
concept ListLike = Container<T> && !SetLike<T> && !MapLike<T> && requires(T list) {
  list.emplace_back();
  list.pop_back();
} && !requires(T text) { text.c_str(); };

template <typename T>
concept ArrayElement = (std::is_arithmetic_v<T> && sizeof(T) <= 8) && !std::same_as<T, char>;

// Fills a list of numbers from an array.  False: it is none of that type.
template <typename T>
bool ReadNumbers(ValueReader reader, T* out) {
  AnyArray array;
  if (!reader.ReadArray(&array)) return false;
  using Item = typename T::value_type;
  if (array.shape().size() != 1 || array.dtype() != kDTypeOf<Item>) {
    return reader.Expected(std::string("a list, or an array of one dimension and ").append(DTypeName(kDTypeOf<Item>)));
  }
  const auto* items = static_cast<const Item*>(array.data());
  out->assign(items, items + array.size());
  return true;
}

template <typename T>
bool WriteItems(ValueWriter& writer, const T& items) {
  size_t index = 0;
  for (const auto& item : items) {
    if (!CodecOf<typename T::value_type>::Write(writer, item)) return writer.FailedAt(index);
    ++index;
  }
  return true;
}

}  // namespace internal

template <internal::ListLike T>
struct Codec<T> {
  using Item = typename T::value_type;
  static constexpr std::string_view kName = "a list";
  static bool Write(ValueWriter& writer, const T& items) {
    return writer.BeginList() && internal::WriteItems(writer, items) && writer.EndList();
  }
  static bool Read(ValueReader reader, T* out) {
    if constexpr (internal::ArrayElement<Item>) {
      if (reader.kind() == ValueKind::kArray) return internal::ReadNumbers(reader, out);
    }
    out->clear();
    ValueItems items(reader, ValueItems::kSequence, kName);
    while (items.Next()) {
      Item item{};  // Not in place: a std::vector<bool> has no place to point to.
      if (!CodecOf<Item>::Read(items.value(), &item)) return items.Fail();
      out->push_back(std::move(item));
    }
    return items.ok();
  }
};

template <internal::SetLike T>
struct Codec<T> {
  static constexpr std::string_view kName = "a set";
  static bool Write(ValueWriter& writer, const T& items) {
    return writer.BeginSet() && internal::WriteItems(writer, items) && writer.EndSet();
  }
  static bool Read(ValueReader reader, T* out) {
    out->clear();
    ValueItems items(reader, ValueItems::kSet, kName);
    while (items.Next()) {
      typename T::value_type item{};
      if (!CodecOf<typename T::value_type>::Read(items.value(), &item)) return items.Fail();
      out->insert(std::move(item));
    }
    return items.ok();
  }
};

template <internal::MapLike T>
struct Codec<T> {
  using Key = typename T::key_type;
  using Item = typename T::mapped_type;
  static constexpr std::string_view kName = "a dict";
  static bool Write(ValueWriter& writer, const T& map) {
    bool good = writer.BeginDict();
    for (auto pair = map.begin(); good && pair != map.end(); ++pair) {
      good = CodecOf<Key>::Write(writer, pair->first) &&
             (CodecOf<Item>::Write(writer, pair->second) || FailedAt(writer, pair->first));
    }
    return good && writer.EndDict();
  }
  static bool Read(ValueReader reader, T* out) {
    out->clear();
    ValueItems items(reader, ValueItems::kDict, kName);
    while (items.Next()) {
      Key key{};
      Item item{};
      if (!CodecOf<Key>::Read(items.key(), &key) || !CodecOf<Item>::Read(items.value(), &item)) return items.Fail();
      out->emplace(std::move(key), std::move(item));
    }
    return items.ok();
  }

 private:
  static bool FailedAt(ValueWriter& writer, const Key& key) {
    if constexpr (std::is_convertible_v<const Key&, std::string_view>) {
      return writer.FailedAt(std::string_view(key));
    } else if constexpr (std::is_integral_v<Key>) {
      return writer.FailedAt(static_cast<size_t>(key));
    } else {
      return false;
    }
  }
};

// ---- Tuples -------------------------------------------------------------------------------------------------------

namespace internal {

// Reads a tuple of `size` values: read(index, value) for each.
template <typename ReadItem>
bool ReadFixed(ValueReader reader, size_t size, ReadItem read) {
  const std::string expected = "a tuple of " + std::to_string(size) + (size == 1 ? " item" : " items");
  ValueItems items(reader, ValueItems::kSequence, expected);
  if (!items.ok()) return false;
  if (items.size() != size) return reader.Expected(expected);
  for (size_t index = 0; items.Next(); ++index) {
    if (!read(index, items.value())) return items.Fail();
  }
  return items.ok();
}

template <typename Tuple, size_t... I>
bool WriteTuple(ValueWriter& writer, const Tuple& tuple, std::index_sequence<I...>) {
  return writer.BeginTuple() &&
         ((CodecOf<std::tuple_element_t<I, Tuple>>::Write(writer, std::get<I>(tuple)) || writer.FailedAt(I)) && ...) &&
         writer.EndTuple();
}
template <typename Tuple, size_t... I>
bool ReadTuple(ValueReader reader, Tuple* out, std::index_sequence<I...>) {
  return ReadFixed(reader, sizeof...(I), [&]([[maybe_unused]] size_t index, [[maybe_unused]] ValueReader item) {
    bool good = false;
    static_cast<void>(
        ((I == index && ((good = CodecOf<std::tuple_element_t<I, Tuple>>::Read(item, &std::get<I>(*out))), true)) ||
         ...));
    return good;
  });
}

}  // namespace internal

template <typename... T>
struct Codec<std::tuple<T...>> {
  static constexpr std::string_view kName = "a tuple";
  static bool Write(ValueWriter& writer, const std::tuple<T...>& tuple) {
    return internal::WriteTuple(writer, tuple, std::index_sequence_for<T...>());
  }
  static bool Read(ValueReader reader, std::tuple<T...>* out) {
    return internal::ReadTuple(reader, out, std::index_sequence_for<T...>());
  }
};

template <typename A, typename B>
struct Codec<std::pair<A, B>> {
  static constexpr std::string_view kName = "a tuple";
  static bool Write(ValueWriter& writer, const std::pair<A, B>& pair) {
    return internal::WriteTuple(writer, pair, std::make_index_sequence<2>());
  }
  static bool Read(ValueReader reader, std::pair<A, B>* out) {
    return internal::ReadTuple(reader, out, std::make_index_sequence<2>());
  }
};

template <typename T, size_t N>
struct Codec<std::array<T, N>> {
  static constexpr std::string_view kName = "a tuple";
  static bool Write(ValueWriter& writer, const std::array<T, N>& items) {
    return writer.BeginTuple() && internal::WriteItems(writer, items) && writer.EndTuple();
  }
  static bool Read(ValueReader reader, std::array<T, N>* out) {
    return internal::ReadFixed(
        reader, N, [out](size_t index, ValueReader item) { return CodecOf<T>::Read(item, &(*out)[index]); });
  }
};

// ---- One of several -----------------------------------------------------------------------------------------------

template <typename T>
struct Codec<std::optional<T>> {
  static constexpr std::string_view kName = CodecOf<T>::kName;
  static bool Write(ValueWriter& writer, const std::optional<T>& value) {
    return value.has_value() ? CodecOf<T>::Write(writer, *value) : writer.None();
  }
  static bool Read(ValueReader reader, std::optional<T>* out) {
    out->reset();
    return reader.is_none() || CodecOf<T>::Read(reader, &out->emplace());
  }
};

template <typename... T>
struct Codec<std::variant<T...>> {
  static constexpr std::string_view kName = "one of several types";
  static bool Write(ValueWriter& writer, const std::variant<T...>& value) {
    return std::visit([&](const auto& held) { return CodecOf<decltype(held)>::Write(writer, held); }, value);
  }
  static bool Read(ValueReader reader, std::variant<T...>* out) {
    const bool strict = reader.strict();
    reader.set_strict(true);
    bool good = (Try<T>(reader, out) || ...);
    reader.set_strict(strict);
    if (!good && !strict) good = (Try<T>(reader, out) || ...);
    return good || reader.Expected(Names());
  }

 private:
  template <typename U>
  static bool Try(ValueReader reader, std::variant<T...>* out) {
    U value{};
    if (CodecOf<U>::Read(reader, &value)) {
      *out = std::move(value);
      return true;
    }
    reader.Forgive();
    return false;
  }
  static std::string Names() {
    std::string names;
    ((names.append(names.empty() ? "" : " or ").append(CodecOf<T>::kName)), ...);
    return names;
  }
};

// ---- Structs ------------------------------------------------------------------------------------------------------

namespace internal {
template <typename T>
concept HasFields = !std::is_null_pointer_v<std::remove_cvref_t<decltype(StructFields<T>)>>;
template <typename T>
inline constexpr bool kIsOptional = false;
template <typename T>
inline constexpr bool kIsOptional<std::optional<T>> = true;
}  // namespace internal

template <internal::HasFields T>
struct Codec<T> {
  static constexpr std::string_view kName = "a dict";
  static bool Write(ValueWriter& writer, const T& value) {
    return writer.BeginDict() &&
           std::apply([&](const auto&... field) { return (WriteField(writer, value, field) && ...); },
                      StructFields<T>) &&
           writer.EndDict();
  }
  static bool Read(ValueReader reader, T* out) {
    uint64_t seen = 0;  // a bit for each field
    ValueItems items(reader, ValueItems::kDict, kName);
    while (items.Next()) {
      std::string_view key;
      if (!items.key().ReadString(&key) || !ReadMember(key, items.value(), out, &seen)) return items.Fail();
    }
    return items.ok() && NoneMissing(reader, seen, std::make_index_sequence<kFields>());
  }

 private:
  static constexpr size_t kFields = std::tuple_size_v<std::remove_cvref_t<decltype(StructFields<T>)>>;
  static_assert(kFields <= 64, "a struct with StructFields has at most 64");

  template <typename Member>
  static bool WriteField(ValueWriter& writer, const T& value, const Field<T, Member>& field) {
    return writer.String(field.name) &&
           (CodecOf<Member>::Write(writer, value.*field.member) || writer.FailedAt(field.name));
  }
  static bool ReadMember(std::string_view key, ValueReader item, T* out, uint64_t* seen) {
    bool good = false;
    size_t index = 0;
    const auto try_field = [&](const auto& field) {
      const size_t at = index++;
      if (key != field.name) return false;
      *seen |= uint64_t{1} << at;
      good = CodecOf<decltype(out->*field.member)>::Read(item, &(out->*field.member));
      return true;
    };
    const bool known = std::apply([&](const auto&... field) { return (try_field(field) || ...); }, StructFields<T>);
    return known ? good : item.Fail("the struct has no such member");
  }
  template <size_t... I>
  static bool NoneMissing(ValueReader reader, uint64_t seen, std::index_sequence<I...>) {
    return (HasMember(reader, seen, I, std::get<I>(StructFields<T>)) && ...);
  }
  template <typename Member>
  static bool HasMember(ValueReader reader, uint64_t seen, size_t index, const Field<T, Member>& field) {
    if (internal::kIsOptional<Member> || (seen >> index & 1) != 0) return true;
    return reader.Expected(std::string("a dict with the key \"").append(field.name).append("\""));
  }
};

// ---- The edges ----------------------------------------------------------------------------------------------------

template <typename... A>
absl::StatusOr<EncodedValue> EncodeArguments(const A&... arguments) {
  ValueWriter writer;
  [[maybe_unused]] size_t index = 0;  // there may be no arguments
  static_cast<void>(writer.BeginTuple() &&
                    ((CodecOf<A>::Write(writer, arguments) ? (++index, true) : writer.FailedAt(index)) && ...) &&
                    writer.EndTuple());
  return std::move(writer).Finish("arguments");
}

template <typename T>
absl::StatusOr<EncodedValue> EncodeValue(const T& value) {
  ValueWriter writer;
  static_cast<void>(CodecOf<T>::Write(writer, value));
  return std::move(writer).Finish("");
}

template <typename T>
absl::StatusOr<T> DecodeValue(std::string_view pickle, const DecodeContext& context) {
  ValueDecoder decoder(pickle, context);
  T value{};
  if (!decoder.ok() || !CodecOf<T>::Read(decoder.root(), &value)) return decoder.status();
  return value;
}

}  // namespace pyhost

#endif  // PYHOST_CODEC_H_
