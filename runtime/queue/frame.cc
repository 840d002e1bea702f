#include "runtime/queue/frame.h"

#include "absl/strings/str_format.h"

namespace pyhost::internal_frame {

absl::Status Nonsense(const char* what, uint64_t value, uint64_t limit) {
  return absl::DataLossError(
      absl::StrFormat("corrupt frame: %s is %u, must fit %u", what, value, limit));
}

}  // namespace pyhost::internal_frame
