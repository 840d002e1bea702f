#include "runtime/values/describe.h"

#include <bit>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "runtime/values/absl_text.h"
#include "runtime/values/utf8.h"

namespace pyhost {
namespace {

constexpr size_t kMaxTextShown = 40;

bool IsInsideCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

std::string Quote(std::string_view text) {
  if (text.size() <= kMaxTextShown) return absl::StrCat("\"", EscapedText(text), "\"");
  size_t end = kMaxTextShown;
  while (end > 0 && IsInsideCharacter(text[end])) --end;
  return absl::StrCat("\"", EscapedText(text.substr(0, end)), "...\" (", text.size(), " bytes)");
}

// As Python counts: of the number without its sign.  `bytes`: two's complement, little-endian.
uint64_t BitLength(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const bool negative = (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
  const char sign = negative ? '\xff' : '\0';
  const size_t last = bytes.find_last_not_of(sign);
  if (last == std::string_view::npos) return negative ? 1 : 0;
  const auto top = static_cast<unsigned char>(bytes[last] ^ sign);
  const uint64_t bits = 8 * last + static_cast<uint64_t>(std::bit_width(top));
  // -2^n has a bit more than what follows the sign.
  const bool is_power = negative && std::has_single_bit(top + 1u) && bytes.find_first_not_of('\0') >= last;
  return bits + (is_power ? 1 : 0);
}

std::string Items(std::string_view type, uint64_t count) {
  return absl::StrCat(AbslText(type), " of ", count, count == 1 ? " item" : " items");
}

std::string NameOfGlobal(const PickleGraph& graph, NodeIndex node) {
  if (graph[node].kind != NodeKind::kGlobal) return "unknown";
  const std::string_view module = graph.text(graph[node].first), name = graph.text(graph[node].second);
  const bool builtin = module == "builtins" || module == "__builtin__";
  return EscapedText(absl::StrCat(AbslText(builtin ? "" : module), builtin ? "" : ".", AbslText(name)));
}

std::string DescribeObject(const PickleGraph& graph, NodeIndex node) {
  const std::string name = NameOfGlobal(graph, graph[node].first);
  if (name.ends_with("._frombuffer") || name.ends_with(".multiarray._reconstruct")) {
    return "a numpy array of an order or an element type that only Python has (numpy.ascontiguousarray and astype give "
           "one "
           "that arrays here can have)";
  }
  if (name.ends_with(".multiarray.scalar")) return "a numpy number of a type that only Python has";
  return absl::StrCat("an object of type ", name);
}

}  // namespace

std::string DescribeNode(const PickleGraph& graph, NodeIndex index) {
  const Node& node = graph[index];
  switch (node.kind) {
    case NodeKind::kNone: return "None";
    case NodeKind::kBool: return node.integer != 0 ? "bool True" : "bool False";
    case NodeKind::kInt: return absl::StrCat("int ", node.integer);
    case NodeKind::kBigInt: return absl::StrCat("int of ", BitLength(graph.text(index)), " bits");
    case NodeKind::kFloat: return absl::StrCat("float ", node.real);
    case NodeKind::kComplex: return "complex";
    case NodeKind::kString: return absl::StrCat("str ", Quote(graph.text(index)));
    case NodeKind::kBytes:
    case NodeKind::kBuffer: return absl::StrCat("bytes (", node.size, ")");
    case NodeKind::kByteArray: return absl::StrCat("bytearray (", node.size, ")");
    case NodeKind::kList: return Items("list", node.size);
    case NodeKind::kTuple: return Items("tuple", node.size);
    case NodeKind::kDict: return Items("dict", node.size / 2);
    case NodeKind::kSet: return Items("set", node.size);
    case NodeKind::kFrozenSet: return Items("frozenset", node.size);
    case NodeKind::kArray: return absl::StrCat("array ", graph.array(index).Describe());
    case NodeKind::kBlock: return "shared memory";
    case NodeKind::kGlobal: return absl::StrCat("the function or class ", NameOfGlobal(graph, index));
    case NodeKind::kDType: return "a numpy dtype";
    case NodeKind::kObject: return DescribeObject(graph, index);
  }
  return "nothing";
}

std::string ShortenedPath(std::string_view path) {
  constexpr size_t kMost = 240, kEnd = 100;
  constexpr std::string_view kBetween = "][";
  if (path.size() <= kMost) return std::string(path);
  size_t head = kEnd, tail = path.size() - kEnd;
  if (const size_t at = path.rfind(kBetween, head); at != std::string_view::npos) head = at + 1;
  if (const size_t at = path.find(kBetween, tail); at != std::string_view::npos) tail = at + 1;
  while (IsInsideCharacter(path[head])) --head;
  while (IsInsideCharacter(path[tail])) ++tail;
  return absl::StrCat(AbslText(path.substr(0, head)), "...", AbslText(path.substr(tail)));
}

std::string DescribeKey(const PickleGraph& graph, NodeIndex index) {
  switch (graph[index].kind) {
    case NodeKind::kString: return Quote(graph.text(index));
    case NodeKind::kInt: return absl::StrCat(graph[index].integer);
    default: return DescribeNode(graph, index);
  }
}

}  // namespace pyhost
