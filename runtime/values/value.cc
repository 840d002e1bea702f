#include "pyhost/value.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pyhost {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 14 does not find it by itself.

bool WriteAll(ValueWriter& writer, const std::vector<Value>& items) {
  return internal::WriteItems(writer, items);
}

bool WritePairs(ValueWriter& writer, const std::vector<Value::Pair>& pairs) {
  for (const auto& [key, value] : pairs) {
    if (!Codec<Value>::Write(writer, key)) return false;
    if (!Codec<Value>::Write(writer, value)) {
      return key.string() != nullptr ? writer.FailedAt(std::string_view(*key.string())) : false;
    }
  }
  return true;
}

bool ReadAll(ValueReader reader, ValueItems::Containers containers, std::vector<Value>* out) {
  ValueItems items(reader, containers, "a container");
  while (items.Next()) {
    if (!Codec<Value>::Read(items.value(), &out->emplace_back())) return items.Fail();
  }
  return items.ok();
}

bool ReadPairs(ValueReader reader, std::vector<Value::Pair>* out) {
  ValueItems items(reader, ValueItems::kDict, "a dict");
  while (items.Next()) {
    Value::Pair& pair = out->emplace_back();
    if (!Codec<Value>::Read(items.key(), &pair.first) || !Codec<Value>::Read(items.value(), &pair.second)) {
      return items.Fail();
    }
  }
  return items.ok();
}

// Reads a T and makes a Value of it with `make`.
template <typename T, typename Make>
bool ReadAs(ValueReader reader, Value* out, Make make) {
  T value{};
  if (!Codec<T>::Read(reader, &value)) return false;
  *out = make(std::move(value));
  return true;
}
template <typename T>
bool ReadAs(ValueReader reader, Value* out) {
  return ReadAs<T>(reader, out, [](T&& value) { return Value(std::move(value)); });
}

bool ReadItems(ValueReader reader, ValueItems::Containers containers, Value (*make)(std::vector<Value>), Value* out) {
  std::vector<Value> items;
  if (!ReadAll(reader, containers, &items)) return false;
  *out = make(std::move(items));
  return true;
}

}  // namespace

// ---- Value --------------------------------------------------------------------------------------------------------

Value::Value(const Integer& value) {
  if (std::optional<int64_t> small = value.ToInt64()) {
    data_ = *small;
  } else {
    data_ = value;
  }
}

Value Value::List(std::vector<Value> items) {
  Value value;
  value.data_ = ListItems(std::move(items));
  return value;
}
Value Value::Tuple(std::vector<Value> items) {
  Value value;
  value.data_ = TupleItems{std::move(items)};
  return value;
}
Value Value::Set(std::vector<Value> items) {
  Value value;
  value.data_ = SetItems{std::move(items)};
  return value;
}
Value Value::FrozenSet(std::vector<Value> items) {
  Value value;
  value.data_ = FrozenSetItems{std::move(items)};
  return value;
}
Value Value::Dict(std::vector<Pair> items) {
  Value value;
  value.data_ = DictItems{std::move(items)};
  return value;
}
Value Value::ByteArray(Bytes bytes) {
  Value value;
  value.data_ = ByteArrayItems{std::move(bytes)};
  return value;
}

ValueKind Value::kind() const {
  return std::visit(Overloaded{
                        [](std::monostate) { return ValueKind::kNone; },
                        [](bool) { return ValueKind::kBool; },
                        [](int64_t) { return ValueKind::kInteger; },
                        [](const Integer&) { return ValueKind::kInteger; },
                        [](double) { return ValueKind::kFloat; },
                        [](std::complex<double>) { return ValueKind::kComplex; },
                        [](const std::string&) { return ValueKind::kString; },
                        [](const Bytes&) { return ValueKind::kBytes; },
                        [](const ByteArrayItems&) { return ValueKind::kByteArray; },
                        [](const ListItems&) { return ValueKind::kList; },
                        [](const TupleItems&) { return ValueKind::kTuple; },
                        [](const DictItems&) { return ValueKind::kDict; },
                        [](const SetItems&) { return ValueKind::kSet; },
                        [](const FrozenSetItems&) { return ValueKind::kFrozenSet; },
                        [](const AnyArray&) { return ValueKind::kArray; },
                    },
                    data_);
}

size_t Value::size() const {
  if (const auto* list = items()) return list->size();
  if (const auto* dict = pairs()) return dict->size();
  if (const auto* text = string()) return text->size();
  if (const auto* data = bytes()) return data->size();
  return 0;
}

