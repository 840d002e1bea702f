#include "pyhost/value_reader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/values/absl_text.h"
#include "runtime/values/decode_state.h"
#include "runtime/values/describe.h"
#include "runtime/values/utf8.h"

namespace pyhost {
namespace {

// What an item of a container takes, unfolded.
constexpr uint64_t kItemBytes = 64;

}  // namespace

// ---- ValueReader --------------------------------------------------------------------------------------------------

ValueKind ValueReader::kind() const {
  switch (state_->graph[node_].kind) {
    case NodeKind::kNone: return ValueKind::kNone;
    case NodeKind::kBool: return ValueKind::kBool;
    case NodeKind::kInt:
    case NodeKind::kBigInt: return ValueKind::kInteger;
    case NodeKind::kFloat: return ValueKind::kFloat;
    case NodeKind::kComplex: return ValueKind::kComplex;
    case NodeKind::kString: return ValueKind::kString;
    case NodeKind::kBytes:
    case NodeKind::kBuffer: return ValueKind::kBytes;
    case NodeKind::kByteArray: return ValueKind::kByteArray;
    case NodeKind::kList: return ValueKind::kList;
    case NodeKind::kTuple: return ValueKind::kTuple;
    case NodeKind::kDict: return ValueKind::kDict;
    case NodeKind::kSet: return ValueKind::kSet;
    case NodeKind::kFrozenSet: return ValueKind::kFrozenSet;
    case NodeKind::kArray: return ValueKind::kArray;
    case NodeKind::kBlock:
    case NodeKind::kGlobal:
    case NodeKind::kDType:
    case NodeKind::kObject: break;
  }
  return ValueKind::kOther;
}

size_t ValueReader::size() const {
  switch (kind()) {
    case ValueKind::kList:
    case ValueKind::kTuple:
    case ValueKind::kSet:
    case ValueKind::kFrozenSet: return state_->graph[node_].size;
    case ValueKind::kDict: return state_->graph[node_].size / 2;
    case ValueKind::kArray: return state_->graph.array(node_).size();
    default: return 0;
  }
}

std::string ValueReader::Describe() const { return DescribeNode(state_->graph, node_); }

bool ValueReader::Expected(std::string_view expected) {
  return state_->Fail(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("expected ", AbslText(expected), ", got ", Describe()));
}

bool ValueReader::Fail(std::string_view why) { return state_->Fail(absl::StatusCode::kInvalidArgument, why); }

void ValueReader::Forgive() {
  // A limit that was reached stays reached.
  if (state_->status.code() != absl::StatusCode::kInvalidArgument) return;
  state_->status = absl::OkStatus();
  state_->path.clear();
}

bool ValueReader::strict() const { return state_->strict; }
void ValueReader::set_strict(bool strict) { state_->strict = strict; }

bool ValueReader::ReadNone() { return kind() == ValueKind::kNone || Expected("None"); }

bool ValueReader::ReadBool(bool* out) {
  if (kind() != ValueKind::kBool) return Expected("a bool");
  *out = state_->graph[node_].integer != 0;
  return true;
}

bool ValueReader::ReadInt(int64_t least, int64_t greatest, int64_t* out) {
  const Node& node = state_->graph[node_];
  if (kind() != ValueKind::kInteger) return Expected("an integer");
  if (node.kind == NodeKind::kBigInt || node.integer < least || node.integer > greatest) {
    return Expected(absl::StrCat("an integer from ", least, " to ", greatest));
  }
  *out = node.integer;
  return true;
}

bool ValueReader::ReadUint64(uint64_t* out) {
  const Node& node = state_->graph[node_];
  if (kind() != ValueKind::kInteger) return Expected("an integer");
  if (node.kind == NodeKind::kInt && node.integer >= 0) {
    *out = static_cast<uint64_t>(node.integer);
    return true;
  }
  const std::string_view digits = node.kind == NodeKind::kBigInt ? state_->graph.text(node_) : "";
  if (digits.size() < sizeof(*out) || digits.find_first_not_of('\0', sizeof(*out)) != std::string_view::npos) {
    return Expected("an integer from 0 to 18446744073709551615");
  }
  std::memcpy(out, digits.data(), sizeof(*out));
  return true;
}

bool ValueReader::ReadBigInteger(std::string* out) {
  if (kind() != ValueKind::kInteger) return Expected("an integer");
  const Node& node = state_->graph[node_];
  if (node.kind == NodeKind::kInt) {
    out->assign(reinterpret_cast<const char*>(&node.integer), sizeof(node.integer));
    return true;
  }
  if (!state_->Charge(node.size)) return false;
  out->assign(state_->graph.text(node_));
  return true;
}

bool ValueReader::ReadDouble(double* out) {
  const Node& node = state_->graph[node_];
  if (node.kind == NodeKind::kFloat) {
    *out = node.real;
    return true;
  }
  if (node.kind != NodeKind::kInt || state_->strict) return Expected("a float");
  *out = static_cast<double>(node.integer);
  // 2^63 as a double has no int64 of its own.
  if (*out >= 0x1p63 || static_cast<int64_t>(*out) != node.integer)
    return Expected("a float, or an integer that is one exactly");
  return true;
}

bool ValueReader::ReadFloat(float* out) {
  double value = 0;
  if (!ReadDouble(&value)) return false;
  if (std::isfinite(value) && std::abs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
    return Expected("a float that single precision can hold");
  }
  *out = static_cast<float>(value);
  return true;
}

bool ValueReader::ReadComplex(double* real, double* imaginary) {
  const Node& node = state_->graph[node_];
  *imaginary = 0;
  if (node.kind != NodeKind::kComplex) {
    const bool is_real = node.kind == NodeKind::kFloat || (node.kind == NodeKind::kInt && !state_->strict);
    return is_real ? ReadDouble(real) : Expected("a complex number");
  }
  *real = node.real;
  *imaginary = std::bit_cast<double>(node.size);
  return true;
}

bool ValueReader::ReadString(std::string_view* out) {
  if (kind() != ValueKind::kString) return Expected("a str");
  const std::string_view text = state_->graph.text(node_);
  if (!state_->Charge(text.size())) return false;
  // Python writes lone surrogates as if they were characters; UTF-8 has no form for them.
  if (const size_t at = FirstInvalidUtf8(text); at != text.size()) {
    return Fail(absl::StrCat("expected a str that UTF-8 can hold, got one with a lone surrogate at byte ", at));
  }
  *out = text;
  return true;
}

bool ValueReader::ReadBytes(std::span<const std::byte>* out) {
  if (kind() != ValueKind::kBytes && kind() != ValueKind::kByteArray) return Expected("bytes");
  const std::string_view text = state_->graph.text(node_);
  if (!state_->Charge(text.size())) return false;
  *out = std::as_bytes(std::span(text));
  return true;
}

bool ValueReader::ReadArray(AnyArray* out) {
  if (kind() != ValueKind::kArray) return Expected("an array");
  *out = state_->graph.array(node_);
  return true;
}

// ---- ValueItems ---------------------------------------------------------------------------------------------------

ValueItems::ValueItems(ValueReader reader, Containers containers, std::string_view expected) : reader_(reader) {
  const ValueKind kind = reader.kind();
  is_dict_ = kind == ValueKind::kDict;
  const bool fits = containers == kSequence ? kind == ValueKind::kList || kind == ValueKind::kTuple
                    : containers == kSet    ? kind == ValueKind::kSet || kind == ValueKind::kFrozenSet
                                            : is_dict_;
  if (!fits) {
    reader_.Expected(expected);
    return;
  }
  size_ = reader.size();
  if (!reader_.state_->Enter()) return;
  run_ = reader_.state_->graph[reader_.node_].first;
  entered_ = true;
  ok_ = reader_.state_->Charge(size_ * kItemBytes);
}

ValueItems::~ValueItems() {
  if (entered_) reader_.state_->Leave();
}

void ValueItems::Step(uint32_t* node) {
  const PickleGraph& graph = reader_.state_->graph;
  if (at_ == graph.run(run_).count) {
    run_ = graph.run(run_).next;
    at_ = 0;
  }
  *node = graph.item(graph.run(run_).start + at_++);
}

bool ValueItems::Next() {
  if (!ok_ || done_ == size_) return false;
  ++done_;
  if (is_dict_) Step(&key_);
  Step(&value_);
  return true;
}

ValueReader ValueItems::value() const { return ValueReader(reader_.state_, value_); }
ValueReader ValueItems::key() const { return ValueReader(reader_.state_, key_); }

bool ValueItems::Fail() {
  ok_ = false;
  std::string& path = reader_.state_->path;
  path = absl::StrCat("[", is_dict_ ? DescribeKey(reader_.state_->graph, key_) : absl::StrCat(done_ - 1), "]", path);
  return false;
}

// ---- ValueDecoder -------------------------------------------------------------------------------------------------

ValueDecoder::ValueDecoder(std::string_view pickle, const DecodeContext& context)
    : state_(std::make_unique<internal::DecodeState>(pickle, context)) {
  ok_ = state_->status.ok();
}

ValueDecoder::~ValueDecoder() = default;

ValueReader ValueDecoder::root() const { return ValueReader(state_.get(), state_->root); }

absl::Status ValueDecoder::status() const {
  if (state_->path.empty() || state_->status.ok()) return state_->status;
  return absl::Status(state_->status.code(), absl::StrCat(ShortenedPath(state_->path), ": ", state_->status.message()));
}

}  // namespace pyhost
