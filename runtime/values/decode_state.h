// DecodeState: what the readers of one pickle share: its graph, the limits, and the first failure with the way to it.

#ifndef PYHOST_RUNTIME_VALUES_DECODE_STATE_H_
#define PYHOST_RUNTIME_VALUES_DECODE_STATE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "pyhost/value_reader.h"
#include "runtime/values/pickle_graph.h"

namespace pyhost::internal {

class DecodeState {
 public:
  DecodeState(std::string_view pickle, const DecodeContext& context);

  PickleGraph graph;
  NodeIndex root = 0;
  absl::Status status;  // without the path
  std::string path;     // from the culprit upwards, as failures return through the containers
  bool strict = false;
  int depth = 0;

  // Notes a failure; the first one stays.  False, always.
  bool Fail(absl::StatusCode code, std::string_view why);
  // Counts what is about to be unfolded.  False when that is too much, noted.
  bool Charge(uint64_t bytes);
  bool Enter();
  void Leave() { --depth; }

 private:
  const int max_depth_;
  uint64_t budget_;
};

}  // namespace pyhost::internal

#endif  // PYHOST_RUNTIME_VALUES_DECODE_STATE_H_
