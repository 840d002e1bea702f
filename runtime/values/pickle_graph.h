// PickleGraph: what a pickle describes, before anybody asks for it as a C++ type.  Nodes refer to each other by index, as
// objects of Python do: one node may stand in many places, and in itself.
//
// Texts and bytes point into the pickle; nothing is allocated by a length that the pickle claims.

#ifndef PYHOST_RUNTIME_VALUES_PICKLE_GRAPH_H_
#define PYHOST_RUNTIME_VALUES_PICKLE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "pyhost/shared_array.h"
#include "pyhost/value_reader.h"

namespace pyhost {

using NodeIndex = uint32_t;
inline constexpr NodeIndex kNoNode = UINT32_MAX;

enum class NodeKind : uint8_t {
  kNone, kBool, kInt, kBigInt, kFloat, kComplex, kString, kBytes, kByteArray,
  kList, kTuple, kDict, kSet, kFrozenSet,  // items in runs; a dict's are key, value, key, value
  kArray,   // arrays()[first]
  kBuffer,  // an out-of-band buffer: a text, and first is its number
  kBlock,   // shared memory by handle: blocks()[first]
  kGlobal,  // a module's attribute: first and second are its two names
  kDType,   // numpy.dtype: first is a DType; size 0: one that arrays here cannot have; second: its name
  kObject,  // what calling `first` (kGlobal) with `second` (arguments) gave; its type is unknown here
};

struct Node {
  NodeKind kind = NodeKind::kNone;
  uint32_t first = kNoNode;
  uint32_t second = kNoNode;
  uint64_t size = 0;  // bytes of a text, items of a container
  union {
    int64_t integer = 0;
    double real;
    const char* data;
  };
};
static_assert(sizeof(Node) == 32);

class PickleGraph {
 public:
  // Node 0 is None, 1 False, 2 True.
  PickleGraph();
  PickleGraph(const PickleGraph&) = delete;
  PickleGraph& operator=(const PickleGraph&) = delete;

  Node& operator[](NodeIndex index) { return nodes_[index]; }
  const Node& operator[](NodeIndex index) const { return nodes_[index]; }
  static constexpr NodeIndex None() { return 0; }
  static constexpr NodeIndex Bool(bool value) { return value ? 2 : 1; }

  NodeIndex Add(NodeKind kind);
  NodeIndex AddInt(int64_t value);
  NodeIndex AddFloat(double value);
  NodeIndex AddText(NodeKind kind, std::string_view text);
  // The bytes become the graph's.
  NodeIndex AddOwned(NodeKind kind, std::string text);
  NodeIndex AddArray(AnyArray array);

  // Puts more items into a container.
  void Append(NodeIndex container, std::span<const NodeIndex> items);
  // ... and those of another container.
  void AppendCopy(NodeIndex container, NodeIndex from);

  std::string_view text(NodeIndex index) const { return {nodes_[index].data, nodes_[index].size}; }
  const AnyArray& array(NodeIndex index) const { return arrays_[nodes_[index].first]; }
  // What was copied, not only referred to: a pickle can ask for copies of one part many times.
  uint64_t copied_bytes() const { return copied_bytes_; }

  // A container's items lie in runs, which are chained: a pickle may add to it at any time.
  struct Run {
    uint32_t start;
    uint32_t count;
    uint32_t next;
  };
  const Run& run(uint32_t index) const { return runs_[index]; }
  NodeIndex item(uint32_t at) const { return items_[at]; }
  // Item `at` of a container; it has that many.
  NodeIndex ItemAt(NodeIndex container, size_t at) const;

  size_t size() const { return nodes_.size(); }

 private:
  absl::InlinedVector<Node, 16> nodes_;
  absl::InlinedVector<NodeIndex, 16> items_;
  absl::InlinedVector<Run, 4> runs_;
  std::vector<AnyArray> arrays_;
  std::deque<std::string> owned_;
  uint64_t copied_bytes_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_PICKLE_GRAPH_H_
