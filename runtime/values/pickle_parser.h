// ParsePickle: bytes of a pickle (protocols 2 to 5) to a graph.  Never recurses, never imports or calls anything.

#ifndef PYHOST_RUNTIME_VALUES_PICKLE_PARSER_H_
#define PYHOST_RUNTIME_VALUES_PICKLE_PARSER_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "pyhost/value_reader.h"
#include "runtime/values/pickle_graph.h"

namespace pyhost {

// The node of the pickled value.  DataLoss, with the place, when the bytes are no such pickle.
absl::StatusOr<NodeIndex> ParsePickle(std::string_view pickle, const DecodeContext& context, PickleGraph& graph);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_PICKLE_PARSER_H_
