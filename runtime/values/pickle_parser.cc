#include "runtime/values/pickle_parser.h"

#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/values/absl_text.h"
#include "runtime/values/known_calls.h"
#include "runtime/values/pickle_opcodes.h"

namespace pyhost {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr unsigned char kHighestProtocol = 5;
// Nodes, items and marks are counted in 32 bits, and no opcode makes more than two nodes.
constexpr uint64_t kMaxOpcodes = uint64_t{1} << 31;

class Parser {
 public:
  Parser(std::string_view pickle, const DecodeContext& context, PickleGraph& graph)
      : begin_(pickle.data()), at_(begin_), end_(begin_ + pickle.size()), context_(context), graph_(graph) {}

  absl::StatusOr<NodeIndex> Parse() {
    for (uint64_t opcodes = 0; opcodes < kMaxOpcodes; ++opcodes) {
      opcode_at_ = at_;
      unsigned char opcode = 0;
      if (!Raw(&opcode)) return Malformed("it ends too early");
      if (opcode == pickle::kStop) return Stop();
      if (!Step(opcode)) return error_.ok() ? Malformed("it is cut off or damaged") : error_;
    }
    return absl::ResourceExhaustedError("the pickle has too many parts");
  }

 private:
  using Indices = absl::InlinedVector<NodeIndex, 16>;

  absl::Status Malformed(std::string_view what) const {
    return absl::DataLossError(absl::StrFormat("malformed pickle: %s, at byte %d (opcode %#04x) of %d", AbslText(what),
                                               opcode_at_ - begin_, opcode_at_ < end_ ? Byte(*opcode_at_) : 0,
                                               end_ - begin_));
  }
  bool Refuse(std::string_view what) {
    error_ = Malformed(what);
    return false;
  }
  static unsigned char Byte(char c) { return static_cast<unsigned char>(c); }

  absl::StatusOr<NodeIndex> Stop() {
    if (stack_.size() != 1 || !marks_.empty()) return Malformed("it ends with another number of values than one");
    if (at_ != end_) return Malformed("something follows its end");
    return stack_.back();
  }

  // ---- Bytes ------------------------------------------------------------------------------------------------------

