#include "runtime/values/pickle_graph.h"

#include <utility>

namespace pyhost {

PickleGraph::PickleGraph() {
  nodes_.resize(3);
  nodes_[Bool(false)].kind = nodes_[Bool(true)].kind = NodeKind::kBool;
  nodes_[Bool(true)].integer = 1;
}

NodeIndex PickleGraph::Add(NodeKind kind) {
  nodes_.emplace_back().kind = kind;
  return static_cast<NodeIndex>(nodes_.size() - 1);
}

NodeIndex PickleGraph::AddInt(int64_t value) {
  const NodeIndex index = Add(NodeKind::kInt);
  nodes_[index].integer = value;
  return index;
}

NodeIndex PickleGraph::AddFloat(double value) {
  const NodeIndex index = Add(NodeKind::kFloat);
  nodes_[index].real = value;
  return index;
}

NodeIndex PickleGraph::AddText(NodeKind kind, std::string_view text) {
  const NodeIndex index = Add(kind);
  nodes_[index].data = text.data();
  nodes_[index].size = text.size();
  return index;
}

NodeIndex PickleGraph::AddOwned(NodeKind kind, std::string text) {
  copied_bytes_ += text.size();
  return AddText(kind, owned_.emplace_back(std::move(text)));
}

NodeIndex PickleGraph::AddArray(AnyArray array) {
  const NodeIndex index = Add(NodeKind::kArray);
  nodes_[index].first = static_cast<uint32_t>(arrays_.size());
  nodes_[index].size = array.shape().empty() ? 1 : static_cast<uint64_t>(array.shape()[0]);
  if (!array.shared()) copied_bytes_ += array.byte_size();
  arrays_.push_back(std::move(array));
  return index;
}

void PickleGraph::Append(NodeIndex container, std::span<const NodeIndex> items) {
  if (items.empty()) return;
  const uint32_t start = static_cast<uint32_t>(items_.size());
  const uint32_t count = static_cast<uint32_t>(items.size());
  items_.insert(items_.end(), items.begin(), items.end());
  Node& node = nodes_[container];
  node.size += count;
  if (node.second != kNoNode) {
    Run& last = runs_[node.second];
    if (last.start + last.count == start) {
      last.count += count;
      return;
    }
    last.next = static_cast<uint32_t>(runs_.size());
  } else {
    node.first = static_cast<uint32_t>(runs_.size());
  }
  node.second = static_cast<uint32_t>(runs_.size());
  runs_.push_back({start, count, kNoNode});
}

void PickleGraph::AppendCopy(NodeIndex container, NodeIndex from) {
  std::vector<NodeIndex> items;
  items.reserve(nodes_[from].size);
  for (uint32_t run = nodes_[from].first; run != kNoNode; run = runs_[run].next) {
    for (uint32_t i = 0; i < runs_[run].count; ++i) items.push_back(items_[runs_[run].start + i]);
  }
  copied_bytes_ += items.size() * sizeof(NodeIndex);
  Append(container, items);
}

NodeIndex PickleGraph::ItemAt(NodeIndex container, size_t at) const {
  uint32_t run = nodes_[container].first;
  while (at >= runs_[run].count) {
    at -= runs_[run].count;
    run = runs_[run].next;
  }
  return items_[runs_[run].start + at];
}

}  // namespace pyhost
