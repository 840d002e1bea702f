#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "pyhost/value.h"
#include "runtime/values/absl_text.h"

namespace pyhost {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

bool IsNegative(char last) { return (static_cast<unsigned char>(last) & 0x80) != 0; }

// Two's complement: the number with the other sign.
void Negate(std::string* bytes) {
  bytes->push_back(bytes->empty() || !IsNegative(bytes->back()) ? '\0' : '\xff');  // Room for -(-128).
  bool carry = true;
  for (char& byte : *bytes) {
    byte = static_cast<char>(~byte + (carry ? 1 : 0));
    carry = carry && byte == 0;
  }
}

int DigitOf(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  const char lower = static_cast<char>(digit | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

Integer::Integer(int64_t value) : Integer(FromTwosComplement({reinterpret_cast<const char*>(&value), sizeof(value)})) {}

Integer Integer::FromUint64(uint64_t value) {
  char bytes[sizeof(value) + 1] = {};
  std::memcpy(bytes, &value, sizeof(value));
  return FromTwosComplement({bytes, sizeof(bytes)});
}

Integer Integer::FromTwosComplement(std::string_view bytes) {
  // A last byte that only repeats the sign of the one before says nothing.
  while (!bytes.empty()) {
    const bool negative = bytes.size() > 1 && IsNegative(bytes[bytes.size() - 2]);
    if (bytes.back() != (negative ? '\xff' : '\0')) break;
    bytes.remove_suffix(1);
  }
  Integer integer;
  integer.bytes_.assign(bytes);
  return integer;
}

absl::StatusOr<Integer> Integer::FromHex(std::string_view text) {
  std::string_view digits = text;
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  if (!digits.starts_with("0x") || digits.size() < 3) {
    return absl::InvalidArgumentError(absl::StrCat("\"", AbslText(text), "\" is no number like 0x1f or -0x1f"));
  }
  digits.remove_prefix(2);
  std::string bytes;
  for (size_t end = digits.size(); end > 0; end -= std::min<size_t>(end, 2)) {
    const int low = DigitOf(digits[end - 1]), high = end > 1 ? DigitOf(digits[end - 2]) : 0;
    if (low < 0 || high < 0)
      return absl::InvalidArgumentError(absl::StrCat("\"", AbslText(text), "\" has a digit that is none"));
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  bytes.push_back('\0');
  if (negative) Negate(&bytes);
  return FromTwosComplement(bytes);
}

std::optional<int64_t> Integer::ToInt64() const {
  if (bytes_.size() > sizeof(int64_t)) return std::nullopt;
  int64_t value = is_negative() ? -1 : 0;
  std::memcpy(&value, bytes_.data(), bytes_.size());
  return value;
}

std::optional<uint64_t> Integer::ToUint64() const {
  if (is_negative() || bytes_.size() > sizeof(uint64_t) + 1) return std::nullopt;
  if (bytes_.size() > sizeof(uint64_t) && bytes_.back() != 0) return std::nullopt;
  uint64_t value = 0;
  std::memcpy(&value, bytes_.data(), std::min(bytes_.size(), sizeof(value)));
  return value;
}

std::string Integer::ToHex() const {
  std::string magnitude = bytes_;
  if (is_negative()) Negate(&magnitude);
  std::string digits;
  for (auto byte = magnitude.rbegin(); byte != magnitude.rend(); ++byte) {
    digits.push_back(kDigits[static_cast<unsigned char>(*byte) >> 4]);
    digits.push_back(kDigits[*byte & 0xf]);
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  return absl::StrCat(is_negative() ? "-0x" : "0x", digits.empty() ? "0" : digits);
}

bool Codec<Integer>::Read(ValueReader reader, Integer* out) {
  std::string bytes;
  if (!reader.ReadBigInteger(&bytes)) return false;
  *out = Integer::FromTwosComplement(bytes);
  return true;
}

}  // namespace pyhost