const Value::Bytes* Value::bytes() const {
  if (const auto* array = std::get_if<ByteArrayItems>(&data_)) return &array->bytes;
  return std::get_if<Bytes>(&data_);
}

const std::vector<Value>* Value::items() const {
  if (const auto* list = std::get_if<ListItems>(&data_)) return list;
  if (const auto* tuple = std::get_if<TupleItems>(&data_)) return &tuple->items;
  if (const auto* set = std::get_if<SetItems>(&data_)) return &set->items;
  if (const auto* set = std::get_if<FrozenSetItems>(&data_)) return &set->items;
  return nullptr;
}

const std::vector<Value::Pair>* Value::pairs() const {
  const auto* dict = std::get_if<DictItems>(&data_);
  return dict == nullptr ? nullptr : &dict->items;
}

const Value* Value::Find(const Value& key) const {
  const std::vector<Pair>* dict = pairs();
  if (dict == nullptr) return nullptr;
  const auto found = std::find_if(dict->begin(), dict->end(), [&](const Pair& pair) { return pair.first == key; });
  return found == dict->end() ? nullptr : &found->second;
}

bool operator==(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.items() != nullptr) return *a.items() == *b.items();
  if (a.pairs() != nullptr) return *a.pairs() == *b.pairs();
  if (a.bytes() != nullptr) return *a.bytes() == *b.bytes();
  if (const AnyArray* array = a.array()) {
    return array->data() == b.array()->data() && array->dtype() == b.array()->dtype() &&
           array->shape() == b.array()->shape();
  }
  return std::visit(
      [&](const auto& held) {
        using T = std::remove_cvref_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, Integer> || std::is_same_v<T, std::string> ||
                      std::is_same_v<T, std::complex<double>>) {
          return std::holds_alternative<T>(b.data_) && held == std::get<T>(b.data_);
        } else {
          return true;  // None; all others were compared above.
        }
      },
      a.data_);
}

// ---- Its codec ----------------------------------------------------------------------------------------------------

bool Codec<Value>::Write(ValueWriter& writer, const Value& value) {
  return std::visit(Overloaded{
                        [&](const Value::ByteArrayItems& held) { return writer.ByteArray(held.bytes); },
                        [&](const Value::ListItems& held) {
                          return writer.BeginList() && WriteAll(writer, held) && writer.EndList();
                        },
                        [&](const Value::TupleItems& held) {
                          return writer.BeginTuple() && WriteAll(writer, held.items) && writer.EndTuple();
                        },
                        [&](const Value::SetItems& held) {
                          return writer.BeginSet() && WriteAll(writer, held.items) && writer.EndSet();
                        },
                        [&](const Value::FrozenSetItems& held) {
                          return writer.BeginFrozenSet() && WriteAll(writer, held.items) && writer.EndFrozenSet();
                        },
                        [&](const Value::DictItems& held) {
                          return writer.BeginDict() && WritePairs(writer, held.items) && writer.EndDict();
                        },
                        [&](const auto& held) { return CodecOf<decltype(held)>::Write(writer, held); },
                    },
                    value.data_);
}

bool Codec<Value>::Read(ValueReader reader, Value* out) {
  switch (reader.kind()) {
    case ValueKind::kNone: *out = Value(); return true;
    case ValueKind::kBool: return ReadAs<bool>(reader, out);
    case ValueKind::kInteger: return ReadAs<Integer>(reader, out);
    case ValueKind::kFloat: return ReadAs<double>(reader, out);
    case ValueKind::kComplex: return ReadAs<std::complex<double>>(reader, out);
    case ValueKind::kString: return ReadAs<std::string>(reader, out);
    case ValueKind::kBytes: return ReadAs<Value::Bytes>(reader, out);
    case ValueKind::kByteArray: return ReadAs<Value::Bytes>(reader, out, Value::ByteArray);
    case ValueKind::kList: return ReadItems(reader, ValueItems::kSequence, Value::List, out);
    case ValueKind::kTuple: return ReadItems(reader, ValueItems::kSequence, Value::Tuple, out);
    case ValueKind::kSet: return ReadItems(reader, ValueItems::kSet, Value::Set, out);
    case ValueKind::kFrozenSet: return ReadItems(reader, ValueItems::kSet, Value::FrozenSet, out);
    case ValueKind::kArray: return ReadAs<AnyArray>(reader, out);
    case ValueKind::kDict: {
      std::vector<Value::Pair> pairs;
      if (!ReadPairs(reader, &pairs)) return false;
      *out = Value::Dict(std::move(pairs));
      return true;
    }
    case ValueKind::kOther: break;
  }
  return reader.Expected("a plain value");
}

}  // namespace pyhost