  size_t left() const { return static_cast<size_t>(end_ - at_); }
  template <typename T>
  bool Raw(T* value) {
    if (left() < sizeof(T)) return false;
    std::memcpy(value, at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }
  template <typename Size>
  bool Sized(std::string_view* text) {
    Size size = 0;
    if (!Raw(&size)) return false;
    if (size > left()) return Refuse(absl::StrCat("a text of ", size, " bytes where ", left(), " are left"));
    *text = {at_, static_cast<size_t>(size)};
    at_ += size;
    return true;
  }
  bool Line(std::string_view* text) {
    const void* end = std::memchr(at_, '\n', left());
    if (end == nullptr) return false;
    *text = {at_, static_cast<size_t>(static_cast<const char*>(end) - at_)};
    at_ += text->size() + 1;
    return true;
  }

  // ---- Stack ------------------------------------------------------------------------------------------------------

  // Values above the last mark; those below it are out of reach.
  size_t reachable() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  bool Push(NodeIndex node) {
    stack_.push_back(node);
    return true;
  }
  bool Pop(NodeIndex* node) {
    if (reachable() == 0) return Refuse("a value is missing");
    *node = stack_.back();
    stack_.pop_back();
    return true;
  }
  bool Need(size_t values) { return reachable() >= values || Refuse("a value is missing"); }
  std::span<const NodeIndex> Top(size_t count) const { return std::span(stack_).last(count); }
  bool NeedMark() { return !marks_.empty() || Refuse("a mark is missing"); }
  // The values above the last mark; the mark goes, the values stay until Drop.
  std::span<const NodeIndex> UnmarkTop() {
    const size_t first = marks_.back();
    marks_.pop_back();
    return std::span(stack_).subspan(first);
  }
  void Drop(size_t count) { stack_.resize(stack_.size() - count); }

  bool MakeContainer(NodeKind kind, std::span<const NodeIndex> items) {
    const NodeIndex node = graph_.Add(kind);
    graph_.Append(node, items);
    Drop(items.size());
    return Push(node);
  }
  bool MakeMarkedContainer(NodeKind kind) { return NeedMark() && MakeContainer(kind, UnmarkTop()); }
  bool MakeTuple(size_t size) { return Need(size) && MakeContainer(NodeKind::kTuple, Top(size)); }

  // Puts `items`, on top of the stack, into the container below them.
  bool AddItems(std::span<const NodeIndex> items, NodeKind kind) {
    if (reachable() < items.size() + 1) return Refuse("a container is missing");
    const NodeIndex container = stack_[stack_.size() - items.size() - 1];
    const NodeKind found = graph_[container].kind;
    if (found != kind && found != NodeKind::kObject) return Refuse("items for something that has none");
    if (kind == NodeKind::kDict && items.size() % 2 != 0) return Refuse("a key without a value");
    // An object's items are of no use: its type is unknown.
    if (found == kind) graph_.Append(container, items);
    Drop(items.size());
    return true;
  }
  bool AddMarkedItems(NodeKind kind) { return NeedMark() && AddItems(UnmarkTop(), kind); }
  bool AddTopItems(size_t count, NodeKind kind) { return Need(count) && AddItems(Top(count), kind); }

  bool PopToMark() {
    if (!NeedMark()) return false;
    Drop(UnmarkTop().size());
    return true;
  }
  bool PopOne() {
    if (reachable() == 0 && !marks_.empty()) {
      marks_.pop_back();
      return true;
    }
    NodeIndex node;
    return Pop(&node);
  }
  bool Duplicate() { return Need(1) && Push(stack_.back()); }

  // ---- Memo -------------------------------------------------------------------------------------------------------

  bool Put(uint64_t at) {
    if (!Need(1)) return false;
    // Pickles number their memo from 0 up, so that no number exceeds their size.
    if (at > static_cast<uint64_t>(end_ - begin_)) return Refuse(absl::StrCat("memo number ", at));
    if (at >= memo_.size()) memo_.resize(at + 1, kNoNode);
    memo_[at] = stack_.back();
    return true;
  }
  template <typename Number>
  bool PutNumber() {
    Number number = 0;
    return Raw(&number) && Put(number);
  }
  template <typename Number>
  bool Get() {
    Number number = 0;
    if (!Raw(&number)) return false;
    if (number >= memo_.size() || memo_[number] == kNoNode) return Refuse(absl::StrCat("no memo ", number));
    return Push(memo_[number]);
  }

  // ---- Atoms ------------------------------------------------------------------------------------------------------

  template <typename T>
  bool Int() {
    T value = 0;
    return Raw(&value) && Push(graph_.AddInt(value));
  }
  bool Float() {
    uint64_t bits = 0;
    return Raw(&bits) && Push(graph_.AddFloat(std::bit_cast<double>(__builtin_bswap64(bits))));
  }
  template <typename Size>
  bool Text(NodeKind kind) {
    std::string_view text;
    return Sized<Size>(&text) && Push(graph_.AddText(kind, text));
  }
  template <typename Size>
  bool Long() {
    std::string_view digits;
    if (!Sized<Size>(&digits)) return false;
    if (digits.size() > sizeof(int64_t)) return Push(graph_.AddText(NodeKind::kBigInt, digits));
    // Sign extension: an empty one is 0.
    int64_t value = !digits.empty() && (Byte(digits.back()) & 0x80) != 0 ? -1 : 0;
    std::memcpy(&value, digits.data(), digits.size());
    return Push(graph_.AddInt(value));
  }
  bool Protocol() {
    unsigned char protocol = 0;
    if (!Raw(&protocol)) return false;
    return protocol <= kHighestProtocol ||
           Refuse(absl::StrCat("protocol ", protocol, " is newer than ", kHighestProtocol));
  }
  // A frame only says how many bytes may be read at once.
  bool Frame() {
    uint64_t size = 0;
    if (!Raw(&size)) return false;
    return size <= left() || Refuse(absl::StrCat("a frame of ", size, " bytes where ", left(), " are left"));
  }
  bool Buffer() {
    if (next_buffer_ >= context_.buffers.size()) {
      return Refuse(absl::StrCat("it refers to more than the ", context_.buffers.size(), " buffers that came with it"));
    }
    const std::span<const std::byte> bytes = context_.buffers[next_buffer_]->bytes();
    const NodeIndex node =
        graph_.AddText(NodeKind::kBuffer, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    graph_[node].first = static_cast<uint32_t>(next_buffer_++);
    return Push(node);
  }

  // ---- Objects ----------------------------------------------------------------------------------------------------

  bool MakeGlobal(NodeIndex module, NodeIndex name) {
    const NodeIndex node = graph_.Add(NodeKind::kGlobal);
    graph_[node].first = module;
    graph_[node].second = name;
    return Push(node);
  }
  bool Global() {
    std::string_view module, name;
    if (!Line(&module) || !Line(&name)) return false;
    const NodeIndex module_node = graph_.AddText(NodeKind::kString, module);
    return MakeGlobal(module_node, graph_.AddText(NodeKind::kString, name));
  }
  bool StackGlobal() {
    NodeIndex module, name;
    if (!Pop(&name) || !Pop(&module)) return false;
    if (graph_[module].kind != NodeKind::kString || graph_[name].kind != NodeKind::kString) {
      return Refuse("a global's name is no string");
    }
    return MakeGlobal(module, name);
  }
  bool Reduce(size_t parts) {
    if (!Need(parts)) return false;
    const std::span<const NodeIndex> top = Top(parts);
    const NodeIndex result = ReduceKnown(graph_, context_, top[0], top[1]);
    Drop(parts);
    return Push(result) && WithinLimits();
  }
  bool Build() {
    NodeIndex state;
    if (!Pop(&state) || !Need(1)) return false;
    BuildKnown(graph_, stack_.back(), state);
    return WithinLimits();
  }
  bool WithinLimits() {
    if (graph_.copied_bytes() <= UnfoldedLimit(context_, static_cast<size_t>(end_ - begin_))) return true;
    error_ = absl::ResourceExhaustedError("the pickle unfolds to too much: it copies one part many times");
    return false;
  }

  bool Step(unsigned char opcode) {
    switch (opcode) {
      case pickle::kBinInt1: return Int<uint8_t>();
      case pickle::kBinFloat: return Float();
      case pickle::kBinInt: return Int<int32_t>();
      case pickle::kBinInt2: return Int<uint16_t>();
      case pickle::kShortBinUnicode: return Text<uint8_t>(NodeKind::kString);
      case pickle::kMemoize: return Put(memo_.size());
      case pickle::kNone: return Push(graph_.None());
      case pickle::kNewTrue: return Push(graph_.Bool(true));
      case pickle::kNewFalse: return Push(graph_.Bool(false));
      case pickle::kLong1: return Long<uint8_t>();
      case pickle::kLong4: return Long<uint32_t>();
      case pickle::kBinUnicode: return Text<uint32_t>(NodeKind::kString);
      case pickle::kBinUnicode8: return Text<uint64_t>(NodeKind::kString);
      case pickle::kShortBinBytes: return Text<uint8_t>(NodeKind::kBytes);
      case pickle::kBinBytes: return Text<uint32_t>(NodeKind::kBytes);
      case pickle::kBinBytes8: return Text<uint64_t>(NodeKind::kBytes);
      case pickle::kByteArray8: return Text<uint64_t>(NodeKind::kByteArray);
      default: return StepContainer(opcode);
    }
  }
  bool StepContainer(unsigned char opcode) {
    switch (opcode) {
      case pickle::kMark: marks_.push_back(stack_.size()); return true;
      case pickle::kEmptyTuple: return MakeContainer(NodeKind::kTuple, {});
      case pickle::kTuple1: return MakeTuple(1);
      case pickle::kTuple2: return MakeTuple(2);
      case pickle::kTuple3: return MakeTuple(3);
      case pickle::kTuple: return MakeMarkedContainer(NodeKind::kTuple);
      case pickle::kEmptyList: return MakeContainer(NodeKind::kList, {});
      case pickle::kAppend: return AddTopItems(1, NodeKind::kList);
      case pickle::kAppends: return AddMarkedItems(NodeKind::kList);
      case pickle::kEmptyDict: return MakeContainer(NodeKind::kDict, {});
      case pickle::kSetItem: return AddTopItems(2, NodeKind::kDict);
      case pickle::kSetItems: return AddMarkedItems(NodeKind::kDict);
      case pickle::kEmptySet: return MakeContainer(NodeKind::kSet, {});
      case pickle::kAddItems: return AddMarkedItems(NodeKind::kSet);
      case pickle::kFrozenSet: return MakeMarkedContainer(NodeKind::kFrozenSet);
      default: return StepOther(opcode);
    }
  }
  bool StepOther(unsigned char opcode) {
    switch (opcode) {
      case pickle::kProto: return Protocol();
      case pickle::kFrame: return Frame();
      case pickle::kBinGet: return Get<uint8_t>();
      case pickle::kLongBinGet: return Get<uint32_t>();
      case pickle::kBinPut: return PutNumber<uint8_t>();
      case pickle::kLongBinPut: return PutNumber<uint32_t>();
      case pickle::kPop: return PopOne();
      case pickle::kPopMark: return PopToMark();
      case pickle::kDup: return Duplicate();
      case pickle::kGlobal: return Global();
      case pickle::kStackGlobal: return StackGlobal();
      case pickle::kReduce:
      case pickle::kNewObj: return Reduce(2);
      case pickle::kNewObjEx: return Reduce(3);
      case pickle::kBuild: return Build();
      case pickle::kNextBuffer: return Buffer();
      case pickle::kReadOnlyBuffer: return Need(1);
      case pickle::kBinPersId: return Refuse("it has a persistent id");
      case pickle::kExt1:
      case pickle::kExt2:
      case pickle::kExt4: return Refuse("it uses copyreg's extension registry");
      default: return Refuse("unknown opcode");
    }
  }

  const char* const begin_;
  const char* at_;
  const char* const end_;
  const char* opcode_at_ = nullptr;
  const DecodeContext& context_;
  PickleGraph& graph_;
  Indices stack_;
  absl::InlinedVector<size_t, 8> marks_;
  Indices memo_;
  size_t next_buffer_ = 0;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<NodeIndex> ParsePickle(std::string_view pickle, const DecodeContext& context, PickleGraph& graph) {
  return Parser(pickle, context, graph).Parse();
}

}  // namespace pyhost
