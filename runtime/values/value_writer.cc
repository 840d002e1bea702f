#include "pyhost/value_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/values/absl_text.h"
#include "runtime/values/describe.h"
#include "runtime/values/pickle_opcodes.h"
#include "runtime/values/utf8.h"

namespace pyhost {
namespace {

constexpr int kMaxDepth = 1000;
constexpr size_t kTypicalBytes = 128;

static_assert(std::endian::native == std::endian::little);

template <typename T>
void PutRaw(std::string* out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

ValueWriter::ValueWriter() {
  out_.reserve(kTypicalBytes);
  Put(pickle::kProto);
  Put(pickle::kProtocol);
}

// ---- Atoms --------------------------------------------------------------------------------------------------------

bool ValueWriter::None() {
  Put(pickle::kNone);
  return ok();
}

bool ValueWriter::Bool(bool value) {
  Put(value ? pickle::kNewTrue : pickle::kNewFalse);
  return ok();
}

bool ValueWriter::Int64(int64_t value) {
  if (value >= 0 && value <= 0xff) {
    Put(pickle::kBinInt1);
    PutRaw(&out_, static_cast<uint8_t>(value));
  } else if (value >= 0 && value <= 0xffff) {
    Put(pickle::kBinInt2);
    PutRaw(&out_, static_cast<uint16_t>(value));
  } else if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
    Put(pickle::kBinInt);
    PutRaw(&out_, static_cast<int32_t>(value));
  } else {
    Put(pickle::kLong1);
    Put(sizeof(value));
    PutRaw(&out_, value);
  }
  return ok();
}

bool ValueWriter::Uint64(uint64_t value) {
  if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return Int64(static_cast<int64_t>(value));
  Put(pickle::kLong1);
  Put(sizeof(value) + 1);
  PutRaw(&out_, value);
  Put(0);  // The sign.
  return ok();
}

bool ValueWriter::BigInteger(std::string_view twos_complement) {
  if (twos_complement.size() <= 0xff) {
    Put(pickle::kLong1);
    Put(static_cast<unsigned char>(twos_complement.size()));
  } else {
    if (twos_complement.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
      return Fail("an integer of more than 2 GiB");
    Put(pickle::kLong4);
    PutRaw(&out_, static_cast<uint32_t>(twos_complement.size()));
  }
  out_.append(twos_complement);
  return ok();
}

bool ValueWriter::Double(double value) {
  Put(pickle::kBinFloat);
  PutRaw(&out_, __builtin_bswap64(std::bit_cast<uint64_t>(value)));
  return ok();
}

bool ValueWriter::Complex(double real, double imaginary) {
  PutGlobal(&complex_memo_, "builtins", "complex");
  Double(real);
  Double(imaginary);
  Put(pickle::kTuple2);
  Put(pickle::kReduce);
  return ok();
}

void ValueWriter::PutSized(unsigned char short_opcode, unsigned char opcode, unsigned char long_opcode,
                           std::string_view data) {
  if (data.size() <= 0xff) {
    Put(short_opcode);
    PutRaw(&out_, static_cast<uint8_t>(data.size()));
  } else if (data.size() <= 0xffffffff) {
    Put(opcode);
    PutRaw(&out_, static_cast<uint32_t>(data.size()));
  } else {
    Put(long_opcode);
    PutRaw(&out_, static_cast<uint64_t>(data.size()));
  }
  out_.append(data);
}

void ValueWriter::PutText(std::string_view utf8) {
  PutSized(pickle::kShortBinUnicode, pickle::kBinUnicode, pickle::kBinUnicode8, utf8);
}

bool ValueWriter::String(std::string_view utf8) {
  if (const size_t at = FirstInvalidUtf8(utf8); at != utf8.size()) {
    return Fail(absl::StrCat("a text that is not UTF-8, at byte ", at, " of ", utf8.size(),
                             " (pass bytes as std::vector<std::byte>)"));
  }
  PutText(utf8);
  return ok();
}

bool ValueWriter::Bytes(std::span<const std::byte> bytes) {
  PutSized(pickle::kShortBinBytes, pickle::kBinBytes, pickle::kBinBytes8, AsText(bytes));
  return ok();
}

bool ValueWriter::ByteArray(std::span<const std::byte> bytes) {
  Put(pickle::kByteArray8);
  PutRaw(&out_, static_cast<uint64_t>(bytes.size()));
  out_.append(AsText(bytes));
  return ok();
}

// ---- Containers ---------------------------------------------------------------------------------------------------

bool ValueWriter::Enter() {
  if (depth_ == kMaxDepth) return Fail(absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
  ++depth_;
  return ok();
}

bool ValueWriter::Leave(unsigned char opcode) {
  --depth_;
  Put(opcode);
  return ok();
}

bool ValueWriter::BeginList() {
  Put(pickle::kEmptyList);
  Put(pickle::kMark);
  return Enter();
}
bool ValueWriter::EndList() { return Leave(pickle::kAppends); }

bool ValueWriter::BeginTuple() {
  Put(pickle::kMark);
  return Enter();
}
bool ValueWriter::EndTuple() { return Leave(pickle::kTuple); }

bool ValueWriter::BeginDict() {
  Put(pickle::kEmptyDict);
  Put(pickle::kMark);
  return Enter();
}
bool ValueWriter::EndDict() { return Leave(pickle::kSetItems); }

bool ValueWriter::BeginSet() {
  Put(pickle::kEmptySet);
  Put(pickle::kMark);
  return Enter();
}
bool ValueWriter::EndSet() { return Leave(pickle::kAddItems); }

bool ValueWriter::BeginFrozenSet() {
  Put(pickle::kMark);
  return Enter();
}
bool ValueWriter::EndFrozenSet() { return Leave(pickle::kFrozenSet); }

// ---- Arrays -------------------------------------------------------------------------------------------------------

// Writes a reference to a global: its name the first time, its memo number from then on.
void ValueWriter::PutGlobal(uint32_t* memo, std::string_view module, std::string_view name) {
  if (*memo != 0) {
    Put(pickle::kBinGet);
    Put(static_cast<unsigned char>(*memo - 1));
    return;
  }
  PutText(module);
  PutText(name);
  Put(pickle::kStackGlobal);
  Put(pickle::kMemoize);
  *memo = ++memo_size_;
}

// _pyhost._rebuild(_pyhost.Memory, session, handle)
void ValueWriter::PutBlock(const SharedHandle& block) {
  PutGlobal(&rebuild_memo_, "_pyhost", "_rebuild");
  PutGlobal(&memory_memo_, "_pyhost", "Memory");
  Uint64(block->session_id());
  Uint64(block->handle());
  Put(pickle::kTuple3);
  Put(pickle::kReduce);
  if (std::find(handles_.begin(), handles_.end(), block) == handles_.end()) handles_.push_back(block);
}

// pyhost.arrays.attach(memory, dtype, shape, offset, readonly), or copied(bytes, dtype, shape)
bool ValueWriter::Array(const AnyArray& array) {
  if (array.shared()) {
    PutGlobal(&attach_memo_, "pyhost.arrays", "attach");
    Put(pickle::kMark);
    PutBlock(array.block());
  } else {
    PutGlobal(&copied_memo_, "pyhost.arrays", "copied");
    Put(pickle::kMark);
    ByteArray({static_cast<const std::byte*>(array.data()), array.byte_size()});
  }
  PutText(DTypeName(array.dtype()));
  Put(pickle::kMark);
  for (int64_t part : array.shape()) Int64(part);
  Put(pickle::kTuple);
  if (array.shared()) {
    Uint64(array.offset());
    Bool(array.readonly());
  }
  Put(pickle::kTuple);
  Put(pickle::kReduce);
  return ok();
}

// ---- Errors, and the end ------------------------------------------------------------------------------------------

bool ValueWriter::Fail(std::string_view why) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(AbslText(why));
  return false;
}

bool ValueWriter::FailedAt(size_t index) {
  path_ = absl::StrCat("[", index, "]", path_);
  return false;
}

bool ValueWriter::FailedAt(std::string_view key) {
  path_ = absl::StrCat("[\"", EscapedText(key), "\"]", path_);
  return false;
}

absl::StatusOr<EncodedValue> ValueWriter::Finish(std::string_view name) && {
  if (!status_.ok()) {
    const std::string where = absl::StrCat(AbslText(name), ShortenedPath(path_));
    return where.empty() ? status_ : absl::InvalidArgumentError(absl::StrCat(where, ": ", status_.message()));
  }
  Put(pickle::kStop);
  return EncodedValue{.bytes = std::move(out_), .handles = std::move(handles_)};
}

}  // namespace pyhost
