#include "runtime/values/describe.h"

#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/values/absl_text.h"

namespace pyhost {
namespace {

constexpr size_t kMaxTextShown = 40;

std::string Quote(std::string_view text) {
  if (text.size() <= kMaxTextShown) return absl::StrCat("\"", absl::Utf8SafeCHexEscape(AbslText(text)), "\"");
  // Not in the middle of a character.
  size_t end = kMaxTextShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(AbslText(text.substr(0, end))), "...\" (", text.size(), " bytes)");
}

std::string Items(std::string_view type, uint64_t count) {
  return absl::StrCat(AbslText(type), " of ", count, count == 1 ? " item" : " items");
}

std::string NameOfGlobal(const PickleGraph& graph, NodeIndex node) {
  if (graph[node].kind != NodeKind::kGlobal) return "unknown";
  const std::string_view module = graph.text(graph[node].first), name = graph.text(graph[node].second);
  const bool builtin = module == "builtins" || module == "__builtin__";
  return absl::Utf8SafeCHexEscape(absl::StrCat(AbslText(builtin ? "" : module), builtin ? "" : ".", AbslText(name)));
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
    case NodeKind::kBigInt: return absl::StrCat("int of ", 8 * node.size, " bits");
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

std::string DescribeKey(const PickleGraph& graph, NodeIndex index) {
  switch (graph[index].kind) {
    case NodeKind::kString: return Quote(graph.text(index));
    case NodeKind::kInt: return absl::StrCat(graph[index].integer);
    default: return DescribeNode(graph, index);
  }
}

}  // namespace pyhost
