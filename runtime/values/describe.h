// What a value of a pickle is, in a word or two, for error messages.

#ifndef PYHOST_RUNTIME_VALUES_DESCRIBE_H_
#define PYHOST_RUNTIME_VALUES_DESCRIBE_H_

#include <string>
#include <string_view>

#include "runtime/values/pickle_graph.h"

namespace pyhost {

// `str "x"`, `list of 3 items`, `an object of type brain.Plan`.
std::string DescribeNode(const PickleGraph& graph, NodeIndex node);
// As Python would write a key: `"hp"`, `3`.
std::string DescribeKey(const PickleGraph& graph, NodeIndex node);
// A way like `[3]["hp"]`, without its middle when it is long.
std::string ShortenedPath(std::string_view path);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_DESCRIBE_H_
